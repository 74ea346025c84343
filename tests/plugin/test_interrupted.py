"""Ctrl-C in the middle of ``pytest --llm-tune``: the best so far is kept, the run ends, and the next goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Project

IN_FLIGHT = 4


def interrupted(project: Project, when: Callable[[], bool], *more: str) -> tuple[int, str]:
    """A search that gets a SIGINT as soon as something is so; its exit code and output."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--llm-tune",
            f"--llm-concurrency={IN_FLIGHT}",
            *more,
        ],
        cwd=project.pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # as in a terminal
    )
    try:
        project.server.until(when)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, output


def test_ctrl_c_keeps_the_best_ends_the_run_and_is_gone_on_with(project: Project) -> None:
    """Another suite does not begin; baselines are left; afterwards nothing that was answered is asked again."""
    project.write_suite(more='min_success_vote=0.9, baselines=[{"n": 2}],')
    suite = project.pytester.path / "test_sums.py"
    other = project.pytester.path / "test_zeros.py"
    other.write_text(suite.read_text(encoding="utf-8").replace("test_sums", "test_zeros"), encoding="utf-8")
    server = project.server
    server.latency = 0.1
    code, output = interrupted(project, lambda: len(server.answered) > 60)
    assert code == 2
    assert "sums: the search was interrupted; the best so far was taken" in output
    assert "the baselines were not evaluated" in output
    assert "zeros: tuning" not in output
    assert "stopped_by: interrupted" in project.lock
    assert "model: good" in project.lock
    assert not (project.pytester.path / "llmtune" / "zeros.lock.yaml").exists()

    server.latency, asked = 0, len(server.answered)
    other.unlink()
    project.run().assert_outcomes(passed=1)
    assert len(server.answered) == asked
    project.run("--llm-tune").assert_outcomes(passed=1)
    assert "stopped_by: num_samples" in project.lock
    drawn: Counter[str] = Counter()
    for body in server.answered:
        drawn[repr({**body, "n": None})] += body.get("n") or 1
    assert sum(max(0, count - 4) for count in drawn.values()) <= IN_FLIGHT * 2  # lost in flight, two answers a request


def test_what_the_first_round_answered_is_enough(project: Project) -> None:
    """A search that is interrupted before its first round is over keeps the best of what it has."""
    project.server.latency = lambda body: 30 if body["model"] == "bad" else 0
    code, output = interrupted(project, lambda: len(project.server.answered) >= 2)
    assert code == 2
    assert "sums: the search was interrupted; the best so far was taken" in output
    assert "model: good" in project.lock


def test_before_any_answer_one_sentence_says_that_nothing_was_written(project: Project) -> None:
    """No bare KeyboardInterrupt; results are written, and no other suite begins."""
    suite = project.pytester.path / "test_sums.py"
    other = project.pytester.path / "test_zeros.py"
    other.write_text(suite.read_text(encoding="utf-8").replace("test_sums", "test_zeros"), encoding="utf-8")
    project.server.latency = 30
    code, output = interrupted(project, lambda: len(project.server.requests) >= 1, "--llm-json=results.json")
    assert code == 2
    sentence = "sums: the search was interrupted before any configuration could be chosen, and nothing was written. "
    assert sentence + "pytest --llm-tune goes on" in output.replace("\n", " ")
    assert "KeyboardInterrupt" not in output
    assert "zeros: tuning" not in output
    assert not (project.pytester.path / "llmtune").exists()
    [suite_told] = json.loads((project.pytester.path / "results.json").read_text(encoding="utf-8"))["suites"]
    assert suite_told["verdict"]["problem"].startswith(sentence)


def test_what_was_paid_before_anything_could_be_chosen_is_told_and_kept(project: Project) -> None:
    """Here no configuration that answered is within the inference budget; afterwards nothing is asked again."""
    project.write_suite(more="inference_budget=0.0000001,")
    server = project.server
    server.latency = lambda body: 30 if body["model"] == "bad" else 0
    code, output = interrupted(project, lambda: len(server.answered) >= 2)
    assert code == 2
    told = re.search(r"What was answered, for \$([\d.]+), is kept: pytest --llm-tune goes on", output)
    assert told
    assert Decimal(told[1]) <= Decimal("0.00004")  # what broke off in flight is not among it

    began = len(server.requests)
    code, output = interrupted(project, lambda: len(server.requests) > began)
    assert code == 2
    assert "nothing was written. pytest --llm-tune goes on" in output
    assert all(body["model"] == "bad" for body in server.requests[began:])
