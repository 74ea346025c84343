"""Dollars are reserved before they are spent, so that a budget holds whatever is in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune.errors import BudgetExhaustedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Ledger", "Reservation"]

_ZERO = Decimal(0)


@dataclass(slots=True, eq=False)
class Reservation:
    """USD set aside for one request; ``settle`` says what it really cost."""

    amount: Decimal
    cost: Decimal | None = None
    uncertain: bool = False

    def settle(self, cost: Decimal, *, uncertain: bool = False) -> None:
        """The request cost this many USD; ``uncertain``: it may have, nobody can tell."""
        self.cost, self.uncertain = cost, uncertain


@dataclass(slots=True, eq=False)
class _Waiting:
    ledger: Ledger
    amount: Decimal
    granted: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class Ledger:
    """What may be spent, is reserved, and was spent, in USD; ``spent + reserved`` never passes ``limit``.

    One event loop uses it at a time; several, one after the other. A ledger inside another (a suite's budget inside
    the run's) reserves in both.
    """

    limit: Decimal | None = None
    """None: no limit, but everything is still counted."""
    parent: Ledger | None = None
    name: str = "budget"
    """What people call it: ``optimization_budget``, ``--llm-max-spend``."""
    spent: Decimal = _ZERO
    reserved: Decimal = _ZERO
    uncertain: Decimal = _ZERO
    """The part of ``spent`` for requests that broke off: a provider may have billed them."""
    queue: deque[_Waiting] = field(default_factory=deque, repr=False)
    """Who waits for settlements; that of the outermost ledger serves all inside it."""

    @property
    def left(self) -> Decimal | None:
        """USD that may still be reserved; None without a limit here or in a parent."""
        own = None if self.limit is None else self.limit - self.spent - self.reserved
        above = None if self.parent is None else self.parent.left
        return min((value for value in (own, above) if value is not None), default=None)

    @asynccontextmanager
    async def reserve(self, amount: Decimal) -> AsyncIterator[Reservation]:
        """Set aside what a request may cost at most; wait where requests in flight must be settled first.

        Left by an exception without ``settle`` (cancelled in flight, say), the whole amount counts as uncertain spend.

        Raises:
            BudgetExhaustedError: the amount does not fit even if everything in flight turns out to cost nothing.
        """
        await self._wait_for(amount)
        reservation = Reservation(amount)
        try:
            yield reservation
        except BaseException:
            if reservation.cost is None:
                reservation.settle(amount, uncertain=True)
            raise
        finally:
            self._close(reservation)

    def check(self, amount: Decimal) -> None:
        """Fail where an amount cannot be reserved, now or later.

        Raises:
            BudgetExhaustedError: even if everything in flight turns out to cost nothing.
        """
        for ledger in self.chain():
            if ledger.limit is not None and ledger.spent + amount > ledger.limit:
                raise BudgetExhaustedError(
                    f"{ledger.name}: ${ledger.spent:.6f} of ${ledger.limit} is spent, and the next request may cost up "
                    f"to ${amount:.6f}; give a larger budget, or a smaller max_tokens or n"
                )

    def chain(self) -> list[Ledger]:
        """This ledger and those around it, the outermost last."""
        return [self] if self.parent is None else [self, *self.parent.chain()]

    def fits(self, amount: Decimal) -> bool:
        """Whether an amount can be reserved right now."""
        left = self.left
        return left is None or amount <= left

    async def _wait_for(self, amount: Decimal) -> None:
        self.check(amount)
        queue = self.chain()[-1].queue
        waiting = _Waiting(self, amount, asyncio.get_running_loop().create_future())
        queue.append(waiting)
        self._serve(queue)
        try:
            await waiting.granted
        except asyncio.CancelledError:
            if waiting in queue:
                queue.remove(waiting)
            elif not waiting.granted.cancelled() and waiting.granted.exception() is None:
                self._close(Reservation(amount, _ZERO))  # granted in the same moment, and never used
            self._serve(queue)
            raise

    def _close(self, reservation: Reservation) -> None:
        cost = reservation.amount if reservation.cost is None else reservation.cost
        chain = self.chain()
        for ledger in chain:
            ledger.reserved -= reservation.amount
            ledger.spent += cost
            ledger.uncertain += cost if reservation.uncertain else _ZERO
        self._serve(chain[-1].queue)

    def _serve(self, queue: deque[_Waiting]) -> None:
        """Grant what fits, in order of arrival; refuse what can never fit."""
        while queue:
            first = queue[0]
            if not first.granted.done():  # else cancelled
                try:
                    first.ledger.check(first.amount)
                except BudgetExhaustedError as error:
                    first.granted.set_exception(error)
                else:
                    if not first.ledger.fits(first.amount):
                        return
                    for ledger in first.ledger.chain():
                        ledger.reserved += first.amount
                    first.granted.set_result(None)
            queue.popleft()
