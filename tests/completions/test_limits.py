"""The gate, the pace and the pilot: first come, first served, and nothing is lost when someone is cancelled."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loops import turns

from pytest_llmtune.completions.routing import AdaptiveLimiter, Canary, RateLimiter


async def visit(gate: AdaptiveLimiter, log: list[int], number: int, steps: int = 1) -> None:
    async with gate.entered():
        assert gate.inside <= gate.most
        log.append(number)
        await turns(steps)


def test_the_gate_lets_in_so_many_and_in_order() -> None:
    """Two at once, in order of arrival."""

    async def work() -> list[int]:
        gate, log = AdaptiveLimiter(2), []
        await asyncio.gather(*(visit(gate, log, number, steps=3) for number in range(9)))
        assert gate.inside == 0
        return log

    assert asyncio.run(work()) == list(range(9))


def test_the_gate_shrinks_once_a_burst_and_grows_back() -> None:
    """Of ten refusals of requests sent before the first refusal came, one counts; successes open it again."""
    gate = AdaptiveLimiter(10)
    gate.inside = 10
    sent = time.monotonic()
    assert [gate.shrink(sent) for _ in range(10)] == [True] + [False] * 9
    assert gate.allowed == 7
    gate.inside = 7
    assert gate.shrink(time.monotonic())
    assert 4 < gate.allowed < 5
    for _ in range(100):
        gate.grow()
    assert gate.allowed == 10


def test_the_gate_never_shuts() -> None:
    """Whatever is refused, one request may go."""
    gate = AdaptiveLimiter(4)
    gate.inside = 4
    for _ in range(20):
        gate.shrink(time.monotonic())
    assert gate.allowed == 1


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 9)), max_size=20), st.integers(1, 3))
def test_cancelling_loses_no_place(visits: list[tuple[int, int]], most: int) -> None:
    """Whoever is cancelled at whatever moment, the others get in and the gate is empty in the end."""

    async def work() -> None:
        gate, log = AdaptiveLimiter(most), []
        jobs = [asyncio.create_task(visit(gate, log, n, steps)) for n, (steps, _) in enumerate(visits)]
        for moment in range(10):
            await turns()
            for job, (_, end) in zip(jobs, visits, strict=True):
                if end == moment:
                    job.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*jobs, return_exceptions=True)
        assert gate.inside == 0
        assert {number for number, (_, end) in enumerate(visits) if end < 0} <= set(log)
        await asyncio.wait_for(visit(gate, log, 99), 1)

    asyncio.run(work())


def test_the_pace_spreads_evenly() -> None:
    """At 1200 a minute each has its place 50 ms after the one before; what is larger takes longer."""

    async def work() -> list[float]:
        pace, start, times = RateLimiter(1200), time.monotonic(), []

        async def take(amount: float) -> None:
            await asyncio.sleep(pace.reserve(amount))
            times.append(time.monotonic() - start)

        await asyncio.gather(take(1), take(3), take(1))
        return times

    first, second, third = asyncio.run(work())
    assert first < 0.04
    assert 0.05 <= second < 0.15
    assert 0.2 <= third < 0.35


def test_the_pilot_flies_alone_until_it_lands() -> None:
    """While nothing has landed, one at a time; then all together."""

    async def work() -> list[int]:
        canary, together, seen = Canary(), 0, []

        async def fly(lands: bool) -> None:
            nonlocal together
            async with canary.entered():
                together += 1
                seen.append(together)
                await turns()
                canary.passed = canary.passed or lands
                await turns()
                together -= 1

        await asyncio.gather(*(fly(lands=number == 2) for number in range(8)))
        return seen

    seen = asyncio.run(work())
    assert seen[:3] == [1, 1, 1]
    assert max(seen[3:]) > 1


def test_a_failing_pilot_leaves_the_way_to_the_next() -> None:
    """An error in flight does not lock the others out."""

    async def work() -> None:
        canary = Canary()
        with pytest.raises(ConnectionError):
            async with canary.entered():
                raise ConnectionError
        async with asyncio.timeout(1), canary.entered():
            canary.passed = True
        assert canary.passed

    asyncio.run(work())
