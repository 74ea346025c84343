"""Decide whether two answers are equal: without algebra, or with math-verify in worker processes."""

from __future__ import annotations

import importlib.util
import re
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.grading.values import COMMA_DECIMAL, close, constant, value_key
from pytest_llmtune.grading.workers import WorkerPool

if TYPE_CHECKING:
    from pytest_llmtune.grading.math.parse import ParsedAnswer


_LONGEST = 500  # characters; longer answers are not worth sympy's time
_MOST_PARTS = 60
_SURE_DECIMALS = 6  # fewer decimal places do not distinguish 1/3 from other fractions
_DECIMAL = lazy_regex(r"[-+]?\d*\.(\d+)")
_BASED = lazy_regex(r"[\dA-Z]+_\d+")
_MONOMIAL = lazy_regex(
    r"-?\s*(?:[\d.,/\s]|\\frac\s*\{[^{}]*\}\s*\{[^{}]*\}|\\sqrt\s*\{[^{}]*\}|\\pi(?![a-zA-Z]))*\s*(?:[a-zA-Z](?:\s*\^\s*\{?\s*\d+\s*\}?)?\s*){1,4}"
)
"""A number times variables."""
_HALF_OF_DAY = lazy_regex(r"\d\s*([ap])\.?\s?m\b", re.IGNORECASE)
_WORDS = lazy_regex(r"[^\W\d_]{2,}(?:[ '-][^\W\d_]+)*")


def equal(reference: ParsedAnswer, answer: ParsedAnswer) -> bool:
    """Equality as people understand it, without algebra. ``28%`` equals 28 and 0.28, but 28 does not equal 0.28."""
    if reference.name and answer.name and reference.name != answer.name:
        return False
    if reference.kind == answer.kind == "atom":
        return _atoms_equal(reference, answer)
    parts, others = _by_name(reference), _by_name(answer)
    if parts and others:  # before the keys, which ignore names: y = 45, x = 2 is not x = 45, y = 2
        return parts.keys() == others.keys() and all(equal(part, others[name]) for name, part in parts.items())
    if reference.key == answer.key and reference.is_constant:
        one, other = ({item.name for item in form.items if item.name} for form in (reference, answer))
        return not one or not other or one == other
    if "atom" in (reference.kind, answer.kind):
        return _decimal_comma(reference, answer) or _decimal_comma(answer, reference)
    return _parts_equal(reference, answer)


def is_settled(reference: ParsedAnswer, answer: ParsedAnswer) -> bool:
    """Whether both were fully parsed, so that inequality is final and algebra could only err.

    In algebra, ``east`` is a product of four letters, equal to ``seat``.
    """
    sides = ((reference, answer), (answer, reference))
    if reference.name and answer.name and reference.name != answer.name:
        names = ((rf"(?<![a-zA-Z]){re.escape(one.name)}(?![a-zA-Z])", other.text) for one, other in sides)
        if not any(re.search(name, text) for name, text in names):  # as in x = y + 1 and y = x - 1
            return True
    if ("||" in (reference.kind, answer.kind)) and reference.kind != answer.kind:
        return False  # a column vector may be written as a tuple
    if any(one.is_constant and _MONOMIAL.fullmatch(other.text) for one, other in sides):
        return True  # 4 is not 4 t, although algebra may treat t as a unit
    if (half := _HALF_OF_DAY.search(reference.text)) and (other := _HALF_OF_DAY.search(answer.text)):
        return half[1].lower() != other[1].lower()  # 9:30 a.m. and 9:30 p.m.
    return _is_read(reference) and _is_read(answer)


def _is_read(form: ParsedAnswer) -> bool:
    if form.kind == "atom":
        return form.value is not None or any(kind.fullmatch(form.text) for kind in (_WORDS, _BASED))
    return all(map(_is_read, form.items))


def _atoms_equal(reference: ParsedAnswer, answer: ParsedAnswer) -> bool:
    one, other = reference.value, answer.value
    if one is None or other is None:
        return one is other and reference.key == answer.key
    if one == other or value_key(one) == value_key(other) or _rounded(reference, answer) or _rounded(answer, reference):
        return True
    if reference.percent == answer.percent:
        return False
    return one == other * 100 if reference.percent else other == one * 100


def _rounded(decimal: ParsedAnswer, exact: ParsedAnswer) -> bool:
    """Whether ``decimal`` is the other value rounded to six or more decimal places."""
    written = _DECIMAL.fullmatch(decimal.text)
    if written is None or len(written[1]) < _SURE_DECIMALS or decimal.value is None or exact.value is None:
        return False
    return close(decimal.value, exact.value, len(written[1]))


def _decimal_comma(form: ParsedAnswer, atom: ParsedAnswer) -> bool:
    """Whether ``1,22`` is a decimal, because the other side is that decimal."""
    text = form.text.replace(" ", "\0")
    if atom.kind != "atom" or not isinstance(atom.value, Fraction) or not COMMA_DECIMAL.fullmatch(text):
        return False
    return constant(text.replace(",", ".")) == atom.value


def _by_name(form: ParsedAnswer) -> dict[str, ParsedAnswer]:
    """The parts of ``k = 45, n = 2`` by name; empty if a part has no name, or two have the same."""
    parts = {item.name: item for item in form.items}
    return parts if len(parts) == len(form.items) and "" not in parts else {}


def _parts_equal(reference: ParsedAnswer, answer: ParsedAnswer) -> bool:
    if max(len(reference.items), len(answer.items)) > _MOST_PARTS:
        return False
    if "set" in (reference.kind, answer.kind):
        kinds = {reference.kind, answer.kind}
        items, others = reference.items, answer.items
        return kinds <= {"set", "list"} and _found(items, others) and _found(others, items)
    if reference.kind != answer.kind and {reference.kind, answer.kind} != {"list", "()"}:
        return False
    return len(reference.items) == len(answer.items) and all(map(equal, reference.items, answer.items))


def _found(parts: tuple[ParsedAnswer, ...], others: tuple[ParsedAnswer, ...]) -> bool:
    """Whether every part has an equal among the others."""
    return all(any(equal(part, other) for other in others) for part in parts)


def is_installed() -> bool:
    return importlib.util.find_spec("math_verify") is not None


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of comparing one answer."""

    equal: bool
    key: str | None
    """Equal for wrong answers that are equal to each other; None if it was not parsed in time."""


class Algebra:
    """Compares answers, with a cache; thread-safe. Past ``limit`` CPU seconds they are unequal."""

    def __init__(self, limit: float, workers: int | None = None) -> None:
        self._limit = limit
        self._pool = WorkerPool("compare", "math_verify", workers)
        self.compare = lru_cache(maxsize=50_000)(self._compare)

    def _compare(self, reference: str, answer: str) -> Finding:
        """Compare two extracted answers in LaTeX."""
        texts = _spelled(reference), _spelled(answer)
        request = {"gold": texts[0], "answer": texts[1]}
        found = self._pool.call(request, self._limit) if max(map(len, texts)) <= _LONGEST else None
        return Finding(found["equal"], found["key"]) if found else Finding(equal=False, key=None)

    def close(self) -> None:
        self._pool.close()


_DEGREES = lazy_regex(
    r"\\(sin|cos|tan|cot|sec|csc)\s*[{(]?\s*(\d+(?:\.\d+)?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|°|\\degree(?![a-zA-Z]))\s*[})]?"
)
_VARIABLE = lazy_regex(r"(?<![a-zA-Z\\])(?:(?<=[\d\s)}])([a-zA-Z](?<![mgshLWVJNKCFA])))$")
"""A last letter that is no unit: math-verify takes the t of ``2 t + 2 t`` for one."""
_D = r"(?:\\mathrm\s*\{\s*d\s*\}|\\partial(?![a-zA-Z])|d)\s*"
_ORDER = r"(?:\^\s*\{?\s*(\d)\s*\}?)?\s*"
_DERIVATIVE = lazy_regex(rf"\\[dt]?frac\s*\{{\s*{_D}{_ORDER}([a-zA-Z])\s*\}}\s*\{{\s*{_D}([a-zA-Z])\s*{_ORDER}\}}")
"""``\frac{dx}{dt}``, which sympy takes for the derivative of a variable, 0."""


def _spelled(text: str) -> str:
    text = _DERIVATIVE.sub(lambda match: f" D_{{{match[2]}{match[3]}{match[1] or ''}}} ", text)
    text = _DEGREES.sub(r"\\\1(\\frac{\2\\pi}{180})", text)
    text = re.sub(r"(?<!\\)\\\\(?=[a-zA-Z]{2})", r"\\", text.replace("$", " ")).strip().rstrip(".")
    return _VARIABLE.sub(r"\1^{1}", text)
