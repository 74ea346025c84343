"""FLAML's BlendSearch behind two verbs: suggest a configuration, tell how it did."""

from __future__ import annotations

import itertools
import logging
import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_llmtune.suite.domains import Choice, Constant, Domain, OneOf, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.suite import Config, Space

__all__ = ["BlendSearch", "coarse"]


_PATIENCE = 50
"""Suggestions in a row that may be none (known already) before the space counts as searched through."""
_WORST = 1e6
"""Worse than any metric, yet a number: FLAML's search threads cannot reckon with infinity."""
_COARSE = {"temperature": 0.1, "top_p": 0.1}


@dataclass(slots=True)
class BlendSearch:
    """Proposes configurations of a space.

    Values are rounded (``coarse``), because equal sampling parameters share their samples.
    """

    space: Space
    mode: str
    seed: int = 0
    budget: float | None = None
    """USD for the search."""
    _search: Any = None
    _points: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """What was drawn and not yet told of, in FLAML's own words."""
    _ids: Any = field(default_factory=itertools.count)

    def suggest(self) -> tuple[str, Config] | None:
        """A trial's id and its configuration; None: the space is searched through."""
        search = self._started()
        for _ in range(_PATIENCE):
            trial = f"t{next(self._ids)}"
            point = search.suggest(trial)
            if point is not None:
                self._points[trial] = point
                return trial, self._config(point)
        return None

    def tell(self, trial: str, score: float | None, cost: float) -> None:
        """How a trial did; a score of None stands for a configuration that must not win, in either mode."""
        worst = -_WORST if self.mode == "max" else _WORST
        result = {"score": worst if score is None else score, "cost": cost, "config": self._points.pop(trial)}
        self._search.on_trial_complete(trial, result)

    def _started(self) -> Any:
        if self._search is None:
            with warnings.catch_warnings():
                # flaml complains, when it is imported, about its automl extra, which we do not use
                warnings.filterwarnings("ignore", message=".*automl.*")
                import flaml
                import optuna
            optuna.logging.set_verbosity(optuna.logging.WARNING)  # it greets on standard error
            logging.getLogger("flaml.tune.searcher").setLevel(logging.WARNING)  # its advice is nothing users can take
            self._search = flaml.BlendSearch(
                metric="score",
                mode=self.mode,
                space=self._flaml_space(),
                cost_attr="cost",
                cost_budget=self.budget,
                seed=20 + self.seed,
            )
        return self._search

    def _flaml_space(self) -> dict[str, Any]:
        from flaml import tune

        branches = [
            {"model": model, **{name: _flaml(domain) for name, domain in self.space.for_model(model).items()}}
            for model in self.space.models
        ]
        space: dict[str, Any] = {"template": tune.choice(list(range(len(self.space.templates))))}
        return space | ({"params": tune.choice(branches)} if len(branches) > 1 else branches[0])

    def _config(self, point: Mapping[str, Any]) -> Config:
        drawn = {**point}
        template = self.space.templates[drawn.pop("template")]
        drawn |= drawn.pop("params", {})
        domains = self.space.for_model(drawn["model"])
        values = {name: _value(name, domain, drawn[name]) for name, domain in domains.items()}
        return self.space.config({"model": drawn["model"], **values}, template)


def _flaml(domain: Domain) -> Any:
    from flaml import tune

    if isinstance(domain, Choice):
        return tune.choice(list(range(len(domain.options))))  # an option may be a list, which FLAML cannot hash
    if isinstance(domain, OneOf):
        return tune.choice([{name: _flaml(inner) for name, inner in branch.items()} for branch in domain.branches])
    if isinstance(domain, Constant):
        return 0
    assert isinstance(domain, Range)  # noqa: S101  # the domains are these four
    plain = domain.to_plain()
    [(word, bounds)] = plain.items()
    return getattr(tune, word)(*bounds)


def _value(name: str, domain: Domain, drawn: Any) -> Any:
    if isinstance(domain, Constant):
        return domain.value
    if isinstance(domain, Choice):
        return domain.options[int(drawn)]
    if isinstance(domain, OneOf):
        inner = next(branch for branch in domain.branches if branch.keys() == drawn.keys())
        return {key: _value(key, inner[key], value) for key, value in drawn.items()}
    assert isinstance(domain, Range)  # noqa: S101  # the domains are these four
    return coarse(name, domain, drawn)


def coarse(name: str, domain: Range, value: float) -> float:
    """A value as fine as the scores of some ten rows can tell apart: equal sampling parameters share their samples."""
    if domain.whole:
        found: float = int(value)
        if domain.logarithmic and value > 16:
            found = round(2 ** (round(math.log2(value) * 2) / 2))
    elif name in _COARSE:
        found = round(round(value / _COARSE[name]) * _COARSE[name], 6)
    else:
        found = float(value)
    return found if domain.contains(found) else value
