"""A request without a recording: the nearest recorded one, and what differs, in a few lines."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from support.exchanges import body_of, exchange

from pytest_llmtune._util.jsonhash import canonical_json
from pytest_llmtune.recording.format import Interaction
from pytest_llmtune.recording.mismatch import difference, explain, nearest


def recorded(*questions: str) -> list[Interaction]:
    return [Interaction.of(exchange(question, "a")) for question in questions]


def asked(question: str, n: int = 1, **parameters: object) -> str:
    return canonical_json(body_of(question, **parameters) | {"n": n})


def test_the_nearest_request_is_found() -> None:
    """Of many questions the one that was edited."""
    many = recorded(
        *[f"How many apples are {i} and {i + 1} apples?" for i in range(40)], "What is the capital of France?"
    )
    found = nearest(asked("What is the capital city of France?"), many)
    assert found is not None
    assert "capital of France" in found.body
    found = nearest(asked("How many apples are 17 and 18 pears?"), many)
    assert found is not None
    assert "17 and 18" in found.body


def test_only_what_differs_is_shown() -> None:
    """Field by field; a long prompt line by line."""
    old = canonical_json(body_of("one\ntwo\nthree", temperature=0.5))
    new = canonical_json(body_of("one\n2\nthree", temperature=0.7, top_p=1))
    assert difference(old, new).split("\n") == [
        "--- recorded",
        "+++ sent now",
        '-messages[0].content: "two"',
        '+messages[0].content: "2"',
        "-temperature: 0.5",
        "+temperature: 0.7",
        "+top_p: 1",
    ]


def test_long_differences_are_cut() -> None:
    """At most 24 lines of 160 characters, and the number of those left out."""
    shown = difference(asked("\n".join("x" * 500 for _ in range(100))), asked("\n".join(map(str, range(100))))).split(
        "\n"
    )
    assert len(shown) == 25
    assert max(map(len, shown)) <= 163
    assert shown[-1] == f"... {2 + 200 - 24} more lines"


def test_control_characters_are_harmless() -> None:
    """What a model or a stranger wrote cannot move the terminal's cursor."""
    shown = difference(asked("a"), asked("\x1b[2J\x07\u202e"))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\u001b[2J" in shown


def test_nothing_recorded_explains_nothing() -> None:
    """Before the first recording there is nothing to compare with."""
    assert explain(asked("q"), []) == ""


def test_hostile_numbers_are_shown() -> None:
    """1e999 is JSON, and no number that Python can write."""
    assert difference('{"x": 1e999}', '{"x": 1}').split("\n")[2:] == ["-x: Infinity", "+x: 1"]


def test_a_body_that_is_no_json_is_compared_by_lines() -> None:
    """Forms and plain texts too."""
    assert difference("a=1\nb=2", "a=1\nb=3").split("\n")[2:] == ["-b=2", "+b=3"]


def test_many_recordings_are_searched_quickly() -> None:
    """Ten thousand recorded requests are no reason to wait."""
    many = recorded(*[f"Problem {i}: " + "some words of a problem " * 10 for i in range(10_000)])
    start = time.process_time()
    found = nearest(asked("Problem 7777: " + "some words of a problem " * 10 + "!"), many)
    assert time.process_time() - start < 2
    assert found is not None
    assert "Problem 7777" in found.body


@given(st.text(), st.text())
def test_a_difference_is_shown_exactly_where_there_is_one(one: str, other: str) -> None:
    """For any two questions."""
    assert (difference(asked(one), asked(other)) == "") is (one == other)
