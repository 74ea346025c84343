"""The `python` grader in a whole run: searched, guarded, and what is said where answers have no walls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.llm_server import LLMServer

if TYPE_CHECKING:
    from pathlib import Path

SUITE = """
import pytest

@pytest.mark.llmtune(
    dataset="data.jsonl", prompt="{question}", model="m", temperature=0, n=1, max_tokens=50, num_samples=1,
    grader={"python": {"allow_code_execution": True, %s}}, prices={"m": {"input": 1, "output": 1}},
    optimization_budget=1, tune_size=2, max_drop=0.1,
)
def test_code(llmtune):
    llmtune.check()
"""
NOTE = "isolation='none': answers ran without a sandbox, with the rights of the user"


def write(path: Path, options: str) -> None:
    rows = [{"question": f"Say {number}", "tests": f"assert value == {number}"} for number in range(5)]
    (path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (path / "test_it.py").write_text(SUITE % options, encoding="utf-8")


@pytest.fixture
def searched(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> tuple[pytest.Pytester, str]:
    """A suite after a search without walls, and what the search said."""
    write(pytester.path, '"isolation": "none"')
    with LLMServer(
        answer=lambda body: f"```python\nvalue = {body['messages'][-1]['content'].split()[-1]}\n```", models=["m"]
    ) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        found = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--llm-tune")
    found.assert_outcomes(passed=1)
    return pytester, found.stdout.str()


def test_each_report_says_that_nothing_was_isolated(searched: tuple[pytest.Pytester, str]) -> None:
    """The search, the guard and the page; a sandboxed guard over the same files says nothing, and needs no new search."""
    pytester, said = searched
    run = ("-p", "no:cacheprovider")
    assert NOTE in said
    found = pytester.runpytest_inprocess(*run, "--llm-report=page.html", "--llm-json=results.json")
    found.assert_outcomes(passed=1)
    assert NOTE in found.stdout.str()
    assert "answers ran without a sandbox" in (pytester.path / "page.html").read_text(encoding="utf-8")
    assert "answers ran without a sandbox" in (pytester.path / "results.json").read_text(encoding="utf-8")
    write(pytester.path, "")
    found = pytester.runpytest_inprocess(*run)
    if "bubblewrap" in found.stdout.str():
        pytest.skip("no sandbox here")
    found.assert_outcomes(passed=1)
    assert NOTE not in found.stdout.str()


def test_a_machine_without_bubblewrap_fails_the_suite(
    searched: tuple[pytest.Pytester, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a skip nor a pass: a failed test that says what to install. Other tests run."""
    pytester, _ = searched
    write(pytester.path, "")
    pytester.makepyfile(test_other="def test_other(): pass")
    monkeypatch.setenv("PATH", "")
    found = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    found.assert_outcomes(passed=1, failed=1)
    found.stdout.fnmatch_lines(["*which is not installed: sudo apt-get install bubblewrap*"])
