"""``llmtune_isolate``: nothing leaves, whatever sends it; and what is held without it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.llm_server import LLMServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED = subprocess.run(
    [sys.executable, "-c", "from pytest_llmtune.capture.isolation import isolate; isolate()"],
    capture_output=True,
    check=False,
).returncode

TESTS = """
import socket, subprocess, sys, threading
import pytest

CHILD = "import socket; socket.create_connection(('127.0.0.1', PORT), 2)"

def reached():
    return subprocess.run([sys.executable, "-c", CHILD], capture_output=True).returncode == 0

@pytest.mark.llm_replay
def test_child_process():
    assert not reached()

def test_unmarked():
    assert not reached()

def test_a_server_of_the_tests_own():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 2).close()
"""


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer() as running:
        yield running


def run(pytester: pytest.Pytester, server: LLMServer, *options: str) -> pytest.RunResult:
    pytester.makepyfile(test_app=TESTS.replace("PORT", str(server.port)))
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)


@pytest.mark.skipif(ALLOWED != 0, reason="this system refuses network namespaces")
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_nothing_leaves_an_isolated_run(pytester: pytest.Pytester, server: LLMServer, workers: tuple[str, ...]) -> None:
    """Not even a child process, of a marked or an unmarked test; loopback within the run works."""
    run(pytester, server, "--llm-isolate", *workers).assert_outcomes(passed=3)
    run(pytester, server, *workers).assert_outcomes(passed=1, failed=2)


@pytest.mark.skipif(ALLOWED != 0, reason="this system refuses network namespaces")
def test_a_recording_run_is_not_isolated(pytester: pytest.Pytester, server: LLMServer) -> None:
    """It has to ask."""
    run(pytester, server, "--llm-isolate", "--llm-record=all").assert_outcomes(passed=1, failed=2)


def test_where_it_cannot_be_the_run_does_not_begin(pytester: pytest.Pytester, server: LLMServer) -> None:
    """Nobody believes to be isolated who is not."""
    pytester.makeconftest("import sys\nsys.platform = 'darwin'\n")
    pytester.makepyfile(test_app="def test_it():\n    raise SystemExit('ran')\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--llm-isolate")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*llmtune_isolate needs Linux; elsewhere run pytest in a container*"])
