"""Constraints of the search: gates on other metrics than the tuned one."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.stats import wilson
from pytest_llmtune.guard.evaluation import percentile
from pytest_llmtune.suite.keys import COSTS, Aggregate, Threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.suite import Suite


_PERCENTILE = lazy_regex(r"(.+)_p(50|90|95|99)")
_LEAST = 5
"""Minimum number of rows for abandoning a configuration."""
_ERRORS = 2.0


@dataclass(frozen=True, slots=True)
class Constraint:
    """A gate on another metric than the tuned one."""

    gate: Threshold
    metric: str
    """Metric of a row: ``latency`` for a gate on ``latency_p95``."""
    limit: float
    percent: int | None
    """The percentile, for a gate on one."""
    aggregate: Aggregate

    def value(self, values: Sequence[float]) -> float:
        """The suite's value from its rows' values."""
        return self.aggregate(values) if self.percent is None else percentile(sorted(values), self.percent)

    def met(self, values: Sequence[float]) -> bool:
        """Whether the guard's gate would pass on these rows; True without rows."""
        return not values or not self._worse(self.value(values))

    def hopeless(self, values: Sequence[float]) -> bool:
        """Whether further rows are unlikely to compensate for these."""
        if len(values) < _LEAST or self.met(values):
            return False
        least = self.gate.direction == "min"
        if self.percent is not None:
            allowed = self.percent / 100 if least else 1 - self.percent / 100
            return wilson(sum(map(self._worse, values)), len(values)).low > allowed
        if self.aggregate is not statistics.fmean:
            return False
        if set(values) <= {0.0, 1.0}:
            likely = wilson(round(sum(values)), len(values))
            return self._worse(likely.high if least else likely.low)
        error = _ERRORS * statistics.stdev(values) / math.sqrt(len(values))
        return self._worse(statistics.fmean(values) + (error if least else -error))

    def _worse(self, value: float) -> bool:
        return not (value >= self.limit if self.gate.direction == "min" else value <= self.limit)  # NaN is worse


def constraints_of(suite: Suite) -> tuple[Constraint, ...]:
    """The suite's gates over all rows, except costs, which have a budget, and limits of groups."""
    found = []
    for gate in suite.thresholds:
        limit = gate.of_group(None)
        if limit is not None and gate.metric not in (suite.metric, *COSTS):
            match = _PERCENTILE.fullmatch(gate.metric)
            metric, percent = (match[1], int(match[2])) if match else (gate.metric, None)
            found.append(Constraint(gate, metric, float(limit), percent, suite.aggregator))
    return tuple(found)
