"""Statistics: Wilson intervals, bootstrap, McNemar's exact test, minimum detectable drop."""

from __future__ import annotations

import math
import random
import statistics
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING

from pytest_llmtune.types import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["bootstrap", "bootstrap_mean", "mcnemar_exact", "minimum_detectable_drop", "wilson"]


_DRAWS = 200_000
"""Maximum number of values drawn for one bootstrap: about 50 ms."""


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a rate (Wilson 1927), which stays within 0..1 and is valid for 0 of n and n of n.

    Raises:
        ValueError: not ``0 <= successes <= n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: expected 0 <= successes <= n")
    if n == 0:
        return Interval(0.0, 1.0, confidence)
    z = _z(confidence)
    rate = successes / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, middle - half)  # exact at the ends, whatever the rounding
    high = 1.0 if successes == n else min(1.0, middle + half)
    return Interval(low, high, confidence)


def bootstrap_mean(values: Sequence[float], seed: int = 0, confidence: float = 0.95) -> Interval:
    """Confidence interval of a mean: bias-corrected percentile bootstrap, or its large-sample limit.

    Up to 400 values are resampled (Efron 1981). Above that, a mean is close enough to normal for the skewness-corrected
    interval of Johnson (1978), which takes one pass. The seed makes resampling repeatable.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("the mean of no values has no interval")
    if min(values) == max(values):  # resampling cannot move it
        return Interval(float(values[0]), float(values[0]), confidence)
    size = len(values)
    resamples = _DRAWS // size
    if resamples < 500:
        return _johnson(values, confidence)
    drawn = [sum(draw(values)) / size for draw in _draws(size, min(resamples, 2000), seed)]
    return _percentiles(statistics.fmean(values), drawn, confidence)


@lru_cache(maxsize=1)
def _draws(size: int, resamples: int, seed: int) -> list[Callable[[Sequence[float]], tuple[float, ...]]]:
    """Pickers of resamples, which all metrics of an evaluation have in common."""
    rng, places = random.Random(seed), range(size)  # noqa: S311 - repeatable statistics, no secret
    return [itemgetter(*rng.choices(places, k=size)) for _ in range(resamples)]


def _percentiles(point: float, drawn: list[float], confidence: float) -> Interval:
    """Bias-corrected percentiles, shifted by the distance of the point from the median of the draws."""
    drawn.sort()
    below = sum(value < point for value in drawn) + sum(value == point for value in drawn) / 2
    normal = statistics.NormalDist()
    bias = normal.inv_cdf(min(max(below / len(drawn), 0.001), 0.999))
    z = _z(confidence)
    ends = (normal.cdf(2 * bias - z), normal.cdf(2 * bias + z))
    low, high = (drawn[min(int(end * len(drawn)), len(drawn) - 1)] for end in ends)
    return Interval(min(low, point), max(high, point), confidence)


def _johnson(values: Sequence[float], confidence: float) -> Interval:
    size = len(values)
    middle = statistics.fmean(values)
    spread = statistics.stdev(values, middle)
    third = math.fsum((value - middle) ** 3 for value in values) / size
    shift = third / (6 * spread * spread * size)
    half = _z(confidence) * spread / math.sqrt(size)
    return Interval(max(middle + shift - half, min(values)), min(middle + shift + half, max(values)), confidence)


def bootstrap(
    values: Sequence[float], aggregate: Callable[[Sequence[float]], float], seed: int = 0, confidence: float = 0.95
) -> Interval | None:
    """Bootstrap interval of any aggregate, such as a median (bias-corrected percentiles); None if too many values."""
    if not values or (resamples := min(1000, _DRAWS // len(values))) < 200:
        return None
    rng = random.Random(seed)  # noqa: S311 - repeatable statistics, no secret
    drawn = [float(aggregate(rng.choices(values, k=len(values)))) for _ in range(resamples)]
    return _percentiles(float(aggregate(values)), drawn, confidence)


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided p-value of McNemar's exact test (1947) for ``lost`` against ``gained`` flips; 1.0 without flips."""
    flips = lost + gained
    term, total = 1, 0
    for k in range(min(lost, gained) + 1):
        total += term
        term = term * (flips - k) // (k + 1)
    surplus = max(0, total.bit_length() - 64)  # total / 2**flips, also if both are too large for a float
    return min(1.0, 2 * math.ldexp(float(total >> surplus), surplus - flips))


def minimum_detectable_drop(n: int, alpha: float = 0.05) -> float:
    """The smallest drop of a rate over ``n`` paired examples that can be significant.

    In the best case every flip is a loss. Then ``k`` flips have the p-value ``2 / 2**k``, so at alpha 0.05 it takes 6
    examples, a drop of ``6 / n``. A value above 1 means that no drop is detectable.
    """
    flips = math.floor(math.log2(2 / alpha)) + 1
    return flips / n if n else math.inf


def _z(confidence: float) -> float:
    return statistics.NormalDist().inv_cdf((1 + confidence) / 2)
