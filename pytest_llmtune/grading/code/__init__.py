"""The ``python`` grader: run the code of an answer against tests."""

from __future__ import annotations

import ast
import hashlib
import marshal
import os
import secrets
import signal
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, digest, reference_value
from pytest_llmtune.grading.code.extract import code_in
from pytest_llmtune.grading.code.sandbox import DISK, UNCONFINED, Bubblewrap, Sandbox, check_isolation, sandbox_for
from pytest_llmtune.grading.workers import PATIENCE, clean_environment, close_pipes, off_thread, read_line, workers_each
from pytest_llmtune.types import Answer, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["PythonCode"]


_LONGEST_REPLY = 4096  # bytes
_STARTUP = 60.0  # wall-clock seconds
_STARTING = 4
"""Sandboxes prepared per running one: creating namespaces is slow, but takes hardly any CPU."""
_PASSES = "passes"


@dataclass(frozen=True, kw_only=True)
class PythonCode(BuiltIn):
    """Correct if code and then tests run to completion. Wrong answers that fail in the same way vote together.

    The tests are Python text or a list of statements; if the row has an ``entry_point``, they define
    ``check(candidate)``, as in HumanEval. Each answer runs in a new process of a new sandbox: no environment, no network,
    no other processes, no files except Python and its installed packages, and an empty directory of 16 MiB.
    """

    allow_code_execution: bool = False
    """Required permission, because this grader runs code written by a model."""
    time_limit: float = 10.0
    """CPU seconds per answer; sleeping code may take four times as long in wall-clock time."""
    memory_mb: int = 1024
    """Memory limit per process."""
    processes: int = 1
    """Maximum number of concurrent processes and threads of an answer."""
    setup_column: str | None = None
    """A column with code to run before the answer."""
    isolation: str | None = None
    """``bubblewrap``, ``podman:IMAGE``, ``docker:IMAGE``, or ``none`` for no walls at all; refused in YAML. Default: what the
    environment variable LLMTUNE_ISOLATION names, else bubblewrap."""

    kind: ClassVar[str] = "python"
    probe_rows = 3

    def __post_init__(self) -> None:
        if self.allow_code_execution is not True:
            raise SuiteError(
                "this grader runs code that a model wrote; set allow_code_execution=True in its options if this is intended"
            )
        for name in ("time_limit", "memory_mb", "processes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
                raise SuiteError(f"{name}={value!r}; expected a number more than 0")
        if self.isolation not in (None, UNCONFINED):
            check_isolation(self.isolation, "isolation")

    @property
    def fingerprint(self) -> str:
        """Independent of ``isolation``, which does not affect correctness."""
        options = self._options("isolation", *(["processes"] if self.processes == 1 else []))
        return digest({"kind": self.kind, **options})

    def ready(self) -> None:
        """Start a sandbox once; raises MissingToolError, with instructions, if this machine has none."""
        sandbox_for(self.isolation)

    @property
    def caution(self) -> str:
        unsafe = "isolation='none': answers ran without a sandbox, with the rights of the user"
        return unsafe if self.isolation == UNCONFINED else ""

    def reference(self, row: Row) -> str:
        column = self.reference_column or next((name for name in ("tests", "test", "test_list") if name in row), None)
        value = reference_value(row, column)
        text = "\n".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            raise SuiteError(f"the tests are not Python: {error}") from None
        called = bool(row.get("entry_point"))  # check(), by the runner
        if not any(map(_may_fail, _executed(tree, functions=called))):
            raise SuiteError("the tests assert nothing")
        return text

    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        request = {
            "tests": self.reference(row),
            "setup": str(row.get(self.setup_column) or "") if self.setup_column else "",
            "entry_point": str(row.get("entry_point") or ""),
            "memory": int(self.memory_mb) * 2**20,
            "seconds": self.time_limit,
            "disk": DISK,
            # elsewhere the runtime counts them, or nobody: without a namespace the kernel counts all of the user's
            "processes": int(self.processes) if isinstance(self._sandbox, Bubblewrap) else 0,
            "search_path": list(self._sandbox.search_path()),
        }
        codes = [code_in(text) for text in responses]
        distinct = list(dict.fromkeys(code for code in codes if code is not None))
        with ThreadPoolExecutor(_STARTING * workers_each(8)) as threads:
            found = threads.map(lambda code: self._run({**request, "code": code}), distinct)
            outcomes = dict(zip(distinct, found, strict=True))
        return tuple(Answer(None, "", correct=False) if code is None else _answer(outcomes[code]) for code in codes)

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:  # noqa: ARG002
        return await off_thread(self.answers, responses, row)

    @cached_property
    def _slots(self) -> threading.BoundedSemaphore:
        """Limits running sandboxes to the number of processors, over all examples."""
        return threading.BoundedSemaphore(workers_each(8))

    @cached_property
    def _sandboxes(self) -> threading.BoundedSemaphore:
        """Limits sandboxes that are running or starting."""
        return threading.BoundedSemaphore(_STARTING * workers_each(8))

    @cached_property
    def _sandbox(self) -> Sandbox:
        return sandbox_for(self.isolation)

    def _run(self, request: dict[str, Any]) -> str:
        token = secrets.token_hex(16)
        command = self._sandbox.command(request["memory"], int(self.processes))
        with self._sandboxes, tempfile.TemporaryDirectory(prefix="llmtune-", ignore_cleanup_errors=True) as directory:
            process = _Process(command, directory)
            try:
                if process.line(_STARTUP) != b"ready\n":
                    raise SuiteError(f"the sandbox of the grader did not start (exit code {process.end()})")
                with self._slots:
                    process.send(marshal.dumps({**request, "token": token}, 2))
                    reply = process.line(self.time_limit * PATIENCE)
            finally:
                process.end()
                self._sandbox.after_kill(command)
        proof, _, outcome = reply.decode(errors="replace").partition(" ")
        if proof == token and outcome.endswith("\n"):
            return outcome.removesuffix("\n")
        return "stopped: out of time or memory, or left before its tests ended"


class _Process:
    """A sandbox for one answer, killed with all its processes."""

    def __init__(self, command: Sequence[str], directory: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - the command is ours; what it runs is the point, and has consent
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=directory,
            env=clean_environment() | {"HOME": directory, "TMPDIR": directory, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def send(self, request: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe, as asked for
        with suppress(OSError):  # the process has died
            self._process.stdin.write(request)
            self._process.stdin.close()

    def line(self, seconds: float) -> bytes:
        """The next output line; incomplete if the process ended or was killed."""
        return read_line(self._process, seconds, self._kill, _LONGEST_REPLY)

    def end(self) -> int:
        """The exit code."""
        self._kill()
        close_pipes(self._process)
        return self._process.wait()

    def _kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                if hasattr(os, "killpg"):
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:  # Windows
                    self._process.kill()


def _executed(tree: ast.AST, *, functions: bool) -> Iterator[ast.AST]:
    """The nodes that may run: not those under ``if False``, nor, without ``functions``, in functions that nobody may call."""
    children: Iterable[ast.AST] = ast.iter_child_nodes(tree)
    if isinstance(tree, (ast.If, ast.While)) and isinstance(tree.test, ast.Constant):
        children = tree.body if tree.test.value else tree.orelse
    for node in children:
        if functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            yield from _executed(node, functions=functions)


def _may_fail(node: ast.AST) -> bool:
    """Whether a statement can tell right from wrong: ``assert True`` and ``assert 1 == 1`` cannot."""
    if isinstance(node, ast.Assert):
        always = isinstance(node.test, ast.Constant) and not node.test.value
        return always or any(isinstance(part, (ast.Name, ast.Call)) for part in ast.walk(node.test))
    return isinstance(node, (ast.Raise, ast.Call))


def _answer(outcome: str) -> Answer:
    key = outcome if outcome == _PASSES else hashlib.sha256(outcome.encode()).hexdigest()[:16]
    return Answer(key, outcome, outcome == _PASSES)
