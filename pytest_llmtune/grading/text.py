"""The ``exact``, ``contains``, ``regex`` and ``numeric`` graders."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, reference_value, reference_values
from pytest_llmtune.grading.math.extract import answer_in, has_box, phrase_in, untagged
from pytest_llmtune.grading.math.parse import parse
from pytest_llmtune.grading.math.retracted import standing
from pytest_llmtune.grading.numbers import ascii_numerals, find, is_denied, last_of, number_in
from pytest_llmtune.grading.workers import WorkerPool, off_thread
from pytest_llmtune.types import Answer, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_llmtune.grading.values import Value


@dataclass(frozen=True, kw_only=True)
class Folding(BuiltIn):
    """Options for ignoring differences between two texts."""

    form: Literal["NFC", "NFKC"] = "NFC"
    """Unicode normal form; NFKC also folds full-width letters, ligatures and the like."""
    ignore_case: bool = False
    ignore_space: bool = False
    """Whether whitespace runs count as one space; whitespace at the ends never counts."""
    ignore_punctuation: bool = False

    def __post_init__(self) -> None:
        if self.form not in ("NFC", "NFKC"):
            raise SuiteError(f"form={self.form!r}; valid: NFC, NFKC")

    def fold(self, text: str) -> str:
        text = unicodedata.normalize(self.form, text)
        if self.ignore_case:
            text = unicodedata.normalize(self.form, text.casefold())
        if self.ignore_punctuation:
            text = "".join(" " if unicodedata.category(char)[0] == "P" else char for char in text)
        if self.ignore_space or self.ignore_punctuation:
            text = " ".join(text.split())
        return text.strip()

    def reference(self, row: Row) -> str:
        return " | ".join(self._expected(row))

    def _expected(self, row: Row) -> tuple[str, ...]:
        """The reference, or each of a list of references, normalised."""
        expected = tuple(self.fold(str(item)) for item in reference_values(row, self.reference_column))
        if not all(expected):
            raise SuiteError("nothing is left of the reference once what is ignored is taken away")
        return expected


@dataclass(frozen=True, kw_only=True)
class Exact(Folding):
    """Correct if the response, or its ``<answer>``, equals the reference, or any of a list of references."""

    kind: ClassVar[str] = "exact"

    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        expected = self._expected(row)
        return tuple(self._answer(text, expected) for text in responses)

    def _answer(self, text: str, expected: tuple[str, ...]) -> Answer:
        key = self.fold(text)
        if key not in expected and (inner := untagged(text)) is not text:
            text, key = inner, self.fold(inner)
        if key in expected:
            return Answer(expected[0], text.strip(), correct=True)  # alternatives vote together
        return Answer(key or None, text.strip(), correct=False)


_PLAIN_NUMBER = lazy_regex(r"[-+\u2212]?\d+(?:[.,]\d+)*")
_NO_NUMBER_BEFORE = r"(?<!\w)(?<!\d[.,])(?<!(?<!\w)\.)(?<!(?<!\w)[-\u2212\u2013])"
"""Not behind 1 or 1. or . or a sign; GPT-5 and 3-5 have the number 5."""


@dataclass(frozen=True, kw_only=True)
class Contains(Folding):
    """Correct if the response contains the reference, or any (or all) of a list of references."""

    match: Literal["any", "all"] = "any"
    whole_words: bool = True
    """Whether ``10`` is not contained in ``100``; disable for parts of words and scripts without spaces."""

    kind: ClassVar[str] = "contains"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.match not in ("all", "any"):
            raise SuiteError(f"match={self.match!r}; valid: any, all")

    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        raw = (self._composed(str(item)).strip() for item in reference_values(row, self.reference_column))
        tests = [self._test(text, plain) for text, plain in zip(self._expected(row), raw, strict=True)]
        combine: Callable[[list[bool]], bool] = all if self.match == "all" else any
        found = ((self.fold(text), text.strip()) for text in responses)
        return tuple(Answer(key or None, text, combine([test(key, text) for test in tests])) for key, text in found)

    def _test(self, expected: str, raw: str) -> Callable[[str, str], bool]:
        if not self.whole_words:
            return lambda text, _: expected in text
        if _PLAIN_NUMBER.fullmatch(raw):  # with all punctuation: 5 is not in -5, 5.3 or 1,5
            number = re.compile(rf"{_NO_NUMBER_BEFORE}{re.escape(raw)}(?!\w|[.,]\d)")
            return lambda _, text: number.search(self._composed(text)) is not None
        word = re.compile(rf"(?<!\w){re.escape(expected)}(?!\w)")
        return lambda text, _: word.search(text) is not None

    def _composed(self, text: str) -> str:
        return unicodedata.normalize(self.form, text)


@dataclass(frozen=True, kw_only=True)
class Regex(BuiltIn):
    """Correct if the last match of ``pattern`` equals the reference; without ``pattern``, the reference is the pattern.

    The answer is the group named ``answer``, else the first group, else the whole match.
    """

    pattern: str | None = None
    ignore_case: bool = False

    kind: ClassVar[str] = "regex"
    # the suite's pattern may be slow: always search in a worker with a time limit
    longest_in_process: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if self.pattern is not None:
            self._compile(self.pattern)

    def reference(self, row: Row) -> str:
        values = reference_values(row, self.reference_column)
        if len(values) > 1:
            raise SuiteError(f"the reference is a list of {len(values)}; expected one text")
        text = str(values[0]).strip()
        if self.pattern is None:
            self._compile(text)
        return text

    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        reference = self.reference(row)
        pattern = reference if self.pattern is None else self.pattern
        plain = [untagged(text) for text in responses]
        found = self._found(pattern, [*responses, *(text for text in plain if text not in responses)])
        matches = [found[text] or found[other] for text, other in zip(responses, plain, strict=True)]
        if self.pattern is None:
            pairs = zip(responses, matches, strict=True)
            shown = [(match[0] if match else text, match is not None) for text, match in pairs]
            return tuple(Answer(self._key(text) or None, text.strip(), correct) for text, correct in shown)
        expected = self._key(reference)
        return tuple(self._answer(match, expected) for match in matches)

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:  # noqa: ARG002
        return await off_thread(self.answers, responses, row)

    def matches(self, text: str) -> bool:
        """Whether the pattern is found in a text, within the time limit."""
        return self._found(str(self.pattern), [text])[text] is not None

    def _found(self, pattern: str, texts: Sequence[str]) -> dict[str, list[str] | None]:
        """For each text, the match and the answer in it; None without a match in time."""
        request = {"pattern": pattern, "ignore_case": self.ignore_case, "last": self.pattern is not None}
        distinct = list(dict.fromkeys(texts))
        if reply := self._pool.call({**request, "texts": distinct}, self.time_allowed):
            return dict(zip(distinct, reply["found"], strict=True))
        replies = {text: self._pool.call({**request, "texts": [text]}, self.time_allowed) for text in distinct}
        return {text: reply["found"][0] if reply else None for text, reply in replies.items()}

    @cached_property
    def _pool(self) -> WorkerPool:
        return WorkerPool("search")

    def _answer(self, match: Sequence[str] | None, expected: str) -> Answer:
        text = match[1].strip() if match else ""
        return Answer(self._key(text), text, self._key(text) == expected) if text else Answer(None, "", correct=False)

    def _key(self, text: str) -> str:
        return text.strip().casefold() if self.ignore_case else text.strip()

    def _compile(self, pattern: str) -> re.Pattern[str]:
        try:
            return re.compile(pattern, re.IGNORECASE if self.ignore_case else re.NOFLAG)
        except (re.error, RecursionError, OverflowError, MemoryError) as error:
            raise SuiteError(f"the regular expression {pattern!r:.200} is not valid: {error}") from None


_NO_NUMBER = lazy_regex(
    r"\b(?:unknown|unclear|undetermined|undefined|not\s+(?:known|given|clear|determinable|enough)|cannot|can['’]t|impossible|none|no\s+(?:answer|solution))\b",
    re.IGNORECASE,
)
_DIGIT = lazy_regex(r"\d|[½¼¾⅓⅔]|\\(?:pi|sqrt)")
_WORDS_AROUND = lazy_regex(r"(?:[^\W\d_]{2,}+|[\s.,;:!?()*'\"$€£¥₩%~≈-])*+")
"""Possessive: a long word would be divided in every possible way."""


@dataclass(frozen=True, kw_only=True)
class Numeric(BuiltIn):
    r"""Read from ``\boxed{}``, ``#### 18`` or "the answer is ..." where one is there, else the last (or first) number."""

    abs_tol: float = 0.0
    rel_tol: float = 0.0
    """Relative to the reference. A number within either tolerance is correct; with both 0, only the same number."""
    take: Literal["last", "first"] = "last"
    decimal_comma: bool = False
    """Whether numbers are written as ``1.234,5``."""

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

    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        reference = self._reference(row)
        return tuple(self._answer(text, reference) for text in responses)

    def _reference(self, row: Row) -> Fraction:
        cell = reference_value(row, self.reference_column)
        text = str(cell)
        if self.decimal_comma and not isinstance(cell, str):
            text = text.translate(_SWAPPED)  # 1.5 in a number, not in a text written with a comma
        stated = answer_in(text, ("boxed", "hash"))
        found = self._single(text if stated is None else stated)
        if found is None:
            numbers = [number for number in find(self._plain(text))[1] if not number.aside]
            if len(numbers) > 1:
                raise SuiteError(f"the reference {text!r:.60} holds {len(numbers)} numbers; expected one")
            unsure = " that can be read for sure" if numbers else ""
            raise SuiteError(f"the reference {text!r:.60} holds no number{unsure}")
        return found

    def _answer(self, text: str, reference: Fraction) -> Answer:
        value = self._stated(standing(untagged(text)))
        if value is None:
            return Answer(None, "", correct=False)
        allowed = max(Fraction(str(self.abs_tol)), Fraction(str(self.rel_tol)) * abs(reference))
        correct = abs(value - reference) <= allowed
        return Answer(_shown(reference if correct else value), _shown(value), correct)

    def _stated(self, text: str) -> Fraction | None:
        """The number in the last box, ``####`` line or "the answer is ..."; else the last (or first) of the response."""
        marked = answer_in(text, ("boxed", "hash", "phrase") if has_box(text) else ("boxed", "hash"))
        if marked is not None:
            return self._single(marked)
        if has_box(text):
            return None
        sentence = phrase_in(text)
        if sentence is not None:
            if _DIGIT.search(sentence):
                return _fraction(number_in(self._plain(sentence)))
            if _NO_NUMBER.search(sentence):
                return None
        return _fraction(last_of(self._plain(text), first=self.take == "first"))

    def _single(self, text: str) -> Fraction | None:
        """The value of a text that is one number, possibly with a unit and a few words."""
        plain = self._plain(text)
        value = parse(plain).value
        if value is None:
            plain, numbers = find(plain)
            own = [number for number in numbers if not number.aside]
            if (
                len(own) == 1
                and not is_denied(plain, own[0])
                and _WORDS_AROUND.fullmatch(plain[: own[0].start] + plain[own[0].end :])
            ):
                value = own[0].value
        return _fraction(value)

    def _plain(self, text: str) -> str:
        return ascii_numerals(text).translate(_SWAPPED) if self.decimal_comma else text


_SWAPPED = {ord(","): ".", ord("."): ","}
"""Decimal and grouping separators of ``1.234,5``."""


def _fraction(value: Value | None) -> Fraction | None:
    return None if value is None else Fraction(value)


def _shown(value: Fraction) -> str:
    """Shortest exact notation: ``18``, ``0.25``, ``1/3``."""
    if value.denominator > 10**20 or abs(value.numerator) > 10**100:
        return f"{float(value):.17g}" if abs(value) < 10**300 else f"{value.numerator.bit_length()} bits"
    if value.denominator == 1:
        return str(value)
    digits = next((digits for digits in range(67) if 10**digits % value.denominator == 0), None)  # 10**20 < 2**67
    if digits is None:
        return str(value)
    text = str(abs(value * 10**digits)).rjust(digits + 1, "0")
    return f"{'-' if value < 0 else ''}{text[:-digits]}.{text[-digits:]}"
