"""The asking half: in place of ``completions.asking``, batches of requests go to the cluster as tasks."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.cluster.budget_actor import Closed, Counted, Done, Ended, Kept
from pytest_llmtune.cluster.job_spec import Item, JobSpec
from pytest_llmtune.completions.routing import ServerFacts
from pytest_llmtune.errors import CompletionError, LLMTuneError
from pytest_llmtune.money.ledger import Reservation
from pytest_llmtune.wire.response import answers_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pytest_llmtune.cluster.budget_actor import News
    from pytest_llmtune.cluster.connection import Connection
    from pytest_llmtune.completions.requester import OnExchange
    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.types import CompletionRequest

__all__ = ["ClusterRequester", "Gathering"]


T = TypeVar("T")
_QUIET = 0.005
"""Seconds without another call that end the gathering."""


@dataclass(slots=True, eq=False)
class Gathering(Generic[T]):
    """What waits to be sent."""

    run: Callable[[list[T]], Awaitable[None]]
    """Sends one batch, and returns when it is done; it raises nothing."""
    width: int
    """Batches at once."""
    most: int
    """Calls in a batch."""
    _waiting: list[T] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _gathering: asyncio.Task[None] | None = None

    def add(self, call: T) -> None:
        self._waiting.append(call)
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().create_task(self._gather())

    async def aclose(self) -> None:
        """Send nothing more, and let go of what is under way."""
        tasks = [*self._tasks, *([self._gathering] if self._gathering else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _gather(self) -> None:
        seen = 0
        while seen < len(self._waiting):
            seen = len(self._waiting)
            await asyncio.sleep(_QUIET)
        self._gathering = None
        self._fill()

    def _fill(self) -> None:
        """As many batches as are free, of even size: none waits for a long one at the end."""
        while self._waiting and (free := self.width - len(self._tasks)) > 0:
            size = min(self.most, -(-len(self._waiting) // free))
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            task = asyncio.get_running_loop().create_task(self._one(batch))
            self._tasks.add(task)

    async def _one(self, batch: list[T]) -> None:
        try:
            await self.run(batch)
        finally:
            if (task := asyncio.current_task()) is not None:
                self._tasks.discard(task)
            self._fill()


_EACH = 8
"""Requests of a batch for each that it has in flight: enough to be worth a task, few enough to end together."""
_LOST = 3
"""Machines that may be lost under one request."""
_GOODBYE = 1.0
"""Seconds for the purse to say what is still reserved."""


@dataclass(slots=True, eq=False)
class _Waiting:
    item: Item
    keep: OnExchange
    done: asyncio.Future[None]
    lost: int = 0
    """Machines that were lost under it."""


@dataclass(slots=True, eq=False)
class ClusterRequester:
    """Asks for one source. The ledger of the source follows what the purse says."""

    engine: Connection
    source: LiveSource
    _purse: Any = None
    _hearing: asyncio.Task[None] | None = None
    _gathering: Gathering[_Waiting] | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _waiting: dict[int, _Waiting] = field(default_factory=dict)
    """By the item's number: asked for, and not done."""
    _batches: dict[int, tuple[Any, list[int]]] = field(default_factory=dict)
    """Under way: the task, and the numbers of its items."""
    _silent: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether nothing is under way."""
    _known: ServerFacts = field(default_factory=ServerFacts)
    _end: float | None = None

    async def fill(self, request: CompletionRequest, n: int, keep: OnExchange) -> None:
        self._start()
        assert self._gathering is not None  # noqa: S101  # started
        number = next(self._numbers)
        item = Item(number, replace(request, n=n, draw=0))
        self._waiting[number] = waiting = _Waiting(item, keep, asyncio.get_running_loop().create_future())
        self._gathering.add(waiting)
        await waiting.done  # where this is cancelled, what is still to come is kept all the same

    async def aclose(self) -> None:
        """Stop what is under way; what it had reserved counts as spent, for nobody knows."""
        if self._gathering is None or self._hearing is None:
            return
        if not self._batches:
            self._silent.set()
        if not self._waiting:
            await self._last_words()
        for task, numbers in self._batches.values():
            if any(number in self._waiting for number in numbers):  # Ray aborts this process where a task just ends
                self.engine.ray.cancel(task, force=True)
        await self._gathering.aclose()
        with suppress(TimeoutError, self.engine.ray.exceptions.RayError):
            async with asyncio.timeout(_GOODBYE):
                for batch in list(self._batches):
                    await self._purse.end.remote(batch)
            await self._last_words()
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)
        self.engine.ray.kill(self._purse)
        self._gathering = None

    async def _last_words(self) -> None:
        """Wait until the purse has said that nothing is under way any more, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE):
                await self._silent.wait()

    def _start(self) -> None:
        if self._gathering is not None:
            return
        source, width = self.source, self.engine.width
        self._end = None if source.deadline is None else time.monotonic() + source.deadline
        self._purse = self.engine.purse(source.ledger)
        most = _EACH * max(1, source.concurrency // width)
        self._gathering = Gathering(self._run, min(width, source.concurrency), most)
        self._hearing = asyncio.get_running_loop().create_task(self._hear())

    async def _run(self, waiting: list[_Waiting]) -> None:
        """One batch, to its end."""
        batch = next(self._numbers)
        try:
            await self._purse.open.remote(batch)
            left = None if self._end is None else self._end - time.monotonic()
            order = JobSpec.of(self.source, min(self.engine.width, self.source.concurrency), left)
            task = self.engine.ask_batch(order, self._purse, batch, [each.item for each in waiting], self._known)
            self._silent.clear()
            self._batches[batch] = task, [each.item.number for each in waiting]
            self._known |= await task
        except self.engine.ray.exceptions.RayTaskError as error:
            self._fail(self.engine.failure(error))
        except self.engine.ray.exceptions.RayError:
            self.source.account.note("a machine of the cluster was lost; what it had in flight was asked again")
        except Exception as error:  # noqa: BLE001  # each request raises it where it waits
            self._fail(error)
        with suppress(self.engine.ray.exceptions.RayError):
            await self._purse.end.remote(batch)

    async def _hear(self) -> None:
        """Do what the purse says was done, in its order."""
        try:
            while True:
                news, in_flight = await self._purse.hear.remote()
                for each in news:
                    self._note(each)
                self.source.account.fly_to(in_flight)
        except Exception as error:  # noqa: BLE001  # each request raises it where it waits
            self._fail(self.engine.failure(error))

    def _note(self, news: News) -> None:
        match news:
            case Kept(number, exchange, cost):
                self._keep(self._waiting.get(number), exchange, cost)
            case Closed(_, cost, uncertain):
                self.source.ledger.close(Reservation(Decimal(0), cost, uncertain))
            case Counted(account):
                self.source.account.add(account)
            case Done(number, error) if number in self._waiting:
                clean = error and type(error)(self.source.redactor.clean_text(str(error)))
                self._settle(self._waiting[number], clean)
            case Ended(batch):
                self._ended(batch)

    def _keep(self, waiting: _Waiting | None, exchange: Any, cost: Decimal) -> None:
        if waiting is None:
            return
        try:
            waiting.keep(exchange, cost)
        except LLMTuneError as error:
            self._settle(waiting, error)
        request = waiting.item.request  # should the machine be lost, the next one asks for the rest
        waiting.item = replace(waiting.item, request=replace(request, n=request.n - answers_in(exchange)))

    def _settle(self, waiting: _Waiting, error: Exception | None = None) -> None:
        """An item is done, or never will be."""
        self._waiting.pop(waiting.item.number, None)
        if waiting.done.done():
            return
        if error is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(error)

    def _ended(self, batch: int) -> None:
        """What a batch left undone is asked again, by another machine."""
        _, numbers = self._batches.pop(batch, (None, []))
        if not self._batches:
            self._silent.set()
        for waiting in filter(None, map(self._waiting.get, numbers)):
            waiting.lost += 1
            if waiting.item.request.n <= 0:
                self._settle(waiting)
            elif waiting.lost > _LOST:
                self._settle(waiting, CompletionError(f"{waiting.lost} machines of the cluster were lost under it"))
            elif not waiting.done.done() and self._gathering is not None:
                self._gathering.add(waiting)

    def _fail(self, error: Exception) -> None:
        for waiting in list(self._waiting.values()):
            self._settle(waiting, error)
