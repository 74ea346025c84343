"""Statistics: Wilson intervals, bootstrap, McNemar's exact test, minimum detectable drop, bounds of a paired drop."""

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
    rng, positions = random.Random(seed), range(size)  # noqa: S311 - repeatable statistics, no secret
    return [itemgetter(*rng.choices(positions, k=size)) for _ in range(resamples)]


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


def drop_bounds(
    before: Sequence[float],
    now: Sequence[float],
    aggregate: Callable[[Sequence[float]], float] = statistics.fmean,
    confidence: float = 0.95,
) -> Interval:
    """How much a metric fell from ``before`` to ``now`` over the same rows: each bound holds with ``confidence`` by itself.

    Rates: Tango's score bounds (1998). Other metrics: the bootstrap over rows, widened by what so few rows can hide, because
    a share of ``1 - (1 - confidence) ** (1 / n)`` of all rows may lose everything without one of them in the sample.

    Raises:
        ValueError: no rows.
    """
    rows = len(before)
    if not rows:
        raise ValueError("no rows have no drop")
    if aggregate is statistics.fmean and {*before, *now} <= {0.0, 1.0}:
        lost = sum(old > new for old, new in zip(before, now, strict=True))
        gained = sum(old < new for old, new in zip(before, now, strict=True))
        return Interval(
            -_max_drop(gained, lost, rows, confidence, _CORRECTIONS[0]),
            _max_drop(lost, gained, rows, confidence),
            confidence,
        )
    drop = float(aggregate(before)) - float(aggregate(now))
    if aggregate is statistics.fmean:
        found = bootstrap_mean([old - new for old, new in zip(before, now, strict=True)], confidence=2 * confidence - 1)
    else:
        rng = random.Random(0)  # noqa: S311 - repeatable statistics, no secret
        draws = [rng.choices(range(rows), k=rows) for _ in range(max(200, min(1000, _DRAWS // rows)))]
        drawn = [float(aggregate([before[i] for i in at])) - float(aggregate([now[i] for i in at])) for at in draws]
        found = _percentiles(drop, drawn, 2 * confidence - 1)
    span = max(*before, *now, 1.0) - min(*before, *now, 0.0)
    hidden = span * (1 - (1 - confidence) ** (1 / rows))
    return Interval(min(found.low, drop - hidden), max(found.high, drop + hidden), confidence)


_CORRECTIONS = 0.75, 0.25
"""Continuity corrections, in flips, of the lower and upper bound: a few losses without a gain then have about exact bounds."""


def _max_drop(lost: int, gained: int, rows: int, confidence: float, correction: float = _CORRECTIONS[1]) -> float:
    """The largest drop that ``lost`` and ``gained`` of ``rows`` leave possible: Tango's upper bound."""
    z = statistics.NormalDist().inv_cdf(confidence)
    low, high = (lost - gained) / rows, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if rows * middle - (lost - gained) - correction >= z * math.sqrt(_spread(lost, gained, rows, middle)):
            high = middle
        else:
            low = middle
    return high


def _spread(lost: int, gained: int, rows: int, drop: float) -> float:
    """The variance of ``lost - gained`` for a true drop, with the most likely rate of gains given it."""
    if drop < 0:
        return _spread(gained, lost, rows, -drop)
    b = -lost - gained + (2 * rows - lost + gained) * drop
    c = -gained * drop * (1 - drop)
    gains = (math.sqrt(max(0.0, b * b - 8 * rows * c)) - b) / (4 * rows)
    return rows * max(0.0, 2 * gains + drop * (1 - drop))


def rows_needed(
    before: Sequence[float], now: Sequence[float], drop: float, margin: float, confidence: float = 0.95
) -> int | None:
    """Rows needed to decide, with a power of 80 %, on which side of ``margin`` a drop like the observed one lies.

    None: more than a million; the drop is about the margin itself.
    """
    normal, rows = statistics.NormalDist(), len(before)
    variance = statistics.pvariance([old - new for old, new in zip(before, now, strict=True)]) if rows else 0.0
    distance = (normal.inv_cdf(confidence) + normal.inv_cdf(0.8)) ** 2
    if (margin <= 0 and variance == 0) or not math.isfinite(drop) or abs(margin - drop) < 1e-9:
        return None
    needed = math.ceil(distance * variance / (margin - drop) ** 2)
    if drop < margin:  # even without a flip
        least = 1
        while least < _MOST_ROWS and _max_drop(0, 0, least, confidence) > margin:
            least = math.ceil(least * 1.02) if least > 50 else least + 1
        needed = max(needed, least)
    return None if needed >= _MOST_ROWS else max(needed, rows + 1)


_MOST_ROWS = 1_000_000


def _z(confidence: float) -> float:
    return statistics.NormalDist().inv_cdf((1 + confidence) / 2)
