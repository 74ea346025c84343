"""Ctrl-C in the middle of ``pytest --llm-tune``: the best so far is kept, the run ends, and the next goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Project

IN_FLIGHT = 4


def interrupted(project: Project, when: Callable[[], bool]) -> tuple[int, str]:
    """A search that gets a SIGINT as soon as something is so; its exit code and output."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--llm-tune", f"--llm-concurrency={IN_FLIGHT}"],
        cwd=project.pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # as in a terminal
    )
    try:
        end = time.monotonic() + 60
        while not when():
            assert time.monotonic() < end
            time.sleep(0.02)
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
