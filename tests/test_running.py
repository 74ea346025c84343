"""From synchronous to asynchronous code: results, errors and Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from pytest_llmtune.running import run_async


async def forever() -> None:
    await asyncio.sleep(3600)


def test_ctrl_c_comes_out_bare() -> None:
    """Not with the tracebacks of all that was cancelled: there may be hundreds of requests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    timer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            run_async(forever())
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert caught.value.__suppress_context__
    assert [entry.name for entry in caught.traceback][1:] == ["run_async"]


@pytest.mark.parametrize("inside_a_loop", [False, True])
def test_results_and_errors_come_out_as_they_are(inside_a_loop: bool) -> None:
    """With and without a running event loop."""

    async def divide(by: int) -> float:
        return 1 / by

    def both() -> None:
        assert run_async(divide(2)) == 0.5
        with pytest.raises(ZeroDivisionError):
            run_async(divide(0))

    async def within() -> None:
        both()

    if inside_a_loop:
        asyncio.run(within())
    else:
        both()
