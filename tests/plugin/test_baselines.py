"""``baselines=[...]``: evaluated beside the winner, as a table in the terminal, on the page, in JSON and in JUnit."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from support.llm_server import Fault, prompt_tokens, tokens

if TYPE_CHECKING:
    from conftest import Project
    from support.llm_server import LLMServer

BASELINES = 'min_success_vote=0.9, baselines=[{}, {"n": 2}, {"model": "bad", "n": 3, "prompt": "{question}!"}],'
LABELS = ["untuned", "n=2", "model=bad, n=3, prompt='{question}!'"]


@pytest.fixture
def compared(project: Project) -> dict[str, Any]:
    """The suite's results after ``pytest --llm-tune`` with baselines."""
    project.write_suite(more=BASELINES)
    result = project.run("--llm-tune", "--llm-json=r.json", "--llm-report=r.html", "--junitxml=j.xml")
    result.assert_outcomes(passed=1)
    [suite] = json.loads((project.pytester.path / "r.json").read_text(encoding="utf-8"))["suites"]
    return suite | {"shown": result.stdout.str()}


def billed(server: LLMServer) -> Decimal:
    """USD for everything that the server answered."""
    total = 0
    for body in server.answered:
        answer = server.choices(body)
        total += prompt_tokens(body["messages"]) + 2 * sum(tokens(choice.text) for choice in answer)
    return Decimal(total) / 1_000_000


def test_every_report_compares_them_with_the_winner(project: Project, compared: dict[str, Any]) -> None:
    """Score and cost of the winner and of each baseline have intervals, and a label says what differs."""
    beside = compared["compared"]
    assert [one["label"] for one in beside] == LABELS
    chosen = compared["evaluation"]
    figures = [(one["score"]["value"], one["score"], one["inference_cost"], one["cost_interval"]) for one in beside]
    figures.append(
        (
            chosen["metrics"]["success_vote"],
            chosen["intervals"]["success_vote"],
            chosen["inference_cost"],
            chosen["intervals"]["inference_cost"],
        )
    )
    for value, score, cost, sure in figures:
        assert 0 <= score["low"] <= value <= score["high"] <= 1
        assert 0 < sure["low"] <= float(cost) <= sure["high"] < 1
    assert [one["score"]["value"] for one in beside] == [1, 1, 0]
    assert float(beside[1]["inference_cost"]) > float(beside[0]["inference_cost"])

    lines = compared["shown"].splitlines()
    [start] = [place for place, line in enumerate(lines) if line.endswith("cost per 1,000")]
    table = lines[start + 1 : start + 5]
    assert [line.split("  ")[0] for line in table[:3]] == ["chosen", "untuned", "n=2"]
    assert all(line.count(" to ") == 2 for line in table)

    page = (project.pytester.path / "r.html").read_text(encoding="utf-8")
    assert "Side by side, over the same rows" in page
    assert all(f'<th scope="row">{label}<br>' in page for label in ["chosen", "untuned", "n=2"])

    xml = ElementTree.parse(project.pytester.path / "j.xml")  # noqa: S314  # just written
    properties = {found.get("name"): found.get("value") for found in xml.iter("property")}
    assert properties["llmtune.compared.2.label"] == "n=2"
    assert properties["llmtune.compared.2.value"] == "1"
    for name in ("tuning", "heldout", "compared.2", "compared.2.inference_cost"):
        assert " to " in str(properties[f"llmtune.{name}.interval"])


def test_what_a_run_spent_is_what_the_server_billed(project: Project, compared: dict[str, Any]) -> None:
    """Search, winner and baselines, to the digit."""
    assert Decimal(compared["spent"]) == billed(project.server)


def test_a_baseline_that_fails_does_not_cost_the_winner(project: Project) -> None:
    """It is said, the others are compared, and lock file and recording are those of the winner."""

    def gone(body: dict[str, Any]) -> Fault | None:
        return Fault.http(401, "gone", "invalid_api_key") if body.get("temperature") == 0.123 else None

    project.server.fault = gone
    project.write_suite(more='min_success_vote=0.9, baselines=[{"n": 2}, {"temperature": 0.123}],')
    result = project.run("--llm-tune")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["n=2 *", "note: sums: the baseline temperature=0.123 was not evaluated: *401*"])
    project.run().assert_outcomes(passed=1)


def test_a_baseline_without_answers_is_not_scored(project: Project) -> None:
    """Examples that failed are unknown, not wrong: it has no score of 0, but a word."""
    refused = Fault.http(400, "no such thing")
    project.server.fault = lambda body: refused if body.get("temperature") == 0.123 else None
    project.write_suite(more='min_success_vote=0.9, baselines=[{"temperature": 0.123}],')
    result = project.run("--llm-tune")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["note: sums: the baseline temperature=0.123: 18 of 18 examples have no answer*"])
    result.stdout.no_fnmatch_line("*cost per 1,000*")
