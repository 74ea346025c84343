"""What the tuner is held against, with the same dollars and the same answers: each knows the prices, none pools its samples."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from pytest_llmtune.suite import Config

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmtune.grading import Grader
    from pytest_llmtune.suite import Suite

__all__ = ["PEERS", "Spent"]

_HEATS = (0.0, 0.3, 0.7, 1.0)
_COUNTS = (1, 2, 3, 5, 8, 10)


class Spent(Exception):  # noqa: N818  # an end, no error
    """The dollars are used up."""


@dataclass
class Asked:
    """One configuration on the rows so far."""

    config: Config
    scores: list[float] = field(default_factory=list)
    usd: list[float] = field(default_factory=list)

    @property
    def score(self) -> float:
        return sum(self.scores) / max(1, len(self.scores))

    @property
    def cost(self) -> float:
        return sum(self.usd) / max(1, len(self.usd))


@dataclass
class Desk:
    """Asks, grades and pays; raises ``Spent`` where the next request might pass the budget."""

    suite: Suite
    rows: list[dict[str, Any]]
    grader: Grader
    complete: Callable[[Any], tuple[list[str], float]]
    """A request to its texts and USD."""
    left: float

    def ask(self, one: Asked, rows: int) -> None:
        for row in self.rows[len(one.scores) : rows]:
            if self.left <= 0:
                raise Spent
            texts, usd = self.complete(one.config.request(row))
            self.left -= usd
            one.scores.append(self.grader.grade(texts, row).metrics[self.suite.metric])
            one.usd.append(usd)

    @property
    def grid(self) -> list[Config]:
        space = self.suite.space
        most = max(1000, 1) - 1
        return [
            Config({"model": model, "temperature": heat, "n": n, "max_tokens": most}, template)
            for model, template, heat, n in product(space.models, space.templates, _HEATS, _COUNTS)
        ]

    def affordable(self, one: Asked) -> bool:
        budget = self.suite.inference_budget
        return budget is None or one.cost <= float(budget)


def _chosen(desk: Desk, asked: list[Asked]) -> Config | None:
    """The best of those that were asked the most rows."""
    fitting = [one for one in asked if one.scores and desk.affordable(one)]
    most = max((len(one.scores) for one in fitting), default=0)
    return (
        max((one for one in fitting if len(one.scores) == most), key=lambda one: one.score).config if fitting else None
    )


def halving(desk: Desk, seed: int) -> Config | None:
    """Sequential halving (Karnin et al. 2013) over 64 configurations; what is over budget on the rows seen is dropped."""
    grid = desk.grid
    arms = [Asked(config) for config in random.Random(seed).sample(grid, min(64, len(grid)))]
    every, whole, rounds = list(arms), desk.left, 6
    for number in range(rounds):
        reserve = desk.left - whole / rounds
        try:
            for rows in range(1, len(desk.rows) + 1):
                for one in arms:
                    if desk.left <= (reserve if number < rounds - 1 else 0):
                        raise Spent  # noqa: TRY301  # ends the round
                    if len(one.scores) < rows and not (
                        len(one.scores) >= 2 and one.cost > 1.5 * float(desk.suite.inference_budget or 1e9)
                    ):
                        desk.ask(one, rows)
        except Spent:
            pass
        arms = [one for one in arms if desk.affordable(one)] or arms
        arms = sorted(arms, key=lambda one: -one.score)[: max(1, -(-len(arms) // 2))]
    return _chosen(desk, arms) or _chosen(desk, every)


def tpe(desk: Desk, seed: int) -> Config | None:
    """Optuna's TPE, each trial pruned by successive halving at 5, 10, 20 and 40 rows."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, asked = desk.suite.space, []
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    )

    def objective(trial: Any) -> float:
        model = trial.suggest_categorical("model", list(space.models))
        template = space.templates[trial.suggest_categorical("prompt", list(range(len(space.templates))))]
        heat, n = round(trial.suggest_float("temperature", 0, 1), 1), trial.suggest_int("n", 1, 10)
        one = Asked(Config({"model": model, "temperature": heat, "n": n, "max_tokens": 999}, template))
        asked.append(one)
        for step, rows in enumerate((5, 10, 20, len(desk.rows)), 1):
            desk.ask(one, rows)
            if not desk.affordable(one):
                return -1.0
            trial.report(one.score, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return one.score

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(Spent):
            study.optimize(objective, n_trials=2000)
    return _chosen(desk, asked)


def dearest(desk: Desk, seed: int) -> Config | None:  # noqa: ARG001
    """No search: of the models whose one answer is affordable the dearest, T = 0, with as many votes as the budget pays for."""
    space, budget, found = desk.suite.space, float(desk.suite.inference_budget or 1e9), []
    for model in space.models:
        one = Asked(Config({"model": model, "temperature": 0.0, "n": 1, "max_tokens": 999}, space.templates[0]))
        with suppress(Spent):  # of so many models that the money does not reach all: among those that it reaches
            desk.ask(one, 3)
        if one.scores and one.cost <= budget:
            found.append(one)
    if not found:
        return None
    best = max(found, key=lambda one: one.cost)
    return replace(best.config, params={**best.config.params, "n": min(10, max(1, int(budget / best.cost)))})


PEERS: dict[str, Callable[[Desk, int], Config | None]] = {"halving": halving, "tpe": tpe, "dearest": dearest}
