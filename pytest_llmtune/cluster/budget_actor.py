"""The actor that holds the budget: every machine reserves here before a request, and delivers answers here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from pytest_llmtune.completions.stats import RequestStats
    from pytest_llmtune.money.ledger import Ledger, Reservation
    from pytest_llmtune.types import Exchange


class Kept(NamedTuple):
    """Answers to an item arrived, for so many USD."""

    item: int
    exchange: Exchange
    cost: Decimal


class Closed(NamedTuple):
    """What was reserved under a number became what it cost, in USD."""

    number: int
    cost: Decimal
    uncertain: bool


class Done(NamedTuple):
    """An item has all its answers, or never will."""

    item: int
    error: LLMTuneError | None


class Counted(NamedTuple):
    """What happened on the way, since the last time."""

    account: RequestStats


class Ended(NamedTuple):
    """Nothing more will be heard of a batch: it is done, or its machine is lost."""

    batch: int


News = Kept | Closed | Done | Counted | Ended


class BudgetActor:
    """One per source, on the machine of the requesting process, so that it survives lost nodes.

    What arrives waits here until it is heard: the machine that paid for it may be gone by then.

    Args:
        ledger: the budget, with those around it, as far as it is spent.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._held: dict[int, dict[int, Reservation]] = {}
        """By batch and number."""
        self._news: list[News] = []
        self._any = asyncio.Event()

    async def open(self, batch: int) -> None:
        """A batch begins: until its end it may reserve."""
        self._held[batch] = {}

    async def reserve(self, batch: int, number: int, amount: Decimal, model: str = "") -> str:
        """Set aside USD, waiting as ``Ledger.reserve``; empty, or why it cannot be."""
        try:
            reservation = await self._ledger.hold(amount, model)
        except BudgetExhaustedError as error:
            return str(error)
        if batch not in self._held:  # its machine was given up meanwhile, and must not spend any more
            reservation.settle(reservation.amount * 0)
            self._ledger.close(reservation)
            return "the machine was given up for lost"
        self._held[batch][number] = reservation
        return ""

    async def report(self, batch: int, news: Sequence[News]) -> None:
        """Process a batch's reports; those of an ended batch are ignored, because its requests are sent again elsewhere."""
        if batch not in self._held:
            return
        for each in news:
            if isinstance(each, Closed):
                reservation = self._held[batch].pop(each.number)
                cost = max(each.cost, reservation.amount) if each.uncertain else each.cost
                reservation.settle(cost, uncertain=each.uncertain)
                self._ledger.close(reservation)
        self._tell(news)

    async def end(self, batch: int) -> None:
        """The batch ended; open reservations count as possibly billed."""
        held = self._held.pop(batch, {})
        for reservation in held.values():
            reservation.settle(reservation.amount, uncertain=True)
            self._ledger.close(reservation)
        self._tell([*(Closed(number, each.amount, uncertain=True) for number, each in held.items()), Ended(batch)])

    async def hear(self) -> tuple[list[News], int]:
        """Wait for reports; returns all since the last call, and the number of requests in flight."""
        await self._any.wait()
        self._any.clear()
        news, self._news = self._news, []
        return news, sum(map(len, self._held.values()))

    def _tell(self, news: Sequence[News]) -> None:
        self._news.extend(news)
        self._any.set()
