"""A run that is killed goes on where it was: nothing stored is asked again, and the result is that of a whole run."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.live import Live, request
from support.llm_server import LLMServer

QUESTIONS, KILLS, CONCURRENCY = 60, 5, 6

RUN = f"""
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.live import Live, request
source = Live(Path(sys.argv[2])).source(sys.argv[3], concurrency={CONCURRENCY})
found = Live.run(source, *(request(number, 3) for number in range({QUESTIONS})))
print([[choice.text for choice in completion.choices] for completion in found])
"""


def answer(body: dict[str, Any]) -> list[str]:
    """Depends on nothing but the question."""
    return [f"{body['messages'][0]['content']}-{index}" for index in range(body["n"])]


@pytest.mark.slow
def test_killed_at_random_moments_nothing_stored_is_paid_twice(tmp_path: Path) -> None:
    """Five SIGKILLs at random moments: no stored answer is asked again, and the results are those of a whole run."""
    moments, live = random.Random(1), Live(tmp_path)
    with LLMServer(answer, latency=0.01) as server:
        command = [sys.executable, "-c", RUN, str(Path(__file__).parents[1]), str(tmp_path), server.base_url]
        for _ in range(KILLS):
            enough = len(server.answered) + moments.randint(1, 8)
            with subprocess.Popen(command) as process:
                server.until(lambda enough=enough: len(server.answered) >= enough, process)
                process.kill()
            server.until(lambda: not server.in_flight)
            stored = {number for number in range(QUESTIONS) if live.cache().get(request(number).key)}
            live.close()
            seen = server.count
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        asked_again = {int(body["messages"][0]["content"]) for body in server.requests[seen:]}
    assert done.stdout.strip() == str([[f"{number}-{index}" for index in range(3)] for number in range(QUESTIONS)])
    assert 0 < len(stored) < QUESTIONS
    assert asked_again == set(range(QUESTIONS)) - stored
    assert len(server.answered) <= QUESTIONS + CONCURRENCY * KILLS  # answers on their way when the process died
