"""Runs of pytest that are killed at random moments and begun again, against a server in a process of its own.

The server's answers are a function of the request and of the sample's number, and it counts: a request counts as
answered where its answer was sent to a client that was still there. An answer that had been sent and was not stored
yet when its process died is *lost*: the server takes it back, so that the same sample is given again, and counts it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.llm_server import LLMServer

from pytest_llmtune._util.jsonhash import request_key
from pytest_llmtune.completions.cache import Cache
from pytest_llmtune.wire.response import answers_in

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MODES", "Counts", "Project", "Server", "serving"]

SUITE = """
import pytest
from pytest_llmtune import choice, uniform

@pytest.mark.llmtune(
    dataset="data.jsonl", prompt="{question}", model=["good", "bad"], temperature=uniform(0, 1), n=choice([1, 2, 4]),
    max_tokens=20, grader="numeric", prices={"good": {"input": 1, "output": 2}, "bad": {"input": 1, "output": 1}},
    tune_size=12, num_samples=5, optimization_budget=1, concurrency=4,
)
def test_sums(llmtune):
    llmtune.check()
"""
CONFTEST = """
import os, pathlib, signal

def pytest_terminal_summary():
    if (flag := pathlib.Path("kill-at-the-end")).exists():
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
"""
MODES = {"tune": "--llm-tune", "record": "--llm-record=all"}
_LIGHT = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio")
_ENDED = re.compile(r"^=* ?1 passed", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Counts:
    """What the server saw since it was last told to forget."""

    answered: Counter[str]
    """Samples given by request, those taken back not counted."""
    lost: int
    """Answers taken back."""
    arrived: int
    """Requests, those whose client was gone before its answer included."""
    requests: int
    """Requests answered."""


class _Answers:
    """The server's side: who got how many samples."""

    def __init__(self) -> None:
        self.given: Counter[str] = Counter()
        self.lost = 0

    def __call__(self, body: dict[str, Any]) -> list[str]:
        key, n = request_key(body), body.get("n") or 1
        first = self.given[key]
        self.given[key] += n
        return [_sample(body, key, number) for number in range(first, first + n)]

    def take_back(self, stored: dict[str, int]) -> None:
        for key, given in self.given.items():
            self.lost += given > stored.get(key, 0)
            self.given[key] = stored.get(key, 0)


def _sample(body: dict[str, Any], key: str, number: int) -> str:
    a, b = map(int, re.findall(r"\d+", body["messages"][-1]["content"])[-2:])
    luck = hashlib.sha256(f"{key}/{number}".encode()).digest()[0] / 256
    right = luck < (0.8 if body["model"] == "good" else 0.3)
    return f"The answer is {a + b if right else a + b + 1 + int(luck * 10)}."


def serve(latency: float) -> None:
    """Serve until the standard input ends; each line there is a command, answered by one line."""
    answers = _Answers()
    with LLMServer(answers, latency=latency, models=["good", "bad"]) as server:
        print(server.base_url, flush=True)  # noqa: T201
        for line in sys.stdin:
            command = json.loads(line)
            if command != "peek":  # a client that is gone is noticed when its answer is due
                server.until(lambda: not server.in_flight)
            if isinstance(command, dict):
                answers.take_back(command)
            found = [dict(answers.given), answers.lost, server.count, len(server.answered)]
            print(json.dumps(found), flush=True)  # noqa: T201
            if command == "forget":
                answers.given.clear()
                answers.lost = 0
                server.answered.clear()
                server.requests.clear()


@dataclass(frozen=True, slots=True)
class Server:
    """The server, seen from the process that kills."""

    process: subprocess.Popen[str]
    url: str

    def counts(self, command: str | dict[str, int] | None = None) -> Counts:
        """What it saw, once nothing is in flight or at once ("peek"); a dict says what is stored."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        given, lost, arrived, requests = json.loads(self.process.stdout.readline())
        return Counts(Counter(given), lost, arrived, requests)


@contextmanager
def serving(latency: float = 0.01) -> Iterator[Server]:
    """A server in a process of its own."""
    tests = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {tests!r}); from support.kills import serve; serve({latency})"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Server(process, process.stdout.readline().strip())
        finally:
            process.stdin.close()


@dataclass(slots=True)
class Project:
    """A user's project in a directory, whose pytest is killed."""

    path: Path
    server: Server
    kills: int = 0

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        rows = ({"question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(8) for b in range(9))
        (self.path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        (self.path / "test_sums.py").write_text(SUITE, encoding="utf-8")
        (self.path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        (self.path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")

    def copy(self, name: str) -> Project:
        """The same project, its files and its cache, in a directory beside this one."""
        return Project(shutil.copytree(self.path, self.path.with_name(name)), self.server)

    def run(self, mode: str, seconds: float | None = None, requests: int | None = None, at_end: bool = False) -> bool:
        """Run pytest to its end; True: it got there.

        Args:
            seconds: kill it so long after its start.
            requests: kill it when so many requests of it have been answered.
            at_end: kill it when all is written, before it has told.
        """
        if at_end:
            (self.path / "kill-at-the-end").touch()
        until = None if seconds is None else time.monotonic() + seconds
        enough = None if requests is None else self.server.counts("peek").requests + requests
        output = self.path.with_name(f"{self.path.name}.txt")
        with self._started(mode, output) as process:
            while process.poll() is None:
                late = until is not None and time.monotonic() > until
                if late or (enough is not None and self.server.counts("peek").requests >= enough):
                    process.kill()
                    break
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.002)
        text = output.read_text(encoding="utf-8", errors="replace")
        if process.returncode == -signal.SIGKILL:
            self.kills += 1
            self.server.counts(self.stored(mode))
            return bool(_ENDED.search(text))  # all was said and done
        assert process.returncode == 0, text
        return True

    def _started(self, mode: str, output: Path) -> subprocess.Popen[bytes]:
        environment = os.environ | {"OPENAI_BASE_URL": self.server.url, "OPENAI_API_KEY": "sk-test-0123456789abcdef"}
        command = [sys.executable, "-m", "pytest", *_LIGHT, MODES[mode]]
        with output.open("wb") as out:
            return subprocess.Popen(command, cwd=self.path, env=environment, stdout=out, stderr=subprocess.STDOUT)

    def stored(self, mode: str) -> dict[str, int]:
        """How many samples of each request are in the cache that a mode uses."""
        database = self.path / ".llmtune" / "cache" / "cache.db"
        if not database.exists():
            return {}
        with closing(sqlite3.connect(database)) as connection:
            there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Cache'").fetchone()
            names = connection.execute("SELECT key FROM Cache").fetchall() if there else []
        entries = {tuple(name.split("/")[:2]) for (name,) in names}
        return {
            key: self._samples(seed, key) for seed, key in entries if seed.startswith("record-") == (mode == "record")
        }

    def _samples(self, seed: str, key: str) -> int:
        with closing(Cache(self.path / ".llmtune" / "cache", seed)) as cache:
            return sum(map(answers_in, cache.get(key)))

    def files(self) -> dict[str, bytes]:
        """What a run leaves to be committed, by name, latencies left out: they are measured."""
        return {
            file.name: re.sub(rb'"latency":[0-9.e-]+', b'"latency":0', file.read_bytes())
            for file in sorted((self.path / "llmtune").iterdir())
        }
