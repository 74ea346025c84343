"""Cost per instance of a task's configuration, from the USD of its runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune.tuning.costs import Cost, Costs

if TYPE_CHECKING:
    from pytest_llmtune.tuning.proposals import Arm


_SCALE = 1e6


@dataclass(slots=True)
class TaskCosts(Costs):
    """Like ``Costs``, with the cost of a run instead of an answer's length, and without prompts."""

    def estimate(self, arm: Arm, n: int, limit: int | None = None) -> Cost | None:
        """Estimated cost on the target rows; None if nothing is known about the model."""
        runs = self._lengths_of(arm, limit)
        if runs is None:
            return None
        error = math.hypot(runs.between, runs.within / math.sqrt(n))
        return Cost(n * runs.answer / _SCALE, n * error / _SCALE)

    def prompt(self, arm: Arm) -> float:  # noqa: ARG002
        return 0.0

    def _answer(self, key: str, row: int, arm: Arm, limit: int | None) -> float:  # noqa: ARG002
        """Cost of a run, including grading, in millionths of a USD."""
        cell = self.pool.cells[key, row]
        return _SCALE * (float(sum(sample.usd for sample in cell.samples)) / len(cell.samples) + cell.extra)

    def _prompt(self, arm: Arm, group: str) -> float:  # noqa: ARG002
        return 0.0

    def _line(self, group: str) -> tuple[float, float, float]:  # noqa: ARG002
        return 0.0, 0.0, 0.0

    def _size(self, arm: Arm, row: int) -> int:  # noqa: ARG002
        return 0
