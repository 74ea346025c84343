"""Run coroutines from synchronous code."""

from __future__ import annotations

import sys
import threading
import types
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine, Generator, Iterator
    from contextlib import AbstractContextManager


T = TypeVar("T")

CURRENT: ContextVar[tuple[Any] | None] = ContextVar("llmtune_replay", default=None)
"""The recording that requests of this context belong to, as a one-tuple (of None: to no recording); None if not set."""


@contextmanager
def inside(replay: object | None) -> Iterator[None]:
    token = CURRENT.set((replay,))
    try:
        yield
    finally:
        CURRENT.reset(token)


def outside() -> AbstractContextManager[None]:
    """Send requests of this context straight to the network, even while a recording is active."""
    return inside(None)


def has_loop() -> bool:
    """Whether an event loop runs in this thread."""
    return "asyncio" in sys.modules and sys.modules["asyncio"]._get_running_loop() is not None  # noqa: SLF001  # its public name raises


async def running_loop() -> asyncio.AbstractEventLoop:
    """The running event loop; ``run_async`` starts one for a job that runs without."""
    if not has_loop():
        await _Suspended()
    import asyncio

    return asyncio.get_running_loop()


class _Suspended:
    """Suspends a job that runs without an event loop."""

    def __await__(self) -> Generator[None, None, None]:
        yield


@types.coroutine
def _resumed(job: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    return (yield from job.__await__())


def run_async(job: Coroutine[Any, Any, T], *, loop: bool = True) -> T:
    """Run a coroutine to completion, even if the calling thread already runs an event loop.

    Its requests are a suite's, and never belong to the recording of a test's own client calls.

    Args:
        loop: False: the job calls ``running_loop`` before it waits for anything. Until then it runs without a loop, and a
            job that never waits does not import ``asyncio``, which takes as long as replaying fifty rows.

    Raises:
        KeyboardInterrupt: on Ctrl-C, which cancels the job; with the arguments of the job's ``CancelledError``.
    """
    if not loop and not has_loop():
        with outside():
            try:
                job.send(None)
            except StopIteration as done:
                result: T = done.value
                return result
    import asyncio

    results: list[T] = []

    async def store_result() -> None:
        """The task returns nothing: asyncio formats the repr of its main task's result, however large."""
        results.append(await _resumed(job))

    def run() -> None:
        with outside():
            asyncio.run(store_result())

    if not has_loop():
        try:
            run()
            return results[0]
        except KeyboardInterrupt as error:
            cancelled = error.__context__
        # a new exception, because pytest would print the tracebacks of all cancelled requests
        raise KeyboardInterrupt(*(cancelled.args if isinstance(cancelled, asyncio.CancelledError) else ())) from None
    failures: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="llmtune")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
