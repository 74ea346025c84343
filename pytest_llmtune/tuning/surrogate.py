"""A Gaussian-process surrogate of success and cost."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.suite.domains import Domain, OneOf, Range
from pytest_llmtune.tuning.proposals import Arm, pooled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_llmtune.suite import Space


Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Points:
    """Configurations as numbers, one row each."""

    cell: Integers
    """(points, categories): category 0 is the model, then prompt, stop, ...; -1 if absent."""
    continuous: Array
    """(points, parameters): continuous parameters scaled to 0..1; NaN if absent."""
    depth: Array
    """(points,): log2 of the number of answers."""
    arm: Integers
    """(points,): equal if samples are shared."""
    cost: Array
    """(points,): log2 of USD per instance, up to a constant."""

    def take(self, index: Integers) -> Points:
        return Points(self.cell[index], self.continuous[index], self.depth[index], self.arm[index], self.cost[index])

    def __len__(self) -> int:
        return len(self.depth)


@dataclass(frozen=True, slots=True)
class Scored:
    """Means of the metric over blocks of rows."""

    points: Points
    """One per scored configuration and block."""
    block: Integers
    """(points,): block number."""
    rows: Array
    """(points,): number of scored rows of the block."""
    repeats: Array
    """(points,): number of independent samples averaged per row: samples / n."""
    mean: Array
    """(points,)"""

    def take(self, index: Integers) -> Scored:
        return Scored(
            self.points.take(index), self.block[index], self.rows[index], self.repeats[index], self.mean[index]
        )


@dataclass(frozen=True, slots=True)
class Kernel:
    """Variances relative to the metric's variance over rows; how they were chosen: docs/decisions/0028."""

    level: float = 2.0
    slope: float = 0.2
    """Expected gain per doubling of the cost, in standard deviations of the metric over rows."""
    slope_spread: float = 0.05
    """Standard deviation of ``slope``."""
    model: float = 0.03
    part: float = 0.01
    """Each other category by itself, over all models."""
    cell: float = 0.01
    """A combination of categories."""
    continuous: float = 0.003
    reach: float = 0.35
    """Length scale of continuous parameters, on 0..1."""
    depth: float = 0.01
    """One doubling of ``n``, over all models; as much again per cell."""
    row: float = 0.35
    row_model: float = 0.15
    row_cell: float = 0.15
    row_arm: float = 0.1
    noise: float = 0.30
    """Noise of one answer; that of a vote of n answers is smaller by the square root of n."""

    @property
    def own(self) -> float:
        """Variance of a configuration's true score given the model."""
        return self.part + self.cell + self.continuous + self.depth

    @property
    def single(self) -> float:
        """Variance of one answer to one row, given the configuration."""
        return self.row + self.row_model + self.row_cell + self.row_arm + self.noise

    def signal(self, a: Points, b: Points) -> Array:
        """Covariance of the true scores, (len(a), len(b))."""
        model, parts, cell = _alike(a.cell, b.cell)
        near = _near(a.continuous, b.continuous, self.reach)
        deep = np.minimum(a.depth[:, None], b.depth[None, :])  # a random walk in log2 n
        found: Array = (
            self.level
            + self.slope_spread**2 * np.outer(a.cost, b.cost)
            + self.model * model
            + self.part * parts
            + self.cell * cell
            + self.continuous * near * (0.3 + 0.7 * model + 0.5 * cell)
            + self.depth * deep * (1.0 + model + cell)
        )
        return found

    def covariance(self, seen: Scored) -> Array:
        """Covariance of observations, including sampling noise, in units of the metric's variance over rows."""
        points = seen.points
        together = seen.block[:, None] == seen.block[None, :]
        share = together / np.maximum(seen.rows[:, None], seen.rows[None, :])
        noise = np.diag(self.noise / (seen.rows * seen.repeats * 2 ** (points.depth / 2)) + 1e-6)
        found: Array = self.signal(points, points) + share * self.luck(points, points) + noise
        return found

    def luck(self, a: Points, b: Points) -> Array:
        """Additional covariance of two scores on the same row, without sampling noise."""
        model, _, cell = _alike(a.cell, b.cell)
        arm = a.arm[:, None] == b.arm[None, :]
        alike = np.exp(-np.abs(a.depth[:, None] - b.depth[None, :]) / 3)
        own = self.row_model * model + self.row_cell * cell + self.row_arm * arm
        found: Array = self.row + own * alike
        return found


def _alike(a: Integers, b: Integers) -> tuple[NDArray[np.bool_], Integers, NDArray[np.bool_]]:
    """Each (len(a), len(b)): whether models are equal, number of other equal categories, and whether all are equal."""
    model = a[:, 0][:, None] == b[:, 0][None, :]
    parts, cell = np.zeros(model.shape, dtype=np.int64), model.copy()
    for category in range(1, a.shape[1]):
        same = a[:, category][:, None] == b[:, category][None, :]
        parts += same
        cell &= same
    return model, parts, cell


def _near(a: Array, b: Array, reach: float) -> Array:
    """Similarity of the continuous parameters, from 0 to 1."""
    squares = np.zeros((len(a), len(b)))
    for axis in range(a.shape[1]):
        own, other = a[:, axis], b[:, axis]
        gap = np.subtract.outer(np.nan_to_num(own), np.nan_to_num(other)) / reach
        lacks, misses = np.isnan(own), np.isnan(other)
        if lacks.any() or misses.any():
            one, both = lacks[:, None] != misses[None, :], lacks[:, None] & misses[None, :]
            squares += np.where(one, 0.5, np.where(both, 0.0, gap * gap / 2))
        else:
            squares += gap * gap / 2
    near: Array = np.exp(-squares)
    return near


@dataclass(frozen=True, slots=True)
class Posterior:
    """Joint normal posterior of the true scores of configurations, in the metric's unit."""

    mean: Array
    covariance: Array

    @property
    def spread(self) -> Array:
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    def take(self, index: Integers) -> Posterior:
        return Posterior(self.mean[index], self.covariance[np.ix_(index, index)])

    def behind(self, errors: float, best: int | None = None) -> Array:
        """Distance of each from ``best`` (None: the highest mean), less ``errors`` standard errors of the distance.

        Above 0, it is worse.
        """
        best = int(np.argmax(self.mean)) if best is None else best
        variance = np.diag(self.covariance) + self.covariance[best, best] - 2 * self.covariance[best]
        found: Array = self.mean[best] - self.mean - errors * np.sqrt(np.maximum(variance, 0.0))
        return found

    def draws(self, count: int, rng: np.random.Generator) -> Array:
        """(count, configurations): samples of scores."""
        jitter = 1e-9 * max(1e-12, float(np.trace(self.covariance))) + 1e-12
        root = np.linalg.cholesky(self.covariance + jitter * np.eye(len(self.mean)))
        drawn: Array = self.mean + rng.standard_normal((count, len(self.mean))) @ root.T
        return drawn


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A Gaussian process conditioned on observations."""

    points: Points
    kernel: Kernel
    scale: float
    middle: float
    inverse: Array
    """Inverse of the observations' covariance, in units of ``scale``."""
    weights: Array
    """``inverse`` applied to the observations, in the metric's unit."""

    @classmethod
    def of(cls, seen: Scored, scale: float, kernel: Kernel) -> Surrogate:
        """Condition on observations.

        Args:
            scale: variance of the metric over rows.
        """
        above = seen.mean - kernel.slope * np.sqrt(scale) * seen.points.cost
        middle = float(np.average(above, weights=seen.rows)) if len(above) else 0.0
        inverse = np.linalg.inv(kernel.covariance(seen)).astype(np.float64)
        return cls(seen.points, kernel, scale, middle, inverse, inverse @ (above - middle))

    def means(self, target: Points) -> Array:
        """(len(target),) expected true scores."""
        return self._means(target, self.kernel.signal(target, self.points))

    def posterior(self, target: Points) -> Posterior:
        """Posterior of the true mean scores of ``target``."""
        across = self.kernel.signal(target, self.points)
        covariance = self.kernel.signal(target, target) - across @ self.inverse @ across.T
        return Posterior(self._means(target, across), self.scale * (covariance + covariance.T) / 2)

    def _means(self, target: Points, across: Array) -> Array:
        found: Array = self.middle + self.kernel.slope * np.sqrt(self.scale) * target.cost + across @ self.weights
        return found


_SPREADS = (0.05, 0.15, 0.4)
"""Candidate standard deviations of the slope: from typical model families to uninformative."""
_STRENGTHS = (1.0, 3.0, 9.0)
"""Candidate factors of the variances between models, prompts and cells."""
_NOISES = (1.0, 0.25, 0.05)
"""Candidate factors of the variance of one answer: random 0 or 1, or a score that hardly varies between answers."""
_PENALTY = 5.0
"""Log likelihood that each step from the default kernel must gain."""
_FITTED = 400
"""Maximum number of observations for fitting a kernel."""


def learned(seen: Scored, scale: float) -> Kernel:
    """The kernel whose slope, strengths and noise maximise the likelihood of the observations, one after the other.

    Marginal likelihood (Rasmussen and Williams 2006, section 5.4) over a few values, with a penalty for unusual ones.
    """
    step = -(-len(seen.mean) // _FITTED)
    seen = seen.take(np.arange(0, len(seen.mean), step))
    known: dict[tuple[int, ...], float] = {}

    def evidence(steps: tuple[int, ...]) -> float:
        if steps not in known:
            known[steps] = _likelihood(seen, scale, _varied(steps)) - _PENALTY * sum(steps)
        return known[steps]

    best: tuple[int, ...] = (0, 0, 0)
    for _ in range(2):
        for axis in range(3):
            best = max(((*best[:axis], value, *best[axis + 1 :]) for value in range(3)), key=evidence)
    return _varied(best)


def _varied(steps: tuple[int, ...]) -> Kernel:
    usual, strength = Kernel(), _STRENGTHS[steps[1]]
    return replace(
        usual,
        slope_spread=_SPREADS[steps[0]],
        model=usual.model * strength,
        part=usual.part * strength,
        cell=usual.cell * strength,
        noise=usual.noise * _NOISES[steps[2]],
    )


def _likelihood(seen: Scored, scale: float, kernel: Kernel) -> float:
    """Log marginal likelihood, up to a constant."""
    above = seen.mean / np.sqrt(scale) - kernel.slope * seen.points.cost
    residual = above - np.average(above, weights=seen.rows)
    covariance = kernel.covariance(seen)
    return float(-residual @ np.linalg.solve(covariance, residual) - np.linalg.slogdet(covariance)[1]) / 2


@dataclass(slots=True)
class Encoder:
    """Encodes the arms of a space as vectors of equal length."""

    space: Space
    ranges: dict[str, Range] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    """Parameters chosen from a list, or sent to some models only."""
    _codes: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for model in self.space.models:
            for name, domain in _flat(self.space.for_model(model)):
                if name in pooled(self.space):
                    continue
                if isinstance(domain, Range):
                    known = self.ranges.get(name, domain)
                    self.ranges[name] = domain if domain.high - domain.low > known.high - known.low else known
                elif name not in self.names:
                    self.names.append(name)
        self.names = [name for name in self.names if name not in self.ranges]

    def cell(self, arm: Arm) -> tuple[int, ...]:
        """Category numbers: model, prompt, which continuous parameters are sent, and every chosen parameter."""
        sent = " ".join(name for name in self.ranges if name in arm.params)
        chosen = [(name, json.dumps(arm.params.get(name), sort_keys=True, default=str)) for name in self.names]
        named = [("model", arm.model), ("prompt", arm.template.fingerprint), ("sent", sent), *chosen]
        return tuple(self._codes.setdefault(item, len(self._codes)) for item in named)

    def continuous(self, arm: Arm) -> tuple[float, ...]:
        """Continuous parameters scaled to 0..1; NaN if not sent, or not a number."""
        return tuple(_scaled(domain, arm.params.get(name)) for name, domain in self.ranges.items())


def _flat(domains: Mapping[str, Domain]) -> Iterator[tuple[str, Domain]]:
    for name, domain in domains.items():
        if isinstance(domain, OneOf):
            for branch in domain.branches:
                yield from _flat(branch)
        else:
            yield name, domain


def _scaled(domain: Range, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    if domain.logarithmic:
        return math.log(max(value, domain.low) / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)
