"""Which arms to try: every model with every prompt first, then what FLAML's BlendSearch suggests."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_llmtune.suite.domains import Choice, Constant, OneOf, QUniform, Range
from pytest_llmtune.tuning.arms import LENGTHS, Arm, families_of
from pytest_llmtune.tuning.proposals import BlendSearch, coarse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_llmtune.suite import Config, Space
    from pytest_llmtune.suite.domains import Domain
    from pytest_llmtune.tuning.arms import Family

__all__ = ["Proposals", "arm_space"]


_POOLED = ("n", *LENGTHS)
"""What an arm's samples serve all values of."""
_FIRST = 60
"""Pairs of model and prompt to begin with, at most."""
_PATIENCE = 30
"""Proposals in a row that may be known already before the space counts as searched through."""
_WARM = 1.0
"""The highest temperature to begin with: beyond it answers soon turn to noise."""


def arm_space(space: Space) -> Space:
    """The space without the choices that need no samples of their own."""

    def kept(domains: Mapping[str, Domain]) -> dict[str, Domain]:
        return {name: domain for name, domain in domains.items() if name not in _POOLED}

    return replace(
        space,
        parameters=kept(space.parameters),
        conditions={model: kept(domains) for model, domains in space.conditions.items()},
    )


@dataclass(slots=True)
class Proposals:
    """New arms, none twice."""

    space: Space
    mode: str
    seed: int = 0
    budget: float | None = None
    """USD for the search."""
    _families: Mapping[str, Family] = field(init=False)
    _first: Iterator[Config] = field(init=False)
    _seen: set[str] = field(default_factory=set)
    _search: BlendSearch | None = None
    _open: dict[str, str] = field(default_factory=dict)
    """Arm to FLAML's name of the suggestion."""
    _told: dict[str, tuple[float | None, float]] = field(default_factory=dict)
    _done: bool = False

    def __post_init__(self) -> None:
        self._families = families_of(self.space)
        small = arm_space(self.space)
        self._first = _first_ones(small, random.Random(self.seed))  # noqa: S311  # repeatable, no secret
        if not small.is_constant:
            self._search = BlendSearch(small, self.mode, self.seed, self.budget)

    def next(self) -> Arm | None:
        """An arm that was not proposed yet; None: there is none left."""
        for config in self._first:
            if (arm := self._new(config)) is not None:
                return arm
        misses = 0
        while self._search is not None and not self._done:
            suggested = self._search.suggest()
            if suggested is None or misses >= _PATIENCE:
                self._done = True
                break
            name, config = suggested
            if (arm := self._new(config)) is not None:
                self._open[arm.key] = name
                return arm
            self._search.tell(name, *self._told.get(self._arm(config).key, (None, 0.0)))
            misses += 1
        return None

    def tell(self, arm: Arm, score: float | None, spent: float) -> None:
        """How an arm did; a score of None stands for one that must not win."""
        self._told[arm.key] = score, spent
        if self._search is not None and arm.key in self._open:
            self._search.tell(self._open.pop(arm.key), score, spent)

    def _arm(self, config: Config) -> Arm:
        return Arm(config.params, config.template, self._families[config.model])

    def _new(self, config: Config) -> Arm | None:
        arm = self._arm(config)
        if arm.key in self._seen:
            return None
        self._seen.add(arm.key)
        return arm


def _first_ones(space: Space, chance: random.Random) -> Iterator[Config]:
    pairs = [(model, template) for template in space.templates for model in space.models]
    for model, template in pairs[:_FIRST]:
        drawn = {name: _draw(name, domain, chance) for name, domain in space.for_model(model).items()}
        yield space.config({"model": model, **drawn}, template)


def _draw(name: str, domain: Domain, chance: random.Random) -> Any:
    if isinstance(domain, OneOf):
        branch = chance.choice(domain.branches)
        return {inner: _draw(inner, other, chance) for inner, other in branch.items()}
    if isinstance(domain, Choice):
        return chance.choice(domain.options)
    if isinstance(domain, Constant):
        return domain.value
    assert isinstance(domain, Range)  # noqa: S101  # the domains are these four
    top = min(domain.top, max(_WARM, domain.low)) if name == "temperature" else domain.top
    if domain.logarithmic:
        value = math.exp(chance.uniform(math.log(domain.low), math.log(top)))
    else:
        value = chance.uniform(domain.low, top)
    if isinstance(domain, QUniform):
        value = round(value / domain.q) * domain.q
    return coarse(name, domain, value)
