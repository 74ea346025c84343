"""Untrusted text made harmless, and cut and padded by terminal cells."""

from __future__ import annotations

import re
import sys
import unicodedata
from subprocess import run

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pytest_llmtune._util.text import cell_cut, cell_pad, clean, one_line


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain\ttext\nof two lines", "plain\ttext\nof two lines"),
        ("한국어 日本語 العربية é \N{PILE OF POO}", "한국어 日本語 العربية é \N{PILE OF POO}"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\r\nb\x00\x7f\x9b", "a\\x0d\nb\\x00\\x7f\\x9b"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\U000e0041\ufeff\u200b", "\\U000e0041\\ufeff\\u200b"),
        ("\ud800", "\\ud800"),
        ("## Heading, C##[1] and ##[error]", "## Heading, C#\\#[1] and #\\#[error]"),
        ("##vso[task.x] ##teamcity[y]", "#\\#vso[task.x] #\\#teamcity[y]"),
        ("\N{MAN}\u200d\N{WOMAN} می\u200cخواهم", "\N{MAN}\u200d\N{WOMAN} می\u200cخواهم"),
    ],
)
def test_what_is_obeyed_is_escaped_and_what_is_read_stays(text: str, cleaned: str) -> None:
    """Controls, direction marks and invisible tags become visible escapes; every script and joined emoji stay."""
    assert clean(text) == cleaned


@given(st.text())
def test_nothing_invisible_is_left(text: str) -> None:
    """After cleaning there is no control, surrogate or format character but the joiners that scripts need."""
    left = {unicodedata.category(character) for character in clean(text) if character not in "\n\t\u200c\u200d\xad"}
    assert not left & {"Cc", "Cs", "Zl", "Zp"}
    assert clean(clean(text)) == clean(text)
    assert clean(text).encode().decode() == clean(text)


@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_short_line(text: str, limit: int) -> None:
    """Whatever the text, the line has no break, obeys no CI system and keeps to its limit."""
    line = one_line(text, limit)
    assert "\n" not in line
    assert len(line) <= limit + 1
    assert not re.match(r"\s*::", line)


def test_one_line_of_a_megabyte_looks_at_its_beginning_only() -> None:
    """A megabyte costs no more than its first characters."""
    assert one_line("a b\n" * 300_000, 20) == "a b a b a b a b a b "


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs", "Mn", "Me", "Cf"])), st.integers(4, 40))
def test_cells_are_cut_and_padded_exactly(text: str, width: int) -> None:
    """Wide characters count twice: what is cut and padded fills its column to the cell."""
    assert cell_len(cell_cut(text, width)) <= width
    assert cell_len(cell_pad(cell_cut(text, width), width)) == width
    if cell_len(text) <= width:
        assert cell_cut(text, width) == text
    else:
        assert cell_cut(text, width).endswith("...")


def test_padding_to_the_right_and_columns_too_narrow_for_dots() -> None:
    """Figures are padded on their left; a column of two cells cannot hold three dots."""
    assert cell_pad("多", 4, right=True) == "  多"
    assert cell_cut("abcdef", 2) == ".."
    assert cell_cut("abcdef", 0) == ""


def test_reports_import_what_they_need_when_they_need_it() -> None:
    """Lock, verdict and report modules cost no third-party import before a report is made."""
    code = (
        "import sys, importlib\n"
        "names = 'guard.lockfile guard.gates report.terminal report.html guard.results_file report.ci report.progress'\n"
        "[importlib.import_module(f'pytest_llmtune.{name}') for name in names.split()]\n"
        "heavy = {'rich', 'jinja2', 'plotly', 'yaml', 'numpy', 'openai', 'vcr', 'diskcache', 'flaml', 'pydantic'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
