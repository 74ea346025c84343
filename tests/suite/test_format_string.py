"""Format strings: they fill in columns, in any script, and reach nothing else."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.suites import refusal

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite.prompts import escape, fill, format_fields


@pytest.mark.parametrize(
    ("text", "row", "filled"),
    [
        ("{q} = ?", {"q": "1+1"}, "1+1 = ?"),
        ("no field", {}, "no field"),
        ("", {}, ""),
        ("Put it in \\boxed{{}}.", {}, "Put it in \\boxed{}."),
        ("{{{q}}}", {"q": 1}, "{1}"),
        ("{유저}님", {"유저": "민수"}, "민수님"),
        ("{два слова}", {"два слова": "да"}, "да"),
        ("{x:.2f}|{x:>6}", {"x": 1.5}, "1.50|   1.5"),
        ("{x!r} {x!s} {x!a}", {"x": "é"}, "'é' é '\\xe9'"),
        ("{x!r:>6}", {"x": "a"}, "   'a'"),
        ("{a}{a}{b}", {"a": 1, "b": 2}, "112"),
        ("{x}", {"x": None}, "None"),
        ("{x}", {"x": ["a", 1]}, "['a', 1]"),
        ("{x:,}", {"x": 1234567}, "1,234,567"),
        ("{class}", {"class": "keyword"}, "keyword"),
        ("{__class__}", {"__class__": "just a column"}, "just a column"),
    ],
)
def test_fill(text: str, row: dict[str, Any], filled: str) -> None:
    """Columns are filled in with conversion and format; doubled braces are braces."""
    assert fill(text, row) == filled


def test_a_value_is_never_a_template() -> None:
    """Braces in the data stay as they are."""
    assert fill("{q}", {"q": "{answer} {q.__class__} {{}}"}) == "{answer} {q.__class__} {{}}"


def test_fields() -> None:
    """The columns a text names, each once."""
    assert format_fields("{a} {b!r} {a:>3} {{c}}") == {"a", "b"}
    assert format_fields("none") == frozenset()


def test_decomposed_names_are_composed_ones() -> None:
    """A Mac writes 유저 in parts; it is the same column."""
    decomposed = unicodedata.normalize("NFD", "유저")
    assert decomposed != "유저"
    assert format_fields(f"{{{decomposed}}}") == {"유저"}
    assert fill(f"{{{decomposed}}}", {"유저": "x"}) == "x"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{a.b}", "the field {a.b} reaches into a value"),
        ("{a.__class__.__mro__}", "reaches into a value"),
        ("{a[0]}", "reaches into a value"),
        ("{a[key]}", "reaches into a value"),
        ("{a]}", "reaches into a value"),
        ("{}", "the field {} names no column"),
        ("{0}", "the field {0} names no column"),
        ("{:>3}", "names no column"),
        ("\\boxed{}", "literal braces are written {{ }}"),
        ("{", "literal braces are written {{ }}"),
        ("}", "literal braces are written {{ }}"),
        ("{a", "literal braces are written {{ }}"),
        ("{a:{b}}", "a format spec must not have braces"),
        ("{a:>1001}", "or a width above 1000"),
        ("{a:.99999999f}", "or a width above 1000"),
        ("{a:>1000000000000}", "or a width above 1000"),
        ("{a!x}", "valid conversions are !s, !r and !a"),
    ],
)
def test_what_reaches_further_is_refused(text: str, says: str) -> None:
    """Refused when the suite is declared, not when it is filled."""
    with pytest.raises(SuiteError) as caught:
        format_fields(text)
    assert says in str(caught.value)


def test_a_missing_column_is_named_with_the_nearest() -> None:
    """A row without the column gives one clear error."""
    with pytest.raises(
        SuiteError, match=r"names \{qestion\} \(did you mean 'question'\?\), but the row has 'question'"
    ):
        fill("{qestion}", {"question": "x"})


@pytest.mark.parametrize(("spec", "value"), [(".2f", "abc"), ("d", 1.5), (">5", None), ("%Y", ["x"])])
def test_a_value_that_does_not_fit_its_format(spec: str, value: Any) -> None:
    """The error names field, format and value."""
    with pytest.raises(SuiteError) as caught:
        fill(f"{{x:{spec}}}", {"x": value})
    assert f"{{x:{spec}}} does not fit the value {value!r}" in str(caught.value)


def test_a_template_that_repeats_a_long_value_is_stopped() -> None:
    """A few kilobytes of template and one long cell do not fill the memory."""
    with pytest.raises(SuiteError, match="gets longer than the limit of 16,000,000 characters"):
        fill("{a}" * 100_000, {"a": "x" * 1_000_000})


@given(st.text())
def test_escape_gives_exactly_the_text(text: str) -> None:
    """A fixed system message is sent unchanged."""
    assert fill(escape(text), {}) == text
    assert format_fields(escape(text)) == frozenset()


@given(st.text(alphabet="{}ab.[]!:0<> \\'\"", max_size=20))
def test_any_text_is_filled_or_refused(text: str) -> None:
    """No template makes anything but text or our own error."""
    row = {"a": "x", "b": 2, "ab": [1]}
    filled: list[str] = []
    said = refusal(lambda: filled.append(fill(text, row)))
    assert said or isinstance(filled[0], str)
