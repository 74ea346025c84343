"""Send requests through the cluster, in batches as tasks, instead of ``completions.requester``."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.batches import Gathering, evenly
from pytest_llmtune.cluster.budget_actor import Answered, Counted, Done, Ended, Report, Settled
from pytest_llmtune.cluster.node import Item, JobSpec
from pytest_llmtune.completions.routing import ServerFacts
from pytest_llmtune.errors import CompletionError, LLMTuneError
from pytest_llmtune.money.ledger import Reservation
from pytest_llmtune.wire.response import answers_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_llmtune.cluster.connection import Connection
    from pytest_llmtune.completions.requester import OnExchange
    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.types import CompletionRequest


_EACH = 8
"""Requests of a batch per request in flight: enough for a task to be worthwhile, few enough to end together."""
_LOST = 3
"""Lost machines after which a request fails."""
_LAST_REPORT = 1.0
"""Seconds to wait for the budget actor's final report."""


@dataclass(slots=True, eq=False)
class _Waiting:
    item: Item
    on_exchange: OnExchange
    done: asyncio.Future[None]
    lost: int = 0
    """Number of machines lost while it was in flight."""


@dataclass(slots=True, eq=False)
class ClusterRequester:
    """Sends the requests of one source. The source's ledger follows the budget actor's reports."""

    engine: Connection
    source: LiveSource
    _budget: Any = None
    _receiving: asyncio.Task[None] | None = None
    _gathering: Gathering[_Waiting] | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _waiting: dict[int, _Waiting] = field(default_factory=dict)
    """Pending requests by item number."""
    _batches: dict[int, tuple[Any, list[int]]] = field(default_factory=dict)
    """Running batches: the task, and the numbers of its items."""
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set if nothing is running."""
    _known: ServerFacts = field(default_factory=ServerFacts)
    _end: float | None = None

    async def fill(self, request: CompletionRequest, n: int, on_exchange: OnExchange) -> None:
        gathering, number = self._started(), next(self._numbers)
        item = Item(number, replace(request, n=n, sample_index=0))
        self._waiting[number] = waiting = _Waiting(item, on_exchange, asyncio.get_running_loop().create_future())
        gathering.add(waiting)
        await waiting.done  # if cancelled, later answers are still stored

    async def aclose(self) -> None:
        """Stop running batches; their reservations count as spent, because they may have been billed."""
        if self._gathering is None or self._receiving is None:
            return
        if not self._batches:
            self._idle.set()
        if not self._waiting:
            await self._until_idle()
        for task, numbers in self._batches.values():
            if any(number in self._waiting for number in numbers):  # Ray aborts this process if the task is just ending
                self.engine.ray.cancel(task, force=True)
        await self._gathering.aclose()
        with suppress(TimeoutError, self.engine.ray.exceptions.RayError):
            async with asyncio.timeout(_LAST_REPORT):
                for batch in list(self._batches):
                    await self._budget.end.remote(batch)
            await self._until_idle()
        self._receiving.cancel()
        await asyncio.gather(self._receiving, return_exceptions=True)
        self.engine.ray.kill(self._budget)
        self._gathering = None

    async def _until_idle(self) -> None:
        """Wait briefly for the budget actor to report that nothing is running."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_REPORT):
                await self._idle.wait()

    def _started(self) -> Gathering[_Waiting]:
        """What groups requests into batches; the first call creates it, with the budget actor."""
        if self._gathering is None:
            source, width = self.source, self.engine.width
            self._end = None if source.deadline is None else time.monotonic() + source.deadline
            self._budget = self.engine.budget(source.ledger)
            most = _EACH * max(1, source.concurrency // width)
            self._gathering = Gathering(self._run, evenly(most), min(width, source.concurrency))
            self._receiving = asyncio.get_running_loop().create_task(self._receive())
        return self._gathering

    async def _run(self, waiting: list[_Waiting]) -> None:
        """Run one batch to completion."""
        batch = next(self._numbers)
        try:
            await self._budget.open.remote(batch)
            seconds = None if self._end is None else self._end - time.monotonic()
            spec = JobSpec.of(self.source, min(self.engine.width, self.source.concurrency), seconds)
            items = [each.item for each in waiting]
            task = self.engine.ask_batch.remote(spec, self._budget, batch, items, self._known)
            self._idle.clear()
            self._batches[batch] = task, [each.item.number for each in waiting]
            self._known |= await task
        except self.engine.ray.exceptions.RayTaskError as error:
            self._fail(self.engine.failure(error))
        except self.engine.ray.exceptions.RayError:
            self.source.account.note("a machine of the cluster was lost; its requests in flight were sent again")
        except Exception as error:  # noqa: BLE001  # raised again in each waiting request
            self._fail(error)
        with suppress(self.engine.ray.exceptions.RayError):
            await self._budget.end.remote(batch)

    async def _receive(self) -> None:
        """Process the budget actor's reports, in order."""
        try:
            while True:
                reports, in_flight = await self._budget.receive.remote()
                for each in reports:
                    self._process(each)
                self.source.account.set_in_flight(in_flight)
        except Exception as error:  # noqa: BLE001  # raised again in each waiting request
            self._fail(self.engine.failure(error))

    def _process(self, report: Report) -> None:
        match report:
            case Answered(number, exchange, cost):
                self._deliver(self._waiting.get(number), exchange, cost)
            case Settled(_, cost, uncertain):
                self.source.ledger.close(Reservation(Decimal(0), cost, uncertain))
            case Counted(account):
                self.source.account.add(account)
            case Done(number, error) if number in self._waiting:
                clean = error and type(error)(self.source.redactor.clean_text(str(error)))
                self._settle(self._waiting[number], clean)
            case Ended(batch):
                self._ended(batch)

    def _deliver(self, waiting: _Waiting | None, exchange: Any, cost: Decimal) -> None:
        if waiting is None:
            return
        try:
            waiting.on_exchange(exchange, cost)
        except LLMTuneError as error:
            self._settle(waiting, error)
        request = waiting.item.request  # if the machine is lost, another one requests the rest
        waiting.item = replace(waiting.item, request=replace(request, n=request.n - answers_in(exchange)))

    def _settle(self, waiting: _Waiting, error: Exception | None = None) -> None:
        """Complete an item, or fail it."""
        self._waiting.pop(waiting.item.number, None)
        if waiting.done.done():
            return
        if error is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(error)

    def _ended(self, batch: int) -> None:
        """Send a batch's unfinished requests again, on another machine."""
        _, numbers = self._batches.pop(batch, (None, []))
        if not self._batches:
            self._idle.set()
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
