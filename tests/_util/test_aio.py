"""From synchronous to asynchronous code: results, errors and Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune._util.aio import has_loop, run_async, running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


async def forever() -> None:
    """Gets a SIGINT as soon as it waits."""
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
    await asyncio.Event().wait()


def interrupted(job: Callable[[], Coroutine[Any, Any, None]]) -> pytest.ExceptionInfo[KeyboardInterrupt]:
    """What comes out of a job that is interrupted while it runs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            run_async(job())
    finally:
        signal.signal(signal.SIGINT, before)
    return caught


def test_ctrl_c_comes_out_bare() -> None:
    """Not with the tracebacks of all that was cancelled: there may be hundreds of requests."""
    caught = interrupted(forever)
    assert not caught.value.args
    assert caught.value.__suppress_context__
    assert [entry.name for entry in caught.traceback][1:] == ["run_async"]


def test_what_a_cancelled_job_says_comes_out_with_ctrl_c() -> None:
    """The one who cancels is told in the job's own words."""

    async def speaking() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise asyncio.CancelledError("half of it is done") from None

    assert str(interrupted(speaking).value) == "half of it is done"


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


@pytest.mark.parametrize("inside_a_loop", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_a_job_without_a_loop_goes_on_in_one_where_it_waits(waits: bool, inside_a_loop: bool) -> None:
    """It starts once, and what it has done is kept."""
    steps: list[bool] = []

    async def job() -> str:
        steps.append(has_loop())
        for _ in range(2):
            if waits:
                await (await running_loop()).run_in_executor(None, steps.append, has_loop())
        if not waits:
            return "done"
        await asyncio.sleep(0)
        raise ZeroDivisionError

    def run() -> None:
        if waits:
            with pytest.raises(ZeroDivisionError):
                run_async(job(), loop=False)
        else:
            assert run_async(job(), loop=False) == "done"

    async def within() -> None:
        run()

    asyncio.run(within()) if inside_a_loop else run()
    assert steps == [(inside_a_loop and waits) or inside_a_loop, *([True, True] if waits else [])]


def test_a_job_that_waits_for_nothing_imports_no_asyncio() -> None:
    code = (
        "import sys\nfrom pytest_llmtune._util.aio import run_async\nasync def job(): return 7\n"
        "print(run_async(job(), loop=False), 'asyncio' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.split() == ["7", "False"]
