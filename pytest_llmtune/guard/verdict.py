"""Verdicts, gates, and the examples that flipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from pytest_llmtune._util.stats import mcnemar_exact
from pytest_llmtune.guard.lockfile import LockedExample, short_answer
from pytest_llmtune.suite.keys import Threshold
from pytest_llmtune.types import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_llmtune.guard.lockfile import Lock
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.types import Evaluation, ExampleGrade, ExampleResult, Row

__all__ = [
    "Comparison",
    "Criteria",
    "Flip",
    "Gate",
    "Limit",
    "Outcome",
    "Stale",
    "Verdict",
    "compare",
    "criteria_of",
    "excerpt",
    "limits_of",
]


_QUESTION_COLUMNS = ("problem", "question", "input", "prompt", "text", "query", "instruction", "sentence", "message")
_EXCERPT = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """One example on one side of a comparison."""

    value: float
    """The tuned metric."""
    voted_answer: str | None
    votes: int
    """How many responses gave the voted answer."""
    responses: int


@dataclass(frozen=True, slots=True)
class Flip:
    """An example whose tuned metric changed since the baseline."""

    id: str
    index: int
    question: str
    """The beginning of what was asked."""
    direction: Literal["lost", "gained"]
    before: Outcome
    now: Outcome


@dataclass(frozen=True, slots=True)
class Comparison:
    """The baseline and today over the examples that both know."""

    before: float
    now: float
    drop: float
    """How much worse; negative where it got better."""
    flips: tuple[Flip, ...]
    p_value: float
    compared: int
    added: int
    """Examples of today that the baseline does not know."""
    gone: int


def compare(
    evaluation: Evaluation,
    baseline: Lock,
    metric: str,
    mode: Literal["max", "min"],
    aggregate: Callable[[Sequence[float]], float],
) -> Comparison | None:
    """Compare by example; None where no example has the metric on both sides.

    The p-value is exact McNemar's over the examples that changed; for metrics other than 0 and 1 that is the sign test.
    """
    locked = {example.id: example for example in baseline.examples}
    olds, news, found, today = [], [], [], set()
    for result in evaluation.results:  # once: they may lie on disk
        today.add(result.example.id)
        example = locked.get(result.example.id)
        if example and metric in example.metrics and result.grade and metric in result.grade.metrics:
            olds.append(example.metrics[metric])
            news.append(_value(result.grade, metric))
            found.append(_flip(example, result, result.grade, metric, mode))
    if not olds:
        return None
    flips = [flip for flip in found if flip]
    lost = sum(flip.direction == "lost" for flip in flips)
    before, now = aggregate(olds), aggregate(news)
    return Comparison(
        before=before,
        now=now,
        drop=before - now if mode == "max" else now - before,
        flips=tuple(sorted(flips, key=lambda flip: (flip.direction != "lost", flip.index))),
        p_value=mcnemar_exact(lost, len(flips) - lost),
        compared=len(olds),
        added=len(today - locked.keys()),
        gone=len(locked.keys() - today),
    )


def _value(grade: ExampleGrade, metric: str) -> float:
    """Rounded as in a lock file, so that an unchanged example compares equal."""
    return round(float(grade.metrics[metric]), 6)


def _flip(before: LockedExample, result: ExampleResult, grade: ExampleGrade, metric: str, mode: str) -> Flip | None:
    old, new = before.metrics[metric], _value(grade, metric)
    if old == new:
        return None
    return Flip(
        id=result.example.id,
        index=result.example.index,
        question=excerpt(result.example.row),
        direction="lost" if (new < old) == (mode == "max") else "gained",
        before=Outcome(old, before.voted_answer, before.votes[0][1] if before.votes else 0, before.responses),
        now=Outcome(
            new,
            None if grade.voted_answer is None else short_answer(grade.voted_answer),
            grade.votes[0][1] if grade.votes else 0,
            len(result.responses),
        ),
    )


def excerpt(row: Row) -> str:
    """The beginning of what a row asks: the column that usually holds it, else the longest text."""
    texts = {name: value for name, value in row.items() if isinstance(value, str) and value.strip()}
    known = next((texts[name] for name in _QUESTION_COLUMNS if name in texts), None)
    text = known or max(texts.values(), key=len, default="")
    return " ".join(text[: 4 * _EXCERPT].split())[:_EXCERPT]


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on one metric, over the suite or over one group of its rows."""

    metric: str
    direction: Literal["min", "max"]
    limit: Decimal
    group: str | None = None
    """The value of the ``group_by`` column; None for the whole suite."""
    key: str = ""
    """The suite's key that set it, where it is not ``min_<metric>`` or ``max_<metric>``."""

    @property
    def name(self) -> str:
        key = self.key or f"{self.direction}_{self.metric}"
        return key if self.group is None else f"{key}[{self.group}]"


def limits_of(thresholds: Iterable[Threshold], inference_budget: Decimal | None = None) -> tuple[Limit, ...]:
    """A suite's thresholds as limits, one for each group that a threshold names.

    The inference budget is the limit on USD per instance unless ``max_inference_cost`` is among the thresholds.
    """
    limits = [
        Limit(threshold.metric, threshold.direction, limit, group)
        for threshold in thresholds
        for group, limit in (
            threshold.limit.items() if isinstance(threshold.limit, Mapping) else [(None, threshold.limit)]
        )
    ]
    if inference_budget is not None and "max_inference_cost" not in (limit.name for limit in limits):
        limits.append(Limit("inference_cost", "max", inference_budget, key="inference_budget"))
    return tuple(limits)


@dataclass(frozen=True, slots=True)
class Criteria:
    """All that a verdict depends on beside the evaluation and the baseline; taken from a suite."""

    metric: str = "success_vote"
    mode: Literal["max", "min"] = "max"
    limits: tuple[Limit, ...] = ()
    max_drop: float | None = None
    """Absolute; compared over the examples that both sides know."""
    alpha: float | None = None
    """A drop counts only where the exact McNemar p-value is below this."""
    max_unknown: int = 0
    """How many examples may stay without an answer."""
    group_by: str | None = None
    reused: bool = False
    """The guard had to use the rows the configuration was tuned on."""
    allow_vacuous: bool = False

    @property
    def judges_drops(self) -> bool:
        """Whether a worse result than the baseline's can fail."""
        return self.max_drop is not None or self.alpha is not None


def criteria_of(suite: Suite, *, reused: bool) -> Criteria:
    """What a suite's keys ask of its guard; ``reused``: it has no rows of its own and guards on the tuning rows."""
    return Criteria(
        metric=suite.metric,
        mode=suite.mode,
        limits=limits_of(suite.thresholds, suite.inference_budget),
        max_drop=suite.max_drop,
        alpha=suite.alpha,
        max_unknown=suite.max_unknown,
        group_by=suite.group_by,
        reused=reused,
        allow_vacuous=suite.allow_vacuous,
    )


@dataclass(frozen=True, slots=True)
class Stale:
    """One reason why the numbers are no fact yet, and the one option that mends it."""

    what: str
    option: str
    """As in ``--llm-record=missing``."""
    detail: str = ""
    """More lines, such as the difference to the nearest recorded request."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One limit and how the result stands to it."""

    name: str
    """The suite's key, such as ``min_success_vote``."""
    metric: str
    passed: bool
    value: float
    limit: float
    sentence: str
    """Holds both numbers."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a suite may pass, and why."""

    status: Literal["passed", "failed", "stale", "inconclusive", "error"]
    """``error``: nothing could be judged, and ``problem`` says why."""
    metric: str
    gates: tuple[Gate, ...] = ()
    flips: tuple[Flip, ...] = ()
    """Examples that changed since the baseline; what got worse first."""
    p_value: float | None = None
    """Exact McNemar, two-sided, of the flips; None without a baseline."""
    value: float | None = None
    """The tuned metric today; None where nothing was measured."""
    interval: Interval | None = None
    """95 %, of ``value``."""
    baseline: float | None = None
    """The tuned metric of the baseline, over the examples compared."""
    compared: int = 0
    """How many examples both sides know."""
    stale: tuple[Stale, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""
    """No lock file, a budget used up, no endpoint that answers, ...; empty unless ``error``."""

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    @property
    def failed_gates(self) -> tuple[Gate, ...]:
        return tuple(gate for gate in self.gates if not gate.passed)
