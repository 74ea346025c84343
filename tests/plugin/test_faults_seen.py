"""What a user sees of faults: an account of them, one clear error, an inconclusive verdict; never a traceback."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import Fault, LLMServer

if TYPE_CHECKING:
    from conftest import Project

ADVICE = "*next: pytest --llm-live test_sums.py::test_sums*"


def question(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def shown(result: pytest.RunResult) -> str:
    """All that was printed, in which no run of these tests may have a traceback or a key."""
    text = result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in text
    assert "Traceback" not in text
    assert "sk-test-secret" not in text
    return text


def test_an_account_is_given_of_what_was_survived(tuned: Project) -> None:
    """The verdict passes; what was retried, and what it may have cost, stands in the summary and in the JSON."""
    tuned.server.faults.extend([Fault.http(500), Fault.busy(retry_after_ms="5"), Fault("reset_mid_body"), None])
    result = tuned.run("--llm-live", "--llm-json=out.json")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "note: sums: requests: 21 sent, 18 answered with * samples",
            "note: sums: retried: *1 x server error*",
            "note: sums: interrupted requests may have cost up to $0.*",
        ]
    )
    text = shown(result)
    assert "1 x rate limit (429)" in text
    assert "1 x broken response" in text
    [suite] = json.loads((tuned.pytester.path / "out.json").read_text())["suites"]
    assert any("retried: " in note for note in suite["notes"])


def test_a_run_without_faults_is_not_reported(tuned: Project) -> None:
    """No account where there is nothing to account for."""
    result = tuned.run("--llm-live")
    result.assert_outcomes(passed=1)
    assert "requests:" not in shown(result)


@pytest.mark.parametrize(("allowed", "passes"), [(2, True), (1, False)])
def test_what_could_not_be_completed_is_unknown(tuned: Project, allowed: int, passes: bool) -> None:
    """Two rows fail for good: neither right nor wrong, and more than max_unknown make the verdict inconclusive."""
    rows = [json.loads(each["request"]["body"])["messages"][-1]["content"] for each in tuned.recording["interactions"]][
        :2
    ]
    tuned.server.fault = lambda body: (
        Fault.http(400, "maximum context length is 8192 tokens") if question(body) in rows else None
    )
    tuned.write_suite(more=f"min_success_vote=1, max_drop=0, max_unknown={allowed},")
    result = tuned.run("--llm-live", "--llm-json=out.json")
    result.assert_outcomes(passed=int(passes), failed=int(not passes))
    text = shown(result)
    assert "given up: 2 x bad request" in text
    [suite] = json.loads((tuned.pytester.path / "out.json").read_text())["suites"]
    assert suite["verdict"]["status"] == ("passed" if passes else "inconclusive")
    assert suite["verdict"]["value"] == 1  # of the sixteen that were completed
    if not passes:
        result.stdout.fnmatch_lines(
            [
                "sums is inconclusive: 2 of 18 examples have no answer; max_unknown allows 1*",
                "*unknown  row *: good at *: HTTP 400: maximum context length is 8192 tokens*",
                ADVICE,
            ]
        )


def test_a_row_that_never_can_be_completed_stays_unknown(project: Project) -> None:
    """Where max_unknown allows it: tuned without it, replayed without it, and asked again when it may have changed."""
    never = "What is 0 plus 4?"
    project.server.fault = lambda body: Fault.http(400, "context length") if question(body) == never else None
    project.write_suite(more="min_success_vote=0.9, max_drop=0.05, max_unknown=1,")
    project.run("--llm-tune").assert_outcomes(passed=1)
    assert project.lock.count('"status": "unknown"') == 1
    for mode in ([], ["--llm-record=missing"], [], ["--llm-record=all"], [], ["--llm-accept"], []):
        before, asked = project.lock, project.server.count
        project.run(*mode).assert_outcomes(passed=1)
        assert project.lock == before
        if mode == ["--llm-record=missing"]:
            assert project.server.count == asked + 1
    project.server.fault = None
    project.run("--llm-record=missing").assert_outcomes(passed=1)
    assert len(project.recording["interactions"]) == 18
    project.server.fault = lambda body: Fault.http(400, "context length") if question(body) != never else None
    result = project.run("--llm-record=all")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*sums is inconclusive: 17 of 18 examples have no answer; max_unknown allows 1*"])
    assert len(project.recording["interactions"]) == 18  # the good recording is kept


def test_a_row_that_the_baseline_knows_needs_its_recording(tuned: Project) -> None:
    """max_unknown excuses nobody whose answers were deleted."""
    path = tuned.pytester.path / "llmtune" / "sums.cassette.json"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if '"request"' in line)
    path.write_text("".join(lines[:first] + lines[first + 1 :]), encoding="utf-8")
    tuned.write_suite(more="min_success_vote=0.9, max_unknown=5,")
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*1 of 18 requests have no recording"])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.http(401, "Incorrect API key"), "key refused (OPENAI_API_KEY): HTTP 401: Incorrect API key"),
        (Fault.http(404, "The model `good` does not exist", "model_not_found"), "does not exist; it has: good, bad"),
        (Fault.http(429, "You exceeded your quota", "insufficient_quota"), "no quota left (OPENAI_API_KEY)"),
        (
            Fault("status", 308, {"location": "https://elsewhere.example/v1"}),
            "it redirects to https://elsewhere.example/v1",
        ),
    ],
    ids=["wrong key", "gone model", "no quota", "redirect"],
)
@pytest.mark.parametrize("mode", ["--llm-tune", "--llm-live", "--llm-record=all"])
def test_what_no_retry_mends_fails_once(tuned: Project, fault: Fault, said: str, mode: str) -> None:
    """One request, one line that says what to do; the files stay as they are."""
    before, recording = tuned.lock, tuned.recording
    if mode == "--llm-tune":
        tuned.write_suite(prompt="Please: {question}")  # nothing of it is in the cache
    tuned.server.fault = lambda _: fault
    asked = tuned.server.count
    result = tuned.run(mode)
    result.assert_outcomes(failed=1)
    # a search asks two models; a quota is asked about once more
    assert tuned.server.count - asked <= 1 + ("does not exist" in said or "no quota" in said)
    text = " ".join(shown(result).split())
    assert said in text
    assert "correct the model, key or address, and run again" in text
    assert (tuned.lock, tuned.recording) == (before, recording)


@pytest.mark.parametrize("mode", ["--llm-tune", "--llm-record=all"])
def test_a_run_that_comes_to_nothing_leaves_the_files(tuned: Project, mode: str) -> None:
    """The deadline passes before the guard's rows are answered: inconclusive, and nothing is overwritten."""
    before, recording = tuned.lock, tuned.recording
    tuned.server.fault = lambda body: Fault("stall", seconds=30) if "Please" in question(body) else None
    if mode == "--llm-tune":
        tuned.write_suite(prompt="Please: {question}")
    else:
        tuned.server.fault = lambda _: Fault("stall", seconds=30)
    start = time.monotonic()
    result = tuned.run(mode, "--llm-deadline=2")
    assert time.monotonic() - start < 20
    result.assert_outcomes(failed=1)
    text = shown(result)
    assert "the time of the run is up (--llm-deadline" in text or "could be completed" in text
    assert (tuned.lock, tuned.recording) == (before, recording)


def test_the_deadline_is_for_the_search_and_the_guard_together(project: Project) -> None:
    """A search that uses it up leaves nothing for the winner's rows."""
    project.server.latency = 0.25
    start = time.monotonic()
    result = project.run("--llm-tune", "--llm-deadline=3", "--llm-concurrency=1")
    assert time.monotonic() - start < 15
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*sums is inconclusive: *", "*note: neither lock file nor recording was written; *"])
    assert project.server.count <= 14
    assert not (project.pytester.path / "llmtune" / "sums.lock.yaml").exists()


def test_refusals_are_reported(tuned: Project) -> None:
    """Half of an answer that a filter stopped counts as wrong, though the right number stands in it."""
    whole = tuned.server.completion

    def stop(body: dict[str, Any], answers: Any) -> dict[str, Any]:
        reply = whole(body, answers)
        return reply | {"choices": [one | {"finish_reason": "content_filter"} for one in reply["choices"]]}

    tuned.server.completion = stop  # type: ignore[method-assign]
    result = tuned.run("--llm-live", "--llm-json=out.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*success_vote fell from 1 to 0*", "note: stopped by a content filter: 0 prompts, *"])
    [suite] = json.loads((tuned.pytester.path / "out.json").read_text())["suites"]
    assert {each["status"] for each in suite["evaluation"]["results"]} == {"refused"}


def test_a_server_that_counts_nothing_is_reported(tuned: Project) -> None:
    """The costs are then estimates, and the summary says so."""
    tuned.server.usage = "none"
    result = tuned.run("--llm-live")
    result.stdout.fnmatch_lines(["note: *reports no usable usage; tokens are estimated from the texts"])


def test_a_second_endpoint_takes_over(tuned: Project) -> None:
    """The first is down: nothing is unknown, and the account says what was retried."""
    tuned.server.fault = lambda _: Fault.http(503, "overloaded")
    answer: Any = tuned.server.answer
    with LLMServer(answer=lambda body: answer(body | {"model": "good"})) as second:
        listed = [{"base_url": tuned.server.base_url}, {"base_url": second.base_url, "models": {"good": "gut"}}]
        result = tuned.run("--llm-live", f"--llm-endpoints={json.dumps(listed)}")
        result.assert_outcomes(passed=1)
        assert {body["model"] for body in second.answered} == {"gut"}
    result.stdout.fnmatch_lines(["note: sums: retried: * x server error"])
