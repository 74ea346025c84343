"""``--llm-choose=K``: another point of the front that ``prefer="pareto"`` found is locked, offline where it is recorded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import Project

SUITE = """
import pytest

@pytest.mark.llmtune(
    dataset="data.jsonl", prompt="{question}", model=["good", "bad"], temperature=0, n=1, max_tokens=20, grader="numeric",
    prices={"good": {"input": 50, "output": 100}, "bad": {"input": 1, "output": 2}}, tune_size=12, num_samples=-1,
    optimization_budget=1, prefer="pareto",
)
def test_sums(llmtune):
    llmtune.check()
"""


def answer(body: dict[str, Any]) -> str:
    """The good model adds up; the bad one only small numbers."""
    a, b = map(int, re.findall(r"\d+", body["messages"][-1]["content"])[-2:])
    return f"The answer is {a + b if body['model'] == 'good' or a < 3 else 999}."


def test_another_point_of_the_front(project: Project) -> None:
    """It says what is not recorded, records it, and is then what a plain run guards; there and back costs nothing anew."""
    (project.pytester.path / "test_sums.py").write_text(SUITE, encoding="utf-8")
    project.server.answer = answer
    result = project.run("--llm-tune")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "*--llm-choose=1: 1 at $1.* per 1,000 instances: good,*",
            "*--llm-choose=2: 0.* at $0.0* per 1,000 instances: bad,*",
        ]
    )
    assert "model: good" in project.lock.split("study:")[0]
    best, asked = project.lock, project.server.count
    result = project.run("--llm-choose=2")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*18 of 18 requests have no recording*", "*pytest --llm-choose=2 --llm-record=missing *"]
    )
    result.stdout.no_fnmatch_line("*the rows changed since the baseline*")
    assert (project.server.count, project.lock) == (asked, best)
    result = project.run("--llm-choose=2", "--llm-record=missing")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*accepted: success_vote was 1, and is 0.* over 18 rows; inference_cost was *"])
    assert project.server.count == asked + 18
    assert "model: bad" in project.lock.split("study:")[0]
    project.run().assert_outcomes(passed=1)
    result = project.run("--llm-choose=2")
    result.assert_outcomes(passed=1)  # recorded: offline
    project.run("--llm-choose=1", "--llm-record=missing").assert_outcomes(passed=1)
    assert project.server.count == asked + 18  # from the cache
    assert project.lock.split("study:")[0] == best.split("study:")[0]


def test_a_point_that_is_not_there(tuned: Project) -> None:
    """Nor is a front without ``prefer``, and it goes with no other mode."""
    result = tuned.run("--llm-choose=2")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*--llm-choose=2: the front is not there: declare prefer='pareto'; search it: pytest --llm-tune*"]
    )
    result = tuned.run("--llm-choose=2", "--llm-live")
    assert "--llm-choose and --llm-live cannot be combined" in "\n".join(result.errlines)
