"""Graders of plain text: `exact`, `contains` and `regex`."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, reference_value
from pytest_llmtune.types import Answer, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Contains", "Exact", "Folding", "Regex"]


@dataclass(frozen=True, kw_only=True)
class Folding(BuiltIn):
    """Which differences between two texts do not count."""

    form: Literal["NFC", "NFKC"] = "NFC"
    """Unicode normal form; NFKC also folds full-width letters, ligatures and the like."""
    ignore_case: bool = False
    ignore_space: bool = False
    """Runs of white space count as one space; at the ends white space never counts."""
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
        text = self.fold(str(reference_value(row, self.reference_column)))
        if not text:
            raise SuiteError("nothing is left of the reference once what is ignored is taken away")
        return text


@dataclass(frozen=True, kw_only=True)
class Exact(Folding):
    """The whole response equals the reference."""

    kind: ClassVar[str] = "exact"

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        reference = self.reference(row)
        found = ((self.fold(text), text.strip()) for text in responses)
        return tuple(Answer(key or None, text, key == reference) for key, text in found)


@dataclass(frozen=True, kw_only=True)
class Contains(Folding):
    """The response contains the reference, or every one (or any one) of a list of references."""

    match: Literal["all", "any"] = "all"
    whole_words: bool = True
    """``10`` is not contained in ``100``; switch off for parts of words and for scripts without spaces."""

    kind: ClassVar[str] = "contains"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.match not in ("all", "any"):
            raise SuiteError(f"match={self.match!r}; valid: all, any")

    def reference(self, row: Row) -> str:
        return ", ".join(self._wanted(row))

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        tests = [self._test(text) for text in self._wanted(row)]
        combine: Callable[[list[bool]], bool] = all if self.match == "all" else any
        found = ((self.fold(text), text.strip()) for text in responses)
        return tuple(Answer(key or None, text, combine([test(key) for test in tests])) for key, text in found)

    def _wanted(self, row: Row) -> list[str]:
        value = reference_value(row, self.reference_column)
        wanted = (
            [self.fold(str(item)) for item in value] if isinstance(value, (list, tuple)) else [self.fold(str(value))]
        )
        if not wanted or not all(wanted):
            raise SuiteError("the reference is an empty list, or holds an empty text")
        return wanted

    def _test(self, wanted: str) -> Callable[[str], bool]:
        if not self.whole_words:
            return lambda text: wanted in text
        return re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)").search  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Regex(BuiltIn):
    """What ``pattern`` finds last in the response equals the reference; without ``pattern`` the reference is the pattern.

    The answer is the group named ``answer``, else the first group, else the whole match.
    """

    pattern: str | None = None
    ignore_case: bool = False

    kind: ClassVar[str] = "regex"

    def __post_init__(self) -> None:
        if self.pattern is not None:
            self._compile(self.pattern)

    def reference(self, row: Row) -> str:
        text = str(reference_value(row, self.reference_column)).strip()
        if self.pattern is None:
            self._compile(text)
        return text

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        reference = self.reference(row)
        if self.pattern is None:
            search = self._compile(reference).search
            return tuple(self._matched(text, search(text)) for text in responses)
        pattern = self._compile(self.pattern)
        wanted = self._key(reference)
        return tuple(self._found(_last(pattern, text), wanted) for text in responses)

    def _found(self, text: str | None, wanted: str) -> Answer:
        if not text:
            return Answer(None, "", correct=False)
        return Answer(self._key(text), text, self._key(text) == wanted)

    def _matched(self, text: str, match: re.Match[str] | None) -> Answer:
        shown = match[0] if match else text
        return Answer(self._key(shown) or None, shown.strip(), match is not None)

    def _key(self, text: str) -> str:
        return text.strip().casefold() if self.ignore_case else text.strip()

    def _compile(self, pattern: str) -> re.Pattern[str]:
        try:
            return re.compile(pattern, re.IGNORECASE if self.ignore_case else re.NOFLAG)
        except re.error as error:
            raise SuiteError(f"the regular expression {pattern!r} is not valid: {error}") from None


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = list(pattern.finditer(text))
    if not found:
        return None
    match = found[-1]
    group = "answer" if "answer" in pattern.groupindex else int(pattern.groups > 0)
    return (match[group] or "").strip()
