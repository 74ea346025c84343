"""What is believed of every configuration, from the scores of all: a Gaussian process with shared strength.

Configurations that are alike (same model, same prompt, near temperature, near ``n``) have like scores, and a hard row is
hard for all of them. So the score of a configuration on a block of rows is modelled as

    score = level + slope x log2(cost) + configuration
            + (block + block x model + block x cell + block x arm) + noise,

all Gaussian: the first three are what is asked for, the fourth is the luck of the rows, which most of all is shared by
the configurations that are alike (a cell: the same choices, whatever the temperature), the last that of sampling
(Rasmussen and Williams 2006, chapter 2; the row effects make comparisons paired). The slope says what everybody knows
before the first answer: dearer models and more answers are rather better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Belief", "Kernel", "Points", "Scored", "believe"]


Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Points:
    """Configurations as numbers, one row each."""

    cell: Integers
    """(points, categories): category 0 is the model, the others prompt, stop, ...; -1 where it has none."""
    heat: Array
    """(points, numbers): continuous parameters scaled to 0..1; NaN where a configuration has none."""
    depth: Array
    """(points,): log2 of the number of answers."""
    arm: Integers
    """(points,): equal where samples are shared."""
    cost: Array
    """(points,): log2 of USD per instance, from any origin."""

    def take(self, index: Integers) -> Points:
        return Points(self.cell[index], self.heat[index], self.depth[index], self.arm[index], self.cost[index])

    def __len__(self) -> int:
        return len(self.depth)


@dataclass(frozen=True, slots=True)
class Scored:
    """Means of the metric over blocks of rows."""

    points: Points
    """One for every configuration and block that was scored."""
    block: Integers
    """(points,): which block."""
    rows: Array
    """(points,): number of rows of the block that were scored."""
    repeats: Array
    """(points,): independent draws that a row's score is the mean of: samples / n."""
    mean: Array
    """(points,)"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Variances as shares of the variance of the metric over rows; how they were chosen: docs/decisions.md."""

    level: float = 2.0
    slope: float = 0.2
    """Expected gain for a doubling of the cost, in standard deviations of the metric over rows."""
    slope_spread: float = 0.05
    """Its standard deviation."""
    model: float = 0.03
    part: float = 0.01
    """Of each other category by itself, over all models."""
    cell: float = 0.01
    """Of a combination of categories."""
    heat: float = 0.003
    reach: float = 0.35
    """Of a likeness in a continuous parameter, on its 0..1 scale."""
    depth: float = 0.01
    """Of one doubling of ``n``, over all models; as much again for each cell."""
    row: float = 0.35
    row_model: float = 0.15
    row_cell: float = 0.15
    row_arm: float = 0.1
    noise: float = 0.30
    """Of one answer; of the vote of n answers by the root of n smaller."""

    def signal(self, a: Points, b: Points) -> Array:
        """Covariance of the true scores, (len(a), len(b))."""
        same = a.cell[:, None, :] == b.cell[None, :, :]
        model, cell = same[:, :, 0], same.all(axis=2)
        parts = same[:, :, 1:].sum(axis=2)
        near = _near(a.heat, b.heat, self.reach)
        deep = np.minimum(a.depth[:, None], b.depth[None, :])  # a random walk in log2 n
        found: Array = (
            self.level
            + self.slope_spread**2 * np.outer(a.cost, b.cost)
            + self.model * model
            + self.part * parts
            + self.cell * cell
            + self.heat * near * (0.3 + 0.7 * model + 0.5 * cell)
            + self.depth * deep * (1.0 + model + cell)
        )
        return found

    def luck(self, a: Points, b: Points) -> Array:
        """Covariance of two scores on the same single row beside that of ``signal``, sampling noise left out."""
        same = a.cell[:, None, :] == b.cell[None, :, :]
        arm = a.arm[:, None] == b.arm[None, :]
        alike = np.exp(-np.abs(a.depth[:, None] - b.depth[None, :]) / 3)
        own = self.row_model * same[:, :, 0] + self.row_cell * same.all(axis=2) + self.row_arm * arm
        found: Array = self.row + own * alike
        return found


def _near(a: Array, b: Array, reach: float) -> Array:
    if not a.shape[1]:
        return np.ones((len(a), len(b)))
    gap = a[:, None, :] - b[None, :, :]
    one_lacks = np.isnan(a)[:, None, :] != np.isnan(b)[None, :, :]
    squares = np.where(one_lacks, 0.5, np.where(np.isnan(gap), 0.0, (gap / reach) ** 2 / 2))
    near: Array = np.exp(-squares.sum(axis=2))
    return near


@dataclass(frozen=True, slots=True)
class Belief:
    """Joint normal belief of the true scores of some configurations, in the metric's own unit."""

    mean: Array
    covariance: Array

    @property
    def spread(self) -> Array:
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    def take(self, index: Integers) -> Belief:
        return Belief(self.mean[index], self.covariance[np.ix_(index, index)])

    def behind(self, errors: float) -> Array:
        """How far each lies behind the best mean, less so many standard errors of that distance: above 0, it is beaten."""
        best = int(np.argmax(self.mean))
        variance = np.diag(self.covariance) + self.covariance[best, best] - 2 * self.covariance[best]
        found: Array = self.mean[best] - self.mean - errors * np.sqrt(np.maximum(variance, 0.0))
        return found

    def draws(self, count: int, chance: np.random.Generator) -> Array:
        """(count, configurations): scores as they may be."""
        jitter = 1e-9 * max(1e-12, float(np.trace(self.covariance))) + 1e-12
        root = np.linalg.cholesky(self.covariance + jitter * np.eye(len(self.mean)))
        drawn: Array = self.mean + chance.standard_normal((count, len(self.mean))) @ root.T
        return drawn


def believe(seen: Scored, wanted: Points, scale: float, kernel: Kernel) -> Belief:
    """Posterior of the true mean scores of ``wanted``.

    Args:
        scale: variance of the metric over rows.
    """
    points = seen.points
    gain = kernel.slope * np.sqrt(scale)
    together = seen.block[:, None] == seen.block[None, :]
    share = together / np.maximum(seen.rows[:, None], seen.rows[None, :])
    noise = np.diag(kernel.noise / (seen.rows * seen.repeats * 2 ** (points.depth / 2)) + 1e-6)
    within = kernel.signal(points, points) + share * kernel.luck(points, points) + noise
    above = seen.mean - gain * points.cost
    middle = float(np.average(above, weights=seen.rows)) if len(above) else 0.0
    lower = np.linalg.cholesky(within)
    half = np.linalg.solve(lower, kernel.signal(wanted, points).T)
    mean = middle + gain * wanted.cost + half.T @ np.linalg.solve(lower, above - middle)
    return Belief(mean, scale * (kernel.signal(wanted, wanted) - half.T @ half))
