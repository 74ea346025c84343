"""No telemetry: a run reaches the endpoint that the user named, and nothing else, whatever its libraries would like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest
    from conftest import Project

HOOK = """
import sys

def note(event, args):
    if event in ("socket.connect", "socket.sendto"):
        where = args[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        where = args[0]
    else:
        return
    with open("reached.txt", "a") as log:
        log.write(f"{event} {where!r}\\n")

sys.addaudithook(note)
import flaml, genai_prices, hypothesis, openai, optuna, vcr  # with all that they would like, used or not
"""


def reached(project: Project, *args: str) -> set[str]:
    """The hosts and sockets that a run of pytest in its own process tried to reach, by Python's audit events."""
    path = project.pytester.path / "reached.txt"
    path.unlink(missing_ok=True)
    result = project.pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)
    result.assert_outcomes(passed=1)
    return set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()


def test_a_search_reaches_the_endpoint_alone_and_the_guard_reaches_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every connection and every look-up of a name is noted, from the first import on, with every plugin there is."""
    monkeypatch.delenv("PYTEST_ADDOPTS")
    project.pytester.makeconftest(HOOK)
    port = re.search(r":(\d+)/", project.server.base_url)
    assert port
    asked = reached(project, "--llm-tune", "--llm-report=report.html", "--llm-json=results.json")
    assert f"socket.connect ('127.0.0.1', {port[1]})" in asked
    assert {line for line in asked if "127.0.0.1" not in line} == set()
    assert {line for line in asked if line.startswith("socket.connect")} == {f"socket.connect ('127.0.0.1', {port[1]})"}
    assert reached(project, "--llm-report=report.html", "--llm-json=results.json") == set()
