"""Worker processes with a time limit for each request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from queue import LifoQueue
from typing import TYPE_CHECKING, Any, AnyStr, ParamSpec, TypeVar

from pytest_llmtune._util.aio import running_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["PATIENCE", "WorkerPool", "clean_environment", "off_thread", "workers_each"]


P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 4
"""Wall-clock seconds per allowed CPU second, for sleeping answers and busy machines."""

_LOOP, _JOBS = Path(__file__).with_name("loop.py"), Path(__file__).with_name("jobs.py")
_STARTUP = 120.0  # seconds; imports only
_RECYCLE = 5_000  # requests after which a worker is replaced, because sympy's caches grow
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "COMSPEC", "LD_LIBRARY_PATH")


class WorkerPool:
    """Up to ``size`` processes that do one job, started on demand, stopped when the pool is garbage-collected.

    Args:
        job: the name of a function in ``script`` from a request to an answer, both JSON data.
        needs: a slow module to import before the first request.
        size: number of processes; default: ``workers_each(4)``.
    """

    def __init__(self, job: str, needs: str = "", size: int | None = None, script: Path = _JOBS) -> None:
        self._job = script, job, needs
        self._idle: LifoQueue[_Worker | None] = LifoQueue()
        for _ in range(size or workers_each(4)):
            self._idle.put(None)
        self._running: list[_Worker] = []  # also those at work, for close()
        weakref.finalize(self, _stop_all, self._running)

    def call(self, request: Mapping[str, Any], limit: float) -> dict[str, Any] | None:
        """The worker's answer; None if it took more than ``limit`` CPU seconds, crashed, or ran out of memory.

        Thread-safe; waiting for a free worker does not count.
        """
        worker = self._idle.get()
        try:
            if worker is None or not worker.is_fresh:
                self._drop(worker)
                worker = _Worker(*self._job)
                self._running.append(worker)
            answer = worker.call(request, limit)
            if answer is None:
                self._drop(worker)
                worker = None
        except BaseException:
            self._drop(worker)
            worker = None
            raise
        finally:
            self._idle.put(worker)
        return answer

    def close(self) -> None:
        """Stop all workers; running calls return None, later calls start new ones."""
        _stop_all(self._running)

    def _drop(self, worker: _Worker | None) -> None:
        if worker is not None:
            worker.stop()
            if worker in self._running:
                self._running.remove(worker)


def _stop_all(workers: Sequence[_Worker]) -> None:
    for worker in list(workers):
        worker.stop()


class _Worker:
    """One process. Raises OSError if it cannot be started."""

    def __init__(self, script: Path, job: str, needs: str) -> None:
        self._calls = 0
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", str(_LOOP), json.dumps(sys.path), str(script), job, needs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
            text=True,
            encoding="utf-8",
        )
        if self._read(_STARTUP) is None:
            self.stop()
            raise OSError(f"the grading worker {script.name} did not start (exit code {self._process.returncode})")

    @property
    def is_fresh(self) -> bool:
        return self._process.poll() is None and self._calls < _RECYCLE

    def call(self, request: Mapping[str, Any], limit: float) -> dict[str, Any] | None:
        self._calls += 1
        assert self._process.stdin is not None  # noqa: S101 - a pipe, as asked for
        try:
            self._process.stdin.write(json.dumps({**request, "limit": limit}) + "\n")
            self._process.stdin.flush()
        except OSError:  # the process has died
            return None
        return self._read(limit * PATIENCE)

    def _read(self, limit: float) -> dict[str, Any] | None:
        """The next line within ``limit`` seconds; None if the process ended before."""
        line = read_line(self._process, limit, self._process.kill)
        if not line.endswith("\n"):
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        close_pipes(self._process)


def read_line(process: subprocess.Popen[AnyStr], seconds: float, kill: Callable[[], object], most: int = -1) -> AnyStr:
    """The next line of a process's output; incomplete if it ends, or is killed because it takes longer."""
    assert process.stdout is not None  # noqa: S101 - a pipe, as asked for
    timer = threading.Timer(seconds, kill)  # killing the process ends the read below, on every platform
    timer.daemon = True
    timer.start()
    try:
        return process.stdout.readline(most)
    finally:
        timer.cancel()


def close_pipes(process: subprocess.Popen[Any]) -> None:
    """Close a process's pipes, whatever it has not read."""
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            pipe and pipe.close()


def workers_each(most: int) -> int:
    """Processes per pool: one per processor available to this process, divided among xdist workers."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    return max(1, min(most, usable // max(1, int(shared) if shared.isdecimal() else 1)))


def clean_environment() -> dict[str, str]:
    """The environment of a grading process: no keys, no settings."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {"PYTHONUTF8": "1"}


async def off_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a new thread, which is abandoned if the caller is cancelled.

    Unlike with ``asyncio.to_thread``, a closing event loop does not wait for it, so that Ctrl-C is fast.
    """
    loop = await running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = function(*args, **kwargs)
        except BaseException as caught:  # noqa: BLE001 - handed over to the awaiting task
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="llmtune-grading", daemon=True).start()
    return await future
