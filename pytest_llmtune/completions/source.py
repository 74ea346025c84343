"""Completion sources: replay from a recording, or live with cache and ledger."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.completions.endpoints import SourceSettings
from pytest_llmtune.completions.stats import RequestStats
from pytest_llmtune.errors import CompletionError, StaleRecordingError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.wire.response import answers_in
from pytest_llmtune.wire.tokens import completion_of

if TYPE_CHECKING:
    import asyncio

    from pytest_llmtune.completions.cache import Cache
    from pytest_llmtune.completions.requester import OnExchange
    from pytest_llmtune.completions.routing import EndpointPool
    from pytest_llmtune.recording import Recording
    from pytest_llmtune.types import Completion, CompletionRequest, Exchange


Journal = Callable[[str, int, Decimal], None]
"""Called before a paid exchange is stored, with request key, number of exchanges stored before, and USD."""


class Requester(Protocol):
    """Gets answers from endpoints: ``completions.requester``, or an engine on other machines."""

    async def fill(self, request: CompletionRequest, n: int, on_exchange: OnExchange) -> None:
        """Get n answers, storing each exchange as it arrives; raises as ``LiveSource.complete``."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


class Source(Protocol):
    """Answers requests."""

    async def complete(self, request: CompletionRequest) -> Completion:
        """The ``request.n`` answers to a request; the same ones for a repeated request, if they are stored."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


@dataclass(frozen=True, slots=True)
class ReplaySource:
    """Answers only from a recording."""

    recording: Recording
    command: str = "pytest --llm-record=missing"
    """Command that records what is missing."""
    excused: frozenset[tuple[str, int]] = frozenset()
    """Requests (key and draw) that could not be completed when the recording was made."""

    async def complete(self, request: CompletionRequest) -> Completion:
        """The recorded answers.

        Raises:
            CompletionError: it is excused, so that the example is unknown.
            StaleRecordingError: fewer than ``request.n`` are recorded.
        """
        completion = self.recording.lookup(request)
        if completion is None and (request.key, request.sample_index) in self.excused:
            raise CompletionError(f"not completed when the rest was recorded; try again: {self.command}")
        if completion is None:
            raise StaleRecordingError(
                f"no recording in {self.recording.path} of {request.n} answers of {request.body.get('model')!r} "
                f"(request {request.key[:12]}); record: {self.command}"
            )
        return completion

    async def aclose(self) -> None:
        """Nothing to close."""


@dataclass(slots=True, eq=False)
class LiveSource(SourceSettings):
    """Answers from endpoints through a cache: cached answers are not requested again, and new ones are cached first.

    All answers to a request form a stream in the cache, in order of arrival: a request for ``n`` gets the first ``n``,
    whatever ``n`` they were requested with, and one whose ``sample_index`` is 1 gets the next ``n``. So a repeated request is free,
    and equal rows of a dataset get separate samples. Without a cache every request is sent.

    A source is used and closed in one event loop.
    """

    ledger: Ledger = field(default_factory=Ledger)
    cache: Cache | None = None
    account: RequestStats = field(default_factory=RequestStats)
    redactor: Redactor = field(default_factory=Redactor)
    """Removes secrets, including the endpoints' keys, from everything that arrives."""
    journal: Journal | None = None
    ask: bool = True
    """False: requests that are not cached fail, and nothing is sent."""
    remote: Callable[[LiveSource], Requester] | None = None
    """Creates a requester used instead of HTTP from this process; None: none."""
    _requester: Requester | None = None
    _pool: EndpointPool | None = None
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """By request key."""

    def __post_init__(self) -> None:
        keys = {key.origin: key.reveal() for endpoint in self.endpoints for key in endpoint.keys}
        self.redactor = self.redactor.knowing(keys)

    async def complete(self, request: CompletionRequest) -> Completion:
        """The answers, from the cache as far as possible.

        Raises:
            CompletionError: retries or time exhausted; answers so far are in the cache.
            EndpointError: no request of this model can succeed.
            BudgetExhaustedError: it exceeds the budget.
            CacheError: a paid answer cannot be stored.
        """
        if self.cache is None:
            pool: list[Exchange] = []
            paid = await self._fill(request, pool, request.n)
            return replace(completion_of(pool, request.n), paid=paid)
        import asyncio  # a replay needs none

        lock = self._locks.setdefault(request.key, asyncio.Lock())
        async with lock:  # a repeated request waits for the first one's answers, instead of paying again
            skip = request.sample_index * request.n
            pool = list(self.cache.get(request.key))
            self.account.cached += max(0, min(request.n, sum(map(answers_in, pool)) - skip))
            paid = await self._fill(request, pool, skip + request.n)
        return replace(completion_of(pool, request.n, skip=skip), paid=paid)

    async def aclose(self) -> None:
        """Close the clients, and this thread's connection to the cache."""
        if self._requester is not None:
            await self._requester.aclose()
            self._requester = None
        if self.cache is not None:
            for note in self.cache.notes:
                self.account.note(note)
            self.cache.close()

    async def _fill(self, request: CompletionRequest, pool: list[Exchange], count: int) -> Decimal:
        """Request until the pool has ``count`` answers; returns USD paid."""
        costs: list[Decimal] = []

        def on_exchange(exchange: Exchange, cost: Decimal) -> None:
            costs.append(cost)
            exchange = self.redactor.clean_exchange(exchange)
            if not exchange.recorded:  # of another package's requester
                exchange = replace(exchange, recorded=datetime.now(UTC).date().isoformat())
            if self.journal is not None:
                self.journal(request.key, len(pool), cost)
            if self.cache is not None:
                self.cache.add(request.key, exchange, after=len(pool))
            pool.append(exchange)

        missing = count - sum(map(answers_in, pool))
        if missing > 0 and not self.ask:
            raise CompletionError("not answered before the run was interrupted")
        if missing > 0:
            if self._requester is None and self.remote is not None:
                self._requester = self.remote(self)
            elif self._requester is None:
                from pytest_llmtune.completions.requester import HttpRequester  # a replay sends nothing

                hide = self.redactor.clean_text
                self._requester = HttpRequester.of(self, self.ledger, self.account, hide, self.pool)
            await self._requester.fill(request, missing, on_exchange)
        return sum(costs, Decimal(0))

    @property
    def pool(self) -> EndpointPool:
        """The endpoints' channels with their limits, also for the calls of a task's own client."""
        if self._pool is None:
            from pytest_llmtune.completions.routing import EndpointPool

            self._pool = EndpointPool.of(self.endpoints, self.concurrency, self.timeout, self.batching)
        return self._pool
