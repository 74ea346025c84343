"""The search as a whole: trials until a bound is reached, then the winner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune import events
from pytest_llmtune.completions.ledger import Ledger
from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError
from pytest_llmtune.lock import StudySummary
from pytest_llmtune.tuning.blendsearch import BlendSearch
from pytest_llmtune.tuning.budget import Regions
from pytest_llmtune.tuning.choosing import affordable, choose, leaders
from pytest_llmtune.tuning.trial import Bench, Trial, measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.completions.pricing import PriceBook
    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.model import Example
    from pytest_llmtune.suite import Config, Suite

__all__ = ["Study", "tune"]

_LEADERS = 5
_FEW_ROWS = 12
"""Below this many rows none are held out: there would be nothing left to search with."""
_SEARCH_SHARE = Decimal("0.7")
"""Of the optimization budget; the rest tells the leaders apart."""
_BARREN = 60
"""Proposals in a row that are pruned without a request before the search counts as done."""


@dataclass(frozen=True, slots=True)
class Study:
    """What a search found."""

    winner: Config
    trials: tuple[Trial, ...]
    summary: StudySummary
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Search:
    suite: Suite
    bench: Bench
    ledger: Ledger
    listen: events.Listener
    trials: list[Trial]
    regions: Regions
    best: float | None = None

    async def run(self) -> str:
        """Trials until a bound is reached; returns which."""
        suite = self.suite
        if suite.space.is_constant:
            await self._try(1, suite.space.constant)
            return "constant space"
        search = BlendSearch(suite.space, suite.mode, suite.seed, suite.optimization_budget)
        barren = 0
        while suite.num_samples < 0 or len(self.trials) < suite.num_samples:
            suggested = search.suggest()
            if suggested is None or barren >= _BARREN:
                return "converged"
            trial_id, config = suggested
            if self.regions.is_invalid(config):
                barren += 1
                search.tell(trial_id, None, 0.0)
                continue
            barren = 0
            trial = await self._try(len(self.trials) + 1, config)
            score = trial.score(suite.metric) if trial.status in ("done", "stopped") else None
            search.tell(trial_id, score, float(trial.spent))
        return "num_samples"

    async def _try(self, number: int, config: Config) -> Trial:
        metric = self.suite.metric
        trial = await self.bench.run(Trial(number, config), self.best)
        if trial.status == "over_budget":
            self.regions.mark_invalid(config)
        self.trials.append(trial)
        score = trial.score(metric)
        if trial.status == "done" and score is not None and affordable(trial, self.suite.inference_budget):
            pick = max if self.suite.mode == "max" else min
            self.best = score if self.best is None else pick(self.best, score)
        self.listen(
            events.TrialDone(
                self.suite.name,
                number,
                config.label,
                score,
                trial.inference_cost,
                self.ledger.spent,
                self.best,
                trial.status,
            )
        )
        return trial


def _held_out(rows: Sequence[Example]) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Two thirds to search with, one third to tell the leaders apart on."""
    cut = len(rows) if len(rows) < _FEW_ROWS else round(len(rows) * 2 / 3)
    return tuple(rows[:cut]), tuple(rows[cut:])


async def tune(
    suite: Suite,
    rows: Sequence[Example],
    *,
    grader: Grader,
    source: LiveSource,
    prices: PriceBook,
    ledger: Ledger,
    listen: events.Listener = lambda _: None,
    concurrency: int = 16,
) -> Study:
    """Search the suite's space on ``rows``.

    The optimization budget is ``ledger``'s limit: dollars are reserved in it, at worst-case cost, before they are spent.

    Raises:
        LLMTuneError: no configuration is within the inference budget, or none could be judged.
    """
    seen, held = _held_out(rows)
    bench = Bench(seen, grader, source, prices, suite.metric, suite.mode, suite.inference_budget, concurrency)
    search = _Search(suite, bench, ledger, listen, [], Regions())
    share = None if ledger.limit is None or not held else ledger.limit * _SEARCH_SHARE
    source.ledger = Ledger(share, parent=ledger, name="optimization_budget")
    notes: tuple[str, ...] = ()
    try:
        stopped_by = await search.run()
    except BudgetExhaustedError:
        stopped_by = "optimization_budget"
    except asyncio.CancelledError:
        if not leaders(search.trials, suite.metric, suite.mode, suite.inference_budget, 1):
            raise
        stopped_by, notes = "interrupted", ("the search was interrupted; the best so far was taken",)
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
    source.ledger = ledger
    judged = await _judged_again(search, held if stopped_by != "interrupted" else ())
    winner = choose(judged, search.trials, suite.metric, suite.mode)
    return Study(winner.config, tuple(search.trials), _summary(search, winner, len(seen), stopped_by), notes)


async def _judged_again(search: _Search, held: Sequence[Example]) -> list[Trial]:
    suite = search.suite
    found = leaders(search.trials, suite.metric, suite.mode, suite.inference_budget, _LEADERS)
    if not found:
        raise LLMTuneError(_why_none(search))
    judged = []
    for trial in found:
        try:
            judged.append(await search.bench.extend(trial, held))
        except BudgetExhaustedError:
            break
    fit = [trial for trial in judged if affordable(trial, suite.inference_budget)]
    for trial in judged:
        search.trials[trial.number - 1] = replace(trial, status="done" if trial in fit else "over_budget")
    return fit or found[:1]


def _why_none(search: _Search) -> str:
    suite = search.suite
    if not search.trials:
        return (
            f"{suite.name}: the optimization budget of {suite.optimization_budget} USD does not pay for one trial; "
            "raise it: optimization_budget=..."
        )
    cheapest = min((trial.inference_cost for trial in search.trials if trial.inference_cost is not None), default=None)
    return (
        f"{suite.name}: none of {len(search.trials)} configurations tried is within the inference budget of "
        f"{suite.inference_budget} USD per instance (the cheapest cost {cheapest}); raise the budget or widen the space"
    )


def _summary(search: _Search, winner: Trial, seen: int, stopped_by: str) -> StudySummary:
    suite = search.suite
    scores = winner.scores(suite.metric)
    return StudySummary(
        tuple(trial.summary(suite.metric) for trial in search.trials),
        search.ledger.spent,
        stopped_by,
        suite.optimization_budget,
        suite.inference_budget,
        suite.num_samples,
        suite.seed,
        winner.number,
        measured(scores[:seen]),
        measured(scores[seen:]),
    )
