"""Beside pytest-html: the verdict's table and a link stand in the suite's row; without it nothing is imported."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
from support.browser import chromium

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Project

PAGES = ("--html=out/all.html", "--self-contained-html", "--llm-report=site")


@pytest.fixture
def fallen(tuned: Project) -> Project:
    """A suite whose recorded answers no longer reach a gate, and a test that is none of ours."""
    tuned.write_suite(more="min_success_vote=1.0, max_inference_cost=0.0000001,")
    (tuned.pytester.path / "test_other.py").write_text("def test_other(): pass\n", encoding="utf-8")
    return tuned


def extras_of(page: Path) -> dict[str, list[dict[str, Any]]]:
    """Every test's extras, as pytest-html keeps them in its page."""
    (encoded,) = re.findall(r'data-jsonblob="([^"]*)"', page.read_text(encoding="utf-8"))
    tests = json.loads(unescape(encoded))["tests"]
    return {name: one["extras"] for name, (one,) in tests.items()}


def test_table_and_link_stand_in_the_row(fallen: Project) -> None:
    """The row of the suite has gates and a link to its section of our page; that of another test has nothing."""
    fallen.run(*PAGES).assert_outcomes(passed=1, failed=1)
    extras = extras_of(fallen.pytester.path / "out" / "all.html")
    assert extras["test_other.py::test_other"] == []
    table, link = extras["test_sums.py::test_sums"]
    assert "<li>FAIL: inference_cost $" in table["content"]
    address, _, section = link["content"].partition("#")
    assert (link["name"], address) == ("llmtune report", "../site/index.html")
    assert f'id="{section}"' in (fallen.pytester.path / "site" / "index.html").read_text(encoding="utf-8")


def test_in_a_browser_the_row_shows_both(fallen: Project) -> None:
    """Opened in real Chromium, the table is seen and the link leads to the suite."""
    fallen.run(*PAGES)
    with chromium() as browser:
        browser.emulate(1280, 900)
        browser.open(fallen.pytester.path / "out" / "all.html")
        assert browser.one(".llmtune").is_displayed()
        assert "FAIL: inference_cost" in browser.one(".llmtune").text
        address = browser.one(".col-links__extra.url").get_attribute("href")
        browser.driver.get(address)
        assert browser.one("section:target h2").text == "sums failed"


def test_without_our_page_there_is_no_link(fallen: Project) -> None:
    """The table alone stands in the row."""
    fallen.run("--html=all.html", "--self-contained-html")
    (table,) = extras_of(fallen.pytester.path / "all.html")["test_sums.py::test_sums"]
    assert table["format_type"] == "html"


def test_without_pytest_html_nothing_is_imported(fallen: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pytest-html nor Jinja2 is touched where no page was asked for."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (fallen.pytester.path / "conftest.py").write_text(
        "import sys\n"
        "def pytest_unconfigure(config):\n"
        "    print('\\nimported:', sorted({'pytest_html', 'jinja2', 'plotly', 'rich.progress'} & sys.modules.keys()))\n",
        encoding="utf-8",
    )
    result = fallen.pytester.runpytest_subprocess("-p", "pytest_llmtune.plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["imported: []"])
