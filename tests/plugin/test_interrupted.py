"""Ctrl-C in the middle of ``pytest --llm-tune``: the best so far is kept, the run ends, and the next goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Project

IN_FLIGHT = 4


def start(project: Project, *options: str) -> subprocess.Popen[str]:
    """pytest as in a terminal, where it hears SIGINT."""
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--llm-concurrency={IN_FLIGHT}", *options],
        cwd=project.pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # as in a terminal
    )


def interrupted(project: Project, when: Callable[[], bool], *more: str) -> tuple[int, str]:
    """A search that gets a SIGINT as soon as something is so; its exit code and output."""
    process = start(project, "--llm-tune", *more)
    try:
        project.server.until(when)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=180)
    finally:
        process.kill()
    return process.returncode, output


GOES_ON = "pytest --llm-tune test_sums.py::test_sums goes on"
BEST = r"sums: the search was interrupted, and nothing was written\. Best so far: trial \d+, .*good.*: success_vote 1 on the tuning rows"


def test_ctrl_c_sends_nothing_more_and_the_search_resumes(project: Project) -> None:
    """Answers in flight are kept, the best so far is reported, no other suite starts, and no request is repeated later."""
    project.write_suite(more='min_success_vote=0.9, baselines=[{"n": 2}],')
    suite = project.pytester.path / "test_sums.py"
    other = project.pytester.path / "test_zeros.py"
    other.write_text(suite.read_text(encoding="utf-8").replace("test_sums", "test_zeros"), encoding="utf-8")
    server = project.server
    server.latency = 0.1
    code, output = interrupted(project, lambda: len(server.answered) > 60, "--llm-json=results.json")
    assert code == 2
    told = " ".join(output.split())
    assert re.search(BEST, told)
    assert GOES_ON in told
    assert "KeyboardInterrupt" not in output
    assert "zeros: tuning" not in output
    assert not (project.pytester.path / "llmtune").exists()
    assert len(server.answered) <= 61 + 3 * IN_FLIGHT  # those that were on their way when the signal came
    [results] = json.loads((project.pytester.path / "results.json").read_text(encoding="utf-8"))["suites"]
    billed = sum(prompt_tokens(body["messages"]) for body in server.answered) + 2 * server.billed
    assert Decimal(results["spent"]) == Decimal(billed) / 10**6  # what was in flight was waited for
    assert "spent $0.00" in told

    server.latency, asked = 0, len(server.answered)
    other.unlink()
    project.run("--llm-tune").assert_outcomes(passed=1)
    assert "stopped_by: num_samples" in project.lock
    assert len(server.answered) > asked
    drawn: Counter[str] = Counter()
    for body in server.answered:
        drawn[repr({**body, "n": None})] += body.get("n") or 1
    assert max(drawn.values()) <= 4  # n is 4 at most: nothing was asked twice
    project.run().assert_outcomes(passed=1)


@pytest.mark.slow
def test_the_lock_file_is_written_where_no_request_is_needed(project: Project) -> None:
    """The guard uses the tuning rows, and the best has answered all of them."""
    project.write_data([{"question": f"What is {a} plus 1?", "answer": str(a + 1)} for a in range(12)])
    project.write_suite(more="")
    project.server.latency = lambda _: 600 if len(project.server.answered) >= 20 else 0
    code, output = interrupted(project, lambda: len(project.server.answered) >= 20)
    assert code == 2
    if (project.pytester.path / "llmtune").exists():
        assert "sums: the search was interrupted; the best so far was taken" in " ".join(output.split())
        assert "stopped_by: interrupted" in project.lock
        assert "model: good" in project.lock
        project.run().assert_outcomes(passed=1)
    else:
        assert re.search(BEST, " ".join(output.split()))


def test_nothing_is_written_while_baselines_are_evaluated(tuned: Project) -> None:
    """A new recording beside the old lock file would be neither the old state nor the new."""
    directory, server = tuned.pytester.path / "llmtune", tuned.server
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    tuned.write_suite(more='seed=7, baselines=[{"prompt": "{question}!"}],')
    asked: Callable[[dict[str, Any]], bool] = lambda body: body["messages"][-1]["content"].endswith("!")  # noqa: E731
    server.latency = lambda body: 600 if asked(body) else 0
    code, output = interrupted(tuned, lambda: any(map(asked, server.requests)))
    assert code == 2
    assert "interrupted, and nothing was written" in " ".join(output.split())
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before

    server.latency = 0
    tuned.run("--llm-tune").assert_outcomes(passed=1)
    tuned.run().assert_outcomes(passed=1)


SECOND_CTRL_C = """
import asyncio, os, signal
from asyncio.runners import Runner

taken = Runner._on_sigint

def take(runner, *args, **kwargs):
    def turn(left):  # by the tenth, the requests that were cancelled wait for their answers
        loop.call_soon(turn, left - 1) if left else os.kill(os.getpid(), signal.SIGINT)

    loop = runner.get_loop()
    taken(runner, *args, **kwargs)
    if runner._interrupt_count == 1:
        loop.call_soon_threadsafe(turn, 10)

Runner._on_sigint = take
"""
"""A conftest.py: the process interrupts itself again, once it has taken the first Ctrl-C."""


def test_twice_ends_at_once(project: Project) -> None:
    """The second Ctrl-C does not wait for what is in flight, nor for an answer that takes five minutes."""
    (project.pytester.path / "conftest.py").write_text(SECOND_CTRL_C, encoding="utf-8")
    project.server.latency = 300
    process = start(project, "--llm-tune")
    project.server.until(lambda: len(project.server.requests) >= 1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output


@pytest.mark.parametrize("mode", ["--llm-live", "--llm-record=all"])
def test_other_modes_end_with_a_sentence(tuned: Project, mode: str) -> None:
    """No traceback; what was spent is told, kept, and not asked again."""
    server = tuned.server
    server.latency, before = 0.3, len(server.requests)
    process = start(tuned, mode, "--llm-json=results.json")
    server.until(lambda: len(server.requests) - before > 6)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=180)
    asked = len(server.requests) - before
    assert process.returncode == 2
    told = " ".join(output.split())
    assert re.search(
        r"sums: interrupted, and nothing was written\. What was answered, for \$[\d.]+, is kept: pytest", told
    )
    assert "Traceback" not in output
    assert len(output.splitlines()) < 40
    [results] = json.loads((tuned.pytester.path / "results.json").read_text(encoding="utf-8"))["suites"]
    assert Decimal(results["spent"]) > 0

    server.latency = 0
    tuned.run(mode).assert_outcomes(passed=1)
    bodies = [repr(body) for body in server.answered[before:]]
    assert len(bodies) == len(set(bodies)) > asked


@pytest.mark.slow
def test_before_any_answer_one_sentence_says_that_nothing_was_written(project: Project) -> None:
    """No bare KeyboardInterrupt; results are written, and no other suite begins."""
    suite = project.pytester.path / "test_sums.py"
    other = project.pytester.path / "test_zeros.py"
    other.write_text(suite.read_text(encoding="utf-8").replace("test_sums", "test_zeros"), encoding="utf-8")
    project.server.latency = 600
    code, output = interrupted(project, lambda: len(project.server.requests) >= 1, "--llm-json=results.json")
    assert code == 2
    sentence = "sums: the search was interrupted before any configuration could be chosen, and nothing was written. "
    assert sentence + "pytest --llm-tune test_sums.py::test_sums goes on" in output.replace("\n", " ")
    assert "KeyboardInterrupt" not in output
    assert "zeros: tuning" not in output
    assert not (project.pytester.path / "llmtune").exists()
    [suite_told] = json.loads((project.pytester.path / "results.json").read_text(encoding="utf-8"))["suites"]
    assert suite_told["verdict"]["problem"].startswith(sentence)


@pytest.mark.slow
def test_what_was_paid_before_anything_could_be_chosen_is_reported_and_kept(project: Project) -> None:
    """Here no configuration that answered is within the inference budget; afterwards nothing is asked again."""
    project.write_suite(more="inference_budget=0.0000001,")
    server = project.server
    server.latency = lambda body: 600 if body["model"] == "bad" and server.answered else 0  # the canary is answered
    code, output = interrupted(project, lambda: len(server.answered) >= 2)
    assert code == 2
    told = re.search(
        r"What was answered, for \$([\d.]+), is kept: pytest --llm-tune test_sums\.py::test_sums goes on", output
    )
    assert told
    billed = sum(prompt_tokens(body["messages"]) for body in server.answered) + 2 * server.billed
    assert Decimal(told[1]) == Decimal(billed) / 10**6  # what broke off in flight is not among it

    began = len(server.requests)
    code, output = interrupted(project, lambda: len(server.requests) > began)
    assert code == 2
    assert "nothing was written. pytest --llm-tune test_sums.py::test_sums goes on" in output
    assert all(body["model"] == "bad" for body in server.requests[began:])
