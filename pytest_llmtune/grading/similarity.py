"""The ``similarity`` grader: measures how similar an answer is to a reference text."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import statistics
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.aio import running_loop
from pytest_llmtune._util.jsonhash import build
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import CompletionError, SuiteError
from pytest_llmtune.grading.base import BuiltIn, grade_answers, reference_values
from pytest_llmtune.grading.math.extract import untagged
from pytest_llmtune.types import Answer, ExampleGrade, Row
from pytest_llmtune.wire.response import embedding_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_llmtune.grading.judge import Ask


_WORD = lazy_regex(r"[^\W_\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff]+|[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff]")
"""A word, or one character of a script without spaces."""


_ROUNDING = 1e-9
"""Less than this below the threshold is reached: a text's cosine with itself may be 0.9999999999999999."""
_RESERVED = ("model", "input", "encoding_format")


@dataclass(frozen=True, kw_only=True)
class Similarity(BuiltIn):
    """Correct if the similarity to the reference, or to the most similar of several, reaches a threshold.

    For free text, which is never equal, set ``vote="medoid"`` to elect the most typical answer. Additional metric:
    ``similarity``, the mean similarity of the responses, from 0 to 1.
    """

    threshold: float | None = None
    """Minimum similarity of a correct answer, above 0 and up to 1; no default, because it depends on the data."""
    measure: Literal["chrf", "rouge_l", "embedding"] | None = None
    """``chrf``: F-score of character n-grams (Popović 2015, as sacrebleu computes it), which suits every script;
    ``rouge_l``: F-score of the longest common subsequence of words (Lin 2004); ``embedding``: cosine of the embeddings that
    ``model`` gives, a negative one counts as 0. Default: ``embedding`` if there is a model, else ``chrf``."""
    model: str | None = None
    """Embedding model of the suite's endpoint; one request for each distinct text, references included."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Other parameters of the embedding requests, such as ``dimensions``."""

    kind: ClassVar[str] = "similarity"
    longest_in_process: ClassVar[int | None] = None  # both measures are fast on long texts
    reads_answers = True

    def __post_init__(self) -> None:
        if self.measure not in (None, "chrf", "rouge_l", "embedding"):
            raise SuiteError(f"measure={self.measure!r}; valid: chrf, rouge_l, embedding")
        if (self.measure == "embedding") > bool(self.model) or (self.model and self.measure in ("chrf", "rouge_l")):
            raise SuiteError(
                f"measure={self.measure!r}, model={self.model!r}; embeddings, and only these, need a model"
            )
        if self.parameters and (not self.model or not self.parameters.keys().isdisjoint(_RESERVED)):
            raise SuiteError(
                f"parameters={dict(self.parameters)!r}; expected those of embedding requests, without {', '.join(_RESERVED)}"
            )
        limit = self.threshold
        if limit is None or not 0 < limit <= 1:
            raise SuiteError(
                f"threshold={limit!r}; expected a number above 0 and up to 1: the likeness that counts as right"
            )
        library = "rapidfuzz" if self.measure == "rouge_l" else "sacrebleu"
        if not self.model and importlib.util.find_spec(library) is None:
            raise SuiteError(f"{self.measure or 'chrf'} needs {library}: pip install 'pytest-llmtune[similarity]'")

    def reference(self, row: Row) -> str:
        return " | ".join(self._references(row))

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,) if self.model else ()

    @property
    def probe_rows(self) -> int:
        return 0 if self.model else super().probe_rows

    @property
    def per_response(self) -> bool:
        return not self.model

    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        return tuple(answer for answer, _ in self._judged(responses, row))

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        return self._grade(self._judged(responses, row))

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Ask) -> tuple[Answer, ...]:
        return tuple(answer for answer, _ in await self._ajudged(responses, row, ask))

    async def agrade(self, responses: Sequence[str], row: Row, ask: Ask) -> ExampleGrade:
        """Like ``grade``; CompletionError if an embedding is missing or malformed: the example is unknown rather than wrong."""
        return self._grade(await self._ajudged(responses, row, ask))

    def metric_names(self, rows: Sequence[Row]) -> frozenset[str]:
        return super().metric_names(rows) | {"similarity"}

    def _grade(self, judged: Sequence[tuple[Answer, float]]) -> ExampleGrade:
        grade = grade_answers([answer for answer, _ in judged], self.vote)
        likeness = statistics.fmean(value for _, value in judged) if judged else 0.0
        return replace(grade, metrics={**grade.metrics, "similarity": likeness})

    def _judged(self, responses: Sequence[str], row: Row) -> list[tuple[Answer, float]]:
        if self.model:
            raise SuiteError(
                f"the grader similarity asks {self.model}: it grades only where completions can be asked for"
            )
        return self._compared(responses, self._references(row), self._measured)

    async def _ajudged(self, responses: Sequence[str], row: Row, ask: Ask) -> list[tuple[Answer, float]]:
        if not self.model:
            return self._judged(responses, row)
        references = self._references(row)
        vectors = await self._vectors([*references, *(" ".join(untagged(text).split()) for text in responses)], ask)
        return self._compared(responses, references, lambda text, reference: _cosine(vectors[text], vectors[reference]))

    def _compared(
        self, responses: Sequence[str], references: Sequence[str], measured: Callable[[str, str], float]
    ) -> list[tuple[Answer, float]]:
        """Each response's answer and its similarity to the most similar reference."""
        found = []
        for text in map(untagged, responses):
            key = " ".join(text.split())
            likeness = max(measured(key, reference) for reference in references) if key else 0.0
            right = likeness >= (self.threshold or 1.0) - _ROUNDING
            found.append((Answer(key.casefold() or None, text.strip(), right), likeness))
        return found

    async def _vectors(self, texts: Iterable[str], ask: Ask) -> dict[str, list[float]]:
        """The embedding of each distinct text that is not empty."""
        distinct = [text for text in dict.fromkeys(texts) if text]
        bodies = [{**self.parameters, "model": self.model, "input": text} for text in distinct]
        await running_loop()
        completions = await asyncio.gather(*(ask(build(body, 1)) for body in bodies))
        found: dict[str, list[float]] = {}
        for text, completion in zip(distinct, completions, strict=True):
            vector = embedding_in(completion.exchanges[0].response) if completion.exchanges else None
            if vector is None:
                raise CompletionError(f"{self.model} gave no embedding of {text[:60]!r}")
            found[text] = vector
        dimensions = self.parameters.get("dimensions")
        lengths = {*map(len, found.values()), *([dimensions] if isinstance(dimensions, int) else [])}
        if len(lengths) > 1:
            raise CompletionError(
                f"{self.model} gave embeddings of {' and '.join(map(str, sorted(lengths)))} numbers, which cannot be compared"
            )
        return found

    def _references(self, row: Row) -> tuple[str, ...]:
        references = tuple(" ".join(str(item).split()) for item in reference_values(row, self.reference_column))
        if not all(map(_WORD.search, references)):
            raise SuiteError("the reference is a text without a word")
        return references

    @cached_property
    def _measured(self) -> Callable[[str, str], float]:
        """Function from two texts to their similarity, 0 to 1."""
        if self.measure == "rouge_l":
            return _rouge_l
        from sacrebleu.metrics.chrf import CHRF

        chrf = CHRF()
        return lambda text, reference: float(chrf.sentence_score(text, [reference]).score) / 100


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one), math.hypot(*other)
    cosine = math.fsum(a / lengths[0] * (b / lengths[1]) for a, b in zip(one, other, strict=True))
    return min(1.0, max(0.0, cosine))


def _rouge_l(text: str, reference: str) -> float:
    from rapidfuzz.distance import LCSseq

    words, expected = (_WORD.findall(one.casefold()) for one in (text, reference))
    if not words or not expected:
        return 0.0
    return 2 * int(LCSseq.similarity(words, expected)) / (len(words) + len(expected))
