"""Several processes spend of one limit, and all of them together never pass it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from support.loops import turns

from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError
from pytest_llmtune.money.ledger import Ledger, SharedSpend

if TYPE_CHECKING:
    from pathlib import Path

ONE = Decimal(1)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Ledger, Ledger]:
    """The ledgers of two workers of one run, whose limit is a dollar."""
    table = tmp_path / "spend.sqlite"
    first, second = (Ledger(ONE, name="--llm-max-spend", shared=SharedSpend(table, name)) for name in ("gw0", "gw1"))
    return first, second


def test_what_one_spends_the_other_has_no_more(pair: tuple[Ledger, Ledger]) -> None:
    """A settlement in one process is seen by the next reservation in the other, with the sum of both in the message."""
    first, second = pair
    spent = first.reserve_now(Decimal("0.9"))
    assert second.left == Decimal("0.1")
    with pytest.raises(BudgetExhaustedError, match="reserved for requests in flight"):
        second.reserve_now(Decimal("0.2"))
    spent.settle(Decimal("0.7"))
    first.close(spent)
    second.close(second.reserve_now(Decimal("0.2")))
    with pytest.raises(BudgetExhaustedError, match=r"\$0.90 of \$1 is spent"):
        first.check(Decimal("0.2"))


def test_what_one_keeps_the_other_may_spend_only_where_it_must(pair: tuple[Ledger, Ledger]) -> None:
    """A search looks at what is free; a request that is due is not refused. A dead process keeps nothing."""
    first, second = pair
    first.set_aside(Decimal("0.3"))
    assert (second.left, second.free, first.free) == (ONE, Decimal("0.7"), ONE)
    held = first.reserve_now(Decimal("0.5"))
    assert second.free == Decimal("0.2")
    held.settle(Decimal("0.1"))
    first.close(held)
    assert (second.left, second.free) == (Decimal("0.9"), Decimal("0.6"))
    second.close(second.reserve_now(Decimal("0.8")))
    assert second.shared is not None
    SharedSpend(second.shared.path, "controller").bury("gw0")
    assert second.free == second.left
    first.set_aside(Decimal("0.3"))
    first.set_aside()
    assert second.free == second.left


def test_a_request_waits_for_what_the_other_has_in_flight(pair: tuple[Ledger, Ledger]) -> None:
    """Once the other process settled for less, a waiting request goes on; once it spent all, it is refused."""
    first, second = pair
    held = first.reserve_now(Decimal("0.9"))

    async def ask(cost: Decimal) -> None:
        async with second.reserve(Decimal("0.5")) as reservation:
            reservation.settle(cost)

    async def run() -> None:
        waiting = [asyncio.create_task(ask(Decimal(cost))) for cost in ("0.5", "0.1")]
        while len(second.queue) < 2:
            await turns()
        await turns(9)
        assert not any(task.done() for task in waiting)
        held.settle(Decimal("0.4"))
        first.close(held)
        async with asyncio.timeout(5):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert results[0] is None
        assert isinstance(results[1], BudgetExhaustedError)

    asyncio.run(run())
    assert first.spent + second.spent == Decimal("0.9")


def test_the_quicker_one_gets_it(pair: tuple[Ledger, Ledger], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at what is left and the reservation another process may reserve: then nothing is reserved."""
    first, second = pair
    assert first.fits(ONE)
    held = second.reserve_now(Decimal("0.5"))
    monkeypatch.setattr(Ledger, "fits", lambda *_: True)  # what it saw a moment ago
    assert not first.try_reserve(ONE)
    assert (first.reserved, held.amount) == (0, Decimal("0.5"))
    assert first.try_reserve(Decimal("0.5"))


def test_a_wait_can_be_cancelled(pair: tuple[Ledger, Ledger]) -> None:
    """A request that is given up while it waits for another process leaves no trace."""
    first, second = pair
    held = first.reserve_now(ONE)

    async def run() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), second.reserve(ONE):
                pytest.fail("nothing was left")

    asyncio.run(run())
    assert (len(second.queue), second.reserved) == (0, 0)
    held.settle(Decimal(0))
    first.close(held)
    assert second.left == ONE


def test_what_a_dead_worker_had_in_flight_counts_as_spent(pair: tuple[Ledger, Ledger]) -> None:
    """Nobody waits for a process that crashed: its requests may have been billed."""
    first, second = pair
    first.reserve_now(Decimal("0.8"))
    assert first.shared is not None
    SharedSpend(first.shared.path, "controller").bury("gw0")
    with pytest.raises(BudgetExhaustedError, match=r"\$0.80 of \$1 is spent"):
        second.reserve_now(Decimal("0.5"))


def test_a_table_that_cannot_be_shared_stops_the_run(tmp_path: Path) -> None:
    """Without the table nothing is spent: a worker on another machine has no such directory."""
    alone = SharedSpend(tmp_path / "nowhere" / "spend.sqlite", "gw0")
    with pytest.raises(LLMTuneError, match=r"--llm-max-spend cannot be shared .* without -n"):
        Ledger(ONE, shared=alone).reserve_now(ONE)
    with pytest.raises(LLMTuneError, match="cannot be shared"):
        alone.others()


SPENDER = """
import sys
from decimal import Decimal
from pathlib import Path
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.ledger import SharedSpend
from pytest_llmtune.errors import BudgetExhaustedError

ledger = Ledger(Decimal(1), shared=SharedSpend(Path(sys.argv[1]), sys.argv[2]))
for _ in range(300):
    try:
        reservation = ledger.reserve_now(Decimal("0.01"))
    except BudgetExhaustedError:
        continue
    reservation.settle(Decimal("0.005"))
    ledger.close(reservation)
print(ledger.spent)
"""


def test_processes_at_once_use_all_of_the_limit_and_no_more(tmp_path: Path) -> None:
    """Three real processes race for a dollar: together they spend it to the last reservation that fits."""
    table = str(tmp_path / "spend.sqlite")
    command = [sys.executable, "-c", SPENDER, table]
    runs = [subprocess.Popen([*command, f"gw{i}"], stdout=subprocess.PIPE, text=True) for i in range(3)]
    spent = [Decimal(run.communicate(timeout=60)[0]) for run in runs]
    assert Decimal("0.99") <= sum(spent) <= 1


def test_a_single_request_goes_on_once_another_process_has_settled(pair: tuple[Ledger, Ledger]) -> None:
    """Nothing in this process wakes it, so it polls."""
    first, second = pair
    held = first.reserve_now(Decimal("0.9"))

    async def run() -> None:
        waiting = asyncio.create_task(second.hold(Decimal("0.5")))
        while not second.queue:
            await turns()
        held.settle(Decimal("0.4"))
        first.close(held)
        second.close(await asyncio.wait_for(waiting, 20))

    asyncio.run(run())
    assert (second.spent, second.reserved) == (Decimal("0.5"), 0)
