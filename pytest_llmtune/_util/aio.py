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
"""What a context belongs to, as a tuple of one; None where nobody said."""


@contextmanager
def inside(replay: object | None) -> Iterator[None]:
    token = CURRENT.set((replay,))
    try:
        yield
    finally:
        CURRENT.reset(token)


def outside() -> AbstractContextManager[None]:
    """Requests made in this context go straight to the network, whatever is being recorded around it."""
    return inside(None)


def run_async(job: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where the calling thread already runs an event loop.

    What it asks is asked for a suite, and never belongs to the recording of a test's own client calls.

    Raises:
        KeyboardInterrupt: on Ctrl-C, which cancels the job; with what the job says of it in its ``CancelledError``.
    """
    results: list[T] = []

    async def keep() -> None:
        """The task has no result of its own: asyncio spells the result of its main task out, however large it is."""
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
        # raised anew, without the tracebacks of the cancelled requests, which pytest spells out
        raise KeyboardInterrupt(*(cancelled.args if isinstance(cancelled, asyncio.CancelledError) else ())) from None
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with outside():
                asyncio.run(keep())
        except BaseException as error:  # noqa: BLE001  # handed over to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="llmtune")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
