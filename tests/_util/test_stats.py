"""Intervals and tests held against scipy, statsmodels and exact distributions."""

from __future__ import annotations

import math
import random
import statistics
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from pytest_llmtune._util.stats import (
    bootstrap,
    bootstrap_mean,
    drop_bounds,
    mcnemar_exact,
    minimum_detectable_drop,
    rows_needed,
    wilson,
)
from pytest_llmtune.types import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


# Wilson


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (0, 20), (1, 20), (10, 20), (17, 20), (20, 20), (3, 1000), (654_321, 10**6)]
)
def test_wilson_agrees_with_statsmodels_and_scipy(successes: int, n: int, confidence: float) -> None:
    """Two independent implementations, from one row to a million."""
    found = wilson(successes, n, confidence)
    assert found.confidence == confidence
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert ends(found) == pytest.approx((low, high), abs=1e-12)
    other = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert ends(found) == pytest.approx((other.low, other.high), abs=1e-12)


def test_wilson_takes_95_percent_unless_told_otherwise() -> None:
    assert wilson(7, 9) == wilson(7, 9, 0.95)
    assert wilson(7, 9).confidence == 0.95


@pytest.mark.parametrize("n", [1, 3, 7, 20, 999])
def test_wilson_ends_exactly_at_0_and_1(n: int) -> None:
    """No rounding is left at the ends, and what was seen always lies inside."""
    assert wilson(0, n).low == 0.0 < wilson(0, n).high < 1.0
    assert wilson(n, n).high == 1.0 > wilson(n, n).low > 0.0
    for successes in range(1, n):
        low, high = ends(wilson(successes, n))
        assert 0.0 < low < successes / n < high < 1.0


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0, 0, 0.9) == Interval(0.0, 1.0, 0.9)


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (1, 0), (0, -1)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=rf"^{successes} successes of {n}: expected 0 <= successes <= n$"):
        wilson(successes, n)


# McNemar


@pytest.mark.parametrize("lost", [0, 1, 2, 3, 5, 8, 13, 40])
@pytest.mark.parametrize("gained", [0, 1, 2, 4, 7, 21, 60])
def test_mcnemar_agrees_with_statsmodels_and_scipy(lost: int, gained: int) -> None:
    """Of the 2x2 table only the two cells that changed matter."""
    found = mcnemar_exact(lost, gained)
    if lost + gained == 0:
        assert found == 1.0
        return
    assert found == pytest.approx(mcnemar([[9, lost], [gained, 5]], exact=True).pvalue, rel=1e-9)
    assert found == pytest.approx(stats.binomtest(lost, lost + gained, 0.5).pvalue, rel=1e-9)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_holds_for_large_counts(lost: int, gained: int) -> None:
    """Whole numbers inside: no overflow, no p above 1, either side first."""
    found = mcnemar_exact(lost, gained)
    expected = min(1.0, 2 * stats.binom.cdf(min(lost, gained), lost + gained, 0.5))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-200)  # scipy's smallest are 0
    assert mcnemar_exact(0, 1 + gained % 1000) == 2 * 0.5 ** (1 + gained % 1000)
    assert found == mcnemar_exact(gained, lost)


# the drop that can be told at all


@pytest.mark.parametrize("alpha", [0.5, 0.25, 0.2, 0.125, 0.1, 0.0625, 0.05, 0.03125, 0.01, 0.001, 1e-6])
@pytest.mark.parametrize("n", [1, 5, 6, 20, 1000])
def test_the_detectable_drop_is_the_first_that_a_gate_calls_significant(n: int, alpha: float) -> None:
    """As the gate has it: p below alpha, not equal to it, where every flip is a loss."""
    flips = next(k for k in range(1, 100) if stats.binomtest(k, k, 0.5).pvalue < alpha)
    assert minimum_detectable_drop(n, alpha) == flips / n
    assert mcnemar_exact(flips, 0) < alpha <= mcnemar_exact(flips - 1, 0)


def test_the_detectable_drop_at_5_percent_takes_six_examples() -> None:
    assert minimum_detectable_drop(60) == 0.1
    assert minimum_detectable_drop(5) > 1
    assert minimum_detectable_drop(0) == math.inf


# the bootstrap


class Recorded:
    """An aggregate that keeps what it was asked for: each resample's value, in the order of the draws."""

    def __init__(self, aggregate: object) -> None:
        self.aggregate = aggregate
        self.values: list[float] = []
        self.resamples: list[tuple[float, ...]] = []

    def __call__(self, values: Sequence[float]) -> float:
        self.resamples.append(tuple(values))
        self.values.append(float(self.aggregate(values)))  # type: ignore[operator]
        return self.values[-1]


def bias_corrected(drawn: Sequence[float], point: float, confidence: float) -> tuple[float, float]:
    """Efron's bias-corrected percentiles, by scipy and numpy."""
    below = np.mean(np.array(drawn) < point) + np.mean(np.array(drawn) == point) / 2
    shift = 2 * stats.norm.ppf(np.clip(below, 0.001, 0.999))
    tail = stats.norm.ppf((1 + confidence) / 2)
    low, high = np.quantile(drawn, [stats.norm.cdf(shift - tail), stats.norm.cdf(shift + tail)], method="higher")
    return min(low, point), max(high, point)


SKEWED = [round(math.exp(i / 7), 3) for i in range(40)]


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(
    ("aggregate", "bias"),
    [
        (statistics.fmean, 0),
        (statistics.median, 0),
        (statistics.pstdev, 1),  # resamples spread less than the sample: most lie below it
        (lambda values: -statistics.pstdev(values), -1),
        (max, 1),  # no resample passes the largest
        (min, -1),
    ],
)
def test_percentiles_are_corrected_for_bias(aggregate: object, bias: int, confidence: float) -> None:
    """Against Efron's formula over the very same draws; where the bias is large, the plain percentiles lie elsewhere."""
    recorded = Recorded(aggregate)
    found = ends(bootstrap(SKEWED, recorded, seed=3, confidence=confidence))
    point, drawn = recorded.values.pop(), recorded.values
    assert len(drawn) == 1000
    low, high = bias_corrected(drawn, point, confidence)
    step = sorted(drawn)
    gap = max(b - a for a, b in zip(step, step[3:], strict=False))  # three order statistics: the choice of a quantile
    near = [abs(found[0] - low) <= gap, abs(found[1] - high) <= gap]
    assert near == [True, True]
    plain = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    if bias:
        assert bias * (found[0] - plain[0]) > 0 or bias * (found[1] - plain[1]) > 0


def test_the_bias_correction_moves_the_ends_by_twice_the_bias() -> None:
    """A spread is biased downwards by resampling: both ends move up, to the very order statistic."""
    recorded = Recorded(statistics.pstdev)
    found = ends(bootstrap(SKEWED, recorded, seed=5))
    point, drawn = recorded.values[-1], sorted(recorded.values[:-1])
    below = sum(value < point for value in drawn) / len(drawn)
    assert below > 0.51
    places = [
        stats.norm.cdf(2 * stats.norm.ppf(below) + tail) for tail in (-stats.norm.ppf(0.975), stats.norm.ppf(0.975))
    ]
    assert found == tuple(drawn[int(place * len(drawn))] for place in places)


def test_resamples_are_drawn_with_replacement_and_repeat_with_the_seed() -> None:
    """As many values as there are, of those that there are; another seed draws others."""
    one, two, other = (Recorded(statistics.fmean) for _ in range(3))
    first, second = bootstrap(SKEWED, one, seed=1), bootstrap(SKEWED, two, seed=1)
    bootstrap(SKEWED, other, seed=2)
    assert first == second
    assert one.resamples == two.resamples != other.resamples
    drawn = one.resamples[:-1]
    assert {len(resample) for resample in drawn} == {len(SKEWED)}
    assert set().union(*drawn) == set(SKEWED)
    assert any(len(set(resample)) < len(resample) for resample in drawn)


def test_the_default_seed_is_0_and_the_default_confidence_95_percent() -> None:
    default = bootstrap(SKEWED, statistics.median)
    assert default == bootstrap(SKEWED, statistics.median, 0, 0.95)
    assert default is not None
    assert default.confidence == 0.95
    assert bootstrap_mean(SKEWED) == bootstrap_mean(SKEWED, 0, 0.95)
    assert bootstrap_mean(SKEWED).confidence == 0.95


def test_an_aggregate_of_nothing_or_of_too_many_has_no_interval() -> None:
    """200 resamples at least, of 200,000 values drawn at most."""
    assert bootstrap([], statistics.fmean) is None
    assert bootstrap([0.0, 1.0] * 501, len) is None
    recorded = Recorded(len)
    assert bootstrap([0.0, 1.0] * 500, recorded) is not None
    assert len(recorded.values) == 201


@pytest.mark.parametrize(("right", "n"), [(18, 20), (19, 20), (27, 30), (58, 60), (290, 300)])
@pytest.mark.parametrize("flipped", [False, True])
def test_the_interval_of_a_rate_agrees_with_the_exact_bootstrap_distribution(right: int, n: int, flipped: bool) -> None:
    """Resampling a rate draws from a binomial distribution, whose bias-corrected percentiles need no draws.

    Close to 1 the distribution is skewed: without the correction the interval would end a step lower.
    """
    right = n - right if flipped else right
    found = ends(bootstrap_mean([1.0] * right + [0.0] * (n - right), seed=11))
    exact = stats.binom(n, right / n)
    shift = 2 * stats.norm.ppf(exact.cdf(right - 1) + exact.pmf(right) / 2)
    expected = [exact.ppf(stats.norm.cdf(shift + tail * stats.norm.ppf(0.975))) / n for tail in (-1, 1)]
    assert found == pytest.approx(expected, abs=1.01 / n)


def test_the_bias_correction_of_a_mean_is_seen_over_many_seeds() -> None:
    """22 of 25: the lower end is that of the corrected distribution, a step below the plain one; of 3 the upper end."""
    exact = stats.binom(25, 22 / 25)
    below = exact.cdf(21) + exact.pmf(22) / 2
    plain, corrected = (
        exact.ppf(stats.norm.cdf(2 * bias - stats.norm.ppf(0.975))) / 25 for bias in (0, stats.norm.ppf(below))
    )
    assert (plain, corrected) == (19 / 25, 18 / 25)
    values = [1.0] * 22 + [0.0] * 3
    lows = [bootstrap_mean(values, seed).low for seed in range(40)]
    highs = [bootstrap_mean([1 - value for value in values], seed).high for seed in range(40)]
    assert statistics.fmean(lows) == pytest.approx(corrected, abs=0.3 / 25)
    assert statistics.fmean(highs) == pytest.approx(1 - corrected, abs=0.3 / 25)


def test_the_interval_of_a_mean_agrees_with_scipys_bootstrap() -> None:
    """Symmetric values: no bias, no skewness, so that BCa and ours are the same but for the draws."""
    chance = random.Random(4)
    values = [chance.gauss(0, 1) for _ in range(100)]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))
    low, high = theirs.confidence_interval
    assert ends(bootstrap_mean(values)) == pytest.approx((low, high), abs=0.08 * (high - low))


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_large_sample_is_corrected_for_skewness(sign: int, confidence: float) -> None:
    """Johnson's interval from scipy's own moments: shifted towards the long tail."""
    chance = random.Random(8)
    values = [sign * chance.expovariate(1.0) for _ in range(401)]
    found = bootstrap_mean(values, confidence=confidence)
    mean, error = np.mean(values), stats.sem(values)
    third = stats.skew(values) * np.std(values) ** 3
    shift = third / (6 * np.var(values, ddof=1) * len(values))
    half = stats.norm.ppf((1 + confidence) / 2) * error
    assert ends(found) == pytest.approx((mean + shift - half, mean + shift + half), rel=1e-9)
    assert sign * shift > 0.01 * error
    assert found.confidence == confidence


def test_resampling_ends_past_400_values() -> None:
    """Up to there the seed matters, past it nothing is drawn."""
    values = [float(i % 7) ** 2 for i in range(401)]
    assert bootstrap_mean(values[:400], 1) != bootstrap_mean(values[:400], 2)
    assert bootstrap_mean(values, 1) == bootstrap_mean(values, 2)


def test_an_interval_stays_within_what_was_seen() -> None:
    """A single outlier among many equal values does not carry the interval past any value."""
    values = [1.0] * 1000 + [0.0]
    low, high = ends(bootstrap_mean(values))
    assert 0.99 < low < statistics.fmean(values) < high == 1.0
    low, high = ends(bootstrap_mean([-value for value in values]))
    assert low == -1.0 < high < -0.99


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(0, 3))
def test_an_interval_holds_the_mean(values: list[float], seed: int) -> None:
    """Whatever the draws, what was seen lies inside, and the interval inside what was seen."""
    low, high = ends(bootstrap_mean(values, seed))
    mean = statistics.fmean(values)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= low <= mean + slack
    assert mean - slack <= high <= max(values) + slack


def test_the_mean_of_equal_values_is_certain() -> None:
    assert bootstrap_mean([0.25] * 3, confidence=0.9) == Interval(0.25, 0.25, 0.9)
    assert bootstrap_mean([0.7]) == Interval(0.7, 0.7, 0.95)


def test_the_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="mean of no values"):
        bootstrap_mean([])


@pytest.mark.parametrize("size", [60, 500])
def test_19_of_20_intervals_of_a_skewed_mean_hold_the_truth(size: int) -> None:
    """Exponential values: resampled (from the same draws, which are made once), and by the limit for large samples."""
    chance, held = random.Random(size), 0
    for _ in range(400):
        low, high = ends(bootstrap_mean([chance.expovariate(1.0) for _ in range(size)]))
        held += low <= 1.0 <= high
    assert 0.91 <= held / 400 <= 0.985


def test_resamples_are_the_same_whatever_was_asked_before() -> None:
    """Metrics of one evaluation share their draws; the figures are those of each alone."""
    rng = random.Random(3)
    first, second = ([rng.random() for _ in range(23)] for _ in range(2))
    alone = bootstrap_mean(second)
    bootstrap_mean([1.0, 2.0, 4.0])
    together = bootstrap_mean(first), bootstrap_mean(second)
    assert together[1] == alone
    drawn = random.Random(0)
    means = sorted(sum(drawn.choices(second, k=23)) / 23 for _ in range(2000))
    assert {alone.low, alone.high} <= {*means}


@pytest.mark.parametrize(("rows", "margin"), [(30, 0.1), (61, 0.05), (157, 0.02)])
def test_a_drop_bound_without_a_flip_is_no_tighter_than_the_exact_one(rows, margin):
    """A drop of ``margin`` stays hidden with probability ``(1 - margin) ** rows``."""
    bounds = drop_bounds([1.0] * rows, [1.0] * rows)
    assert 1 - 0.05 ** (1 / rows) <= bounds.high <= margin
    assert bounds.low == -bounds.high or bounds.low > -1.3 * bounds.high


@pytest.mark.parametrize("rare", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(("rows", "drop"), [(40, 0.1), (60, 0.05)])
def test_a_drop_bound_is_wrong_in_five_of_a_hundred(rows, drop, rare):
    """Over all outcomes of the trinomial: neither bound misses the true drop more often."""
    lost, gained = rare + drop, rare
    chances = {
        (a, b): math.exp(
            math.lgamma(rows + 1)
            - math.lgamma(a + 1)
            - math.lgamma(b + 1)
            - math.lgamma(rows - a - b + 1)
            + a * math.log(lost)
            + (b * math.log(gained) if b else 0.0)
            + (rows - a - b) * math.log(1 - lost - gained)
        )
        for a in range(rows)
        for b in range((rows if gained else 1) - a)
    }
    missed = [0.0, 0.0]
    for (a, b), chance in chances.items():
        if chance > 1e-7:
            same = rows - a - b
            bounds = drop_bounds([1.0] * a + [0.0] * b + [1.0] * same, [0.0] * a + [1.0] * b + [1.0] * same)
            missed[0] += chance * (bounds.high < drop)
            missed[1] += chance * (bounds.low > drop)
    assert max(missed) <= 0.051


def test_a_drop_of_other_metrics_is_bootstrapped_and_never_certain():
    """Equal values leave room for what so few rows cannot show; a median has bounds too."""
    same = [0.3, 0.5, 0.7] * 10
    assert drop_bounds(same, same).high == pytest.approx(1 - 0.05 ** (1 / 30))
    worse = [value - 0.2 for value in same]
    for aggregate in (statistics.fmean, statistics.median):
        bounds = drop_bounds(same, worse, aggregate)
        assert bounds.low <= 0.2 <= bounds.high
    with pytest.raises(ValueError, match="no rows"):
        drop_bounds([], [])


def test_flips_that_cancel_leave_a_drop_near_zero():
    """For many flips Tango's bounds are about the normal ones: 100 lost and 100 gained of 400."""
    before, now = [1.0] * 300 + [0.0] * 100, [0.0] * 100 + [1.0] * 300
    assert ends(drop_bounds(before, now)) == pytest.approx((-1.645 * 200**0.5 / 400, 1.645 * 200**0.5 / 400), rel=0.04)


def test_many_rows_have_the_bootstraps_bounds():
    """One-sided at 0.95 is two-sided at 0.9: the bootstrap of the mean's for a mean, percentiles for a median."""
    rng = random.Random(1)
    before = [rng.random() for _ in range(400)]
    now = [min(1.0, max(0.0, value - rng.uniform(-0.2, 0.5))) for value in before]
    mean = bootstrap_mean([old - new for old, new in zip(before, now, strict=True)], confidence=0.9)
    assert ends(drop_bounds(before, now)) == ends(mean)
    draws = np.random.default_rng(2).integers(0, 400, (4000, 400))
    medians = np.median(np.array(before)[draws], axis=1) - np.median(np.array(now)[draws], axis=1)
    bias = stats.norm.ppf(np.mean(medians < np.median(before) - np.median(now)))
    expected = tuple(np.quantile(medians, stats.norm.cdf(2 * bias + np.array([-1.645, 1.645]))))
    assert ends(drop_bounds(before, now, statistics.median)) == pytest.approx(expected, abs=0.012)


def test_rows_needed_grow_with_flips_and_shrink_with_the_distance():
    calm, restless = [1.0] * 20, [1.0, 0.0] * 10
    assert rows_needed(calm, calm, 0.0, 0.05) == pytest.approx(61, abs=2)
    fewest = next(rows for rows in range(1, 60) if drop_bounds([1.0] * rows, [1.0] * rows).high <= 0.1)
    assert rows_needed(calm, calm, 0.0, 0.1) == fewest
    few, many = (rows_needed(restless, restless[::-1], 0.0, margin) for margin in (0.2, 0.1))
    assert few is not None
    assert many is not None
    assert 20 < few < many
    assert rows_needed(restless, restless[::-1], 0.05, 0.05) is None
    assert rows_needed(restless, restless[::-1], 0.4, 0.2) == few  # on the other side of the margin, as far from it
