"""Frozen values to JSON data and back."""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003 - from_plain reads it
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune._util.serialize import from_plain, to_plain


@dataclass(frozen=True, slots=True)
class Leaf:
    name: str
    share: float = 0.5


@dataclass(frozen=True, slots=True)
class Tree:
    leaves: tuple[Leaf, ...]
    price: Decimal
    pair: tuple[str, int]
    by_name: Mapping[str, Leaf]
    kind: Literal["oak", "fir"]
    age: int | None = None
    alive: bool = True
    extra: Any = None


TREE = Tree((Leaf("a"), Leaf("b", 0.1)), Decimal("0.10"), ("x", 1), {"c": Leaf("c")}, "oak", 3, False, {"k": [1]})

leaves = st.builds(Leaf, st.text(), st.floats(allow_nan=False))
trees = st.builds(
    Tree,
    st.lists(leaves).map(tuple),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.tuples(st.text(), st.integers()),
    st.dictionaries(st.text(), leaves),
    st.sampled_from(["oak", "fir"]),
    st.none() | st.integers(),
    st.booleans(),
    st.none() | st.text(),
)


@given(trees)
def test_every_value_survives_json(tree: Tree) -> None:
    """Through JSON text and back, each value is equal to itself, amounts with all their digits."""
    assert from_plain(Tree, json.loads(json.dumps(to_plain(tree), allow_nan=False))) == tree


def test_what_json_cannot_say_becomes_text() -> None:
    """Dates, NaN and other objects in a row become text instead of failing a report."""
    assert to_plain({1: date(2026, 1, 2), "x": float("nan"), "y": b"z"}) == {"1": "2026-01-02", "x": "nan", "y": "b'z'"}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["leaves", 1, "share"], "much", r"leaves\[1\].share is 'much', not a number"),
        (["leaves", 1, "share"], True, r"leaves\[1\].share is True, not a number"),
        (["leaves", 1, "name"], 3, r"leaves\[1\].name is 3, not text"),
        (["leaves"], "abc", "leaves is 'abc', not a list"),
        (["leaves", 0], [], r"leaves\[0\] is \[\], not a mapping"),
        (["price"], "a lot", "price is 'a lot', not an amount"),
        (["price"], "NaN", "price is 'NaN', not an amount"),
        (["price"], True, "price is True, not an amount"),
        (["price"], None, "price is None, not an amount"),
        (["pair"], ["x"], r"pair is \['x'\], not a list of 2"),
        (["by_name"], [], r"by_name is \[\], not a mapping"),
        (["by_name", "c"], 1, "by_name.c is 1, not a mapping"),
        (["kind"], "elm", "kind is 'elm', not one of oak, fir"),
        (["age"], 1.5, "age is 1.5, not a whole number"),
        (["age"], True, "age is True, not a whole number"),
        (["alive"], 1, "alive is 1, not true or false"),
        (["size"], 1, "the document has the unknown size"),
    ],
)
def test_wrong_data_are_refused_with_their_place(path: list[Any], value: Any, message: str) -> None:
    """An error names the place, what stands there and what was wanted."""
    data = to_plain(TREE)
    holder = data
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    with pytest.raises(ValueError, match=f"^{message}"):
        from_plain(Tree, data)


def test_a_missing_field_is_named() -> None:
    """A field without a default must be there; one with a default need not."""
    data = to_plain(TREE)
    del data["age"], data["pair"]
    with pytest.raises(ValueError, match=r"^suites\[0\] lacks pair$"):
        from_plain(Tree, data, "suites[0]")


def test_long_values_are_cut_in_messages() -> None:
    """A message stays one line, however long the wrong value is."""
    with pytest.raises(ValueError, match=r"^the document is 'x") as caught:
        from_plain(Tree, "x" * 10_000)
    assert len(str(caught.value)) < 130
