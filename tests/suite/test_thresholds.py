"""Thresholds: read from min_ and max_ keys, for the suite or for each group, and judged with both numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune._util.text import parse_number
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite import Threshold
from pytest_llmtune.suite.keys import COSTS, METRICS, RATES, SCORES, parse_threshold


@pytest.mark.parametrize(
    ("key", "raw", "threshold"),
    [
        ("min_success_vote", 0.85, Threshold("success_vote", "min", Decimal("0.85"))),
        ("min_success_vote", "0.85", Threshold("success_vote", "min", Decimal("0.85"))),
        ("min_success", 1, Threshold("success", "min", Decimal(1))),
        ("max_inference_cost", 0.004, Threshold("inference_cost", "max", Decimal("0.004"))),
        ("max_inference_cost", Decimal("1e-6"), Threshold("inference_cost", "max", Decimal("0.000001"))),
        ("max_latency", 2.5, Threshold("latency", "max", Decimal("2.5"))),
        ("min_bleu", 31, Threshold("bleu", "min", Decimal(31))),
        ("max_loss", -3, Threshold("loss", "max", Decimal(-3))),
        ("max_정확도", 1, Threshold("정확도", "max", Decimal(1))),
        (
            "min_success_vote",
            {"geometry": 0.7, "algebra": 0.9},
            Threshold("success_vote", "min", {"geometry": Decimal("0.7"), "algebra": Decimal("0.9")}),
        ),
        ("min_success_vote", {5: 0.5}, Threshold("success_vote", "min", {"5": Decimal("0.5")})),
    ],
)
def test_parse(key: str, raw: Any, threshold: Threshold) -> None:
    """Limits are exact, as written; groups are the values of a column as text."""
    assert parse_threshold(key, raw) == threshold
    assert threshold.key == key


@pytest.mark.parametrize(
    ("key", "raw", "says"),
    [
        ("min_success_vote", 85, "is 85 (did you mean 0.85?); success_vote is between 0 and 1"),
        ("min_success_vote", 100, "is 100 (did you mean 1?); success_vote"),
        ("min_success_vote", 101, "is 101; success_vote"),
        ("min_success_vote", 850, "is 850; success_vote is between 0 and 1"),
        ("min_success_vote", -0.1, "is between 0 and 1"),
        ("min_success_vote", "high", "is 'high'; valid: a number"),
        ("min_success_vote", True, "is True; valid: a number"),
        ("min_success_vote", [0.5], "is [0.5]; valid: a number"),
        ("min_success_vote", float("nan"), "is nan; valid: a number"),
        ("min_success_vote", float("inf"), "is inf; valid: a number"),
        ("min_success_vote", {}, "has no group; valid: a number, or {group: number, ...}"),
        ("min_success_vote", {"a": 5}, "is 5 (did you mean 0.05?); success_vote"),
        ("max_inference_cost", -1, "is -1; inference_cost is in USD, from 0"),
        ("min_sucess_vote", 0.5, "no metric 'sucess_vote' (did you mean 'success_vote'?)"),
        ("max_inference_costs", 0.5, "(did you mean 'inference_cost'?)"),
        ("success_vote", 0.5, "is not a threshold; valid: min_<metric> or max_<metric>"),
        ("min_", 0.5, "is not a threshold"),
        ("min_1", 0.5, "is not a threshold"),
        ("min_a-b", 0.5, "is not a threshold"),
    ],
)
def test_unusable_thresholds(key: str, raw: Any, says: str) -> None:
    """The error says what was got and what the metric can be."""
    with pytest.raises(SuiteError) as caught:
        parse_threshold(key, raw)
    assert says in str(caught.value)


@pytest.mark.parametrize("metric", METRICS)
def test_a_slip_in_any_metric_that_every_suite_has_is_reported(metric: str) -> None:
    """The exact name is known; with one letter too many, it is suggested."""
    assert parse_threshold(f"max_{metric}", 0.5).metric == metric
    with pytest.raises(
        SuiteError, match=rf"no metric '{metric}x' \(did you mean '{metric}'\?\); there are success_vote, "
    ):
        parse_threshold(f"max_{metric}x", 0.5)


@pytest.mark.parametrize("metric", RATES)
def test_a_rate_lies_between_0_and_1_and_a_cost_from_0(metric: str) -> None:
    """Both ends are legal; other metrics have no ends."""
    for limit in (0, 1, Decimal("0.5")):
        assert parse_threshold(f"min_{metric}", limit).limit == limit
    for limit in (Decimal("-0.0001"), Decimal("1.0001")):
        with pytest.raises(SuiteError, match="is between 0 and 1"):
            parse_threshold(f"min_{metric}", limit)
    for cost in COSTS:
        assert parse_threshold(f"max_{cost}", 0).limit == 0
        assert parse_threshold(f"max_{cost}", 1000).limit == 1000
        with pytest.raises(SuiteError, match="from 0"):
            parse_threshold(f"max_{cost}", Decimal("-0.0001"))
    assert parse_threshold("max_latency_p99", 100).limit == 100
    assert parse_threshold("min_own", -5).limit == -5


def test_a_wrong_group_is_named() -> None:
    """The problem's path holds the group, for YAML's line and column."""
    with pytest.raises(SuiteError) as caught:
        parse_threshold("min_success_vote", {"algebra": 0.5, "geometry": 7})
    assert getattr(caught.value, "path", None) == ("geometry",)


def test_limits_of_groups() -> None:
    """A limit for the suite is none for its groups, and the other way round."""
    whole, grouped = parse_threshold("min_success", 0.5), parse_threshold("min_success", {"a": 0.25})
    assert (whole.of_group(None), whole.of_group("a"), whole.groups) == (Decimal("0.5"), None, ())
    assert (grouped.of_group(None), grouped.of_group("a"), grouped.of_group("b")) == (None, Decimal("0.25"), None)
    assert grouped.groups == ("a",)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (0.1, Decimal("0.1")),
        (3, Decimal(3)),
        (" 1e-3 ", Decimal("0.001")),
        (Decimal("2.50"), Decimal("2.50")),
        (True, None),
        ("x", None),
        ("", None),
        (None, None),
        (float("inf"), None),
        ("NaN", None),
        ([], None),
        ("9" * 30, Decimal("9" * 30)),
        ("1e400", None),  # arithmetic with it would overflow, and a message with it fill the memory
        ("1e-999999", None),
        pytest.param(10**5000, None, id="5001 digits"),
    ],
)
def test_numbers_are_exact(raw: Any, value: Decimal | None) -> None:
    """A number means what is written, not its nearest binary fraction."""
    assert parse_number(raw) == value


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_every_finite_number_is_one(raw: float) -> None:
    """And keeps its value."""
    value = parse_number(raw)
    assert value is not None
    assert type(raw)(value) == raw


def test_the_metrics_of_every_suite_are_those_that_are_documented() -> None:
    assert SCORES == ("success_vote", "success", "expected_success")
    assert RATES == ("success_vote", "success", "expected_success", "refused")
    assert COSTS == ("inference_cost", "cost")
    latencies = ("latency", "latency_p50", "latency_p90", "latency_p95", "latency_p99")
    assert (*RATES, *COSTS, *latencies) == METRICS
