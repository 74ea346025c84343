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


class Answered(NamedTuple):
    """Answers to an item arrived, for so many USD."""

    item: int
    exchange: Exchange
    cost: Decimal


class Settled(NamedTuple):
    """A reservation ended, with its actual cost in USD."""

    number: int
    cost: Decimal
    uncertain: bool


class Done(NamedTuple):
    """An item has all its answers, or failed."""

    item: int
    error: LLMTuneError | None


class Counted(NamedTuple):
    """Counts of requests since the last message."""

    account: RequestStats


class Ended(NamedTuple):
    """The last report of a batch: it is done, or its machine is lost."""

    batch: int


Report = Answered | Settled | Done | Counted | Ended


class BudgetActor:
    """One per source, on the machine of the requesting process, so that it survives lost nodes.

    Reports wait here until they are received: the machine that paid for an answer may be lost by then.

    Args:
        ledger: a copy of the source's ledger and its parents.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._reservations: dict[int, dict[int, Reservation]] = {}
        """By batch and number."""
        self._reports: list[Report] = []
        self._reported = asyncio.Event()

    async def open(self, batch: int) -> None:
        """A batch begins, and may reserve until its end."""
        self._reservations[batch] = {}

    async def reserve(self, batch: int, number: int, amount: Decimal, model: str = "") -> str:
        """Reserve USD, waiting as ``Ledger.reserve``; returns why it was refused, or the empty string."""
        try:
            reservation = await self._ledger.hold(amount, model)
        except BudgetExhaustedError as error:
            return str(error)
        if batch not in self._reservations:  # its machine was given up meanwhile, and must not spend any more
            reservation.settle(reservation.amount * 0)
            self._ledger.close(reservation)
            return "the machine was given up for lost"
        self._reservations[batch][number] = reservation
        return ""

    async def report(self, batch: int, reports: Sequence[Report]) -> None:
        """Process a batch's reports; those of an ended batch are ignored, because its requests are sent again elsewhere."""
        if batch not in self._reservations:
            return
        for each in reports:
            if isinstance(each, Settled):
                reservation = self._reservations[batch].pop(each.number)
                cost = max(each.cost, reservation.amount) if each.uncertain else each.cost
                reservation.settle(cost, uncertain=each.uncertain)
                self._ledger.close(reservation)
        self._reports.extend(reports)
        self._reported.set()

    async def end(self, batch: int) -> None:
        """The batch ended; open reservations count as possibly billed."""
        for number, reservation in self._reservations.pop(batch, {}).items():
            reservation.settle(reservation.amount, uncertain=True)
            self._ledger.close(reservation)
            self._reports.append(Settled(number, reservation.amount, uncertain=True))
        self._reports.append(Ended(batch))
        self._reported.set()

    async def receive(self) -> tuple[list[Report], int]:
        """Wait for reports; returns all since the last call, and the number of requests in flight."""
        await self._reported.wait()
        self._reported.clear()
        reports, self._reports = self._reports, []
        return reports, sum(map(len, self._reservations.values()))
