"""Rows and tables from Python: dataclasses, pydantic, pandas, polars."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pandas
import polars
import pydantic
import pytest

from pytest_llmtune import Suite
from pytest_llmtune.data.dataset import load
from pytest_llmtune.errors import SuiteError


@dataclasses.dataclass
class Sum:
    question: str
    answer: int


class Ticket(pydantic.BaseModel):
    question: str
    answer: int | None = None


class Pair(NamedTuple):
    question: str
    answer: int


ROWS = [{"question": "1 + 1", "answer": 2}, {"question": "2 + 2", "answer": 4}]


@pytest.mark.parametrize(
    "source",
    [
        [Sum(**row) for row in ROWS],
        [Ticket(**row) for row in ROWS],
        [Pair(**row) for row in ROWS],
        pandas.DataFrame(ROWS),
        polars.DataFrame(ROWS),
        lambda: polars.DataFrame(ROWS),
        tuple(ROWS),
    ],
    ids=["dataclass", "pydantic", "named tuple", "pandas", "polars", "function", "tuple"],
)
def test_rows_of_every_kind_are_the_same_rows(source: Any) -> None:
    """With the same ids, also where a suite is given them."""
    assert [example.row for example in load(source).examples] == ROWS
    assert load(source).fingerprint == load(ROWS).fingerprint
    suite = Suite(name="s", dataset=source, prompt="{question}", model="m", grader="numeric", tune_size=1)
    assert len(suite.load().test) == 1


def test_what_is_missing_in_tables_is_missing_here() -> None:
    """Each library has its own words for it."""
    table = pandas.DataFrame(
        {"question": ["a", "b", "c"], "at": [pandas.NaT, pandas.NaT, pandas.NaT], "x": [pandas.NA] * 3}
    )
    assert load(table).examples[0].row == {"question": "a", "at": None, "x": None}
    assert load(polars.DataFrame({"x": [None, 1.5]})).examples[1].row == {"x": 1.5}


def test_a_mapping_is_no_table() -> None:
    """A dict of splits, for one: which of them is meant is not guessed."""
    with pytest.raises(SuiteError, match="valid: a path"):
        load({"train": ROWS, "test": ROWS})
