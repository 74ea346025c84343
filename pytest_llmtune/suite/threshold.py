"""Thresholds: ``min_<metric>`` and ``max_<metric>``, for the whole suite or for each group of its rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pytest_llmtune._util.invalid import InvalidError, meant, shown
from pytest_llmtune.suite.forms import number

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["COSTS", "METRICS", "RATES", "SCORES", "Threshold", "parse"]


SCORES = ("success_vote", "success", "expected_success")
"""Metrics that every built-in grader gives."""
RATES = (*SCORES, "refused")
"""Metrics between 0 and 1."""
COSTS = ("inference_cost", "cost")
"""Metrics in USD: of an instance, of the run."""
METRICS = (*RATES, *COSTS, "latency", "latency_p50", "latency_p90", "latency_p95", "latency_p99")
"""What every suite has; graders may add more."""

_KEY = re.compile(r"(min|max)_([^\W\d]\w*)")


@dataclass(frozen=True, slots=True)
class Threshold:
    """One gate: a metric must not be below, or above, its limit."""

    metric: str
    direction: Literal["min", "max"]
    limit: Decimal | Mapping[str, Decimal]
    """A mapping gives a limit for each group named in it."""

    @property
    def key(self) -> str:
        return f"{self.direction}_{self.metric}"

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that have a limit of their own."""
        return tuple(self.limit) if isinstance(self.limit, Mapping) else ()

    def of_group(self, group: str | None) -> Decimal | None:
        """The limit for one group, or (None) for the whole suite; None where there is none."""
        if isinstance(self.limit, Mapping):
            return self.limit.get(group) if group is not None else None
        return self.limit if group is None else None


def parse(key: str, raw: Any) -> Threshold:
    """The threshold that ``min_success_vote=0.85`` or ``min_success_vote={"geometry": 0.7}`` declares.

    Raises:
        SuiteError: the metric's name is nearly a known one, or the limit is no number that the metric can have.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise InvalidError(f"{key!r} is no threshold; valid: min_<metric> or max_<metric>")
    direction, metric = match[1], match[2]
    if metric not in METRICS and (near := meant(metric, METRICS, cutoff=0.85)):
        raise InvalidError(f"no metric {metric!r}{near}; there are {', '.join(METRICS)}, and what the grader returns")
    if not isinstance(raw, Mapping):
        return Threshold(metric, _direction(direction), _limit(metric, raw))
    if not raw:
        raise InvalidError("has no group; valid: a number, or {group: number, ...}")
    return Threshold(
        metric, _direction(direction), {str(group): _in_group(metric, group, limit) for group, limit in raw.items()}
    )


def _direction(word: str) -> Literal["min", "max"]:
    return "min" if word == "min" else "max"


def _in_group(metric: str, group: Any, raw: Any) -> Decimal:
    try:
        return _limit(metric, raw)
    except InvalidError as problem:
        raise problem.inside(str(group)) from None


def _limit(metric: str, raw: Any) -> Decimal:
    limit = number(raw)
    if limit is None:
        raise InvalidError(f"is {shown(raw)}; valid: a number")
    if metric in RATES and not 0 <= limit <= 1:
        hint = f" (did you mean {(limit / 100).normalize():f}?)" if 1 < limit <= 100 else ""
        raise InvalidError(f"is {shown(raw)}{hint}; {metric} lies between 0 and 1")
    if metric in COSTS and limit < 0:
        raise InvalidError(f"is {shown(raw)}; {metric} is in USD, from 0")
    return limit
