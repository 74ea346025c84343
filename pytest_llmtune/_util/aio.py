"""Run coroutines from synchronous code, inside or outside a running event loop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from contextlib import AbstractContextManager

__all__ = ["CURRENT", "inside", "outside", "run_async"]


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


def run_async(job: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to completion, even if the calling thread already runs an event loop.

    Its requests are a suite's, and never belong to the recording of a test's own client calls.

    Raises:
        KeyboardInterrupt: on Ctrl-C, which cancels the job; with the arguments of the job's ``CancelledError``.
    """
    results: list[T] = []

    async def keep() -> None:
        """The task returns nothing: asyncio formats the repr of its main task's result, however large."""
        results.append(await job)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        try:
            with outside():
                asyncio.run(keep())
            return results[0]
        except KeyboardInterrupt as error:
            cancelled = error.__context__
        # a new exception, because pytest would print the tracebacks of all cancelled requests
        raise KeyboardInterrupt(*(cancelled.args if isinstance(cancelled, asyncio.CancelledError) else ())) from None
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with outside():
                asyncio.run(keep())
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="llmtune")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
