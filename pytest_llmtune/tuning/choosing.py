"""The winner is chosen honestly: leaders are judged again on rows that the search did not see."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from pytest_llmtune.tuning.budget import cost_bounds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from pytest_llmtune.tuning.trial import Trial

__all__ = ["affordable", "choose", "leaders", "smoothed"]

_PRIOR = 4.0
"""How many rows' worth of evidence a configuration's neighbours are."""


def affordable(trial: Trial, budget: Decimal | None) -> bool:
    """Whether the trial's cost per instance stays within the budget, with a margin for rows not seen."""
    if not trial.costs:
        return False
    _, high = cost_bounds(trial.costs, 4 * len(trial.costs))
    return budget is None or high <= budget


def _nearness(one: Trial, other: Trial) -> float:
    """From 0 to 1: how much the score of one configuration says about another's."""
    a, b = one.config, other.config
    if a.model != b.model:
        return 0.0
    same_prompt = 1.0 if a.template.fingerprint == b.template.fingerprint else 0.3
    heat = [float(c.params.get("temperature", c.params.get("top_p", 1.0))) for c in (a, b)]
    return same_prompt * math.exp(-abs(heat[0] - heat[1]) / 0.5 - abs(math.log(a.n / b.n)) / 2)


def smoothed(trial: Trial, trials: Sequence[Trial], metric: str) -> float:
    """The trial's score, pulled towards its neighbours': 20 yes/no scores alone pick the luckiest."""
    own = trial.scores(metric)
    weights = [
        (_nearness(trial, other) * len(scores), statistics.fmean(scores))
        for other in trials
        if other is not trial and (scores := other.scores(metric))
    ]
    total = sum(weight for weight, _ in weights)
    if not total:
        return statistics.fmean(own)
    neighbours = sum(weight * score for weight, score in weights) / total
    strength = _PRIOR * min(1.0, total / (_PRIOR * len(own)))
    return (sum(own) + strength * neighbours) / (len(own) + strength)


def leaders(trials: Sequence[Trial], metric: str, mode: str, budget: Decimal | None, count: int) -> list[Trial]:
    """The best affordable trials that saw every row, best first."""
    sign = 1 if mode == "max" else -1
    fit = [trial for trial in trials if trial.status == "done" and affordable(trial, budget)]
    return sorted(fit, key=lambda trial: -sign * smoothed(trial, trials, metric))[:count]


def choose(judged: Sequence[Trial], trials: Sequence[Trial], metric: str, mode: str) -> Trial:
    """The best of the leaders; of those that cannot be told apart from it, the cheapest.

    Cannot be told apart: within half a standard error, so that no real success is given away for cents.
    """
    sign = 1 if mode == "max" else -1
    scores = {trial.number: sign * smoothed(trial, trials, metric) for trial in judged}
    best = max(judged, key=lambda trial: scores[trial.number])
    values = best.scores(metric)
    error = statistics.pstdev(values) / math.sqrt(len(values))
    close = [trial for trial in judged if scores[trial.number] >= scores[best.number] - error / 2]
    return min(close, key=lambda trial: (trial.inference_cost or 0, trial.number))
