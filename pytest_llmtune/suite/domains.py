"""Parameter domains: constants, choices, ranges and models."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.text import InvalidError, did_you_mean, shown


class Domain(ABC):
    """The values that a parameter may have."""

    __slots__ = ()

    @property
    def is_constant(self) -> bool:
        """Whether there is only one value."""
        return False

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether the parameter may have this value; None means "not sent"."""

    @abstractmethod
    def to_plain(self) -> Any:
        """As written in a YAML suite."""


@dataclass(frozen=True, slots=True)
class Constant(Domain):
    """One value; None: the parameter is not sent."""

    value: Any

    @property
    def is_constant(self) -> bool:
        return True

    def contains(self, value: Any) -> bool:
        return _same(self.value, value)

    def to_plain(self) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class Choice(Domain):
    """One of several values."""

    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise InvalidError("an empty list of choices")
        for index, option in enumerate(self.options):
            if isinstance(option, Domain):
                raise InvalidError(f"a choice between ranges, {shown(option)}; a choice is between plain values", index)
            if any(_same(option, other) for other in self.options[:index]):
                raise InvalidError(f"duplicate choice {shown(option)}", index)

    @property
    def is_constant(self) -> bool:
        return len(self.options) == 1

    def contains(self, value: Any) -> bool:
        return any(_same(option, value) for option in self.options)

    def to_plain(self) -> Any:
        return {"choice": list(self.options)}


@dataclass(frozen=True, slots=True)
class Range(Domain):
    """Numbers between two bounds."""

    low: float
    high: float

    word: ClassVar[str]
    whole: ClassVar[bool] = False
    logarithmic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not math.isfinite(bound):
                raise InvalidError(f"{self.word} has the bound {shown(bound)}; a bound is a finite number")
            if self.whole and bound != int(bound):
                raise InvalidError(f"{self.word} has the bound {shown(bound)}; its bounds are whole numbers")
        if self.logarithmic and self.low <= 0:
            raise InvalidError(
                f"{self.word}({self.low}, {self.high}): the lower bound of a logarithmic range is above 0"
            )
        if not self.low < self.high:
            raise InvalidError(f"{self.word}({self.low}, {self.high}): the lower bound is not below the upper one")

    def contains(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if self.whole:
            return self.low <= value < self.high and value == int(value)
        return self.low <= value <= self.high

    @property
    def top(self) -> float:
        """The largest possible value."""
        return self.high - 1 if self.whole else self.high

    def to_plain(self) -> Any:
        return {self.word: [self.low, self.high]}


@dataclass(frozen=True, slots=True)
class Uniform(Range):
    """A uniformly distributed number between the bounds."""

    word: ClassVar[str] = "uniform"


@dataclass(frozen=True, slots=True)
class LogUniform(Range):
    """A log-uniformly distributed number between the bounds."""

    word: ClassVar[str] = "loguniform"
    logarithmic: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class RandInt(Range):
    """An integer from ``low`` to below ``high``."""

    word: ClassVar[str] = "randint"
    whole: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class LogRandInt(Range):
    """A log-uniformly distributed integer from ``low`` to below ``high``."""

    word: ClassVar[str] = "lograndint"
    whole: ClassVar[bool] = True
    logarithmic: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class QUniform(Range):
    """A multiple of ``q`` between the bounds, inclusive."""

    q: float = 1.0

    word: ClassVar[str] = "quniform"

    def __post_init__(self) -> None:
        Range.__post_init__(self)
        if isinstance(self.q, bool) or not isinstance(self.q, (int, float)) or not 0 < self.q < math.inf:
            raise InvalidError(f"quniform has the step {shown(self.q)}; a step is a number above 0")
        if not (self._on_step(self.low) and self._on_step(self.high)):
            raise InvalidError(f"quniform({self.low}, {self.high}, {self.q}): the bounds are not multiples of the step")

    def _on_step(self, value: float) -> bool:
        return math.isclose(value / self.q, round(value / self.q), abs_tol=1e-7)

    def contains(self, value: Any) -> bool:
        return Range.contains(self, value) and self._on_step(value)

    def to_plain(self) -> Any:
        return {self.word: [self.low, self.high, self.q]}


@dataclass(frozen=True, slots=True)
class OneOf(Domain):
    """A hierarchical choice between branches; only the chosen branch's parameters are sent."""

    branches: tuple[Mapping[str, Domain], ...]

    def __post_init__(self) -> None:
        if not self.branches:
            raise InvalidError("an empty list of branches")

    @property
    def is_constant(self) -> bool:
        return len(self.branches) == 1 and all(domain.is_constant for domain in self.branches[0].values())

    @property
    def names(self) -> frozenset[str]:
        """The parameters of all branches."""
        return frozenset(name for branch in self.branches for name in branch)

    def contains(self, value: Any) -> bool:
        """Whether the mapping is a valid branch."""
        return isinstance(value, Mapping) and any(
            value.keys() <= branch.keys() and all(domain.contains(value.get(name)) for name, domain in branch.items())
            for branch in self.branches
        )

    def to_plain(self) -> Any:
        return [{name: domain.to_plain() for name, domain in branch.items()} for branch in self.branches]


def n_bounds(domain: Domain | None) -> tuple[int, int]:
    """The smallest and the largest ``n`` of its domain; 1 where none is sent."""
    if isinstance(domain, Range):
        return int(domain.low), int(domain.top)
    options = domain.options if isinstance(domain, Choice) else (domain.value,) if isinstance(domain, Constant) else ()
    counts = [int(option or 1) for option in options] or [1]
    return min(counts), max(counts)


def _same(one: Any, other: Any) -> bool:
    """Equal in value and type, so that True and 1 differ."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def uniform(low: float, high: float) -> Uniform:
    """A uniformly distributed number from ``low`` to ``high``."""
    return Uniform(low, high)


def loguniform(low: float, high: float) -> LogUniform:
    """A log-uniformly distributed number from ``low`` (above 0) to ``high``."""
    return LogUniform(low, high)


def randint(low: int, high: int) -> RandInt:
    """An integer from ``low`` to below ``high``."""
    return RandInt(low, high)


def lograndint(low: int, high: int) -> LogRandInt:
    """A log-uniformly distributed integer from ``low`` (above 0) to below ``high``."""
    return LogRandInt(low, high)


def quniform(low: float, high: float, q: float) -> QUniform:
    """A multiple of ``q`` from ``low`` to ``high`` inclusive; the bounds must be multiples of ``q``."""
    return QUniform(low, high, q)


def choice(options: list[Any] | tuple[Any, ...]) -> Choice:
    """One of the options."""
    if isinstance(options, (str, bytes)) or not hasattr(options, "__iter__"):
        raise InvalidError(f"choice takes a list of options, as in choice([0, 1]), got {shown(options)}")
    return Choice(tuple(options))


TEMPERATURE_OR_TOP_P = "temperature_or_top_p"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The numbers that a parameter accepts."""

    low: float
    high: float = math.inf
    whole: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:g}" + ("" if math.isinf(self.high) else f" to {self.high:g}")

    def check(self, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidError(f"is {shown(value)}; valid: {self}")
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            raise InvalidError(f"is {shown(value)}; valid: {self}")


_LENGTH, _PENALTY = Bounds(1, whole=True), Bounds(-2, 2)

PARAMETERS: Mapping[str, Bounds | None] = {
    "temperature": Bounds(0, 2),
    "top_p": Bounds(0, 1),
    "max_tokens": _LENGTH,
    "max_completion_tokens": _LENGTH,
    "n": Bounds(1, 10_000, whole=True),
    "stop": None,
    "frequency_penalty": _PENALTY,
    "presence_penalty": _PENALTY,
    "reasoning_effort": None,
    "verbosity": None,
    "response_format": None,
    "logit_bias": None,
    "logprobs": None,
    "top_logprobs": Bounds(0, 20, whole=True),
    "tools": None,
    "tool_choice": None,
    "parallel_tool_calls": None,
    "functions": None,
    "function_call": None,
    "metadata": None,
    "modalities": None,
    "prediction": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "service_tier": None,
    "store": None,
    "user": None,
    "web_search_options": None,
}
"""Parameters of ``POST /chat/completions`` that are suite keys, with the numbers they accept."""

LISTS = frozenset({"tools", "functions", "modalities"})
"""Parameters whose value is a list, so that only a list of lists is a choice."""

WORDS: Mapping[str, type[Range]] = {kind.word: kind for kind in (Uniform, LogUniform, RandInt, LogRandInt, QUniform)}


def parse_domain(name: str, raw: Any) -> Domain:
    """Parse a parameter's domain: a constant, a list (choice), a domain, or a range such as ``{"uniform": [0, 2]}``.

    ``temperature_or_top_p`` is a list of mappings, each a branch.

    Raises:
        SuiteError: not a domain, or it has values that the parameter does not accept.
    """
    if name == TEMPERATURE_OR_TOP_P:
        return _branches(raw)
    domain = _domain(name, raw)
    bounds = PARAMETERS.get(name)
    if bounds is None:
        return domain
    if isinstance(domain, Constant):
        bounds.check(domain.value)
    for value in domain.options if isinstance(domain, Choice) else ():
        bounds.check(value)
    for value in (domain.low, domain.top) if isinstance(domain, Range) else ():
        bounds.check(value)
    if bounds.whole and isinstance(domain, Range) and not domain.whole:
        raise InvalidError(
            f"is {domain.word}, which gives fractions; valid: a whole number, a list, randint, lograndint"
        )
    return domain


def _domain(name: str, raw: Any) -> Domain:
    if isinstance(raw, OneOf):
        raise InvalidError(f"is {shown(raw)}; valid: a constant, a list of choices, or a range")
    if isinstance(raw, (Constant, Choice)):
        return Constant(_plain(raw.value)) if isinstance(raw, Constant) else _choice(raw.options)
    if isinstance(raw, Domain):
        return raw
    if isinstance(raw, Mapping) and len(raw) == 1:
        [(word, arguments)] = raw.items()
        if word == "choice":
            return _choice(arguments)
        if word in WORDS:
            expected = "[low, high, step]" if word == "quniform" else "[low, high]"
            if not isinstance(arguments, (list, tuple)) or len(arguments) != expected.count(",") + 1:
                raise InvalidError(f"{word} takes {expected}, got {shown(arguments)}")
            return WORDS[word](*arguments)
    if isinstance(raw, (list, tuple)) and (name not in LISTS or all(isinstance(item, (list, tuple)) for item in raw)):
        return _choice(raw)
    return Constant(_plain(raw))


def _choice(raw: Any) -> Choice:
    if not isinstance(raw, (list, tuple)):
        raise InvalidError(f"choice takes a list, got {shown(raw)}")
    return Choice(tuple(option if isinstance(option, Domain) else _plain(option) for option in raw))


def _plain(raw: Any) -> Any:
    """Check that a value is JSON data, because it is sent to servers and written to the lock file."""
    if raw is None or isinstance(raw, (str, bool, int)) or (isinstance(raw, float) and math.isfinite(raw)):
        return raw
    if isinstance(raw, Mapping) and all(isinstance(key, str) for key in raw):
        return {key: _plain(value) for key, value in raw.items()}
    if isinstance(raw, (list, tuple)):
        return [_plain(value) for value in raw]
    raise InvalidError(
        f"is {shown(raw)} ({type(raw).__name__}); valid: a constant, a list of choices, "
        f"or a range: {', '.join(f'{word}(...)' for word in WORDS)}"
    )


def _branches(raw: Any) -> OneOf | Constant:
    if raw is None:
        return Constant(None)  # neither is sent
    if isinstance(raw, OneOf):
        return raw
    several = [raw] if isinstance(raw, Mapping) else raw
    if not isinstance(several, (list, tuple)) or not all(isinstance(branch, Mapping) and branch for branch in several):
        raise InvalidError(
            f"is {shown(several)}; valid: a list such as [{{'temperature': {{'uniform': [0, 2]}}}}, {{'top_p': 0.9}}]"
        )
    branches = []
    for index, branch in enumerate(several):
        domains = {}
        for name, value in branch.items():
            if name not in ("temperature", "top_p"):
                raise InvalidError(f"has {shown(name)}; valid: temperature, top_p", index)
            try:
                domains[name] = parse_domain(name, value)
            except InvalidError as problem:
                raise problem.inside(index, name) from None
        branches.append(domains)
    return OneOf(tuple(branches))


def check_parameter(name: Any, extra: Iterable[str] = ()) -> None:
    """Refuse an unknown parameter."""
    if name in PARAMETERS or name in extra or name == TEMPERATURE_OR_TOP_P:
        return
    raise InvalidError(
        f"unknown parameter{did_you_mean(name, PARAMETERS)}; put parameters that only your server knows into extra_body",
        str(name),
    )


@dataclass(frozen=True, slots=True)
class Models(Choice):
    """A choice between models; each must have a price before anything is spent."""

    name: str = ""
    """The parameter's name, if given with the models."""

    def to_plain(self) -> Any:
        return {"models": list(self.options)}


def models(*arguments: Any) -> Models:
    """A task parameter that is a model: ``params={"planner_model": models(["small", "big"])}``.

    Equivalent: ``params=[models("planner_model", ["small", "big"]), models("writer_model", ["big"])]``.

    Raises:
        InvalidError: not a list of model names.
    """
    name, options = arguments if len(arguments) == 2 else ("", *arguments) if len(arguments) == 1 else ("", None)
    options = [options] if isinstance(options, str) else options
    if not isinstance(options, (list, tuple)) or not all(isinstance(each, str) and each.strip() for each in options):
        raise InvalidError(
            f"models{shown(arguments)}: valid: models(['small', 'big']), or models('name', ['small', 'big'])"
        )
    if not isinstance(name, str):
        raise InvalidError(f"models({shown(name)}, ...): the name of a parameter is text")
    return Models(tuple(options), name)


def read_params(raw: Any) -> dict[str, Any]:
    """``params`` as a mapping of names to domains; a list contains ``models(name, [...])``."""
    if isinstance(raw, Models):
        raw = [raw]
    if isinstance(raw, (list, tuple)) and raw:
        for index, each in enumerate(raw):
            if not isinstance(each, Models) or not each.name:
                raise InvalidError(f"is {shown(each)}; in a list each is models('name', ['small', 'big'])", index)
        raw = {each.name: each for each in raw}
    if not isinstance(raw, Mapping) or not all(isinstance(name, str) and name for name in raw):
        raise InvalidError(
            f"is {shown(raw)}; valid: a mapping of names to a constant, a list, a range or models([...])"
        )
    return dict(raw)


def parse_param(name: str, raw: Any) -> Domain:
    """The domain of a task's parameter."""
    if isinstance(raw, Mapping) and raw.keys() == {"models"}:
        raw = models(raw["models"])
    if isinstance(raw, Models):
        if raw.name not in ("", name):
            raise InvalidError(f"is models({raw.name!r}, ...), which has a different name")
        return Models(raw.options)
    return parse_domain(name, raw)


def models_of(domains: Mapping[str, Domain]) -> tuple[str, ...]:
    """All models of parameters declared with ``models``."""
    return tuple(str(option) for domain in domains.values() if isinstance(domain, Models) for option in domain.options)
