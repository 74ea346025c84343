"""Search-space words: their bounds are FLAML's, and wrong ones are refused where they are written."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pytest_llmtune
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite import (
    Choice,
    Constant,
    Domain,
    LogRandInt,
    LogUniform,
    OneOf,
    QUniform,
    RandInt,
    Uniform,
    choice,
    lograndint,
    loguniform,
    quniform,
    randint,
    uniform,
)


@pytest.mark.parametrize(
    ("made", "equal"),
    [
        (uniform(0, 2), Uniform(0, 2)),
        (loguniform(0.1, 2), LogUniform(0.1, 2)),
        (randint(1, 5), RandInt(1, 5)),
        (lograndint(1, 5), LogRandInt(1, 5)),
        (quniform(0, 1, 0.25), QUniform(0, 1, 0.25)),
        (choice(["a", "b"]), Choice(("a", "b"))),
        (choice(("a", "b")), Choice(("a", "b"))),
    ],
)
def test_constructors_make_domains(made: Domain, equal: Domain) -> None:
    """Each public constructor gives the domain of its name."""
    assert made == equal


def test_constructors_are_exported_from_the_package() -> None:
    """A suite in Python imports its words from the top."""
    for constructor in (uniform, loguniform, randint, lograndint, quniform, choice):
        assert getattr(pytest_llmtune, constructor.__name__) is constructor


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (Uniform(0, 2), [0, 2, 1, 0.5], [-0.1, 2.1, "1", None, True, math.nan]),
        (LogUniform(0.5, 2), [0.5, 2.0], [0, 0.4, 3]),
        (RandInt(1, 100), [1, 99, 50.0], [0, 100, 1.5, None, True]),
        (LogRandInt(50, 1000), [50, 999], [49, 1000, 60.5]),
        (QUniform(0, 1, 0.25), [0, 0.25, 1], [0.3, 1.25, "0.25"]),
        (QUniform(0, 1, 0.1), [0.1 * 3, 0.7], [0.15]),
        (Constant(5), [5, 5.0], [6, None, True]),
        (Constant(None), [None], [0, ""]),
        (Constant(True), [True], [1]),
        (Choice((1, None, "a")), [1, None, "a"], [True, "b", 2]),
        (Choice((["\n"], ["a", "b"])), [["\n"], ["a", "b"]], ["\n", ["a"]]),
    ],
)
def test_contains(domain: Domain, inside: list[Any], outside: list[Any]) -> None:
    """Whole-number ranges end below their upper bound, as in FLAML; the others include it."""
    assert [value for value in inside if not domain.contains(value)] == []
    assert [value for value in outside if domain.contains(value)] == []


def test_one_of_contains_exactly_one_branch() -> None:
    """A hierarchical choice holds the parameters of one branch, and not of two."""
    domain = OneOf(({"temperature": Uniform(0, 2)}, {"top_p": Uniform(0, 1)}))
    assert domain.contains({"temperature": 1.5})
    assert domain.contains({"top_p": 0.5})
    assert not domain.contains({"temperature": 1.5, "top_p": 0.5})
    assert not domain.contains({"top_p": 1.5})
    assert not domain.contains({})
    assert not domain.contains(0.5)
    assert domain.names == {"temperature", "top_p"}


@pytest.mark.parametrize(
    ("domain", "constant"),
    [
        (Constant(1), True),
        (Choice((1,)), True),
        (Choice((1, 2)), False),
        (Uniform(0, 1), False),
        (OneOf(({"temperature": Constant(1)},)), True),
        (OneOf(({"temperature": Uniform(0, 1)},)), False),
        (OneOf(({"temperature": Constant(1)}, {"top_p": Constant(1)})), False),
    ],
)
def test_is_constant(domain: Domain, constant: bool) -> None:
    """There is something to choose where two values are possible."""
    assert domain.is_constant is constant


@pytest.mark.parametrize(
    ("domain", "plain"),
    [
        (Uniform(0, 2), {"uniform": [0, 2]}),
        (LogRandInt(50, 1000), {"lograndint": [50, 1000]}),
        (QUniform(0, 1, 0.5), {"quniform": [0, 1, 0.5]}),
        (Choice(("a", None)), {"choice": ["a", None]}),
        (Constant({"type": "json_object"}), {"type": "json_object"}),
        (OneOf(({"top_p": Uniform(0, 1)},)), [{"top_p": {"uniform": [0, 1]}}]),
    ],
)
def test_plain_form_is_that_of_a_yaml_suite(domain: Domain, plain: Any) -> None:
    """What is shown for a domain can be pasted into a suite."""
    assert domain.to_plain() == plain


def test_top_is_the_largest_value_that_can_be_drawn() -> None:
    """The upper bound itself for fractions, one less for whole numbers."""
    assert Uniform(0, 2).top == 2
    assert RandInt(1, 100).top == 99
    assert LogRandInt(50, 1000).top == 999


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: uniform(2, 0), "uniform(2, 0): the lower bound is not below the upper one"),
        (lambda: uniform(1, 1), "the lower bound is not below"),
        (lambda: uniform(0, math.inf), "a bound is a finite number"),
        (lambda: uniform(0, math.nan), "a bound is a finite number"),
        (lambda: uniform("0", 1), "uniform has the bound '0'"),  # type: ignore[arg-type]
        (lambda: uniform(False, 1), "has the bound False"),
        (lambda: loguniform(0, 1), "the lower bound of a logarithmic range is above 0"),
        (lambda: lograndint(0, 10), "logarithmic range is above 0"),
        (lambda: randint(0.5, 2), "its bounds are whole numbers"),  # type: ignore[arg-type]
        (lambda: quniform(0, 1, 0), "a step is a number above 0"),
        (lambda: quniform(0, 1, True), "a step is a number above 0"),
        (lambda: quniform(0, 1, 0.3), "the bounds are not multiples of the step"),
        (lambda: choice([]), "an empty list of choices"),
        (lambda: choice("ab"), "choice takes a list of options"),  # type: ignore[arg-type]
        (lambda: choice(3), "choice takes a list of options"),  # type: ignore[arg-type]
        (lambda: choice([1, 1]), "duplicate choice 1"),
        (lambda: choice([uniform(0, 1)]), "a choice is between plain values"),
        (lambda: OneOf(()), "an empty list of branches"),
    ],
)
def test_wrong_domains_are_refused(make: Any, says: str) -> None:
    """The error names the word and what its arguments may be."""
    with pytest.raises(SuiteError) as caught:
        make()
    assert says in str(caught.value)


def test_true_and_one_are_different_choices() -> None:
    """A flag beside a number is no repetition."""
    assert choice([1, True]).options == (1, True)


@given(low=st.integers(-1000, 1000), size=st.integers(1, 1000))
def test_every_whole_number_of_a_range_is_inside(low: int, size: int) -> None:
    """RandInt holds exactly ``size`` numbers from ``low`` on."""
    domain = RandInt(low, low + size)
    assert domain.contains(low)
    assert domain.contains(domain.top)
    assert not domain.contains(low + size)
    assert sum(domain.contains(value) for value in range(low - 2, low + size + 2)) == size


@given(
    low=st.floats(-1e6, 1e6),
    high=st.floats(-1e6, 1e6),
    share=st.floats(0, 1),
)
def test_what_lies_between_the_bounds_is_inside(low: float, high: float, share: float) -> None:
    """Any point between two bounds belongs to the uniform range between them."""
    if not low < high:
        with pytest.raises(SuiteError):
            uniform(low, high)
        return
    value = min(high, max(low, low + share * (high - low)))
    assert uniform(low, high).contains(value)


def test_bounds_mean_what_they_mean_in_flaml() -> None:
    """Values that FLAML itself draws belong to our domain, and its upper bounds are ours."""
    tune = pytest.importorskip("flaml.tune")
    pairs = [
        (tune.randint(1, 4), RandInt(1, 4)),
        (tune.lograndint(1, 4), LogRandInt(1, 4)),
        (tune.uniform(0, 2), Uniform(0, 2)),
        (tune.loguniform(0.1, 1), LogUniform(0.1, 1)),
        (tune.quniform(0, 1, 0.25), QUniform(0, 1, 0.25)),
    ]
    for theirs, ours in pairs:
        drawn = theirs.sample(size=200)
        assert all(ours.contains(float(value)) for value in drawn), ours
    assert {int(value) for value in tune.randint(1, 4).sample(size=200)} == {1, 2, 3}
