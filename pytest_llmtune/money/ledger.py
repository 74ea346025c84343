"""Reserve and settle USD: one run, or several processes that share one cap."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

__all__ = ["Ledger", "Reservation", "SharedSpend", "closing_reservation"]


_ZERO = Decimal(0)
_PAUSE = 0.05  # seconds between two looks at what other processes have settled


@dataclass(slots=True, eq=False)
class Reservation:
    """USD set aside for one request; ``settle`` says what it really cost."""

    amount: Decimal
    cost: Decimal | None = None
    uncertain: bool = False

    def settle(self, cost: Decimal, *, uncertain: bool = False) -> None:
        """The request cost this many USD; ``uncertain``: it may have, nobody can tell."""
        self.cost, self.uncertain = cost, uncertain

    @property
    def price(self) -> Decimal:
        """USD that it counts with: the whole amount, where ``settle`` said nothing else."""
        return self.amount if self.cost is None else self.cost


@contextmanager
def closing_reservation(reservation: Reservation, close: Callable[[Reservation], None]) -> Iterator[Reservation]:
    """Give a reservation to ``close`` in the end; by then an exception without ``settle`` made all of it uncertain."""
    try:
        yield reservation
    except BaseException:
        if reservation.cost is None:
            reservation.settle(reservation.amount, uncertain=True)
        raise
    finally:
        close(reservation)


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
    shared: SharedSpend | None = None
    """Of the outermost ledger, where the limit is that of several processes: what the others spend of it."""

    @property
    def left(self) -> Decimal | None:
        """USD that may still be reserved; None without a limit here or in a parent."""
        own = None if self.limit is None else self.limit - sum(self.elsewhere(), self.spent + self.reserved)
        above = None if self.parent is None else self.parent.left
        return min((value for value in (own, above) if value is not None), default=None)

    @asynccontextmanager
    async def reserve(self, amount: Decimal) -> AsyncIterator[Reservation]:
        """Set aside what a request may cost at most; wait where requests in flight must be settled first.

        Left by an exception without ``settle`` (cancelled in flight, say), the whole amount counts as uncertain spend.

        Raises:
            BudgetExhaustedError: the amount does not fit even if everything in flight turns out to cost nothing.
        """
        with closing_reservation(await self.hold(amount), self.close) as reservation:
            yield reservation

    async def hold(self, amount: Decimal) -> Reservation:
        """As ``reserve``; whoever takes it settles it, and gives it to ``close``.

        Raises:
            BudgetExhaustedError: the amount does not fit even if everything in flight turns out to cost nothing.
        """
        await self._wait_for(amount)
        return Reservation(amount)

    def reserve_now(self, amount: Decimal) -> Reservation:
        """Set aside an amount without waiting; whoever takes it settles it, and gives it to ``close``.

        Raises:
            BudgetExhaustedError: it does not fit now.
        """
        self.check(amount)
        if not self.take(amount):
            outermost = self.chain()[-1]
            raise BudgetExhaustedError(
                f"{outermost.name}: what is left of ${outermost.limit} is reserved for requests in flight, and the "
                f"next one may cost up to ${amount:.6f}; give a larger budget, or a smaller max_tokens or n"
            )
        return Reservation(amount)

    def close(self, reservation: Reservation) -> None:
        """What was set aside becomes what it cost: the whole amount, where ``settle`` said nothing else."""
        chain = self.chain()
        for ledger in chain:
            ledger.reserved -= reservation.amount
            ledger.spent += reservation.price
            ledger.uncertain += reservation.price if reservation.uncertain else _ZERO
        outermost = chain[-1]
        if outermost.shared is not None:
            outermost.shared.publish(outermost.spent, outermost.reserved)
        self._serve(outermost.queue)

    def check(self, amount: Decimal) -> None:
        """Fail where an amount cannot be reserved, now or later.

        Raises:
            BudgetExhaustedError: even if everything in flight turns out to cost nothing.
        """
        for ledger in self.chain():
            if ledger.limit is None:
                continue
            spent = ledger.spent + ledger.elsewhere()[0]
            if spent + amount > ledger.limit:
                raise BudgetExhaustedError(
                    f"{ledger.name}: ${spent:.6f} of ${ledger.limit} is spent, and the next request may cost up "
                    f"to ${amount:.6f}; give a larger budget, or a smaller max_tokens or n"
                )

    def chain(self) -> list[Ledger]:
        """This ledger and those around it, the outermost last."""
        return [self] if self.parent is None else [self, *self.parent.chain()]

    def fits(self, amount: Decimal) -> bool:
        """Whether an amount can be reserved right now."""
        left = self.left
        return left is None or amount <= left

    def elsewhere(self) -> tuple[Decimal, Decimal]:
        """USD that other processes have spent and reserved of this very limit."""
        return (_ZERO, _ZERO) if self.shared is None else self.shared.others()

    def take(self, amount: Decimal) -> bool:
        """Reserve an amount here and in all ledgers around, if it fits right now."""
        if not self.fits(amount):
            return False
        chain = self.chain()
        for ledger in chain:
            ledger.reserved += amount
        outermost = chain[-1]
        if outermost.shared is None or outermost.shared.publish(outermost.spent, outermost.reserved, outermost.limit):
            return True
        for ledger in chain:  # another process was quicker
            ledger.reserved -= amount
        return False

    async def _wait_for(self, amount: Decimal) -> None:
        self.check(amount)
        outermost = self.chain()[-1]
        queue = outermost.queue
        waiting = _Waiting(self, amount, asyncio.get_running_loop().create_future())
        queue.append(waiting)
        self._serve(queue)
        try:
            while outermost.shared is not None and not waiting.granted.done():
                await asyncio.wait([waiting.granted], timeout=_PAUSE)  # other processes settle without a word
                if queue and queue[0] is waiting:
                    self._serve(queue)
            await waiting.granted
        except asyncio.CancelledError:
            if waiting in queue:
                queue.remove(waiting)
            elif not waiting.granted.cancelled() and waiting.granted.exception() is None:
                self.close(Reservation(amount, _ZERO))  # granted in the same moment, and never used
            self._serve(queue)
            raise

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
                    if not first.ledger.take(first.amount):
                        return
                    first.granted.set_result(None)
            queue.popleft()


_BUSY = 30.0  # seconds to wait for another process, which holds the table for less than a millisecond
_TABLE = "CREATE TABLE IF NOT EXISTS spend (process TEXT PRIMARY KEY, spent TEXT NOT NULL, reserved TEXT NOT NULL)"
_Figures = tuple[Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class SharedSpend:
    """The table, as one process of the run sees it; the first one to look makes it."""

    path: Path
    process: str
    """Who keeps this line: xdist's ``gw0``."""

    def others(self) -> _Figures:
        """USD that the other processes have spent, and have reserved for requests in flight.

        Raises:
            LLMTuneError: the table cannot be read.
        """
        try:
            with closing(self._connect()) as connection:
                return self._others(connection)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def publish(self, spent: Decimal, reserved: Decimal, limit: Decimal | None = None) -> bool:
        """Write what this process has spent and reserved, unless all together would pass the limit; else False.

        Raises:
            LLMTuneError: the table cannot be written.
        """
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")  # nobody else writes between the sum and the line
                if limit is not None and sum(self._others(connection), spent + reserved) > limit:
                    return False
                row = self.process, str(spent), str(reserved)
                connection.execute("INSERT OR REPLACE INTO spend VALUES (?, ?, ?)", row)
                connection.execute("COMMIT")
                return True
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def bury(self, process: str) -> None:
        """A process has died: what it had reserved may have been billed, and nobody will ever say.

        Raises:
            LLMTuneError: the table cannot be written.
        """
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                rows = connection.execute("SELECT spent, reserved FROM spend WHERE process = ?", (process,))
                for spent, reserved in rows.fetchall():
                    gone = str(Decimal(spent) + Decimal(reserved)), "0", process
                    connection.execute("UPDATE spend SET spent = ?, reserved = ? WHERE process = ?", gone)
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _connect(self) -> sqlite3.Connection:
        # one connection for each look: the threads of a process may all use it, and nothing is ever left open
        connection = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")  # it outlives a process, and need not outlive the machine
        connection.execute(_TABLE)
        return connection

    def _others(self, connection: sqlite3.Connection) -> _Figures:
        rows = connection.execute("SELECT spent, reserved FROM spend WHERE process != ?", (self.process,)).fetchall()
        zero = Decimal(0)
        return sum((Decimal(spent) for spent, _ in rows), zero), sum((Decimal(held) for _, held in rows), zero)

    def _unusable(self, error: sqlite3.Error) -> LLMTuneError:
        return LLMTuneError(
            f"--llm-max-spend cannot be shared among the processes of this run by {self.path}: {error}; "
            "run without -n, or where all workers are on this machine"
        )
