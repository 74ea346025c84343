"""Expected values that cannot be read, or that nothing is compared with, are errors: they never make an answer right."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from support.graders import math

from pytest_llmtune import grade
from pytest_llmtune.errors import SuiteError

NAN = float("nan")


@pytest.mark.parametrize("grader", ["exact", "contains", "choice"])
@pytest.mark.parametrize(
    "value", [NAN, ["Paris", None], ["Paris", NAN], ["Paris", " "], ["Paris", ["x"]], {"a": 1}, [{}], b"a"]
)
def test_what_is_missing_is_no_reference(grader: str, value: Any) -> None:
    """``str(None)`` and ``str(nan)`` are texts that a response can have."""
    for response in ("None", "nan", "Paris", str(value)):
        with pytest.raises(SuiteError, match="reference"):
            grade(grader, [response], {"answer": value})


def test_what_is_a_text_stays_one() -> None:
    for grader in ("exact", "contains"):
        for value in (True, 0, 1.5, "02134", ["Paris", 3], datetime.date(2024, 1, 5)):
            response = str(value[0] if isinstance(value, list) else value)
            assert grade(grader, [response], {"answer": value}).metrics["success_vote"] == 1


def test_a_list_is_no_regular_expression() -> None:
    """``['a', 'b']`` would be a set of characters."""
    for value in (["a", "b"], {"a": 1}, NAN):
        with pytest.raises(SuiteError, match="reference"):
            grade("regex", ["a"], {"answer": value})
    assert grade("regex", ["b1"], {"answer": [r"b\d"]}).metrics["success_vote"] == 1


@pytest.mark.parametrize("symbolic", [False, pytest.param(True, id="algebra")])
def test_a_date_is_no_difference(symbolic: bool) -> None:
    if symbolic:
        pytest.importorskip("sympy")

    def right(reference: Any, response: str) -> bool:
        return (
            math(symbolic=symbolic).grade([rf"\boxed{{{response}}}"], {"answer": reference}).metrics["success_vote"]
            == 1
        )

    for reference, response in [("2024-01-05", "2018"), ("05/01/2024", "5/2024"), ("2018", "2024-01-05")]:
        assert not right(reference, response)
    assert not right(datetime.date(2024, 1, 5), "2018")
    assert right("2024-01-05", "2024-01-05")
    assert right(datetime.date(2024, 1, 5), "2024-01-05")
