"""The purse by itself, without a cluster: what may be reserved, and what becomes of it."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from support.loops import turns

from pytest_llmtune.cluster.budget_actor import BudgetActor, Closed, Done, Ended
from pytest_llmtune.money.ledger import Ledger


def test_what_a_lost_batch_held_is_spent() -> None:
    """The dollars stay gone, the news say so in order, and nothing more is taken of it."""

    async def work() -> None:
        ledger = Ledger(Decimal(10))
        purse = BudgetActor(ledger)
        await purse.open(1)
        assert await purse.reserve(1, 0, Decimal(4)) == ""
        assert await purse.reserve(1, 1, Decimal(2)) == ""
        await purse.report(1, [Closed(0, Decimal(1), uncertain=False), Done(7, None)])
        assert await purse.hear() == ([Closed(0, Decimal(1), uncertain=False), Done(7, None)], 1)
        await purse.end(1)
        assert await purse.hear() == ([Closed(1, Decimal(2), uncertain=True), Ended(1)], 0)
        assert (ledger.spent, ledger.uncertain, ledger.reserved) == (3, 2, 0)
        await purse.report(1, [Done(8, None)])
        assert await purse.reserve(1, 2, Decimal(1)) != ""
        await purse.end(2)
        assert await purse.hear() == ([Ended(2)], 0)
        assert ledger.reserved == 0

    asyncio.run(work())


def test_a_batch_waits_for_the_settlements_of_another() -> None:
    """What does not fit now may fit when others turn out to be cheaper; what never can is refused at once."""

    async def work() -> None:
        purse = BudgetActor(Ledger(Decimal(10), name="optimization_budget"))
        await purse.open(1)
        await purse.open(2)
        await purse.reserve(1, 0, Decimal(8))
        waiting = asyncio.create_task(purse.reserve(2, 0, Decimal(5)))
        await turns(9)
        assert not waiting.done()
        await purse.report(1, [Closed(0, Decimal(3), uncertain=False)])
        assert await waiting == ""
        assert "optimization_budget" in await purse.reserve(2, 1, Decimal(8))

    asyncio.run(work())


def test_who_is_lost_while_waiting_gets_nothing() -> None:
    """The grant comes when nobody is there any more: the dollars are free again."""

    async def work() -> None:
        ledger = Ledger(Decimal(10))
        purse = BudgetActor(ledger)
        await purse.open(1)
        await purse.open(2)
        await purse.reserve(1, 0, Decimal(8))
        waiting = asyncio.create_task(purse.reserve(2, 0, Decimal(5)))
        await turns(9)
        await purse.end(2)
        await purse.report(1, [Closed(0, Decimal(1), uncertain=False)])
        assert await waiting != ""
        assert (ledger.spent, ledger.reserved) == (1, 0)

    asyncio.run(work())
