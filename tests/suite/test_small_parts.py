"""The small rooms of the house: names, aggregates, needed columns, forms, messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune._util.text import InvalidError, did_you_mean, listed, shown
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite.keys import check_name
from pytest_llmtune.suite.suite import reference_columns

COLUMNS = ("question", "solution", "answer", "챗봇", "hint")


def one(responses: list[str], 챗봇: str, hint: str = "") -> dict[str, float]:  # noqa: N803, PLC2401  # a column
    return {}


def rest(responses: list[str], **row: Any) -> dict[str, float]:
    return {}


@pytest.mark.parametrize(
    ("grader", "columns"),
    [
        ("math", {"answer"}),
        ("exact", {"answer"}),
        ({"math": {"reference": "solution"}}, {"solution"}),
        ({"math": {}}, {"answer"}),
        ({"math": None}, {"answer"}),
        ({"math": {"reference": 5}}, {"answer"}),
        ("judge", set()),
        ("python", set()),
        ({"judge": {"rubric": "x"}}, set()),
        ({"judge": {"reference": "hint"}}, {"hint"}),
        ("module:function", {"answer"}),
        (one, {"챗봇"}),
        (rest, {"answer"}),
        (len, {"answer"}),
        (["math", {"exact": {"reference": "hint"}}, "judge"], {"answer", "hint"}),
        (5, {"answer"}),
    ],
)
def test_reference_columns(grader: Any, columns: set[str]) -> None:
    """Named by an option, asked for by a function's arguments, or the first of the usual names that is there."""
    assert reference_columns(grader, COLUMNS) == columns


def test_no_reference_column() -> None:
    """Where none of the usual names is there, the grader will say so; nothing is needed here."""
    assert reference_columns("math", ("question", "챗봇")) == frozenset()


@pytest.mark.parametrize("name", ["algebra", "한국어 상담", "a.b-c_d", "x" * 200, "test[gpt-4o]", "épreuve", "1"])
def test_names_that_can_be_files(name: str) -> None:
    """Any script, spaces, brackets."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "a/b",
        "a\\b",
        "a:b",
        'a"b',
        "a?b",
        "a*b",
        "a|b",
        "<a>",
        "a\nb",
        "a\x00b",
        ".hidden",
        "a.",
        "CON",
        "nul.txt",
        "com1",
        "LPT9.x",
        "x" * 201,
        "가" * 67,
        "a\u202eb",
        "a\u200bb",
        "a\u2028b",
        5,
        None,
        ["a"],
        "..",
    ],
)
def test_names_that_cannot(name: Any) -> None:
    """On any system: separators, controls, reserved and too long ones."""
    with pytest.raises(SuiteError, match=r"^is "):
        check_name(name)


def test_names_are_composed_and_trimmed() -> None:
    """Two spellings of one name are one file."""
    assert check_name("  e\u0301preuve ") == "épreuve"


@given(st.text(max_size=30))
def test_checked_names_are_stable(name: str) -> None:
    """A checked name passes again, unchanged."""
    try:
        checked = check_name(name)
    except SuiteError:
        return
    assert check_name(checked) == checked


@pytest.mark.parametrize(
    ("word", "valid", "hint"),
    [
        ("modle", ["mode", "model"], " (did you mean 'model'?)"),
        ("promt", ["prompt", "prices"], " (did you mean 'prompt'?)"),
        ("zzz", ["prompt"], ""),
        (5, ["5"], " (did you mean '5'?)"),
        ("model", [], ""),
    ],
)
def test_did_you_mean(word: Any, valid: list[str], hint: str) -> None:
    """The nearest word; two letters in each other's place beat a lost letter."""
    assert did_you_mean(word, valid) == hint


def test_values_in_messages() -> None:
    """On one line, cut, and with control characters escaped."""
    assert shown("a" * 100, 10) == "'aaaaaa..."
    assert shown("a\nb\x1b[31m") == "'a\\nb\\x1b[31m'"
    assert shown([1, 2]) == "[1, 2]"
    assert shown("\u202eevil") == "'\\u202eevil'"
    assert listed("abc", 2) == "'a', 'b' and 1 more"
    assert listed([]) == "none"


def test_paths_of_problems() -> None:
    """They grow from the inside out, and read as people write them."""
    problem = InvalidError("is wrong", "stop").inside("model", 1)
    assert (problem.path, problem.spot, str(problem)) == (("model", 1, "stop"), "model[1].stop", "is wrong")
    assert InvalidError("x").spot == ""
