"""Select the winner, with an interval that accounts for the selection."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune.guard.evaluation import interval_of_mean
from pytest_llmtune.guard.lockfile import Measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.tuning.allocation import Allocator, Candidate


SAFE = 1.0
"""Standard errors that a winner's cost must be below the inference budget."""
_ENOUGH = 10
"""Minimum number of rows of a winner, if there are that many."""
_ALIKE = 0.01
"""Relative to the metric's standard deviation over rows: closer scores count as equal, and the cheapest wins."""
_CONFIDENT = 0.5
"""Standard errors of its distance from the best within which a cheaper winner must be: 69 % certain."""
_CHEAPER = 0.05
"""Fraction of cost that the next point of the front must save."""
_FOLDS = 5
_Z = 2.25
"""Standard errors on each side of an interval: as the folds' winners differ, 1.96 covered 89 % in simulated searches."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate and the posterior of its score."""

    candidate: Candidate
    score: float
    """In the metric's own unit and direction."""
    error: float

    @property
    def usd(self) -> float:
        """Estimated cost per instance; infinite where it is unknown."""
        return self.candidate.cost.mean if self.candidate.cost else math.inf


def ranked(race: Allocator, z: float = SAFE, without: frozenset[int] = frozenset()) -> list[Ranked]:
    """Possible winners, best first: within the inference budget by ``z`` errors, with enough rows.

    If none is that certainly affordable, those that probably are.
    """
    enough = min(_ENOUGH, len(race.order))
    for margin, min_rows in ((z, enough), (z, 1), (0.0, 1)):
        if candidates := race.candidates(margin, min_rows=min_rows):
            return _cheapest_first(race, _fewest_first(race, by_posterior(race, candidates, without), without), without)
    return []


def _cheapest_first(race: Allocator, found: list[Ranked], without: frozenset[int]) -> list[Ranked]:
    """If cost is preferred: first the cheapest that is as good as the best, less the tolerance."""
    if race.within is None:
        return found
    losses = race.posterior([one.candidate for one in found], without).behind(-_CONFIDENT, 0)
    as_good = [one for one, loss in zip(found, losses, strict=True) if loss <= race.within]  # the best loses nothing
    cheapest = min(as_good, key=lambda one: one.usd)
    return [cheapest, *(one for one in found if one is not cheapest)]


def front(race: Allocator, winner: Ranked | None = None) -> list[Ranked]:
    """The Pareto front of score and cost, best first: the winner, and what costs less, by score.

    Only votes that were scored are on it. A grader that judges all answers together scores the smallest and the largest;
    each vote between them would be shown with the smallest one's score, and with a higher cost.

    Args:
        winner: the configuration that is locked; None: the best by its estimated score.
    """
    found = [] if winner is None else [winner]
    candidates = race.candidates(SAFE, min_rows=1)  # cheap trials that are not the best have few rows
    known = by_posterior(race, [one for one in candidates if _scored(race, one)])
    for one in sorted(known, key=lambda each: (-race.sign * each.score, each.usd)):
        if not found or one.usd < found[-1].usd * (1 - _CHEAPER) or found[-1].candidate.cost is None:
            found.append(one)
    return found


def _scored(race: Allocator, candidate: Candidate) -> bool:
    """Whether a row of the candidate was scored with its own number of answers."""
    trial = candidate.trial
    return candidate.limit is not None or any(
        candidate.n in race.pool.cell(trial.arm, race.order[row]).scores for row in trial.answers
    )


def _fewest_first(race: Allocator, found: list[Ranked], without: frozenset[int]) -> list[Ranked]:
    """Prefer fewer answers of the best arm if no row got worse, because all its answers agree.

    Only rows with as many answers as the best candidate's vote can show that; if they are few, the posterior decides.
    """
    best = found[0].candidate
    rows = [row for row in sorted(best.trial.answers) if row not in without]
    cells = [race.pool.cell(best.trial.arm, race.order[row]) for row in rows]
    enough = min(_ENOUGH, len(race.order) - len(without))

    def as_good(one: Ranked) -> bool:
        n = one.candidate.n
        both = [cell.scores for cell in cells if n in cell.scores and best.n in cell.scores]
        return len(both) >= enough and all(race.sign * (scores[n] - scores[best.n]) >= 0 for scores in both)

    own = [one for one in found if one.candidate.trial is best.trial and one.candidate.limit == best.limit]
    least = min((one for one in own if as_good(one)), key=lambda one: one.candidate.n, default=found[0])
    return [least, *(one for one in found if one is not least)]


def by_posterior(
    race: Allocator, candidates: Sequence[Candidate], without: frozenset[int] = frozenset()
) -> list[Ranked]:
    """Best first; of indistinguishable ones, the cheapest."""
    if not candidates:
        return []
    candidates = race.shortlist([*candidates])
    posterior = race.posterior(candidates, without)
    step = _ALIKE * math.sqrt(race.scale())
    top = float(posterior.mean.max())

    def rank(index: int) -> tuple[float, float, int]:
        behind, cost = top - float(posterior.mean[index]), candidates[index].cost
        return max(0.0, behind - step), cost.mean if cost else 0.0, index

    order = sorted(range(len(candidates)), key=rank)
    return [Ranked(candidates[i], race.sign * float(posterior.mean[i]), float(posterior.spread[i])) for i in order]


def scores_of(race: Allocator, candidate: Candidate, rows: Sequence[int]) -> list[float]:
    """The metric per row (position in the order) for rows with at least n answers of the candidate's arm."""
    found = []
    for row in rows:
        cell = race.pool.cell(candidate.trial.arm, race.order[row])
        if candidate.limit is not None:
            cut = race.pool.scorer.cut(cell.samples, candidate.limit)
            found += [] if cut is None else [cut]
        else:
            fitting = [n for n in cell.scores if n <= candidate.n]
            found += [cell.scores[max(fitting)]] if fitting else []
    return found


def observed(race: Allocator, candidate: Candidate) -> float | None:
    """Mean of the metric over the rows of the candidate's arm."""
    scores = scores_of(race, candidate, sorted(candidate.trial.answers))
    return statistics.fmean(scores) if scores else None


def measured(scores: Sequence[float]) -> Measured | None:
    """A mean with its 95 % interval; None without values."""
    return Measured.of(statistics.fmean(scores), interval_of_mean(scores)) if scores else None


def cross_fitted(race: Allocator, guarded: int) -> Measured | None:
    """Predicted score of the winner on the guard's rows, with a 95 % prediction interval.

    Each fifth of the rows is scored with the configuration that wins on the other four fifths (cross-validation, Stone
    1974), which removes the selection bias. The interval includes the variance of both sets of rows.

    Args:
        guarded: number of rows of the guard.
    """
    positions = range(len(race.order))
    scores: list[float] = []
    for fold in range(min(_FOLDS, len(race.order))):
        inside = [row for row in positions if row % _FOLDS == fold]
        best = ranked(race, without=frozenset(inside))
        scores += next(filter(None, (scores_of(race, found.candidate, inside) for found in best)), [])
    return predicted(scores, guarded, race.scale())


def predicted(scores: Sequence[float], rows: int, scale: float) -> Measured | None:
    """Mean of the scores, with a prediction interval for the mean of ``rows`` other rows; None without scores.

    For scores from 0 to 1 a row is added at each end (Laplace's rule): twenty correct rows of twenty do not guarantee the
    next twenty.

    Args:
        scale: prior variance of the metric over rows.
    """
    if not scores:
        return None
    rate = min(scores) >= 0 and max(scores) <= 1
    seen = [*scores, 0.0, 1.0] if rate else scores
    variance = statistics.pvariance(seen) + (0.0 if rate else scale / len(scores))
    half = _Z * math.sqrt(variance * (1 / len(scores) + 1 / max(1, rows)))
    low, high = statistics.fmean(seen) - half, statistics.fmean(seen) + half
    return Measured(statistics.fmean(scores), max(0.0, low) if rate else low, min(1.0, high) if rate else high)
