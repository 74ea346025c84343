"""``--llm-migrate`` end to end, against a server with a better, an equal, a worse and a refusing model."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import Fault, LLMServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Project

SUITE = """
import pytest

@pytest.mark.llmtune(
    dataset="data.jsonl",
    prompt={prompt},
    model=["old"],
    temperature={temperature},
    n=1,
    max_tokens=20,
    grader="numeric",
    prices={{name: {{"input": price, "output": price}} for name, price in
            {{"old": 1, "better": 2, "equal": 0.1, "worse": 0.1, "refusing": 0.5, "few": 0.5}}.items()}},
    tune_size=4,
    test_size={rows},
    max_drop=0.1,
    num_samples=4,
)
def test_sums(llmtune):
    llmtune.check()
"""
ROWS = [{"question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(4, 10) for b in range(8)]


def answer(body: dict[str, Any]) -> str:
    """All are wrong where a sum is 13, but the better one; the worse one also above 9, unless it is told to think."""
    text = body["messages"][-1]["content"]
    a, b = map(int, re.findall(r"\d+", text)[-2:])
    wrong = {"better": False, "worse": a + b > 9 and "Think" not in text}.get(body["model"], a + b == 13)
    return f"The answer is {999 if wrong else a + b}."


def fault(body: dict[str, Any]) -> Fault | None:
    """As OpenAI's reasoning models refuse."""
    if body["model"] != "refusing":
        return None
    if "max_tokens" in body:
        text = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return Fault.http(400, text, "unsupported_parameter")
    if "temperature" in body:
        text = (
            "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) is supported."
        )
        return Fault.http(400, text, "unsupported_value")
    return None


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(answer, models=["old", "better", "equal", "worse", "refusing"], fault=fault) as running:
        yield running


@pytest.fixture(scope="module")
def files_of_a_search() -> dict[str, bytes]:
    """Of this module's suite."""
    return {}


@pytest.fixture
def project(project: Project) -> Project:
    project.write_data(ROWS)
    write_suite(project)
    return project


def write_suite(project: Project, *, prompt: str = '"{question}"', temperature: str = "0.5", rows: int = 40) -> None:
    text = SUITE.format(prompt=prompt, temperature=temperature, rows=rows)
    (project.pytester.path / "test_sums.py").write_text(text, encoding="utf-8")


def migrations(project: Project, file: str = "results.json") -> dict[str, dict[str, Any]]:
    data = json.loads((project.pytester.path / file).read_text(encoding="utf-8"))
    return {each["model"]: each for suite in data["suites"] for each in suite["migrations"]}


def test_each_model_is_held_against_the_recording(tuned: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Better, equal and refusing keep the quality, worse is worse; figures are in all reports, and nothing is written."""
    monkeypatch.setenv("COLUMNS", "120")  # the whole tables
    before = (tuned.lock, tuned.recording)
    asked = tuned.server.count
    result = tuned.run(
        "--llm-migrate=better,equal,worse,refusing",
        "--llm-json=results.json",
        "--llm-comment=comment.md",
        "--llm-report=report.html",
        "--junitxml=junit.xml",
    )
    result.assert_outcomes(failed=1)
    assert (tuned.lock, tuned.recording) == before
    assert tuned.server.count - asked == 4 * 40 + 2  # two refusals
    found = migrations(tuned)
    assert {model: each["verdict"] for model, each in found.items()} == {
        "better": "keeps quality",
        "equal": "keeps quality",
        "worse": "worse",
        "refusing": "keeps quality",
    }
    better, worse, refusing = found["better"], found["worse"], found["refusing"]
    assert (better["lost"], better["gained"], better["rows"]) == (0, len(better["flips"]), 40)
    assert better["p_value"] == pytest.approx(2 / 2 ** better["gained"])
    assert len(worse["flips"]) == worse["lost"] > 15
    assert worse["drop"]["low"] > 0.1
    assert float(found["equal"]["cost"]) == pytest.approx(float(found["equal"]["cost_before"]) / 10)
    assert all(len(each[side]) == 2 for each in found.values() for side in ("latency", "latency_before"))
    assert "max_completion_tokens" in refusing["config"]
    assert "temperature" not in refusing["config"]
    assert [note.split(":")[0] for note in refusing["notes"]] == [
        "max_tokens=20 was sent as max_completion_tokens",
        "temperature=0.5 was left out",
    ]
    text = result.stdout.str()
    assert f"over 40 rows ({worse['lost']} lost, 0 gained, exact McNemar p = " in text
    assert re.search(r"\nequal +1 +1 +0 +0 +\S+ -> \S+ \(-90 %\)", text)
    assert re.search(r"next: pytest --llm-migrate=worse --llm-tune test_sums.py::test_sums\n", text)
    comment, page = ((tuned.pytester.path / name).read_text("utf-8") for name in ("comment.md", "report.html"))
    for report in (comment, page):
        assert "keeps quality" in report
        assert re.search(r"\blost\b.*What is \d plus \d", report, re.DOTALL)
    assert "migrate.worse" in (tuned.pytester.path / "junit.xml").read_text("utf-8")
    totals = json.loads((tuned.pytester.path / "results.json").read_text("utf-8"))["migrations"]
    assert [(each["model"], each["suites"], each["worse"]) for each in totals][2] == ("worse", 1, 1)


def test_the_cheapest_that_keeps_the_quality_is_locked(tuned: Project) -> None:
    """Lock and recording are its own; plain pytest is green though ``model=`` does not name it, and asks nothing."""
    before = tuned.lock
    tuned.run("--llm-migrate=worse", "--llm-accept").assert_outcomes(failed=1)
    assert tuned.lock == before
    result = tuned.run("--llm-migrate=better,equal,worse,refusing", "--llm-accept", "-q")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*equal keeps quality*", "*keeps quality, locked"])
    assert "model: equal" in tuned.lock
    assert "sums.cassette" in str(list((tuned.pytester.path / "llmtune").iterdir()))
    assert '"model": "equal"' in json.dumps(tuned.recording) or "equal" in json.dumps(tuned.recording)
    asked = tuned.server.count
    tuned.run().assert_outcomes(passed=1)
    tuned.run("--llm-accept").assert_outcomes(passed=1)
    tuned.run().assert_outcomes(passed=1)
    assert tuned.server.count == asked
    write_suite(tuned, temperature="0.25")  # another space: what was locked outside of it is looked at again
    tuned.run().stdout.fnmatch_lines(["*outside the search space: the model 'equal' is not one of 'old'*"])


def test_the_command_that_retunes_works(tuned: Project) -> None:
    """It searches the suite with that model alone, within its budgets, and writes only what keeps the quality."""
    write_suite(tuned, prompt='["{question}", "Think. {question}"]')
    tuned.run("--llm-record=missing")
    tuned.run("--llm-accept").assert_outcomes(passed=1)
    asked = tuned.server.count
    result = tuned.run("--llm-migrate=worse")
    result.assert_outcomes(failed=1)
    command = re.search(r"next: pytest (--llm-migrate=\S+ --llm-tune \S+)", result.stdout.str())
    assert command is not None
    tuned.run(*shlex.split(command[1])).assert_outcomes(passed=1)
    assert {body["model"] for body in tuned.server.requests[asked:]} == {"worse"}
    assert "model: worse" in tuned.lock
    assert "Think. " in tuned.lock
    tuned.run().assert_outcomes(passed=1)


def test_too_few_rows_cannot_tell(project: Project) -> None:
    """An equal model over 12 rows: neither kept nor worse, and how many rows would do."""
    write_suite(project, rows=12)
    project.run("--llm-tune").assert_outcomes(passed=1)
    result = project.run("--llm-migrate=equal", "--llm-json=results.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*equal is inconclusive with 12 rows; 3? would do*"])
    assert migrations(project)["equal"]["verdict"] == "inconclusive"
    assert migrations(project)["equal"]["needed"] == 30


def test_what_cannot_be_asked(tuned: Project) -> None:
    """A model without a price is never free, one that does not exist is an error; both with what to do next."""
    asked = tuned.server.count
    result = tuned.run("--llm-migrate=priceless,equal", "--llm-json=results.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*sums is inconclusive: priceless is inconclusive: the price of model 'priceless' is*"]
    )
    assert migrations(tuned)["priceless"]["cost"] is None
    assert {body["model"] for body in tuned.server.requests[asked:]} == {"equal"}
    result = tuned.run("--llm-migrate=few")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*few*does not exist*it has: old, better*Next: pytest --llm-migrate=MODEL test_sums*"])
    result = tuned.run("--llm-migrate=old")
    result.stdout.fnmatch_lines(["*'old' is the locked model already*"])
    result = tuned.run("--llm-migrate=planner=equal")
    result.stdout.fnmatch_lines(["*has no parameter 'planner' that is a model*--llm-migrate=model=equal*"])
    result = tuned.run("--llm-migrate=better", "--llm-max-spend=0.000001")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*--llm-max-spend*"])
    assert tuned.run("--llm-migrate=equal", "--llm-live").ret == pytest.ExitCode.USAGE_ERROR


def test_a_stale_recording_is_mended_first(tuned: Project) -> None:
    write_suite(tuned, prompt='"Say: {question}"')
    asked = tuned.server.count
    result = tuned.run("--llm-migrate=equal")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*prompt changed*", "next: pytest --llm-record=missing*"])
    assert tuned.server.count == asked


def test_under_xdist(tuned: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    result = tuned.run("--llm-migrate=equal", "-n2", "--llm-json=results.json")
    result.assert_outcomes(passed=1)
    assert re.search(r"\nequal +1 +1 +0 +0 ", result.stdout.str())
    assert migrations(tuned)["equal"]["verdict"] == "keeps quality"


def test_rows_that_the_grader_leaves_out_keep_no_quality(project: Project) -> None:
    """A grader that says nothing of wrong answers leaves only right ones: no verdict, and nothing is locked."""
    path = project.pytester.path / "test_sums.py"
    grader = """
def grade(responses, answer):
    right = f" {answer}." in responses[0]
    return {} if "999" in responses[0] and LENIENT not in answer else {"success": float(right), "success_vote": float(right)}
"""
    text = path.read_text(encoding="utf-8").replace('"numeric"', "grade")
    text = text.replace("import pytest\n", "import pytest\n" + grader.replace("LENIENT", '"13"'), 1)
    path.write_text(text, encoding="utf-8")
    project.run("--llm-tune").assert_outcomes(passed=1)
    before = project.lock
    project.run("--llm-migrate=worse", "--llm-accept", "--llm-json=results.json").assert_outcomes(failed=1)
    found = migrations(project)["worse"]
    assert found["verdict"] == "inconclusive"
    assert "is inconclusive: the grader gives no success_vote for rows " in found["sentence"]
    assert project.lock == before
