"""The budget by itself, without a cluster: what may be reserved, and what becomes of it."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from support.loops import turns

from pytest_llmtune.cluster.budget_actor import BudgetActor, Done, Ended, Settled
from pytest_llmtune.money.ledger import Ledger


def test_what_a_lost_batch_held_is_spent() -> None:
    """The dollars stay gone, the reports say so in order, and nothing more is taken of it."""

    async def work() -> None:
        ledger = Ledger(Decimal(10))
        budget = BudgetActor(ledger)
        await budget.open(1)
        assert await budget.reserve(1, 0, Decimal(4)) == ""
        assert await budget.reserve(1, 1, Decimal(2)) == ""
        await budget.report(1, [Settled(0, Decimal(1), uncertain=False), Done(7, None)])
        assert await budget.receive() == ([Settled(0, Decimal(1), uncertain=False), Done(7, None)], 1)
        await budget.end(1)
        assert await budget.receive() == ([Settled(1, Decimal(2), uncertain=True), Ended(1)], 0)
        assert (ledger.spent, ledger.uncertain, ledger.reserved) == (3, 2, 0)
        await budget.report(1, [Done(8, None)])
        assert await budget.reserve(1, 2, Decimal(1)) != ""
        await budget.end(2)
        assert await budget.receive() == ([Ended(2)], 0)
        assert ledger.reserved == 0

    asyncio.run(work())


def test_a_batch_waits_for_the_settlements_of_another() -> None:
    """What does not fit now may fit when others turn out to be cheaper; what never can is refused at once."""

    async def work() -> None:
        budget = BudgetActor(Ledger(Decimal(10), name="optimization_budget"))
        await budget.open(1)
        await budget.open(2)
        await budget.reserve(1, 0, Decimal(8))
        waiting = asyncio.create_task(budget.reserve(2, 0, Decimal(5)))
        await turns(9)
        assert not waiting.done()
        await budget.report(1, [Settled(0, Decimal(3), uncertain=False)])
        assert await waiting == ""
        assert "optimization_budget" in await budget.reserve(2, 1, Decimal(8))

    asyncio.run(work())


def test_who_is_lost_while_waiting_gets_nothing() -> None:
    """The grant comes when nobody is there any more: the dollars are free again."""

    async def work() -> None:
        ledger = Ledger(Decimal(10))
        budget = BudgetActor(ledger)
        await budget.open(1)
        await budget.open(2)
        await budget.reserve(1, 0, Decimal(8))
        waiting = asyncio.create_task(budget.reserve(2, 0, Decimal(5)))
        await turns(9)
        await budget.end(2)
        await budget.report(1, [Settled(0, Decimal(1), uncertain=False)])
        assert await waiting != ""
        assert (ledger.spent, ledger.reserved) == (1, 0)

    asyncio.run(work())
