"""One trial: a configuration over growing numbers of rows, ended as soon as it can neither win nor be afforded."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from pytest_llmtune.evaluation import evaluate
from pytest_llmtune.lock import Measured, TrialSummary
from pytest_llmtune.statistics import bootstrap_mean, wilson
from pytest_llmtune.tuning.budget import cost_bounds, stages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.completions.pricing import PriceBook
    from pytest_llmtune.evaluation import Asking
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.model import Example, ExampleResult
    from pytest_llmtune.suite import Config

__all__ = ["Bench", "Trial", "measured"]

Status = Literal["done", "over_budget", "stopped", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class Trial:
    """What is known of one configuration."""

    number: int
    config: Config
    results: tuple[ExampleResult, ...] = ()
    status: Status = "done"
    spent: Decimal = Decimal(0)

    def scores(self, metric: str) -> list[float]:
        """The metric of every row that was answered."""
        return [float(result.grade.metrics[metric]) for result in self.results if result.grade is not None]

    def score(self, metric: str) -> float | None:
        scores = self.scores(metric)
        return statistics.fmean(scores) if scores else None

    @property
    def costs(self) -> list[Decimal]:
        return [result.cost for result in self.results if result.grade is not None]

    @property
    def inference_cost(self) -> Decimal | None:
        """Mean USD per instance over the rows seen."""
        costs = self.costs
        return sum(costs, Decimal(0)) / len(costs) if costs else None

    def summary(self, metric: str) -> TrialSummary:
        return TrialSummary(
            self.number,
            self.config.to_lock(),
            measured(self.scores(metric)),
            self.inference_cost,
            self.spent,
            self.status,
        )


def measured(scores: Sequence[float]) -> Measured | None:
    """A mean with its 95 % interval; None of nothing."""
    if not scores:
        return None
    yes_no = all(score in (0.0, 1.0) for score in scores)
    interval = wilson(round(sum(scores)), len(scores)) if yes_no else bootstrap_mean(scores)
    return Measured.of(statistics.fmean(scores), interval)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where trials are run: the rows, and who asks, grades and prices."""

    rows: tuple[Example, ...]
    grader: Grader
    source: Asking
    prices: PriceBook
    metric: str
    mode: str
    inference_budget: Decimal | None
    concurrency: int

    async def run(self, trial: Trial, best: float | None) -> Trial:
        """The trial over the rows, as far as it is worth going.

        Args:
            best: the best complete score so far; a trial that can hardly reach it is stopped.

        Raises:
            BudgetExhaustedError: the next request might pass the search's budget.
        """
        for size in stages(len(self.rows)):
            trial = await self.extend(trial, self.rows[len(trial.results) : size])
            status = self._verdict(trial, best)
            if status != "done":
                return replace(trial, status=status)
        return trial

    async def extend(self, trial: Trial, rows: Sequence[Example]) -> Trial:
        """The trial with more rows."""
        if not rows:
            return trial
        found = await evaluate(
            trial.config,
            rows,
            grader=self.grader,
            source=self.source,
            prices=self.prices,
            concurrency=self.concurrency,
        )
        return replace(trial, results=(*trial.results, *found.results), spent=trial.spent + found.cost)

    def _verdict(self, trial: Trial, best: float | None) -> Status:
        scores = trial.scores(self.metric)
        if not scores:
            return "failed"
        if self.inference_budget is not None:
            low, _ = cost_bounds(trial.costs, len(self.rows))
            if low > self.inference_budget:
                return "over_budget"
        if best is not None and len(trial.results) < len(self.rows) and self._hopeless(scores, best):
            return "stopped"
        return "done"

    def _hopeless(self, scores: Sequence[float], best: float) -> bool:
        """Whether the best lies beyond the 95 % interval of what was seen so far."""
        seen = measured(scores)
        if seen is None or seen.low is None or seen.high is None:
            return False
        return seen.high < best if self.mode == "max" else seen.low > best
