"""Rows from any source are made alike, and known by their content."""

from __future__ import annotations

import datetime
import math
import unicodedata
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.data.dataset import clean_row, content_id, fingerprint, with_ids
from pytest_llmtune.errors import SuiteError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ROW = st.dictionaries(st.text(st.characters(codec="ascii")), PLAIN, max_size=4)


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        (None, None),
        (True, True),
        (math.nan, None),
        (math.inf, math.inf),
        ((1, [math.nan]), [1, [None]]),
        ({1: (2,)}, {"1": [2]}),
        (datetime.date(2024, 1, 2), datetime.date(2024, 1, 2)),
        (Decimal("1.10"), Decimal("1.10")),
    ],
)
def test_values(value: Any, cleaned: Any) -> None:
    """Plain data stays; NaN, which tables use for it, is missing; tuples become lists."""
    assert clean_row({"a": value}, "here") == {"a": cleaned}


def test_numpy_values_become_plain() -> None:
    """As a function over a data frame returns them."""
    numpy = pytest.importorskip("numpy")
    row = clean_row({"a": numpy.int64(3), "b": numpy.array([1.5, math.nan]), "c": numpy.bool_(True)}, "here")
    assert row == {"a": 3, "b": [1.5, None], "c": True}
    assert type(row["a"]) is int


def test_column_names_are_composed() -> None:
    """A Mac's decomposed Hangul is the same column as everybody else's."""
    assert clean_row({unicodedata.normalize("NFD", "유저é"): 1}, "here") == {"유저é": 1}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("text", "here: a row is a mapping of column to value, got 'text'"),
        ([1], "here: a row is a mapping"),
        (None, "here: a row is a mapping"),
        ({1: 2}, "here: column names must be strings, got 1"),
        ({"é": 1, unicodedata.normalize("NFD", "é"): 2}, "here: duplicate column 'é'"),
        ({"a": object()}, "(object); valid: strings, numbers"),
        ({"a": [b"bytes"]}, "here: column 'a' holds b'bytes' (bytes); valid"),
        ({"a": {1, 2}}, "(set); valid"),
    ],
)
def test_what_is_no_row(row: Any, says: str) -> None:
    """The place leads to it."""
    with pytest.raises(SuiteError) as caught:
        clean_row(row, "here")
    assert says in str(caught.value)


@given(ROW)
def test_cleaning_twice_changes_nothing(row: dict[str, Any]) -> None:
    """What is clean stays as it is."""
    once = clean_row(row, "here")
    assert clean_row(once, "here") == once


@given(ROW)
def test_ids_do_not_depend_on_the_order_of_columns(row: dict[str, Any]) -> None:
    """The same row from a CSV with moved columns is the same row."""
    assert content_id(row) == content_id(dict(reversed(row.items())))
    assert len(content_id(row)) == 16


@given(row=ROW, value=st.text())
def test_any_change_changes_the_id(row: dict[str, Any], value: str) -> None:
    """An edited cell makes another row."""
    changed = {**row, "extra": value}
    assert content_id(changed) != content_id(row)


def test_ids_of_repeated_rows() -> None:
    """Each example has an id of its own."""
    examples = with_ids([(0, {"a": 1}), (1, {"a": 2}), (4, {"a": 1}), (5, {"a": 1})])
    first = content_id({"a": 1})
    assert [example.id for example in examples] == [first, content_id({"a": 2}), f"{first}-2", f"{first}-3"]
    assert [example.index for example in examples] == [0, 1, 4, 5]


def test_ids_stay_what_they_were() -> None:
    """They stand in committed lock files: the recipe must not change."""
    assert content_id({"q": "1+1", "a": "2"}) == "9729aa89b94db2a3"
    assert content_id({"유저": "안녕", "n": 1.5, "x": None}) == "711db7ef49928764"


@given(st.lists(ROW, max_size=6), st.randoms())
def test_fingerprint_heeds_content_and_not_order(rows: list[dict[str, Any]], random: Any) -> None:
    """Re-ordered, the data set is the same; with a row less it is another."""
    moved = list(rows)
    random.shuffle(moved)
    print_ = fingerprint(with_ids(enumerate(rows)))
    assert fingerprint(with_ids(enumerate(moved))) == print_
    if rows:
        assert fingerprint(with_ids(enumerate(rows[1:]))) != print_
