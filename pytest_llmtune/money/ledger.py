"""Reserve and settle USD, for one process or several that share a limit."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager, closing, contextmanager
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.text import dollars
from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError

if TYPE_CHECKING:
    import asyncio
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from pytest_llmtune.money.spend_log import SpendLog


_ZERO = Decimal(0)
_HUNDREDTH = Decimal("0.01")
_PAUSE = 0.05  # seconds between checks of what other processes have settled


class NotNowError(BudgetExhaustedError):
    """An amount does not fit before requests in flight are settled, but may fit then."""


@dataclass(slots=True, eq=False)
class Reservation:
    """USD reserved for one request; ``settle`` sets the actual cost."""

    amount: Decimal
    cost: Decimal | None = None
    uncertain: bool = False
    model: str = ""
    """What a model's bills show applies to its other requests."""
    requested: Decimal = _ZERO
    """Upper bound in USD, by the request itself."""
    ledger: Ledger | None = None
    """The ledger that granted it."""
    grown: bool = False
    """Whether another bill of its model exceeded its reservation while this request was in flight."""

    def settle(self, cost: Decimal, *, uncertain: bool = False) -> None:
        """Set the actual cost in USD; ``uncertain``: it may have been billed."""
        self.cost, self.uncertain = cost, uncertain

    def billed(self, cost: Decimal) -> bool:
        """Like ``settle``; if the bill exceeds the reservation, enlarge those in flight at once and return True."""
        self.settle(cost)
        if not self.requested or cost <= self.requested:
            return False
        if self.ledger is not None and cost > self.amount:
            self.ledger.chain()[-1].learn(self.model, cost / self.requested)
        return True

    @property
    def price(self) -> Decimal:
        """USD that it counts as: the whole amount until ``settle``."""
        return self.amount if self.cost is None else self.cost

    @property
    def overdrawn(self) -> bool:
        """Whether its model turned out to bill more than reserved, and the limit does not cover that."""
        return self.grown and self.ledger is not None and self.ledger.overdrawn


@contextmanager
def closing_reservation(reservation: Reservation, close: Callable[[Reservation], None]) -> Iterator[Reservation]:
    """Close a reservation at the end; after an exception without ``settle``, all of it is uncertain."""
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
    requested: Decimal
    model: str
    granted: asyncio.Future[Reservation]


@dataclass(slots=True, eq=False)
class Ledger:
    """The limit, reservations and spending in USD; ``spent + reserved`` never exceeds ``limit``.

    Only one event loop may use it at a time. A ledger with a parent (a suite's budget within the run's) reserves in both.

    A bill above its reservation (hidden reasoning, a server that ignores ``max_tokens``) enlarges all reservations of its
    model by the same factor, including those in flight, so that the limit is exceeded by no more than what was in flight.
    """

    limit: Decimal | None = None
    """None: no limit, but spending is still counted."""
    parent: Ledger | None = None
    name: str = "budget"
    """The user's name for it: ``optimization_budget``, ``--llm-max-spend``."""
    spent: Decimal = _ZERO
    reserved: Decimal = _ZERO
    uncertain: Decimal = _ZERO
    """The part of ``spent`` for interrupted requests, which a provider may have billed."""
    queue: deque[_Waiting] = field(default_factory=deque, repr=False)
    """Requests waiting for settlements; only the outermost ledger's queue is used."""
    earmarked: Decimal = _ZERO
    """Outermost ledger only: USD of ``set_aside``, that this process will need at its end."""
    shared: SharedSpend | None = None
    """Outermost ledger only: spending of the other processes that share the limit."""
    growth: dict[str, Decimal] = field(default_factory=dict)
    """Outermost ledger only: model to the largest ratio of bill to reservation, if above 1."""
    log: SpendLog | None = None
    """Outermost ledger only: file that spending is logged to."""
    under_way: set[Reservation] = field(default_factory=set, repr=False)
    """Outermost ledger only: granted reservations that are not closed yet."""

    @property
    def billed(self) -> Decimal:
        """USD spent for certain, without interrupted requests."""
        return self.spent - self.uncertain

    @property
    def left(self) -> Decimal | None:
        """USD that can still be reserved; None without a limit here or in a parent."""
        own = None if self.limit is None else self.limit - sum(self.other_processes(), self.spent + self.reserved)
        above = None if self.parent is None else self.parent.left
        return min((value for value in (own, above) if value is not None), default=None)

    @property
    def overdrawn(self) -> bool:
        """Whether spent plus reserved exceeds a limit, here or in a parent, because reservations have grown."""
        left = self.left
        return left is not None and left < 0

    @asynccontextmanager
    async def reserve(self, amount: Decimal, model: str = "") -> AsyncIterator[Reservation]:
        """Reserve the most that a request may cost; wait if requests in flight must be settled first.

        After an exception without ``settle`` (a cancellation, say), the whole amount counts as uncertain spending.

        Args:
            model: the requested model.

        Raises:
            BudgetExhaustedError: the amount does not fit even if everything in flight costs nothing.
        """
        with closing_reservation(await self.hold(amount, model), self.close) as reservation:
            yield reservation

    async def hold(self, amount: Decimal, model: str = "") -> Reservation:
        """Like ``reserve``, but the caller settles it and calls ``close``."""
        import asyncio  # nothing is paid for in a replay

        self.check(amount, model)
        outermost = self.chain()[-1]
        queue = outermost.queue
        waiting = _Waiting(self, amount, model, asyncio.get_running_loop().create_future())
        queue.append(waiting)
        self._serve(queue)
        try:
            while outermost.shared is not None and not waiting.granted.done():
                await asyncio.wait([waiting.granted], timeout=_PAUSE)  # other processes settle without notice
                if queue and queue[0] is waiting:
                    self._serve(queue)
            return await waiting.granted
        except asyncio.CancelledError:
            if waiting in queue:
                queue.remove(waiting)
            elif not waiting.granted.cancelled() and waiting.granted.exception() is None:
                reservation = waiting.granted.result()  # granted at the same moment, and never used
                reservation.settle(_ZERO)
                self.close(reservation)
            self._serve(queue)
            raise

    def reserve_now(self, amount: Decimal, model: str = "") -> Reservation:
        """Reserve an amount without waiting; the caller settles it and calls ``close``.

        Raises:
            NotNowError: it does not fit before requests in flight are settled.
            BudgetExhaustedError: it does not fit even if everything in flight costs nothing.
        """
        self.check(amount, model)
        reservation = self.grant(amount, model)
        if reservation is None:
            outermost = self.chain()[-1]
            raise NotNowError(
                f"{outermost.name}: what is left of ${outermost.limit} is reserved for requests in flight, and the "
                f"next one may cost up to {dollars(self._grown(amount, model), 6)}; give a larger budget, or a smaller "
                "max_tokens or n"
            )
        return reservation

    def close(self, reservation: Reservation, *, noted: bool = False) -> None:
        """Turn a reservation into spending: the settled cost, else the whole amount.

        Args:
            noted: it is in the log already, by ``note``.
        """
        chain = self.chain()
        outermost = chain[-1]
        outermost.under_way.discard(reservation)
        for ledger in chain:
            ledger.reserved -= reservation.amount
            ledger.spent += reservation.price
            ledger.uncertain += reservation.price if reservation.uncertain else _ZERO
        if reservation.price and not reservation.uncertain and not noted:
            outermost.note(reservation.price)
        if reservation.requested and reservation.price > reservation.amount and not reservation.uncertain:
            outermost.learn(reservation.model, reservation.price / reservation.requested)
        if outermost.shared is not None:
            outermost.shared.publish(outermost.spent, outermost.reserved, outermost.earmarked)
        self._serve(outermost.queue)

    def note(self, usd: Decimal) -> None:
        """Log spending on disk at once, for the case that this run is killed; from any thread."""
        log = self.chain()[-1].log
        if log is not None:
            log.note(usd)

    def check(self, amount: Decimal, model: str = "") -> None:
        """Fail if an amount can be reserved neither now nor later.

        Raises:
            BudgetExhaustedError: it does not fit even if everything in flight costs nothing.
        """
        amount = self._grown(amount, model)
        for ledger in self.chain():
            if ledger.limit is None:
                continue
            spent = ledger.spent + ledger.other_processes()[0]
            if spent + amount > ledger.limit:
                factor = self.chain()[-1].growth.get(model)
                dishonest = f" ({model} has billed {factor:.1f} times what its requests allow)" if factor else ""
                over = f", {dollars(spent - ledger.limit, 6)} more than allowed," if spent > ledger.limit else ","
                raise BudgetExhaustedError(
                    f"{ledger.name}: {dollars(spent, 6)} of ${ledger.limit} is spent{over} and the next request may cost up to "
                    f"{dollars(amount, 6)}{dishonest}; give a larger budget, or a smaller max_tokens or n"
                )

    def chain(self) -> list[Ledger]:
        """This ledger and its parents, outermost last."""
        return [self] if self.parent is None else [self, *self.parent.chain()]

    def fits(self, amount: Decimal) -> bool:
        """Whether an amount can be reserved right now."""
        left = self.left
        return left is None or amount <= left

    def other_processes(self) -> tuple[Decimal, Decimal]:
        """USD spent and reserved by other processes that share the limit."""
        return (_ZERO, _ZERO) if self.shared is None else self.shared.others()

    def set_aside(self, amount: Decimal = _ZERO) -> None:
        """Leave USD to this process for later: searches of other processes do not spend them, urgent requests may."""
        outermost = self.chain()[-1]
        outermost.earmarked = amount
        if outermost.shared is not None:
            outermost.shared.publish(outermost.spent, outermost.reserved, amount)

    @property
    def free(self) -> Decimal | None:
        """``left``, less what other processes set aside for later."""
        shared, left = self.chain()[-1].shared, self.left
        return left if left is None or shared is None else left - shared.earmarked_by_others()

    def try_reserve(self, amount: Decimal) -> bool:
        """Reserve an amount here and in all parents, if it fits right now."""
        if not self.fits(amount):
            return False
        chain = self.chain()
        for ledger in chain:
            ledger.reserved += amount
        outermost = chain[-1]
        if outermost.shared is None or outermost.shared.publish(
            outermost.spent, outermost.reserved, outermost.earmarked, outermost.limit
        ):
            return True
        for ledger in chain:  # another process was faster
            ledger.reserved -= amount
        return False

    def grant(self, requested: Decimal, model: str) -> Reservation | None:
        """Reserve an amount, enlarged by its model's bills, if it fits right now; else None."""
        amount = self._grown(requested, model)
        if not self.try_reserve(amount):
            return None
        reservation = Reservation(amount, model=model, requested=requested, ledger=self)
        self.chain()[-1].under_way.add(reservation)
        return reservation

    def _grown(self, requested: Decimal, model: str) -> Decimal:
        return requested * self.chain()[-1].growth.get(model, Decimal(1))

    def learn(self, model: str, factor: Decimal) -> None:
        """Note the ratio of a bill to its reservation, and expect it of the model's other requests."""
        factor = factor.quantize(_HUNDREDTH, ROUND_CEILING)  # products stay exact
        self.growth[model] = factor
        for reservation in self.under_way:
            more = reservation.requested * factor - reservation.amount
            if reservation.model != model or more <= 0 or reservation.ledger is None:
                continue
            reservation.amount += more
            reservation.grown = True
            for ledger in reservation.ledger.chain():
                ledger.reserved += more

    def _serve(self, queue: deque[_Waiting]) -> None:
        """Grant what fits, in order of arrival; refuse what can never fit."""
        while queue:
            first = queue[0]
            if not first.granted.done():  # else cancelled
                try:
                    first.ledger.check(first.requested, first.model)
                except BudgetExhaustedError as error:
                    first.granted.set_exception(error)
                else:
                    reservation = first.ledger.grant(first.requested, first.model)
                    if reservation is None:
                        return
                    first.granted.set_result(reservation)
            queue.popleft()


_BUSY = 30.0  # seconds to wait for another process, which locks the table for under a millisecond
_TABLE = "CREATE TABLE IF NOT EXISTS spend (process TEXT PRIMARY KEY, spent TEXT NOT NULL, reserved TEXT NOT NULL, earmarked TEXT NOT NULL)"


@dataclass(frozen=True, slots=True)
class SharedSpend:
    """A table of the spending of each process of a run, created by the first one.

    Every method raises an LLMTuneError if the table cannot be read or written.
    """

    path: Path
    process: str
    """Name of this process, such as xdist's ``gw0``."""

    def others(self) -> tuple[Decimal, Decimal]:
        """USD spent, and reserved for requests in flight, by the other processes."""
        with self._open() as connection:
            return self._others(connection)

    def earmarked_by_others(self) -> Decimal:
        """USD that the other processes need in the end."""
        with self._open() as connection:
            rows = connection.execute("SELECT earmarked FROM spend WHERE process != ?", (self.process,)).fetchall()
            return sum((Decimal(earmarked) for (earmarked,) in rows), _ZERO)

    def publish(self, spent: Decimal, reserved: Decimal, earmarked: Decimal, limit: Decimal | None = None) -> bool:
        """Write this process's spending and reservations; False if the total would exceed the limit."""
        with self._open(alone=True) as connection:
            if limit is not None and sum(self._others(connection), spent + reserved) > limit:
                return False
            row = self.process, str(spent), str(reserved), str(earmarked)
            connection.execute("INSERT OR REPLACE INTO spend VALUES (?, ?, ?, ?)", row)
            return True

    def bury(self, process: str) -> None:
        """Count a dead process's reservations as spent, because they may have been billed."""
        with self._open(alone=True) as connection:
            rows = connection.execute("SELECT spent, reserved FROM spend WHERE process = ?", (process,))
            for spent, reserved in rows.fetchall():
                row = str(Decimal(spent) + Decimal(reserved)), process
                connection.execute("UPDATE spend SET spent = ?, reserved = '0', earmarked = '0' WHERE process = ?", row)

    @contextmanager
    def _open(self, *, alone: bool = False) -> Iterator[sqlite3.Connection]:
        """The table; ``alone``: no other process writes between what is read and what is written."""
        import sqlite3  # most runs share nothing

        try:
            # one connection per access: every thread may use it, and none is left open
            with closing(sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = OFF")  # must survive a process, not a machine crash
                connection.execute(_TABLE)
                if alone:
                    connection.execute("BEGIN IMMEDIATE")
                yield connection
                if alone:
                    connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise LLMTuneError(
                f"--llm-max-spend cannot be shared among the processes of this run by {self.path}: {error}; "
                "run without -n, or where all workers are on this machine"
            ) from error

    def _others(self, connection: sqlite3.Connection) -> tuple[Decimal, Decimal]:
        rows = connection.execute("SELECT spent, reserved FROM spend WHERE process != ?", (self.process,)).fetchall()
        return sum((Decimal(spent) for spent, _ in rows), _ZERO), sum((Decimal(held) for _, held in rows), _ZERO)
