"""Propose configurations: an initial design, then flaml's BlendSearch."""

from __future__ import annotations

import itertools
import json
import logging
import math
import random
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.jsonhash import digest
from pytest_llmtune.suite import Config, Space, Template
from pytest_llmtune.suite.domains import Choice, Constant, Domain, OneOf, QUniform, Range
from pytest_llmtune.suite.prompts import TaskTemplate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


_FLAML_PATIENCE = 50
"""Consecutive known suggestions after which the space counts as exhausted."""
_WORST = 1e6
"""A finite number worse than any metric: FLAML cannot handle infinity."""
_COARSE = {"temperature": 0.1, "top_p": 0.1}


@dataclass(slots=True)
class BlendSearch:
    """Proposes configurations of a space.

    Values are rounded (``coarse``), because equal sampling parameters share samples.
    """

    space: Space
    mode: str
    seed: int = 0
    budget: float | None = None
    """USD for the search."""
    _search: Any = None
    _points: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Pending suggestions, as FLAML's points."""
    _ids: Any = field(default_factory=itertools.count)

    def suggest(self) -> tuple[str, Config] | None:
        """A trial's ID and configuration; None if the space is exhausted."""
        search = self._started()
        for _ in range(_FLAML_PATIENCE):
            trial = f"t{next(self._ids)}"
            point = search.suggest(trial)
            if point is not None:
                self._points[trial] = point
                return trial, self._config(point)
        return None

    def report(self, trial: str, score: float | None, cost: float) -> None:
        """Report a trial's result; a score of None marks a configuration that must not win."""
        worst = -_WORST if self.mode == "max" else _WORST
        result = {"score": worst if score is None else score, "cost": cost, "config": self._points.pop(trial)}
        self._search.on_trial_complete(trial, result)

    def _started(self) -> Any:
        if self._search is None:
            with warnings.catch_warnings():
                # flaml warns on import about its automl extra, which we do not use
                warnings.filterwarnings("ignore", message=".*automl.*")
                import flaml
                import optuna
            optuna.logging.set_verbosity(optuna.logging.WARNING)  # it logs to standard error
            logging.getLogger("flaml.tune.searcher").setLevel(logging.WARNING)  # its advice does not apply to users
            # it reports a trial to Optuna twice, and warns about that
            logging.getLogger("flaml.tune.searcher.suggestion").setLevel(logging.ERROR)
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
        suggested = {**point}
        template = self.space.templates[suggested.pop("template")]
        suggested |= suggested.pop("params", {})
        domains = self.space.for_model(suggested["model"])
        values = {name: _value(name, domain, suggested[name]) for name, domain in domains.items()}
        return self.space.config({"model": suggested["model"], **values}, template)


def _flaml(domain: Domain) -> Any:
    from flaml import tune

    if isinstance(domain, Choice):
        return tune.choice(list(range(len(domain.options))))  # an option may be a list, which FLAML cannot hash
    if isinstance(domain, OneOf):
        return tune.choice([{name: _flaml(inner) for name, inner in branch.items()} for branch in domain.branches])
    if isinstance(domain, Constant):
        return 0
    assert isinstance(domain, Range)  # noqa: S101  # the domains are these four
    [(kind, bounds)] = domain.to_plain().items()
    return getattr(tune, kind)(*bounds)


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
    """Round a value to what scores of about ten rows can distinguish, so that equal parameters share samples."""
    if domain.whole:
        found: float = int(value)
        if domain.logarithmic and value > 16:
            found = round(2 ** (round(math.log2(value) * 2) / 2))
    elif name in _COARSE:
        found = round(round(value / _COARSE[name]) * _COARSE[name], 6)
    else:
        found = float(value)
    return found if domain.contains(found) else value


LENGTHS = ("max_completion_tokens", "max_tokens")
"""Parameters that limit an answer's length, in tokens."""


@dataclass(frozen=True)
class Family:
    """The choices of one model that can be compared without extra samples."""

    model: str
    n: Domain | None
    """None: not sent, one answer."""
    limit_name: str | None
    limit: Domain | None
    """Domain of the length limit; None: not sent."""

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Numbers of answers to consider: all small ones, then in steps of about 20 %."""
        if not isinstance(self.n, Range):
            return tuple(sorted({1 if value is None else int(value) for value in options_of(self.n)}))
        low, top = max(1, math.ceil(self.n.low)), int(self.n.top)
        found = [low]
        while found[-1] < top:
            found.append(min(top, max(found[-1] + 1, round(found[-1] * 1.2))))
        return tuple(value for value in found if self.n.contains(value)) or (top,)

    @cached_property
    def longest(self) -> int | None:
        """The largest limit, used for sampling; None: unlimited."""
        values = options_of(self.limit)
        return None if None in values else int(max(values))

    @cached_property
    def shorter(self) -> tuple[int, ...]:
        """Smaller limits to consider, in steps of half an octave, largest first."""
        if not isinstance(self.limit, Range):
            limits = (value for value in options_of(self.limit) if value is not None and value != self.longest)
            return tuple(sorted(limits, reverse=True))
        steps = (int(self.limit.top / 2 ** (step / 2)) for step in range(1, 24))
        return tuple(value for value in steps if self.limit.contains(value))


def options_of(domain: Domain | None) -> tuple[Any, ...]:
    """Possible values of a parameter, of a range the largest; None: not sent."""
    if isinstance(domain, Choice):
        return domain.options
    if isinstance(domain, Range):
        return (domain.top,)
    return (domain.value if isinstance(domain, Constant) else None,)


def pooled(space: Space) -> tuple[str, ...]:
    """Parameters for all values of which an arm's samples can be used; a task depends on its length limits."""
    return ("n",) if space.runs_task else ("n", *LENGTHS)


def families_of(space: Space) -> dict[str, Family]:
    """Model to its family."""
    found = {}
    for model in space.models:
        domains = space.for_model(model)
        name = next((name for name in pooled(space) if name in LENGTHS and name in domains), None)
        found[model] = Family(model, domains.get("n"), name, domains[name] if name else None)
    return found


@dataclass(frozen=True, eq=False)
class Arm:
    """A sampling configuration; equal arms have equal keys."""

    params: Mapping[str, Any]
    """OpenAI parameters, without ``n`` and the family's limit."""
    template: Template
    family: Family

    @cached_property
    def key(self) -> str:
        """16 hex digits: equal for arms with the same distribution of samples."""
        return digest([self.params, self.template.fingerprint], spaced=True)[:16]

    @property
    def model(self) -> str:
        return self.family.model

    @property
    def runs_task(self) -> bool:
        """Whether an answer is a run of a task."""
        return isinstance(self.template, TaskTemplate)

    @cached_property
    def region(self) -> tuple[str, str, str]:
        """Model, prompt and stop, which determine the lengths of prompts and answers (EcoOptiGen).

        For a task: every parameter chosen from a list, such as a model or a number of documents.
        """
        if self.runs_task:
            named = {name: value for name, value in self.params.items() if not isinstance(value, float)}
            return self.model, self.template.fingerprint, json.dumps(named, sort_keys=True)
        return self.model, self.template.fingerprint, json.dumps(self.params.get("stop"))

    @cached_property
    def groups(self) -> tuple[str, str, str]:
        """Groups with similar lengths, narrowest first: the arm, its region, its model."""
        return self.key, repr(self.region), self.model

    def config(self, n: int | None = None, limit: int | None = None) -> Config:
        """The configuration with n answers (default: the fewest) of at most ``limit`` tokens (default: the longest)."""
        params = dict(self.params)
        if self.family.n is not None:
            params["n"] = self.family.counts[0] if n is None else n
        if self.family.limit_name is not None:
            params[self.family.limit_name] = self.family.longest if limit is None else limit
        return Config(params, self.template)


_PATIENCE = 30
"""Consecutive known proposals after which the space counts as exhausted."""
_WARM = 1.0
"""Highest temperature of the initial design: above it, answers soon become noise."""


def arm_space(space: Space) -> Space:
    """The space without choices that need no separate samples."""

    def sampled(domains: Mapping[str, Domain]) -> dict[str, Domain]:
        return {name: domain for name, domain in domains.items() if name not in pooled(space)}

    conditions = {model: sampled(domains) for model, domains in space.conditions.items()}
    return replace(space, parameters=sampled(space.parameters), conditions=conditions)


@dataclass(slots=True)
class Proposals:
    """Proposes new, distinct arms."""

    space: Space
    mode: str
    seed: int = 0
    budget: float | None = None
    """USD for the search."""
    _families: Mapping[str, Family] = field(init=False)
    _initial: Iterator[Config] = field(init=False)
    _seen: set[str] = field(default_factory=set)
    _search: BlendSearch | None = None
    _open: dict[str, str] = field(default_factory=dict)
    """Arm to FLAML's trial ID."""
    _results: dict[str, tuple[float | None, float]] = field(default_factory=dict)
    _done: bool = False

    def __post_init__(self) -> None:
        self._families = families_of(self.space)
        small = arm_space(self.space)
        self._initial = _initial_configs(small, random.Random(self.seed))  # noqa: S311  # repeatable, no secret
        if not small.is_constant:
            self._search = BlendSearch(small, self.mode, self.seed, self.budget)

    def next(self) -> Arm | None:
        """An arm not proposed before; None if there is none left."""
        for config in self._initial:
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
            self._search.report(name, *self._results.get(self._arm(config).key, (None, 0.0)))
            misses += 1
        return None

    def variants(self, template: Template) -> Iterator[Arm]:
        """New arms of a template, one for each model, with other parameters."""
        rng = random.Random(f"{self.seed}/{template.fingerprint}")  # noqa: S311  # repeatable, no secret
        found = map(self._new, _initial_configs(replace(arm_space(self.space), templates=(template,)), rng))
        return (arm for arm in found if arm is not None)

    def report(self, arm: Arm, score: float | None, spent: float) -> None:
        """Report an arm's result; a score of None marks one that must not win."""
        self._results[arm.key] = score, spent
        if self._search is not None and arm.key in self._open:
            self._search.report(self._open.pop(arm.key), score, spent)

    def _arm(self, config: Config) -> Arm:
        return Arm(config.params, config.template, self._families[config.model])

    def _new(self, config: Config) -> Arm | None:
        arm = self._arm(config)
        if arm.key in self._seen:
            return None
        self._seen.add(arm.key)
        return arm


def _initial_configs(space: Space, rng: random.Random) -> Iterator[Config]:
    pairs = [(model, template) for template in space.templates for model in space.models]
    rng.shuffle(pairs)  # if the budget does not cover all of them, their order must not decide
    for model, template in pairs:
        drawn = {name: _draw(name, domain, rng) for name, domain in space.for_model(model).items()}
        yield space.config({"model": model, **drawn}, template)


def _draw(name: str, domain: Domain, rng: random.Random) -> Any:
    if isinstance(domain, OneOf):
        branch = rng.choice(domain.branches)
        return {inner: _draw(inner, other, rng) for inner, other in branch.items()}
    if isinstance(domain, Choice):
        return rng.choice(domain.options)
    if isinstance(domain, Constant):
        return domain.value
    assert isinstance(domain, Range)  # noqa: S101  # the domains are these four
    top = min(domain.top, max(_WARM, domain.low)) if name == "temperature" else domain.top
    if domain.logarithmic:
        value = math.exp(rng.uniform(math.log(domain.low), math.log(top)))
    else:
        value = rng.uniform(domain.low, top)
    if isinstance(domain, QUniform):
        value = round(value / domain.q) * domain.q
    return coarse(name, domain, value)
