"""Texts kept small."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.plain import to_plain
from pytest_llmtune.texts import Texts


@given(st.lists(st.text(st.characters(exclude_categories=()))))
def test_texts_are_as_a_tuple_of_them(texts: list[str]) -> None:
    """Whatever they hold, lone surrogates included: equal, as long, in order, and the same in JSON."""
    packed = Texts(texts)
    assert packed == tuple(texts)
    assert (len(packed), list(packed), packed[1:], hash(packed)) == (
        len(texts),
        texts,
        tuple(texts[1:]),
        hash(tuple(texts)),
    )
    assert to_plain(packed) == texts


def test_texts_take_little_memory() -> None:
    """Five answers of a few sentences each take less than half."""
    texts = [
        f"Answer {number}: each of the {number * 7} boxes holds {number} apples, so that is it. " * 3
        for number in range(5)
    ]
    assert sys.getsizeof(Texts(texts)._packed) < sum(map(sys.getsizeof, texts)) / 2
