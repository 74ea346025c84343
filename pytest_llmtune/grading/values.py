"""Evaluate constant expressions exactly, without sympy."""

from __future__ import annotations

import decimal
import hashlib
import math
import operator
import re
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.lazy import lazy_regex

if TYPE_CHECKING:
    from collections.abc import Callable

Value = Fraction | Decimal

COMMA_DECIMAL = lazy_regex(r"[-+]?\d+,\d+")
"""``1,5``: a number with a decimal comma, or a list of two."""
_LONGEST = 200  # characters
_DEEPEST = 30  # brackets
_LARGEST = 40_000  # bits of a power's or a factorial's result, roughly
_LARGEST_FACTORIAL = 3000
_LARGEST_SHOWN = 2000  # bits above which a key is a hash: Python refuses to print very long integers
_TOKEN = lazy_regex(
    r"\s*((?:(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})(?![\d,])|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?|\.\d+"
    r"|\\(?:frac|sqrt|pi|cdot|times|div)(?![a-zA-Z])|\*\*|[-+*/^!(){}\[\]πe×÷·√])"
)
_SIMPLE = lazy_regex(r"-?\d{1,100}(?:\.\d{1,100})?", re.ASCII)
_SAME = {
    "**": "^",
    r"\cdot": "*",
    r"\times": "*",
    "×": "*",
    "·": "*",
    r"\div": "/",
    "÷": "/",
    "π": r"\pi",
    "√": r"\sqrt",
}
_MIXED = lazy_regex(r"(?<![\d.,)}^!])(?<![\d.,)}^!] )(\d+) +(\d+) ?/ ?(\d+)(?![\d.])")
"""``2 1/2``."""
_REPEATING = lazy_regex(
    r"(\d*)\.(\d*)(?:\\(?:overline|bar|dot)(?![a-zA-Z])\s*(?:\{\s*(\d+)\s*\}|(\d))|(?<=\.)\((\d{1,30})\))(?:\s*\\l?dots)?"
)
"""``0.1\\overline{6}``, ``0.(3)``."""
_HALF = Fraction(1, 2)
_CONTEXT = decimal.Context(prec=50, Emax=50_000, Emin=-50_000)
_CONSTANTS = {
    r"\pi": Decimal("3.14159265358979323846264338327950288419716939937510582097494459"),
    "e": Decimal("2.71828182845904523536028747135266249775724709369995957496696763"),
}


class _NoConstantError(Exception):
    """The text is not a constant expression."""


def constant(text: str) -> Value | None:
    """The value of ``text``; None if it is not a constant expression."""
    if _SIMPLE.fullmatch(text):
        return Fraction(text)
    if len(text) > _LONGEST or not re.search(r"[\dπe]|\\pi", text):
        return None
    if " " in text:
        text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    if "." in text and ("\\" in text or "(" in text):
        text = _REPEATING.sub(_fraction_of, text)
    try:
        with decimal.localcontext(_CONTEXT):
            return _exact(_Parser(text).parse())
    except (_NoConstantError, decimal.DecimalException, ZeroDivisionError, OverflowError):
        return None


def _fraction_of(match: re.Match[str]) -> str:
    """A repeating decimal as a fraction in brackets."""
    integer, once = match[1], match[2]
    again = match[3] or match[4] or match[5]
    numerator = int((integer or "0") + once + again) - int((integer or "0") + once)
    return rf"(\frac{{{numerator}}}{{{'9' * len(again)}{'0' * len(once)}}})"


def _exact(value: Value) -> Value:
    r"""A decimal within rounding of a simple fraction is that fraction: ``\sqrt2 \sqrt2`` is 2."""
    if isinstance(value, Fraction):
        return value
    simple = Fraction(value).limit_denominator(10**6)
    return simple if abs(_decimal(simple) - value) <= abs(value).scaleb(-40) else value


def value_key(value: Value) -> str:
    """Key of a value: ``1/4``, or the first 30 significant digits of an irrational number."""
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) <= _LARGEST_SHOWN:
            return str(value)
        return f"#{hashlib.sha256(f'{value.numerator:x}/{value.denominator:x}'.encode()).hexdigest()[:32]}"
    with decimal.localcontext(_CONTEXT) as context:
        context.prec = 30
        return f"~{(+value).normalize()}"


def close(one: Value, other: Value, decimals: int) -> bool:
    """Whether two values are equal when rounded to that many decimal places."""
    with decimal.localcontext(_CONTEXT):
        return abs(_decimal(one) - _decimal(other)) <= Decimal(6).scaleb(-decimals - 1)


class _Parser:
    """Recursive descent parser of one expression."""

    def __init__(self, text: str) -> None:
        if _TOKEN.sub("", text).strip():
            raise _NoConstantError
        self._tokens = [_SAME.get(token, token) for token in _TOKEN.findall(text)]
        self._position = 0
        self._depth = 0

    def parse(self) -> Value:
        value = self._sum()
        if self._position < len(self._tokens):
            raise _NoConstantError
        return value

    def _peek(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _take(self, expected: str = "") -> str:
        word = self._peek()
        if not word or (expected and word != expected):
            raise _NoConstantError
        self._position += 1
        return word

    def _sum(self) -> Value:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _NoConstantError
        value = self._product()
        while self._peek() in ("+", "-"):
            sign = 1 if self._take() == "+" else -1
            value = _apply(operator.add, value, _apply(operator.mul, Fraction(sign), self._product()))
        self._depth -= 1
        return value

    def _product(self) -> Value:
        value = self._signed()
        while (word := self._peek()) and word not in "+-)}]^!":
            if word in ("/", "*"):
                self._take()
                value = _apply(operator.truediv if word == "/" else operator.mul, value, self._signed())
            else:
                value = self._juxtaposed(value)
        return value

    def _juxtaposed(self, value: Value) -> Value:
        r"""Juxtaposed factors: ``3\frac{1}{2}`` is a mixed number, two numerals are nothing."""
        before, word = self._tokens[self._position - 1], self._peek()
        if word[0].isdigit() or word[0] == ".":
            raise _NoConstantError
        factor = self._power()
        if word == r"\frac" and before.isdigit() and isinstance(factor, Fraction) and 0 < factor < 1:
            return _apply(operator.add, value, factor if value >= 0 else -factor)  # -3 1/2 is less than -3
        return _apply(operator.mul, value, factor)

    def _signed(self) -> Value:
        sign = 1
        while self._peek() in ("+", "-"):
            sign *= 1 if self._take() == "+" else -1
        return _apply(operator.mul, Fraction(sign), self._power())

    def _power(self) -> Value:
        base = self._atom()
        while self._peek() == "!":
            self._take()
            if not isinstance(base, Fraction) or base.denominator > 1 or not 0 <= base <= _LARGEST_FACTORIAL:
                raise _NoConstantError
            base = Fraction(math.factorial(int(base)))
        if self._peek() != "^":
            return base
        self._take()
        return _raise(base, self._argument() if self._peek() == "{" else self._signed())

    def _atom(self) -> Value:
        word = self._take()
        if word[0].isdigit() or word[0] == ".":
            return Fraction(word.replace(",", ""))
        if word in ("(", "{", "["):
            value = self._sum()
            self._take({"(": ")", "{": "}", "[": "]"}[word])
            return value
        if word == r"\frac":
            return _apply(operator.truediv, self._argument(), self._argument())
        if word == r"\sqrt":
            degree: Value = Fraction(2)
            if self._peek() == "[":
                self._take()
                degree = self._sum()
                self._take("]")
            return _raise(self._argument(), _apply(operator.truediv, Fraction(1), degree))
        if word in _CONSTANTS:
            return _CONSTANTS[word]
        raise _NoConstantError

    def _argument(self) -> Value:
        r"""Braces, or one character: ``\frac12`` is a half."""
        if self._peek() in ("{", "("):
            return self._atom()
        word = self._take()
        if not word.isdigit():
            self._position -= 1
            return self._atom()
        if len(word) > 1:
            self._tokens[self._position - 1 : self._position] = [word[0], word[1:]]
        return Fraction(int(word[0]))


def _decimal(value: Value) -> Decimal:
    return Decimal(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _apply(operation: Callable[[Any, Any], Value], one: Value, other: Value) -> Value:
    """Exact where both are fractions."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return operation(one, other)
    return operation(_decimal(one), _decimal(other))


def _raise(base: Value, exponent: Value) -> Value:
    if not isinstance(exponent, Fraction) or abs(exponent) > _LARGEST:
        raise _NoConstantError
    if isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent) > _LARGEST:
            raise _NoConstantError
        if exponent.denominator == 1:
            return base ** int(exponent)
        root = _exact_root(base, exponent.denominator)
        if root is not None:
            return root**exponent.numerator
    if _decimal(base) <= 0:
        raise _NoConstantError  # complex, or undefined by convention
    if exponent == _HALF:
        return _decimal(base).sqrt()
    return _decimal(base) ** _decimal(exponent)


def _exact_root(base: Fraction, degree: int) -> Fraction | None:
    if base < 0:
        return None
    parts = base.numerator, base.denominator
    roots = [math.isqrt(n) if degree == 2 else round(Decimal(n) ** (Decimal(1) / degree)) for n in parts]
    return Fraction(*roots) if all(root**degree == n for root, n in zip(roots, parts, strict=True)) else None
