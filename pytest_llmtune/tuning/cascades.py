"""Cascades: a cheap configuration votes, and a more expensive one answers the rows without a clear vote.

Both steps' answers are in the pool, so that every number of answers, margin and pair of steps is judged without further
requests (FrugalGPT, Chen et al. 2023; the vote's margin as confidence: Yue et al. 2024). Only the answers that the race did
not need are requested first: those of models that exceed the inference budget by themselves.
"""

from __future__ import annotations

import math
import random
import statistics
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.grading import fits
from pytest_llmtune.suite import Config, Suite
from pytest_llmtune.suite.cascade import CascadeSteps, steps_of
from pytest_llmtune.tuning.allocation import Allocator, Candidate, CellRequest, Trial
from pytest_llmtune.tuning.costs import Cost
from pytest_llmtune.tuning.loop import Search, fitting
from pytest_llmtune.tuning.selection import Ranked, ranked, scores_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_llmtune.tuning.samples import Sample


_ASIDE = Decimal("0.3")
"""Fraction of the optimization budget for answers of the expensive steps."""
_TIMES = 2
"""Factor on the cost of one such answer to every tuning row: other trials are tried too, and each request at its worst."""
_LAST, _WARM = 2, 2
"""Maximum number of trials considered as a last step, and of warm ones as a first step."""
_WARMTH = 0.6
"""Temperature and top_p from which answers differ where a model is not sure."""
_MARGINS = (0.2, 0.4, 0.6, 0.8, 1.0)
_DEEPEST = 5
"""Maximum number of answers requested for each row of a first step."""
_SHARE = 0.8
"""Fraction of the inference budget that the first step alone may cost."""
_LEAST = 0.08
"""Fraction of the rows that the inference budget must be able to escalate."""
_ROWS = 20
"""Minimum number of tuning rows evaluated with both steps, if there are as many."""
_FOLDS = 5
_ORDERS = 32
"""Number of random orders of a row's answers in which its vote is evaluated."""
_WORTH, _DOUBT = 0.02, 0.3
"""Minimum gain of a cascade over the best single configuration, and by how many standard errors it must exceed 0."""
_SURE = 1.64
"""Standard errors that a cascade's cost must be below the inference budget: its share of escalations is an estimate."""


@dataclass(frozen=True, slots=True)
class Cascade:
    """A cascade that might win."""

    config: Config
    cost: Cost
    """USD per instance: the mix of both steps."""
    scores: Mapping[int, float] = field(repr=False)
    """The metric of every tuning row (position in the order) evaluated with both steps."""
    heldout: tuple[float, ...] = field(default=(), repr=False)
    """Of each row the score of the cascade that is best on the other four fifths of the rows."""


def may_cascade(suite: Suite, race: Allocator) -> bool:
    """Whether a cascade may win: votes are compared, and costs matter."""
    voted = race.pool.scorer.by_answer and race.sign > 0
    return bool(suite.cascade) and voted and race.budget is not None


def cascade_reserve(search: Search) -> Decimal:
    """USD of the optimization budget reserved for expensive steps' answers; 0 where no cascade may win."""
    suite, race = search.suite, search.race
    if suite.optimization_budget is None or not may_cascade(suite, race):
        return Decimal(0)
    costs = [one.cost.mean for one in _too_expensive(race, race.trials, steps_of(suite.cascade)) if one.cost]
    return min(_ASIDE * suite.optimization_budget, Decimal(_TIMES * len(race.order) * max(costs, default=0.0)))


async def prepare(search: Search) -> bool:
    """Request the answers that likely steps of cascades lack; returns False if no cascade is promising."""
    race = search.race
    best = ranked(race)
    search.for_cascades = Decimal(0)
    steps = steps_of(search.suite.cascade)
    lasts = _last_steps(race, best[0], steps, hope=1.0) if best else []
    firsts = _first_steps(race, steps)
    if not lasts or not firsts:
        return False
    rows, trials = range(len(race.order)), [one.trial for one in lasts]
    await _request(search, [_smallest(trial, row) for row in rows[: len(rows) // 4] for trial in trials])
    lasts = _last_steps(race, best[0], steps, trials, hope=0.5)[:1]
    if not lasts:
        return False
    await _request(search, [_smallest(lasts[0].trial, row) for row in rows])
    for one in firsts:
        await _request(search, [CellRequest(one.trial, row, min(one.n, _DEEPEST)) for row in rows])
    return True


def _smallest(trial: Trial, row: int) -> CellRequest:
    return CellRequest(trial, row, trial.arm.family.counts[0])


async def _request(search: Search, jobs: Sequence[CellRequest]) -> None:
    """As many of the jobs as the budget pays for."""
    race = search.race
    todo = [job for job in jobs if len(race.pool.cell(job.trial.arm, race.order[job.row]).samples) < job.answers]
    while todo:
        paid_for = fitting(todo, search.worst, search.remaining())[: search.concurrency]
        if not paid_for or not await search.round(paid_for):
            return
        todo = todo[len(paid_for) :]


def _last_steps(
    race: Allocator, best: Ranked, steps: CascadeSteps, among: Sequence[Trial] | None = None, hope: float = 0.0
) -> list[Candidate]:
    """One answer of trials that may be better than the best affordable configuration.

    Args:
        among: trials to choose from; None: all.
        hope: standard errors added to their estimated scores.
    """
    found = _too_expensive(race, race.trials if among is None else among, steps)
    own = best.candidate.trial.arm.region
    better = [one for one, mean in _by_mean(race, found, hope) if mean > race.sign * best.score]
    return [one for one in better if one.trial.arm.region != own][:_LAST]


def _too_expensive(race: Allocator, among: Sequence[Trial], steps: CascadeSteps) -> list[Candidate]:
    """One answer of trials over the inference budget: the race has compared the others with the best already."""
    budget, found = race.budget or math.inf, []
    for trial in among:
        if trial.out in ("failed", "constraint") or (steps.last and trial.arm.model not in steps.last):
            continue
        n = trial.arm.family.counts[0]
        cost = race.costs.estimate(trial.arm, n)
        if cost is not None and cost.mean * _LEAST <= budget < cost.mean and race.meets(trial):
            found.append(Candidate(trial, n, cost))
    return found


def _first_steps(race: Allocator, steps: CascadeSteps) -> list[Candidate]:
    """Trials that leave a part of the inference budget to the last step: the best, and the best warm ones.

    At low temperatures all answers are the same, and their vote does not show how certain it is.
    """
    found: dict[int, Candidate] = {}
    for one in race.candidates(0.0, min_rows=1):
        if steps.first and one.trial.arm.model not in steps.first:
            continue
        if one.limit is None and one.cost is not None and one.cost.mean <= _SHARE * (race.budget or math.inf):
            found[one.trial.index] = one  # numbers of answers grow
    warm = [
        one
        for one in found.values()
        if all(float(one.trial.arm.params.get(name, 1.0)) >= _WARMTH for name in ("temperature", "top_p"))
    ]
    chosen = [one for one, _ in (*_by_mean(race, list(found.values()))[:1], *_by_mean(race, warm)[:_WARM])]
    return list({one.trial.index: one for one in chosen}.values())


def _by_mean(race: Allocator, found: list[Candidate], hope: float = 0.0) -> list[tuple[Candidate, float]]:
    """The best of each model and prompt with its estimated score, best first."""
    if not found:
        return []
    found = race.shortlist(found)
    posterior = race.posterior(found)
    means = posterior.mean + hope * posterior.spread
    order = sorted(range(len(found)), key=lambda index: -float(means[index]))
    seen: dict[tuple[str, str, str], tuple[Candidate, float]] = {}
    for index in order:
        seen.setdefault(found[index].trial.arm.region, (found[index], float(means[index])))
    return list(seen.values())


def best_cascade(search: Search) -> Cascade | None:
    """The best cascade that is safely within the inference budget and better than any single configuration; None: none is."""
    race, suite = search.race, search.suite
    best = ranked(race)
    if not best or race.budget is None:
        return None
    single = best[0].candidate
    rows = sorted(single.trial.answers)
    alone = {row: score for row in rows for score in scores_of(race, single, [row])}
    found, bound = None, 0.0
    affordable = [one for one in _cascades(race, suite, best[0]) if one.cost.within(race.budget, _SURE)]
    for one in affordable:
        shared = [row for row in one.scores if row in alone]
        if len(shared) < min(_ROWS, len(race.order)):
            continue
        gains = [one.scores[row] - alone[row] for row in shared]
        error = math.sqrt((statistics.pvariance(gains) + race.scale() / len(gains)) / len(gains))
        gain = statistics.fmean(gains)
        if gain >= _WORTH and gain - _DOUBT * error > bound:
            found, bound = one, gain - _DOUBT * error
    return found and replace(found, heldout=tuple(_cross_fitted(affordable)))


def _cross_fitted(cascades: Sequence[Cascade]) -> Iterator[float]:
    """Scores without selection bias, as in ``selection.cross_fitted``."""
    for fold in range(_FOLDS):
        best, top = None, -math.inf
        for one in cascades:
            outside = [score for row, score in one.scores.items() if row % _FOLDS != fold]
            if outside and statistics.fmean(outside) > top:
                best, top = one, statistics.fmean(outside)
        if best is not None:
            yield from (score for row, score in best.scores.items() if row % _FOLDS == fold)


def _cascades(race: Allocator, suite: Suite, best: Ranked) -> Iterator[Cascade]:
    enough = min(_ROWS, len(race.order))
    tried = [trial for trial in race.trials if len(trial.answers) >= enough]
    steps = steps_of(suite.cascade)
    fit = cache(fits(steps.accept))
    lasts = _last_steps(race, best, steps, tried)
    for first in _first_steps(race, steps):
        votes = {row: _votes(race, first.trial, row, fit) for row in first.trial.answers}
        for last in lasts:
            for n in last.trial.arm.family.counts[:2]:
                yield from _pairs(race, suite, first.trial, votes, last.trial, n)


def _pairs(  # noqa: PLR0917  # one combination
    race: Allocator,
    suite: Suite,
    first: Trial,
    votes: Mapping[int, Mapping[int, Sequence[tuple[float, bool]]]],
    last: Trial,
    n: int,
) -> Iterator[Cascade]:
    """Every number of answers and margin of one pair of steps."""
    last_cost = race.costs.estimate(last.arm, n)
    answered = {row: cell for row in votes if n in (cell := race.pool.cell(last.arm, race.order[row])).scores}
    if last_cost is None or len(answered) < min(_ROWS, len(race.order)):
        return
    lengths = {  # what an answer's cost is proportional to: tokens, or a task's USD
        row: statistics.fmean(sample.tokens or float(sample.usd) for sample in cell.samples)
        for row, cell in answered.items()
    }
    usual = statistics.fmean(lengths.values()) or 1.0
    steps = steps_of(suite.cascade)
    for count in first.arm.family.counts:
        rows = [row for row in answered if count in votes[row]]
        first_cost = race.costs.estimate(first.arm, count)
        if first_cost is None or len(rows) < min(_ROWS, len(race.order)):
            continue
        for margin in _MARGINS if steps.margin is None else (steps.margin,):
            accepted = {row: [right for lead, right in votes[row][count] if lead >= margin - 1e-9] for row in rows}
            accepted_share = {row: len(accepted[row]) / len(votes[row][count]) for row in rows}
            escalated = math.fsum(1 - accepted_share[row] for row in rows)
            if not 0 < escalated < len(rows):
                continue
            scores = {
                row: sum(accepted[row]) / len(votes[row][count]) + (1 - accepted_share[row]) * answered[row].scores[n]
                for row in rows
            }
            longer = math.fsum((1 - accepted_share[row]) * lengths[row] for row in rows) + 3 * usual
            share = (escalated + 0.5) / (len(rows) + 1)
            usd = last_cost.mean * longer / ((escalated + 3) * usual)
            guessed = usd * math.sqrt(share * (1 - share) * (1 / len(rows) + 1 / max(1, len(race.costs.guard or rows))))
            cost = Cost(first_cost.mean + share * usd, math.hypot(first_cost.error, share * last_cost.error, guessed))
            own, accept = first.arm.config(count), replace(steps.accept, margin=margin)
            config = Config(own.params, own.template, accept, last.arm.config(n)).read_by(suite.grader, suite.cascade)
            yield Cascade(config, cost, scores)


def _votes(race: Allocator, trial: Trial, row: int, fit: Callable[[str], bool]) -> dict[int, list[tuple[float, bool]]]:
    """For each number of answers that a row has: the lead of the most frequent one and whether it is right, by draw."""
    samples = race.pool.cell(trial.arm, race.order[row]).samples
    counts = [count for count in trial.arm.family.counts if count <= len(samples)]
    found: dict[int, list[tuple[float, bool]]] = {count: [] for count in counts}
    rng = random.Random(f"{trial.arm.key}/{row}")  # noqa: S311  # repeatable, no secret
    for _ in range(_ORDERS if len(samples) > 1 else 1):
        order = rng.sample(samples, len(samples))
        for count in counts:
            found[count].append(_vote(order[:count], fit))
    return found


def _vote(samples: Sequence[Sample], fit: Callable[[str], bool]) -> tuple[float, bool]:
    """The lead of the most frequent readable answer, as a share of all answers, and whether it is right."""
    seen: dict[str, int] = {}
    right: dict[str, bool] = {}
    for sample in samples:
        if sample.answer is not None and sample.answer.key is not None:
            seen[sample.answer.key] = seen.get(sample.answer.key, 0) + 1
            right.setdefault(sample.answer.key, sample.answer.correct)
    if not seen or not all(fit(sample.text) for sample in samples):
        return -1.0, False  # no answer could be read, or one is refused: never accepted
    ordered = sorted(seen.items(), key=lambda item: -item[1])
    lead = ordered[0][1] - (ordered[1][1] if len(ordered) > 1 else 0)
    return lead / len(samples), right[ordered[0][0]]
