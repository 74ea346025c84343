"""What a verdict is made from and of: limits, criteria, gates, reasons; plain frozen values, no judging here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from pytest_llmtune.guard.comparison import Flip
from pytest_llmtune.suite.threshold import Threshold
from pytest_llmtune.types import Interval

if TYPE_CHECKING:
    from pytest_llmtune.suite import Suite

__all__ = ["Criteria", "Gate", "Limit", "Stale", "Verdict", "criteria_of", "limits_of"]


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
