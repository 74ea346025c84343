"""The `numeric` grader: the number that a response states equals the reference within tolerances."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, reference_value
from pytest_llmtune.grading.math.extract import answer_in
from pytest_llmtune.types import Answer, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Numeric"]


_LONGEST = 100  # characters; a longer numeral is no answer, and costs time
_NUMBER = re.compile(
    r"""(?P<sign>(?<![\w.,)])[-+\u2212]\s?)?
    (?:\\?[$€£¥₩]\s?)?
    (?<![A-Za-z0-9_.,])
    (?P<whole>\d{1,3}(?:[,'\u00a0\u202f\u2009]\d{3})+(?!\d)|\d+)?
    (?:(?<=\d)\.(?P<decimals>\d+)|\.(?P<bare>\d+))?
    (?:[eE](?P<exponent>[-+]?\d{1,3})(?!\d))?
    (?:\s?/\s?(?P<divisor>\d+)(?![\d.]))?""",
    re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True)
class Numeric(BuiltIn):
    r"""Read from ``\boxed{}``, ``#### 18`` or "the answer is ..." where one is there, else the last (or first) number."""

    abs_tol: float = 0.0
    rel_tol: float = 0.0
    """Relative to the reference. Right is what either tolerance allows; with both 0 only the same number is."""
    take: Literal["last", "first"] = "last"
    decimal_comma: bool = False
    """Numbers are written ``1.234,5``."""

    kind: ClassVar[str] = "numeric"

    def __post_init__(self) -> None:
        for name in ("abs_tol", "rel_tol"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise SuiteError(f"{name}={value!r}; expected a number of 0 or more")
        if self.take not in ("last", "first"):
            raise SuiteError(f"take={self.take!r}; valid: last, first")

    def reference(self, row: Row) -> str:
        return _shown(self._reference(row))

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        reference = self._reference(row)
        return tuple(self._answer(text, reference) for text in responses)

    def _reference(self, row: Row) -> Fraction:
        value = reference_value(row, self.reference_column)
        text = str(value)
        stated = answer_in(text, ("boxed", "hash"))
        found = self._numbers(text if stated is None else stated)
        if stated is None and len(found) > 1:
            raise SuiteError(f"the reference {text!r:.60} holds {len(found)} numbers; expected one")
        if not found:
            raise SuiteError(f"the reference {text!r:.60} holds no number")
        return found[-1]

    def _answer(self, text: str, reference: Fraction) -> Answer:
        stated = answer_in(text, ("boxed", "hash", "phrase"))
        found = (self._numbers(stated) if stated else []) or self._numbers(text)
        if not found:
            return Answer(None, "", correct=False)
        value = found[-1 if self.take == "last" else 0]
        correct = self._close(value, reference)
        return Answer(_shown(reference if correct else value), _shown(value), correct)

    def _close(self, value: Fraction, reference: Fraction) -> bool:
        allowed = max(Fraction(str(self.abs_tol)), Fraction(str(self.rel_tol)) * abs(reference))
        return abs(value - reference) <= allowed

    def _numbers(self, text: str) -> list[Fraction]:
        if self.decimal_comma:
            text = text.translate({ord(","): ".", ord("."): ","})
        found = (_read(match) for match in _NUMBER.finditer(text) if match["whole"] or match["bare"])
        return [value for value in found if value is not None]


def _read(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _LONGEST:
        return None
    whole = re.sub(r"\D", "", match["whole"] or "0")
    value = Fraction(f"{whole}.{match['decimals'] or match['bare'] or 0}e{match['exponent'] or 0}")
    divisor = int(match["divisor"] or 1)
    if not divisor:
        return None
    return -value / divisor if match["sign"] and match["sign"][0] in "-\u2212" else value / divisor


def _shown(value: Fraction) -> str:
    """Shortest exact spelling: ``18``, ``0.25``, ``1/3``."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if value.denominator == 1 or rest > 1 or value.denominator > 10**30:
        return str(value)
    digits = 0
    while (value * 10**digits).denominator > 1:
        digits += 1
    scaled = abs(int(value * 10**digits))
    text = str(scaled).rjust(digits + 1, "0")
    return f"{'-' if value < 0 else ''}{text[:-digits]}.{text[-digits:]}"
