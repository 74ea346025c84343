"""The ``python`` grader: run the code of an answer against tests."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, reference_value
from pytest_llmtune.grading.workers import PATIENCE, clean_environment, off_thread, workers_each
from pytest_llmtune.types import Answer, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PythonCode", "code_in"]


_RUNNER = Path(__file__).with_name("runner.py")
_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_LONGEST_REPLY = 4096  # bytes
_PASSES = "passes"


@dataclass(frozen=True, kw_only=True)
class PythonCode(BuiltIn):
    """Right where code, then tests, run to their end. Wrong answers that fail in the same way vote together.

    The tests are Python text or a list of statements; where the row has an ``entry_point``, they define
    ``check(candidate)``, as in HumanEval. The code sees no environment variable, no network, no other process and no file but
    Python's own; it gets a directory of its own that is removed afterwards.
    """

    allow_code_execution: bool = False
    """The consent that this grader needs: it runs what a model writes."""
    time_limit: float = 10.0
    """Seconds of CPU for one answer, the start of Python included; code that sleeps may take four times as many."""
    memory_mb: int = 1024
    setup_column: str | None = None
    """A column with code to run before the answer."""

    kind: ClassVar[str] = "python"
    probe_rows: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if self.allow_code_execution is not True:
            raise SuiteError(
                "this grader runs code that a model wrote; say allow_code_execution=True in its options if this is meant"
            )
        if importlib.util.find_spec("resource") is None:
            raise SuiteError("this grader needs Linux or macOS: this platform cannot limit a process's memory")
        for name in ("time_limit", "memory_mb"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
                raise SuiteError(f"{name}={value!r}; expected a number more than 0")

    def reference(self, row: Row) -> str:
        column = self.reference_column or next((name for name in ("tests", "test", "test_list") if name in row), None)
        value = reference_value(row, column)
        text = "\n".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            raise SuiteError(f"the tests are not Python: {error}") from None
        if not any(isinstance(node, (ast.Assert, ast.Raise, ast.Call)) for node in ast.walk(tree)):
            raise SuiteError("the tests assert nothing")
        return text

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        request = {
            "tests": self.reference(row),
            "setup": str(row.get(self.setup_column) or "") if self.setup_column else "",
            "entry_point": str(row.get("entry_point") or ""),
            "memory": int(self.memory_mb) * 2**20,
            "seconds": self.time_limit,
        }
        codes = [code_in(text) for text in responses]
        distinct = list(dict.fromkeys(code for code in codes if code is not None))
        with ThreadPoolExecutor(workers_each(8)) as threads:
            outcomes = dict(
                zip(distinct, threads.map(lambda code: self._run({**request, "code": code}), distinct), strict=True)
            )
        return tuple(_answer(None if code is None else outcomes[code]) for code in codes)

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:  # noqa: ARG002
        return await off_thread(self.answers, responses, row)

    @cached_property
    def _slots(self) -> threading.BoundedSemaphore:
        """As many processes as processors, over all examples that are graded at once."""
        return threading.BoundedSemaphore(workers_each(8))

    def _run(self, request: dict[str, Any]) -> str:
        token = secrets.token_hex(16)
        with self._slots, tempfile.TemporaryDirectory(prefix="llmtune-", ignore_cleanup_errors=True) as directory:
            reply = _reply({**request, "token": token}, directory, self.time_limit * PATIENCE)
        try:
            said = json.loads(reply)
            return str(said["outcome"]) if said["token"] == token else "left before its tests ended"
        except (ValueError, TypeError, KeyError):
            return "stopped: out of time or memory, or left before its tests ended"


def code_in(response: str) -> str | None:
    """All blocks fenced as Python, else all fenced blocks, else the whole text where it is a program; None: no code."""
    fenced = [(tag.lower(), body) for tag, body in _FENCE.findall(response)]
    blocks = [body for tag, body in fenced if tag in ("python", "py", "python3")] or [body for _, body in fenced]
    if blocks:
        return "\n".join(blocks)
    try:
        tree = ast.parse(response)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return response if any(not isinstance(node, ast.Expr) for node in tree.body) else None


def _reply(request: dict[str, Any], directory: str, seconds: float) -> bytes:
    """The first line the process writes; less where it had to be killed."""
    process = subprocess.Popen(  # noqa: S603 - the command is ours; what it runs is the point, and has consent
        [sys.executable, "-I", str(_RUNNER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=directory,
        env=clean_environment() | {"PATH": "", "HOME": directory, "TMPDIR": directory, "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,
    )
    timer = threading.Timer(seconds, _kill, [process])
    timer.start()
    assert process.stdin is not None  # noqa: S101 - pipes, as asked for
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.close()
        return process.stdout.readline(_LONGEST_REPLY)
    except OSError:  # it died before it read
        return b""
    finally:
        timer.cancel()
        _kill(process)
        process.wait()
        process.stdout.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _answer(outcome: str | None) -> Answer:
    if outcome is None:
        return Answer(None, "", correct=False)
    key = outcome if outcome == _PASSES else hashlib.sha256(outcome.encode()).hexdigest()[:16]
    return Answer(key, outcome, outcome == _PASSES)
