"""Reliability, money and what is told of a suite with a task, end to end."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Project

SUITE = """
import pytest

@pytest.mark.llmtune(
    dataset="data.jsonl", task="desk:handle", model="good", params={{"style": "short"}}, n=4, grader="numeric", tune_size=2,
    test_size=4, concurrency=1, prices={{"good": {{"input": 1, "output": 2}}}}, {more}
)
def test_desk(llmtune):
    llmtune.check()
"""
DESK = """
def handle(question, model, style, client):
    ask = client.chat.completions.create
    plan = ask(model=model, messages=[{"role": "user", "content": f"Plan: {style} {question}"}], max_tokens=20)
    said = plan.choices[0].message.content
    return ask(
        model=model, messages=[{"role": "user", "content": f"[{said}] {question}"}], max_tokens=20
    ).choices[0].message.content
"""


@pytest.fixture
def three_of_four(project: Project) -> Project:
    """Each fourth run on a row is wrong."""
    seen: Counter[str] = Counter()

    def answer(body: dict[str, Any]) -> str:
        text = str(body["messages"][-1]["content"])
        if text.startswith("Plan:"):
            return "add"
        a, b = map(int, re.findall(r"\d+", text)[-2:])
        seen[text] += 1
        return f"The answer is {999 if seen[text] % 4 == 0 else a + b}."

    project.server.answer = answer
    project.write_task(DESK)
    return project


def metrics(project: Project, name: str = "results.json") -> dict[str, float]:
    data = json.loads((project.pytester.path / name).read_text(encoding="utf-8"))
    found: dict[str, float] = data["suites"][0]["evaluation"]["metrics"]
    return found


def test_reliability_is_gated_and_tuned(three_of_four: Project) -> None:
    """Of 4 runs 3 are right: pass@2 is 1, pass^2 3 of 6 pairs, and each row's rate 0.75, whatever is tuned."""
    project = three_of_four
    project.write_suite('metric="pass_hat_2", pass_at_k={2: 1}, pass_hat_k={2: 0.5}, min_row_rate=0.75,', suite=SUITE)
    project.run("--llm-tune", "--llm-json=results.json").assert_outcomes(passed=1)
    found = metrics(project)
    assert (found["pass_at_2"], found["pass_hat_2"], found["row_rate"]) == pytest.approx((1.0, 0.5, 0.75))
    assert "pass_hat_2: {value: 0.5" in project.lock
    project.write_suite('metric="row_rate", pass_hat_k={2: 0.51, 3: 0.26}, min_row_rate=0.8,', suite=SUITE)
    result = project.run("-n", "2")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*FAIL  row_rate 0.75 is below min_row_rate 0.8: row * (0.75)*",
            "*pass_hat_2 0.5 is below min_pass_hat_2 0.51*",
            "*pass_hat_3 0.25 is below min_pass_hat_3 0.26*",
        ]
    )


def test_the_runs_money_ends_a_search_over_a_task(three_of_four: Project) -> None:
    """``--llm-max-spend`` holds call by call, and what was paid for is kept: the next run pays only for the rest."""
    project = three_of_four
    project.write_suite("", suite=SUITE)
    result = project.run("--llm-tune", "--llm-max-spend=0.0001")
    result.stdout.fnmatch_lines(["*does not pay for the first call of a run at its worst; raise it: --llm-max-spend=*"])
    assert not project.server.count
    assert project.run("--llm-tune", "--llm-max-spend=0.0003", "--llm-json=results.json").ret != 0
    first = json.loads((project.pytester.path / "results.json").read_text(encoding="utf-8"))
    assert 0 < float(first["spent"]) <= 0.0003
    asked = project.server.count
    assert asked > 1
    assert not (project.pytester.path / "llmtune" / "desk.lock.yaml").exists()
    project.run("--llm-tune").assert_outcomes(passed=1)
    assert (
        project.server.count == (2 + 4) * 4 * 2
    )  # each call of the search and of the recording once, in both runs together


def test_the_report_folds_the_trace_and_names_the_first_call_that_differs(three_of_four: Project) -> None:
    """Row by row, with model, tokens, USD, seconds and messages; a flip says which call is not the baseline's."""
    project = three_of_four
    project.write_task(DESK.replace("Plan:", "Plan: <b> sk-test-secret-0123456789"))
    project.write_suite("", suite=SUITE)
    project.run("--llm-tune").assert_outcomes(passed=1)
    project.server.answer = lambda body: "sub" if str(body["messages"][-1]["content"]).startswith("Plan:") else "999"
    project.run("--llm-live", "--llm-report=report.html").assert_outcomes(failed=1)
    page = (project.pytester.path / "report.html").read_text(encoding="utf-8")
    assert "call 1 of run 1 is the first that differs from the baseline&#39;s" in page.replace("'s", "&#39;s")
    assert page.count("<details") >= 4
    assert "run 4" in page
    assert "2 calls, $0.000" in page
    assert "<summary>1 message</summary>" in page
    assert "user: Plan: &lt;b&gt; " in page
    assert "user: [sub] What is " in page
    assert "sk-test-secret" not in page


def test_a_live_run_stops_once_it_is_decided(project: Project) -> None:
    """A model that is always wrong is found out after a few of 40 rows; one that is as before needs more, and passes."""
    project.write_task(DESK)
    project.write_data(
        [{"question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(7) for b in range(6)]
    )
    declared = (
        SUITE.replace("n=4", "n=1").replace("test_size=4", "test_size=40").replace("concurrency=1", "concurrency=2")
    )
    project.write_suite("min_success_vote=0.6,", suite=declared)
    project.run("--llm-tune").assert_outcomes(passed=1)
    before, answer = project.server.count, project.server.answer
    result = project.run("--llm-live", "--llm-stop-early=0.05")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*stopped early, after * of 40 rows: max_drop and min_success_vote would be judged*0.05*"]
    )
    asked = project.server.count - before
    assert asked < 40 * 2
    project.server.answer = lambda _: "999"
    result = project.run("--llm-live", "--llm-stop-early=0.05")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*FAIL*on all rows it fails*"])
    assert project.server.count - before - asked < 20 * 2
    project.server.answer = answer
    assert project.run("--llm-live", "--llm-stop-early=2").ret != 0


@pytest.mark.parametrize("runs", [1, 3])
def test_a_task_that_reads_the_recorded_answers_worse_fails_by_default(project: Project, runs: int) -> None:
    """All calls are the baseline's, so that one lost row of many is no chance, though what the task returns is new."""
    project.write_task(DESK)
    project.write_suite("", suite=SUITE.replace("n=4", f"n={runs}").replace("test_size=4", "test_size=12"))
    project.run_outside("--llm-tune").assert_outcomes(passed=1)
    project.run_outside().assert_outcomes(passed=1)

    project.write_task(
        DESK.replace(").choices[0].message.content\n", ").choices[0].message.content.replace('is 4.', 'is four')\n")
    )
    result = project.run_outside()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*by default no drop is allowed where the answers are the recorded ones*", "*lost *"])


def test_what_the_search_paid_for_keeps_its_day(project: Project) -> None:
    """The winner's rows are those of the search: all calls come from the cache, and the recording says when they were answered."""
    project.write_task(DESK)
    project.write_data([{"question": f"What is {a} plus 1?", "answer": str(a + 1)} for a in range(3)])
    project.write_suite("", suite=SUITE.replace("tune_size=2,", "").replace("test_size=4,", ""))
    project.run("--llm-tune").assert_outcomes(passed=1)
    assert re.search(r"recording: .*first: '?20", project.lock)
    project.run().assert_outcomes(passed=1)


def test_a_run_may_return_an_outcome_or_json_and_raise(three_of_four: Project) -> None:
    """Its text is graded, what JSON can say too; an exception is told with its last line, in a row of others."""
    project = three_of_four
    project.write_task(
        DESK.replace("def handle", "def inner") + "\nfrom pytest_llmtune import Outcome\n"
        "def handle(question, model, style, client):\n    said = inner(question, model, style, client)\n"
        "    if '0 plus 0' in question:\n        raise LookupError('a\\nno such order')\n"
        "    return Outcome(said, {'a': 1}) if '1 plus' in question else {'answer': said}\n"
    )
    project.write_data(
        [{"question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(3) for b in range(2)]
    )
    project.write_suite("max_drop=None,", suite=SUITE.replace("tune_size=2", "tune_size=2, shuffle=False"))
    result = project.run("--llm-tune")
    result.assert_outcomes(passed=1)
    project.write_data(
        [{"question": f"What is {b} plus {a}?", "answer": str(a + b)} for a in range(3) for b in range(2)]
    )
    project.run("--llm-tune", "--llm-json=results.json")
    data = json.loads((project.pytester.path / "results.json").read_text(encoding="utf-8"))
    errors = [each["error"] for each in data["suites"][0]["evaluation"]["results"] if each["error"]]
    assert set(errors) <= {"LookupError: no such order"}
