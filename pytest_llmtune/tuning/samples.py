"""What the answers to one row score for every ``n``: votes over draws from the pool, or the grader over parts of it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    import random

    from pytest_llmtune.grading import Grader
    from pytest_llmtune.types import Answer, Choice, Completion, CompletionRequest, Row

__all__ = ["VOTED", "Ask", "Sample", "Scorer", "voted"]


Ask = Callable[["CompletionRequest"], Awaitable["Completion"]]
VOTED = frozenset({"success_vote", "success", "expected_success"})
"""Metrics that follow from each answer's own key and correctness."""
_DRAWS = 16
"""Orders of the pool that are looked at for the votes."""
_PARTS = 3
"""Parts of the pool that an opaque grader is shown for one n."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer."""

    text: str
    tokens: int
    """Billed for it: exact where that is known, else its share."""
    exact: bool
    """Whether ``tokens`` is exact, and the answer ended by itself or with as many tokens as it was allowed."""
    answer: Answer | None = None
    """As read; None where the grader only judges all answers together."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A grader seen from the pool."""

    grader: Grader
    metric: str

    @property
    def by_answer(self) -> bool:
        """Whether answers are judged one by one and elected by equality, so that a vote needs no grader."""
        grader: Any = self.grader
        reads = getattr(grader, "per_response", False) or hasattr(grader, "aanswers")
        return bool(reads) and self.metric in VOTED and getattr(grader, "vote", "equivalence") == "equivalence"

    async def read(self, choices: Sequence[Choice], lengths: Sequence[int], row: Row, ask: Ask) -> tuple[Sample, ...]:
        """Samples of a completion's choices."""
        texts = [choice.judged for choice in choices]
        answers: Sequence[Answer | None] = [None] * len(texts)
        if self.by_answer:
            answers = await self._answers(texts, row, ask)
        return tuple(
            Sample(text, tokens, choice.tokens is not None, answer)
            for text, choice, tokens, answer in zip(texts, choices, lengths, answers, strict=True)
        )

    async def _answers(self, texts: Sequence[str], row: Row, ask: Ask) -> Sequence[Answer]:
        reader: Any = self.grader
        found = reader.aanswers(texts, row, ask) if hasattr(reader, "aanswers") else reader.answers(texts, row)
        return tuple(await found if inspect.isawaitable(found) else found)

    async def scores(
        self, samples: Sequence[Sample], counts: Sequence[int], row: Row, draw: random.Random, ask: Ask
    ) -> dict[int, float]:
        """For every n of ``counts`` that the samples allow: the metric's mean over draws of n of them.

        A grader that judges all answers together is asked for the smallest and the largest such n alone.
        """
        if self.by_answer:
            return voted(samples, counts, self.metric, draw)
        found = {}
        fitting = [n for n in counts if n <= len(samples)]
        for n in sorted({*fitting[:1], *fitting[-1:]}):
            parts = [samples[start : start + n] for start in range(0, len(samples) - n + 1, n)][:_PARTS]
            values = [await self._grade([sample.text for sample in part], row, ask) for part in parts]
            found[n] = sum(values) / len(values)
        return found

    async def _grade(self, texts: Sequence[str], row: Row, ask: Ask) -> float:
        grader: Any = self.grader
        found = grader.agrade(texts, row, ask) if hasattr(grader, "agrade") else grader.grade(texts, row)
        grade = await found if inspect.isawaitable(found) else found
        return self._value(grade.metrics)

    def _value(self, metrics: Mapping[str, float]) -> float:
        """The tuned metric.

        Raises:
            SuiteError: the grader has no such metric.
        """
        if self.metric not in metrics:
            raise SuiteError(
                f"the grader {self.grader.name} gives no metric {self.metric!r}; it gives {', '.join(sorted(metrics))}"
            )
        return float(metrics[self.metric])

    def cut(self, samples: Sequence[Sample], limit: int) -> float | None:
        """The metric of one answer of at most ``limit`` tokens: a longer one would have been cut, and is worth nothing.

        None where no answer's length is known exactly.
        """
        known = [sample for sample in samples if sample.exact]
        if not known or not self.by_answer:
            return None
        return sum(_right(sample) and sample.tokens <= limit for sample in known) / len(known)


def _right(sample: Sample) -> bool:
    return sample.answer is not None and sample.answer.correct and sample.answer.key is not None


def voted(samples: Sequence[Sample], counts: Sequence[int], metric: str, draw: random.Random) -> dict[int, float]:
    """The mean of a voted metric over draws without replacement, for every n that the samples allow.

    ``success`` and ``expected_success`` are exact; the vote is averaged over some orders of the pool.
    """
    size = len(samples)
    fitting = [n for n in counts if n <= size]
    if metric != "success_vote":
        right = sum(sample.answer is not None and sample.answer.correct for sample in samples)
        return {n: _counted(metric, size, right, n) for n in fitting}
    keys = [None if sample.answer is None else sample.answer.key for sample in samples]
    wins = [_right(sample) for sample in samples]
    if len(set(keys)) == 1:  # all alike: nothing to draw
        return dict.fromkeys(fitting, float(wins[0]))
    totals = dict.fromkeys(fitting, 0.0)
    for _ in range(_DRAWS):
        order = draw.sample(range(size), size)
        _walk([keys[index] for index in order], [wins[index] for index in order], totals)
    found = {n: total / _DRAWS for n, total in totals.items()}
    return found | ({1: sum(wins) / size} if 1 in found else {})  # known exactly


def _counted(metric: str, size: int, right: int, n: int) -> float:
    """Expectation of a metric that depends on the number of right answers among n of the pool's (hypergeometric)."""
    ways = math.comb(size, n)
    if metric == "success":
        return 1 - math.comb(size - right, n) / ways
    return sum(
        math.comb(right, k) * math.comb(size - right, n - k) / ways * (1 - (1 - k / n) ** n)
        for k in range(max(0, n - size + right), min(n, right) + 1)
    )


def _walk(keys: Sequence[str | None], wins: Sequence[bool], totals: dict[int, float]) -> None:
    """Add up, at every n asked for, whether the elected one of the first n answers is right; ties go to the first."""
    counts: dict[str, int] = {}
    first: dict[str, int] = {}
    leader: str | None = None
    for step, key in enumerate(keys):
        if key is not None:
            counts[key] = counts.get(key, 0) + 1
            first.setdefault(key, step)
            if leader is None or (counts[key], -first[key]) > (counts[leader], -first[leader]):
                leader = key
        if step + 1 in totals:
            totals[step + 1] += leader is not None and wins[first[leader]]
