"""The ``similarity`` grader: measures how similar an answer is to a reference text."""

from __future__ import annotations

import importlib.util
import statistics
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, grade_answers, reference_value
from pytest_llmtune.grading.math.extract import untagged
from pytest_llmtune.types import Answer, ExampleGrade, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Similarity"]


_WORD = lazy_regex(r"[^\W_\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff]+|[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff]")
"""A word, or one character of a script without spaces."""


@dataclass(frozen=True, kw_only=True)
class Similarity(BuiltIn):
    """Correct if the similarity to the reference, or to the most similar of several, reaches a threshold.

    For free text, which is never equal, set ``vote="medoid"`` to elect the most typical answer. Additional metric:
    ``similarity``, the mean similarity of the responses, from 0 to 1.
    """

    threshold: float | None = None
    """Minimum similarity of a correct answer, above 0 and up to 1; no default, because it depends on the data."""
    measure: Literal["chrf", "rouge_l"] = "chrf"
    """``chrf``: F-score of character n-grams (Popović 2015, as sacrebleu computes it), which suits every script;
    ``rouge_l``: F-score of the longest common subsequence of words (Lin 2004)."""

    kind: ClassVar[str] = "similarity"
    longest_in_process: ClassVar[int | None] = None  # both measures are fast on long texts

    def __post_init__(self) -> None:
        if self.measure not in ("chrf", "rouge_l"):
            raise SuiteError(f"measure={self.measure!r}; valid: chrf, rouge_l")
        limit = self.threshold
        if limit is None or not 0 < limit <= 1:
            raise SuiteError(
                f"threshold={limit!r}; expected a number above 0 and up to 1: the likeness that counts as right"
            )
        library = "sacrebleu" if self.measure == "chrf" else "rapidfuzz"
        if importlib.util.find_spec(library) is None:
            raise SuiteError(f"{self.measure} needs {library}: pip install 'pytest-llmtune[similarity]'")

    def reference(self, row: Row) -> str:
        return " | ".join(self._wanted(row))

    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        return tuple(answer for answer, _ in self._judged(responses, row))

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        judged = self._judged(responses, row)
        grade = grade_answers([answer for answer, _ in judged], self.vote)
        likeness = statistics.fmean(value for _, value in judged) if judged else 0.0
        return replace(grade, metrics={**grade.metrics, "similarity": likeness})

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:  # noqa: ARG002
        return self.grade(responses, row)

    def metric_names(self, rows: Sequence[Row]) -> frozenset[str]:
        return super().metric_names(rows) | {"similarity"}

    def _judged(self, responses: Sequence[str], row: Row) -> list[tuple[Answer, float]]:
        wanted = self._wanted(row)
        found = []
        for text in map(untagged, responses):
            key = " ".join(text.split())
            likeness = max(self._measured(key, reference) for reference in wanted) if key else 0.0
            right = likeness >= (self.threshold or 1.0)
            found.append((Answer(key.casefold() or None, text.strip(), right), likeness))
        return found

    def _wanted(self, row: Row) -> tuple[str, ...]:
        value = reference_value(row, self.reference_column)
        wanted = tuple(" ".join(str(item).split()) for item in (value if isinstance(value, (list, tuple)) else [value]))
        if not wanted or not all(map(_WORD.search, wanted)):
            raise SuiteError("the reference is an empty list, or a text without a word")
        return wanted

    @cached_property
    def _measured(self) -> Callable[[str, str], float]:
        """Function from two texts to their similarity, 0 to 1."""
        if self.measure == "rouge_l":
            return _rouge_l
        from sacrebleu.metrics.chrf import CHRF

        chrf = CHRF()
        return lambda text, reference: float(chrf.sentence_score(text, [reference]).score) / 100


def _rouge_l(text: str, reference: str) -> float:
    from rapidfuzz.distance import LCSseq

    words, wanted = (_WORD.findall(one.casefold()) for one in (text, reference))
    if not words or not wanted:
        return 0.0
    return 2 * int(LCSseq.similarity(words, wanted)) / (len(words) + len(wanted))
