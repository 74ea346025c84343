"""Search-space words: a constant, a choice, and FLAML's ranges, with the bounds that FLAML gives them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pytest_llmtune._util.invalid import InvalidError, shown

__all__ = [
    "Choice",
    "Constant",
    "Domain",
    "LogRandInt",
    "LogUniform",
    "OneOf",
    "QUniform",
    "RandInt",
    "Range",
    "Uniform",
    "choice",
    "lograndint",
    "loguniform",
    "quniform",
    "randint",
    "uniform",
]


class Domain(ABC):
    """What one parameter may be."""

    __slots__ = ()

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to choose."""
        return False

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether the parameter may have this value; None stands for "not sent"."""

    @abstractmethod
    def to_plain(self) -> Any:
        """As a YAML suite spells it."""


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
                raise InvalidError(f"the choice {shown(option)} stands twice", index)

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
        """The largest value that can be drawn."""
        return self.high - 1 if self.whole else self.high

    def to_plain(self) -> Any:
        return {self.word: [self.low, self.high]}


@dataclass(frozen=True, slots=True)
class Uniform(Range):
    """A number between the bounds, all alike."""

    word: ClassVar[str] = "uniform"


@dataclass(frozen=True, slots=True)
class LogUniform(Range):
    """A number between the bounds, all orders of magnitude alike."""

    word: ClassVar[str] = "loguniform"
    logarithmic: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class RandInt(Range):
    """A whole number from ``low`` to below ``high``."""

    word: ClassVar[str] = "randint"
    whole: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class LogRandInt(Range):
    """A whole number from ``low`` to below ``high``, all orders of magnitude alike."""

    word: ClassVar[str] = "lograndint"
    whole: ClassVar[bool] = True
    logarithmic: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class QUniform(Range):
    """A multiple of ``q`` between the bounds, both included."""

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
    """A hierarchical choice: one branch is taken, and only its parameters are sent."""

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
        """Whether the mapping is one branch's parameters."""
        return isinstance(value, Mapping) and any(
            value.keys() <= branch.keys() and all(domain.contains(value.get(name)) for name, domain in branch.items())
            for branch in self.branches
        )

    def to_plain(self) -> Any:
        return [{name: domain.to_plain() for name, domain in branch.items()} for branch in self.branches]


def _same(one: Any, other: Any) -> bool:
    """Equal, and not merely because True == 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def uniform(low: float, high: float) -> Uniform:
    """A number from ``low`` to ``high``, all alike."""
    return Uniform(low, high)


def loguniform(low: float, high: float) -> LogUniform:
    """A number from ``low`` (above 0) to ``high``, all orders of magnitude alike."""
    return LogUniform(low, high)


def randint(low: int, high: int) -> RandInt:
    """A whole number from ``low`` to below ``high``."""
    return RandInt(low, high)


def lograndint(low: int, high: int) -> LogRandInt:
    """A whole number from ``low`` (above 0) to below ``high``, all orders of magnitude alike."""
    return LogRandInt(low, high)


def quniform(low: float, high: float, q: float) -> QUniform:
    """A multiple of ``q`` from ``low`` to ``high``, both included; the bounds are multiples of ``q``."""
    return QUniform(low, high, q)


def choice(options: list[Any] | tuple[Any, ...]) -> Choice:
    """One of the options."""
    if isinstance(options, (str, bytes)) or not hasattr(options, "__iter__"):
        raise InvalidError(f"choice takes a list of options, as in choice([0, 1]), got {shown(options)}")
    return Choice(tuple(options))
