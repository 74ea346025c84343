"""A study: tune a suite and say what was found."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.functions import qualified_name
from pytest_llmtune._util.jsonhash import digest
from pytest_llmtune._util.text import counted, dollars, number, per_thousand
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.grading import Grader, check_metric, judges_of
from pytest_llmtune.guard.evaluation import Completer, mean
from pytest_llmtune.guard.lockfile import StudySummary, TrialSummary
from pytest_llmtune.suite.domains import models_of
from pytest_llmtune.tuning import selection
from pytest_llmtune.tuning.allocation import Allocator, Candidate, Trial
from pytest_llmtune.tuning.cascades import Cascade, best_cascade, cascade_reserve, may_cascade, prepare
from pytest_llmtune.tuning.constraints import constraints_of
from pytest_llmtune.tuning.costs import Costs, TaskCosts
from pytest_llmtune.tuning.journal import StudyLog
from pytest_llmtune.tuning.loop import Search, confirm_cost, confirm_reserve
from pytest_llmtune.tuning.prompt_rounds import PromptRounds, lessons_of, space_with_shots
from pytest_llmtune.tuning.proposals import Proposals
from pytest_llmtune.tuning.reuse import AnswerReuse
from pytest_llmtune.tuning.samples import Pool, Scorer
from pytest_llmtune.tuning.surrogate import Encoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_llmtune.data.split import Split
    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.suite import Config, Suite
    from pytest_llmtune.types import Listener


def interrupted_early(search: Search, log: StudyLog) -> str:
    """Message after Ctrl-C if there is nothing to choose from."""
    paid = _paid_now(search.ledger.spent - search.ledger.uncertain, log)
    answers = f"What was answered, for {dollars(paid)}, is kept: " if paid else ""
    return (
        f"{search.suite.name}: the search was interrupted before any configuration could be chosen, and nothing was "
        f"written. {answers}pytest --llm-tune goes on"
    )


def best_so_far(suite: Suite, study: Study) -> str:
    """Message after Ctrl-C if the best has not answered all rows of the guard."""
    score = study.summary.tuning
    value = f"{suite.metric} {number(score.value)} on the tuning rows" if score else "not judged yet"
    cost = f", about {per_thousand(study.cost)}" if study.cost else ""
    return (
        f"{suite.name}: the search was interrupted, and nothing was written. Best so far: trial {study.summary.winner}, "
        f"{study.winner.label}: {value}{cost}. What was answered, for {dollars(study.paid)}, is kept: pytest --llm-tune "
        "goes on"
    )


def no_winner(search: Search) -> str:
    """Why no configuration can win, and what to change."""
    suite, race = search.suite, search.race
    if not any(trial.answers for trial in search.trials):
        own = search.bound == "optimization_budget"
        what = f"what is left of {search.bound}"
        if own and suite.optimization_budget is not None:
            what = f"the optimization budget of {dollars(suite.optimization_budget)}"
        arms = (trial.arm for trial in race.trials)
        least = min((race.pool.worst(arm, race.order[0], arm.family.counts[0]) for arm in arms), default=Decimal(0))
        once = f"one request at its worst, {dollars(least)}" if least else "the first call of a run at its worst"
        return (
            f"{suite.name}: {what} does not pay for {once}; raise it: "
            f"{search.bound}=..., or allow shorter answers: max_tokens=..."
        )
    if all(trial.out == "failed" for trial in search.trials):
        errors = (cell.error for cell in race.pool.cells.values() if cell.error)
        return f"{suite.name}: no configuration could be completed; the first error: {next(errors, 'none')}"
    costs = [race.costs.estimate(trial.arm, trial.arm.family.counts[0]) for trial in search.trials]
    cheapest = min((cost.mean for cost in costs if cost is not None), default=0.0)
    return (
        f"{suite.name}: none of {counted(len(search.trials), 'configuration')} tried is within the inference budget of "
        f"{per_thousand(suite.inference_budget or 0)} (the cheapest costs about {dollars(1000 * cheapest, 3)}); raise the budget or "
        "widen the space"
    )


_RUNNERS_UP = 50
INTERRUPTED = "interrupted"
"""``stopped_by`` of a search ended by Ctrl-C."""
_INTERRUPTED_NOTE = (
    "the search was interrupted; the best so far was taken. What was answered is kept: pytest --llm-tune goes on"
)


@dataclass(frozen=True, slots=True)
class Contender:
    """A runner-up."""

    config: Config
    trial: int
    """Its number."""
    scores: tuple[float, ...]
    """Scores on the tuning rows."""
    cost: float | None
    """Estimated USD per instance."""


@dataclass(frozen=True, slots=True)
class Study:
    """Result of a search."""

    winner: Config
    summary: StudySummary
    cost: float | None = None
    """Estimated USD per instance of the winner."""
    others: tuple[Contender, ...] = ()
    """Runners-up, best first, in case the winner exceeds the inference budget."""
    notes: tuple[str, ...] = ()
    paid: Decimal = Decimal(0)
    """USD paid by this run; ``summary.spent`` is the cost of the study over all its runs."""

    @property
    def trials(self) -> tuple[TrialSummary, ...]:
        """All trials, in order of start."""
        return self.summary.trials

    @property
    def best_result(self) -> TrialSummary:
        """The winner's trial."""
        return next(trial for trial in self.trials if trial.number == self.summary.winner)

    def won_by(self, other: Contender, why: str) -> Study:
        """The study with another winner, without the first one's scores."""
        summary = replace(self.summary, winner=other.trial, tuning=selection.measured(other.scores), heldout=None)
        return replace(self, winner=other.config, cost=other.cost, summary=summary, notes=(*self.notes, why))


async def tune(
    suite: Suite,
    split: Split,
    *,
    grader: Grader,
    source: Completer,
    prices: PriceBook,
    ledger: Ledger,
    listen: Listener = lambda _: None,
    concurrency: int = 32,
    log: StudyLog | None = None,
    reuse: AnswerReuse | None = None,
) -> Study:
    """Search the suite's space on the split's tuning rows.

    Of the test rows only the prompts are used: their lengths are part of the guard's cost.

    Args:
        source: sends requests; its spending is reserved in ``ledger``, whose limit is the optimization budget.
        log: payments of a killed run of the same study.
        reuse: answers of other searches.

    Raises:
        LLMTuneError: no configuration is within the inference budget, or none could be judged.
        EndpointError: no request of a model can succeed.
        CancelledError: with a message, if no configuration can be chosen yet; otherwise the best so far is returned.
    """
    log = log or StudyLog()
    ledger.spent += log.spent_earlier
    rows = list(split.tune) if split.reused else [*split.tune, *split.test]
    scorer = Scorer(grader, suite.metric, frozenset(one.metric for one in constraints_of(suite)))
    pool = Pool(rows, source, prices, scorer, log, len(split.tune), suite.seed, reuse or AnswerReuse())
    search, written = _search(suite, split, pool, ledger=ledger, listen=listen, concurrency=concurrency)
    stopped_by = await _searched(search, written, log)
    found = _found(search, written, stopped_by, split)
    summary = found.summary
    for trial in summary.trials:
        score = None if trial.score is None else trial.score.value
        log.write({"trial": trial.number, "config": trial.config, "score": score, "status": trial.status})
    if stopped_by != INTERRUPTED:
        log.write({"finished": stopped_by, "spent": str(summary.spent), "winner": summary.winner})
    notes = (_INTERRUPTED_NOTE if stopped_by == INTERRUPTED else None, summary.note, log.earlier)
    return replace(found, notes=tuple(filter(None, notes)), paid=_paid_now(ledger.spent, log))


def _paid_now(spent: Decimal, log: StudyLog) -> Decimal:
    """USD of this run only; unused answers of an earlier run are not refunded."""
    return max(Decimal(0), spent - log.spent_earlier)


async def _searched(search: Search, written: PromptRounds | None, log: StudyLog) -> str:
    """Run the search and confirm costs; returns what ended it."""
    try:
        await search.begin()
        search.for_cascades = cascade_reserve(search)
        stopped_by = await search.resume()
        if written is not None:
            stopped_by = await written.run(stopped_by)
        if search.for_cascades and not await prepare(search):
            stopped_by = await search.resume()  # with the budget that no cascade needs
        await confirm_cost(search)
    except asyncio.CancelledError:
        if not selection.ranked(search.race, 0.0):
            raise asyncio.CancelledError(interrupted_early(search, log)) from None
        search.spent = max(search.spent, search.ledger.spent - search.ledger.uncertain)
        if (task := asyncio.current_task()) is not None:
            task.uncancel()  # the study ends as usual, with the answers so far
        return INTERRUPTED
    return stopped_by


def _found(search: Search, written: PromptRounds | None, stopped_by: str, split: Split) -> Study:
    best = selection.ranked(search.race)
    if not best:
        raise LLMTuneError(no_winner(search))
    if written is not None and not written.helped:  # without a clear difference, the suite's own prompts win
        best.sort(key=lambda one: one.candidate.trial.arm.template.fingerprint in written.written)
    remaining = search.run_remaining
    if remaining is not None:  # last, those whose rows for the guard the run cannot pay for
        best.sort(key=lambda one: search.guard_usd(one.candidate) > remaining)
    candidates = search.race.candidates(selection.SAFE, min_rows=1)  # with those abandoned, but perhaps cheap
    less_known = selection.by_posterior(search.race, candidates)
    first, *others = map(partial(_contender, search), [*best[: 1 + _RUNNERS_UP], *less_known[:_RUNNERS_UP]])
    summary = _summary(search, written, best, stopped_by, split)
    cascade = best_cascade(search) if may_cascade(search.suite, search.race) else None
    if cascade is not None and (remaining is None or cascade.cost.high(selection.SAFE) * len(split.test) <= remaining):
        return _with_cascade(search, summary, cascade, (first, *others), split)
    return Study(first.config, summary, first.cost, tuple(others))


def _with_cascade(
    search: Search, summary: StudySummary, cascade: Cascade, others: tuple[Contender, ...], split: Split
) -> Study:
    """The study with a cascade as the winner, a separate trial without extra cost."""
    number = len(summary.trials) + 1
    score = selection.measured([cascade.scores[row] for row in sorted(cascade.scores)])
    cost = Decimal(f"{cascade.cost.mean:.8g}")
    trial = TrialSummary(number, cascade.config.to_lock(), score, cost, Decimal(0), "done")
    heldout = selection.predicted(cascade.heldout, len(split.test), search.race.scale())
    summary = replace(summary, trials=(*summary.trials, trial), winner=number, tuning=score, heldout=heldout)
    return Study(cascade.config, summary, cascade.cost.mean, others)


def _search(
    suite: Suite, split: Split, pool: Pool, *, ledger: Ledger, listen: Listener, concurrency: int
) -> tuple[Search, PromptRounds | None]:
    import numpy as np

    tuned = list(range(pool.tuned))
    costs = (TaskCosts if suite.task else Costs)(pool, tuned, range(len(tuned), len(pool.rows)))
    lessons = lessons_of(suite, split)
    shown = [pool.rows[index] for index in lessons]
    space = space_with_shots(suite, shown) if any(suite.space.shots) else suite.space
    order = random.Random(suite.seed).sample(tuned, len(tuned))  # noqa: S311  # repeatable, no secret
    order = [index for index in order if index not in lessons]
    race = Allocator(
        pool,
        costs,
        Encoder(space),
        order,
        1.0 if suite.mode == "max" else -1.0,
        None if suite.inference_budget is None else float(suite.inference_budget),
        np.random.default_rng(suite.seed),
        suite.within if suite.prefer == "cost" else None,
        constraints_of(suite),
    )
    budget = None if suite.optimization_budget is None else float(suite.optimization_budget)
    proposals = Proposals(space, suite.mode, suite.seed, budget)
    search = Search(suite, space, race, proposals, ledger, listen, concurrency, confirm_reserve(suite, race))
    return search, PromptRounds.of(search, lessons)


def _summary(
    search: Search, written: PromptRounds | None, best: Sequence[selection.Ranked], stopped_by: str, split: Split
) -> StudySummary:
    suite, race = search.suite, search.race
    winner = best[0].candidate
    by_trial: dict[int, selection.Ranked] = {}
    for found in [*best, *selection.by_posterior(race, race.candidates(0.0, min_rows=1))]:
        by_trial.setdefault(found.candidate.trial.index, found)
    return StudySummary(
        tuple(_trial(search, trial, by_trial.get(trial.index)) for trial in search.trials),
        search.spent,
        stopped_by,
        suite.optimization_budget,
        suite.inference_budget,
        suite.num_samples,
        suite.seed,
        winner.trial.number,
        selection.measured(selection.scores_of(race, winner, sorted(winner.trial.answers))),
        selection.cross_fitted(race, len(split.test)),
        front=tuple(_trial(search, one.candidate.trial, one) for one in selection.front(race, best[0]))
        if suite.prefer == "pareto"
        else (),
        note="; ".join([*_notes(search, winner), *([written.note()] if written else [])]) or None,
    )


def _notes(search: Search, winner: Candidate) -> Iterator[str]:
    """What to know before comparing the search's scores with the suite's own."""
    suite, race = search.suite, search.race
    if suite.aggregator is not mean:
        own = qualified_name(suite.aggregate) if callable(suite.aggregate) else suite.aggregate
        yield (
            f"the search compared means of {suite.metric}, and its scores are means; "
            f"the suite is judged by aggregate={own}"
        )
    if search.unseen:  # neither the budget nor ``num_samples`` covered them
        pairs = counted(len(suite.space.models) * len(suite.space.templates), "pair")
        yield f"{search.unseen} of {pairs} of model and prompt were never asked"
    if suite.cascade and not may_cascade(suite, race):
        yield (
            "cascade=True has no effect: it needs an inference_budget, a voted metric to be maximized, and a grader that "
            "reads each answer"
        )
    if not race.meets(winner.trial):
        limits = [(one, race.limited(winner.trial, one)) for one in race.constraints]
        values = ", ".join(f"{one.gate.key} ({number(one.value(seen))})" for one, seen in limits if not one.met(seen))
        yield f"no configuration tried meets all limits on the tuning rows; the winner misses {values}"


def _contender(search: Search, found: selection.Ranked) -> Contender:
    trial = found.candidate.trial
    scores = selection.scores_of(search.race, found.candidate, sorted(trial.answers))
    cost = found.candidate.cost
    return Contender(found.candidate.config, trial.number, tuple(scores), cost.mean if cost else None)


def _trial(search: Search, trial: Trial, found: selection.Ranked | None) -> TrialSummary:
    race = search.race
    n = trial.arm.family.counts[0]
    cost = found.candidate.cost if found else race.costs.estimate(trial.arm, n)
    scores = selection.scores_of(race, found.candidate, sorted(trial.answers)) if found else []
    status = "done" if len(trial.answers) == len(race.order) else "stopped"
    return TrialSummary(
        trial.number,
        (found.candidate.config if found else trial.arm.config()).to_lock(),
        selection.measured(scores),
        None if cost is None or not trial.answers else Decimal(f"{cost.mean:.8g}"),
        trial.spent,
        trial.out or (status if found else "over_budget" if race.meets(trial) else "constraint"),
    )


def study_digest(suite: Suite, split: Split, grader: Grader) -> str:
    """Hash that identifies a search: equal ones send the same requests in the same order."""
    rows = [example.id for example in split.tune], [example.id for example in split.test]
    figures = (suite.metric, suite.mode, suite.seed, suite.num_samples)
    budgets = (str(suite.inference_budget), str(suite.optimization_budget))
    parts = [suite.name, suite.space.fingerprint, rows, grader.fingerprint, figures, budgets]
    return digest(parts)


def check_payable(suite: Suite, split: Split, grader: Grader, prices: PriceBook) -> None:
    """Check that every model, including judges and baselines, has a price, and that the grader gives the tuned metric.

    Raises:
        SuiteError: one of these is missing.
    """
    baselines = (baseline.model for baseline in suite.baselines)
    own = {name for model in suite.space.models for name in models_of(suite.space.for_model(model))}
    writer = [suite.space.proposing.model] if suite.space.proposing else []
    prices.check(filter(None, [*suite.space.models, *writer, *sorted(own), *baselines]), judges_of(grader))
    check_metric(grader, split.tune or split.test, suite.metric, where=suite.where_declared)
