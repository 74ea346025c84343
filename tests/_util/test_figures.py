"""Figures as people read them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune._util.text import apart, counted, dollars, interval, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1"),
        (0.85, "0.85"),
        (2 / 3, "0.6667"),
        (100.0, "100"),
        (1e-7, "1e-07"),
        (-0.5, "-0.5"),
        (0.00004, "4e-05"),
    ],
)
def test_numbers_have_four_decimals_at_most(value: float, text: str) -> None:
    """No trailing zeros, no false precision, and a tiny value is not shown as 0."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "$0"),
        ("12.4", "$12.40"),
        ("1", "$1.00"),
        ("1000", "$1000.00"),
        ("0.004", "$0.004"),
        ("0.000312512345", "$0.0003125"),
        ("0.05", "$0.05"),
        ("1234.5678", "$1234.57"),
        ("0.00000000012", "$0.00000000012"),
    ],
)
def test_dollars_have_cents_and_the_digits_that_count(amount: str, text: str) -> None:
    """Prices of single requests and of whole searches are both readable; never in powers of ten."""
    assert dollars(Decimal(amount)) == text
    assert dollars(float(amount)) == text


def test_two_numbers_that_differ_look_different() -> None:
    """A value just past its limit shows by how much, with no more digits than that takes."""
    assert apart(0.85, 0.85) == ("0.85", "0.85")
    assert apart(0.849996, 0.85) == ("0.849996", "0.85")
    assert apart(Decimal("0.0040001"), Decimal("0.004"), money=True) == ("$0.0040001", "$0.004")


@given(st.floats(0, 1), st.floats(0, 1))
def test_apart_tells_apart_what_matters(first: float, second: float) -> None:
    """Numbers that differ by a billionth or more never look alike."""
    shown = apart(first, second)
    if abs(first - second) > 1e-8:
        assert shown[0] != shown[1]


def test_an_interval_is_two_numbers() -> None:
    """Three decimals are enough for an interval."""
    assert interval(0.12345, 1) == "0.123 to 1"


def test_one_is_singular() -> None:
    """Counts read as English."""
    assert [counted(n, "trial") for n in range(3)] == ["0 trials", "1 trial", "2 trials"]
