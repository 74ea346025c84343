"""EcoOptiGen's pruning: what a trial of some rows says about its cost on all of them, and about its neighbours."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from decimal import Decimal

    from pytest_llmtune.suite import Config

__all__ = ["Regions", "cost_bounds", "stages"]

_FIRST_STAGE = 5
_NO_LIMIT = math.inf


def stages(rows: int) -> list[int]:
    """Growing data sizes: how many rows a trial has seen when it is judged, the last being all."""
    sizes = []
    size = _FIRST_STAGE
    while size < rows:
        sizes.append(size)
        size *= 2
    return [*sizes, rows]


def cost_bounds(costs: Sequence[Decimal], rows: int) -> tuple[float, float]:
    """USD per instance over all rows, from those seen: lower and upper bound of about 95 %.

    A sample without replacement from a finite population narrows as it uses the population up
    (the Hoeffding-Serfling correction; Bardenet and Maillard 2015), so that both bounds meet the mean at the end.
    """
    seen = [float(cost) for cost in costs]
    mean, count = statistics.fmean(seen), len(seen)
    if count >= rows:
        return mean, mean
    spread = statistics.stdev(seen) if count > 1 else mean
    margin = 2 * max(spread, 0.1 * mean) / math.sqrt(count) * math.sqrt(1 - (count - 1) / rows)
    return max(0.0, mean - margin), mean + margin


@dataclass(slots=True)
class Regions:
    """Which n is known to cost too much, by model, template and stop.

    With n answers of at most max_tokens too dear, as many or more answers of that length or longer are too.
    """

    _invalid: dict[Hashable, list[tuple[int, float]]] = field(default_factory=dict)

    def is_invalid(self, config: Config) -> bool:
        """Whether a smaller neighbour was already too dear."""
        n, length = config.n, _length(config)
        return any(n >= bad_n and length >= bad for bad_n, bad in self._invalid.get(_region(config), []))

    def mark_invalid(self, config: Config) -> None:
        """This configuration is too dear."""
        self._invalid.setdefault(_region(config), []).append((config.n, _length(config)))


def _region(config: Config) -> Hashable:
    return config.model, config.template.fingerprint, repr(config.params.get("stop"))


def _length(config: Config) -> float:
    return float(config.params.get("max_tokens") or config.params.get("max_completion_tokens") or _NO_LIMIT)
