"""What was billed is told in every ending, in the terminal, in JSON and JUnit; and what each test's own calls cost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from conftest import Project

CALLS = """
def ask(client):
    messages = [{"role": "user", "content": "What is 1 plus 2?"}]
    return client.chat.completions.create(model="good", messages=messages, max_tokens=8).choices[0].message.content

def test_twice(llm_client):
    assert "3" in ask(llm_client) and "3" in ask(llm_client)

def test_fails(llm_client):
    assert "4" in ask(llm_client)
"""
PRICES = "[pytest]\nllmtune_prices = good input=0 output=1000\n"


def results(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.pytester.path / "results.json").read_text(encoding="utf-8"))
    return found


def billed(project: Project) -> Decimal:
    """USD that the server billed for its suites: completion tokens cost two millionths, prompts one."""
    from support.llm_server import prompt_tokens

    return (
        Decimal(sum(prompt_tokens(body["messages"]) for body in project.server.answered) + 2 * project.server.billed)
        / 10**6
    )


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("inference_budget=0.0000001,", "is within the inference budget"),
        ("max_inference_cost=0.0000001,", "failed"),
    ],
)
def test_a_search_without_success_tells_what_it_cost(project: Project, more: str, reason: str) -> None:
    """An error and a failed verdict alike."""
    project.write_suite(more=more)
    result = project.run("--llm-tune", "--llm-json=results.json")
    result.assert_outcomes(failed=1)
    assert reason in result.stdout.str()
    assert Decimal(results(project)["suites"][0]["spent"]) == Decimal(results(project)["spent"]) == billed(project) > 0
    result.stdout.re_match_lines([r"spent \$0\.00\d+"])


def test_a_limit_that_ends_the_run_is_an_ending_too(tuned: Project) -> None:
    """``--llm-max-spend`` in the middle of ``--llm-record=all``."""
    before = billed(tuned)
    result = tuned.run("--llm-record=all", "--llm-max-spend=0.0003", "--llm-json=results.json")
    result.assert_outcomes(failed=1)
    assert Decimal(results(tuned)["spent"]) == billed(tuned) - before > 0
    result.stdout.re_match_lines([r"spent \$0\.000\d+"])


def test_a_killed_run_is_reported_at_the_next(tuned: Project) -> None:
    """Whatever mode it was in; once."""
    server = tuned.server
    server.latency, before = 0.2, billed(tuned)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--llm-record=all", "--llm-concurrency=2"]
    process = subprocess.Popen(command, cwd=tuned.pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    began = len(server.answered)
    server.until(lambda: len(server.answered) >= began + 8, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    server.latency, spent = 0, billed(tuned) - before
    result = tuned.run("--llm-record=all", "--llm-json=results.json")
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([r"an earlier run that was killed had spent \$0\.000\d+"])
    assert 0 < Decimal(results(tuned)["spent_by_killed_runs"]) <= spent  # two may have been on their way
    assert "an earlier run" not in tuned.run("--llm-record=missing").stdout.str()


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_calls_of_tests_are_reported(project: Project, workers: tuple[str, ...]) -> None:
    """Recorded, they were spent now; replayed, they cost the same and nothing is spent; failed tests count too."""
    (project.pytester.path / "test_sums.py").write_text(CALLS, encoding="utf-8")
    (project.pytester.path / "pytest.ini").write_text(PRICES, encoding="utf-8")
    files = ("--llm-json=results.json", "--junitxml=junit.xml", "--llm-report=page.html", "-v", *workers)
    for mode, now in (("--llm-record=all", True), ("--llm-record=missing", False)):
        result = project.run(mode, *files) if now else project.run(*files)
        result.assert_outcomes(passed=1, failed=1)
        tests = {each["nodeid"].partition("::")[2]: each for each in results(project)["tests"]}
        assert {name: each["calls"] for name, each in tests.items()} == {"test_twice": 2, "test_fails": 1}
        each = Decimal(tests["test_fails"]["cost"])
        assert Decimal(tests["test_twice"]["cost"]) == 2 * each > 0
        assert Decimal(results(project)["spent"]) == (3 * each if now else 0)
        assert tests["test_twice"]["usage"]["good"]["completion_tokens"] > 0
        lines = result.stdout.str()
        assert ("spent $" in lines) == now
        assert "test_sums.py::test_twice" in lines
        assert "good: " in lines
        root = ElementTree.parse(project.pytester.path / "junit.xml").getroot()  # noqa: S314  # our own
        found = {
            case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")}
            for case in root.iter("testcase")
        }
        assert found["test_twice"]["llmtune.calls"] == "2"
        assert Decimal(found["test_twice"]["llmtune.calls.cost"] or 0) == 2 * each
        assert "Calls of tests" in (project.pytester.path / "page.html").read_text(encoding="utf-8")


def test_a_quiet_replay_reads_no_answers(project: Project) -> None:
    """Where nobody asks what the calls cost, nothing is priced: an unknown price is no matter."""
    (project.pytester.path / "test_sums.py").write_text(CALLS, encoding="utf-8")
    project.run("--llm-record=all").assert_outcomes(passed=1, failed=1)
    assert "spent" not in project.run().stdout.str()
    result = project.run("-v")
    result.stdout.fnmatch_lines(["*test_twice*not known", "cost not known: the price of model 'good' is unknown*"])


ENDINGS = """
import os, signal
import openai, pytest

def ask():
    with openai.OpenAI() as client:
        return client.chat.completions.create(model="good", messages=[{"role": "user", "content": "x"}], max_tokens=8)

@pytest.fixture(scope="module")
def index():
    ask()
    yield
    ask()

@pytest.mark.llm_replay
def test_ends(index):
    ask()
    if how := os.environ.get("HOW"):
        os.kill(os.getpid(), int(how))
        signal.pause()
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_calls_of_fixtures_and_of_what_ended_early_are_reported(
    project: Project, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    """Of wider fixtures too; after Ctrl-C at once, after a kill by the next run."""
    (project.pytester.path / "test_sums.py").write_text(ENDINGS, encoding="utf-8")
    (project.pytester.path / "pytest.ini").write_text(PRICES, encoding="utf-8")
    each = Decimal("0.005")  # five tokens of "The answer is 999."

    def run(*args: str) -> str:
        command = ("-p", "no:cacheprovider", *args, "--llm-json=results.json")
        return project.pytester.runpytest_subprocess(*command).stdout.str()

    project.server.answer = lambda _: "The answer is 999."
    monkeypatch.setenv("HOW", str(int(signal.SIGINT)))
    lines = run("-v", "--llm-record=all", *workers)
    assert Decimal(results(project)["spent"]) == Decimal(project.server.billed) / 1000 == 3 * each
    assert "test_sums.py: fixture index " in lines
    assert {test["nodeid"]: test["calls"] for test in results(project)["tests"]} == {
        "test_sums.py: fixture index": 2,
        "test_sums.py::test_ends": 1,
    }
    if workers:
        return
    monkeypatch.setenv("HOW", str(int(signal.SIGKILL)))
    run("--llm-record=all")
    monkeypatch.setenv("HOW", "")
    assert "an earlier run that was killed had spent $0.01" in run("--llm-record=missing")
    assert Decimal(results(project)["spent_by_killed_runs"]) == 2 * each
