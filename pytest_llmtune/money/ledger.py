"""Reserve and settle USD: one run, or several processes that share one cap."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from pytest_llmtune.money.spend_log import SpendLog

__all__ = ["Ledger", "Reservation", "SharedSpend", "closing_reservation"]


_ZERO = Decimal(0)
_HUNDREDTH = Decimal("0.01")
_PAUSE = 0.05  # seconds between two looks at what other processes have settled


@dataclass(slots=True, eq=False)
class Reservation:
    """USD set aside for one request; ``settle`` says what it really cost."""

    amount: Decimal
    cost: Decimal | None = None
    uncertain: bool = False
    model: str = ""
    """What is learned of one model's bills counts for its other requests."""
    asked: Decimal = _ZERO
    """USD that the request should cost at most, by what it says itself."""
    ledger: Ledger | None = None
    """Where it was made."""
    grown: bool = False
    """Whether another bill of its model was larger than asked for while this one was under way."""

    def settle(self, cost: Decimal, *, uncertain: bool = False) -> None:
        """The request cost this many USD; ``uncertain``: it may have, nobody can tell."""
        self.cost, self.uncertain = cost, uncertain

    def billed(self, cost: Decimal) -> bool:
        """As ``settle``; where it is more than was asked for, all that is under way counts so at once, and True."""
        self.settle(cost)
        if not self.asked or cost <= self.asked:
            return False
        if self.ledger is not None and cost > self.amount:
            self.ledger.chain()[-1].learn(self.model, cost / self.asked)
        return True

    @property
    def price(self) -> Decimal:
        """USD that it counts with: the whole amount, where ``settle`` said nothing else."""
        return self.amount if self.cost is None else self.cost

    @property
    def overdrawn(self) -> bool:
        """Whether it was granted for less than its model turned out to bill, and the limit does not hold that."""
        return self.grown and self.ledger is not None and self.ledger.overdrawn


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
    asked: Decimal
    model: str
    granted: asyncio.Future[Reservation]


@dataclass(slots=True, eq=False)
class Ledger:
    """What may be spent, is reserved, and was spent, in USD; ``spent + reserved`` never passes ``limit``.

    One event loop uses it at a time; several, one after the other. A ledger inside another (a suite's budget inside
    the run's) reserves in both.

    A bill that is larger than its reservation (hidden reasoning, a server that ignores ``max_tokens``) makes all
    reservations of its model larger by the same factor, those in flight included: what is then sent fits, and the limit
    is passed by no more than what was under way.
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
    growth: dict[str, Decimal] = field(default_factory=dict)
    """Of the outermost ledger: how many times what was asked for a model has billed at most, where that is over 1."""
    log: SpendLog | None = None
    """Of the outermost ledger: what is spent is written there too."""
    under_way: set[Reservation] = field(default_factory=set, repr=False)
    """Of the outermost ledger: what is granted and not closed."""

    @property
    def billed(self) -> Decimal:
        """USD spent for sure: without what requests that broke off may have cost."""
        return self.spent - self.uncertain

    @property
    def left(self) -> Decimal | None:
        """USD that may still be reserved; None without a limit here or in a parent."""
        own = None if self.limit is None else self.limit - sum(self.elsewhere(), self.spent + self.reserved)
        above = None if self.parent is None else self.parent.left
        return min((value for value in (own, above) if value is not None), default=None)

    @property
    def overdrawn(self) -> bool:
        """Whether more is spent and reserved, here or around, than the limit allows: reservations have grown."""
        return any(
            ledger.limit is not None and sum(ledger.elsewhere(), ledger.spent + ledger.reserved) > ledger.limit
            for ledger in self.chain()
        )

    @asynccontextmanager
    async def reserve(self, amount: Decimal, model: str = "") -> AsyncIterator[Reservation]:
        """Set aside what a request may cost at most; wait where requests in flight must be settled first.

        Left by an exception without ``settle`` (cancelled in flight, say), the whole amount counts as uncertain spend.

        Args:
            model: whose bills it is like.

        Raises:
            BudgetExhaustedError: the amount does not fit even if everything in flight turns out to cost nothing.
        """
        with closing_reservation(await self.hold(amount, model), self.close) as reservation:
            yield reservation

    async def hold(self, amount: Decimal, model: str = "") -> Reservation:
        """As ``reserve``; whoever takes it settles it, and gives it to ``close``.

        Raises:
            BudgetExhaustedError: the amount does not fit even if everything in flight turns out to cost nothing.
        """
        return await self._wait_for(amount, model)

    def reserve_now(self, amount: Decimal, model: str = "") -> Reservation:
        """Set aside an amount without waiting; whoever takes it settles it, and gives it to ``close``.

        Raises:
            BudgetExhaustedError: it does not fit now.
        """
        self.check(amount, model)
        reservation = self.grant(amount, model)
        if reservation is None:
            outermost = self.chain()[-1]
            raise BudgetExhaustedError(
                f"{outermost.name}: what is left of ${outermost.limit} is reserved for requests in flight, and the "
                f"next one may cost up to ${self._grown(amount, model):.6f}; give a larger budget, or a smaller "
                "max_tokens or n"
            )
        return reservation

    def close(self, reservation: Reservation) -> None:
        """What was set aside becomes what it cost: the whole amount, where ``settle`` said nothing else."""
        chain = self.chain()
        outermost = chain[-1]
        outermost.under_way.discard(reservation)
        for ledger in chain:
            ledger.reserved -= reservation.amount
            ledger.spent += reservation.price
            ledger.uncertain += reservation.price if reservation.uncertain else _ZERO
        if outermost.log is not None and reservation.price and not reservation.uncertain:
            outermost.log.note(reservation.price)
        if reservation.asked and reservation.price > reservation.amount and not reservation.uncertain:
            outermost.learn(reservation.model, reservation.price / reservation.asked)
        if outermost.shared is not None:
            outermost.shared.publish(outermost.spent, outermost.reserved)
        self._serve(outermost.queue)

    def check(self, amount: Decimal, model: str = "") -> None:
        """Fail where an amount cannot be reserved, now or later.

        Raises:
            BudgetExhaustedError: even if everything in flight turns out to cost nothing.
        """
        amount = self._grown(amount, model)
        for ledger in self.chain():
            if ledger.limit is None:
                continue
            spent = ledger.spent + ledger.elsewhere()[0]
            if spent + amount > ledger.limit:
                factor = self.chain()[-1].growth.get(model)
                dishonest = f" ({model} has billed {factor:.1f} times what its requests allow)" if factor else ""
                over = f", ${spent - ledger.limit:.6f} more than allowed," if spent > ledger.limit else ""
                raise BudgetExhaustedError(
                    f"{ledger.name}: ${spent:.6f} of ${ledger.limit} is spent{over}{',' if not over else ''} and the next request may cost up "
                    f"to ${amount:.6f}{dishonest}; give a larger budget, or a smaller max_tokens or n"
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

    def grant(self, asked: Decimal, model: str) -> Reservation | None:
        """Reserve an amount if it fits right now, as large as its model's bills make it; else None."""
        amount = self._grown(asked, model)
        if not self.take(amount):
            return None
        reservation = Reservation(amount, model=model, asked=asked, ledger=self)
        self.chain()[-1].under_way.add(reservation)
        return reservation

    def _grown(self, asked: Decimal, model: str) -> Decimal:
        return asked * self.chain()[-1].growth.get(model, Decimal(1))

    def learn(self, model: str, factor: Decimal) -> None:
        """A bill of the model was so many times what its request allows: expect that of the others too."""
        factor = factor.quantize(_HUNDREDTH, ROUND_CEILING)  # products stay exact
        self.growth[model] = factor
        for reservation in self.under_way:
            more = reservation.asked * factor - reservation.amount
            if reservation.model != model or more <= 0 or reservation.ledger is None:
                continue
            reservation.amount += more
            reservation.grown = True
            for ledger in reservation.ledger.chain():
                ledger.reserved += more

    async def _wait_for(self, asked: Decimal, model: str) -> Reservation:
        self.check(asked, model)
        outermost = self.chain()[-1]
        queue = outermost.queue
        waiting = _Waiting(self, asked, model, asyncio.get_running_loop().create_future())
        queue.append(waiting)
        self._serve(queue)
        try:
            while outermost.shared is not None and not waiting.granted.done():
                await asyncio.wait([waiting.granted], timeout=_PAUSE)  # other processes settle without a word
                if queue and queue[0] is waiting:
                    self._serve(queue)
            return await waiting.granted
        except asyncio.CancelledError:
            if waiting in queue:
                queue.remove(waiting)
            elif not waiting.granted.cancelled() and waiting.granted.exception() is None:
                reservation = waiting.granted.result()  # granted in the same moment, and never used
                reservation.settle(_ZERO)
                self.close(reservation)
            self._serve(queue)
            raise

    def _serve(self, queue: deque[_Waiting]) -> None:
        """Grant what fits, in order of arrival; refuse what can never fit."""
        while queue:
            first = queue[0]
            if not first.granted.done():  # else cancelled
                try:
                    first.ledger.check(first.asked, first.model)
                except BudgetExhaustedError as error:
                    first.granted.set_exception(error)
                else:
                    reservation = first.ledger.grant(first.asked, first.model)
                    if reservation is None:
                        return
                    first.granted.set_result(reservation)
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
