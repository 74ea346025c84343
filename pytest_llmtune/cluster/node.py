"""What runs on a node, a batch of requests or of grades, and the settings that it is given."""

from __future__ import annotations

import asyncio
import itertools
import pickle
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.cluster.budget_actor import Answered, Counted, Done, Report, Settled
from pytest_llmtune.completions.endpoints import SourceSettings
from pytest_llmtune.completions.requester import HttpRequester
from pytest_llmtune.completions.stats import RequestStats
from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError
from pytest_llmtune.money.ledger import Reservation, closing_reservation
from pytest_llmtune.redaction.keys import Secret
from pytest_llmtune.redaction.redactor import Redactor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from decimal import Decimal

    from pytest_llmtune.completions.routing import ServerFacts
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.types import CompletionRequest, Exchange, Row


_AT_ONCE = 16
"""Concurrent grading calls on a node."""


@dataclass(frozen=True, slots=True)
class Item:
    """One request with its number."""

    number: int
    request: CompletionRequest


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The settings for one of ``width`` concurrent batches, with its share of every limit.

    Contains the keys, which are only sent between processes, and never written to a file.
    """

    version: str
    """Version of this package in the sending process."""
    _settings: SourceSettings
    """Without keys."""
    _keys: tuple[tuple[tuple[str, str], ...], ...] = field(repr=False)
    """For each endpoint: (key, origin)."""

    @classmethod
    def of(cls, source: SourceSettings, width: int, deadline: float | None) -> JobSpec:
        """A share of a source's settings.

        Args:
            deadline: remaining seconds.
        """

        def share(limit: float | None) -> float | None:
            return None if limit is None else limit / width

        shared = (
            replace(
                endpoint,
                keys=(),
                requests_per_minute=share(endpoint.requests_per_minute),
                tokens_per_minute=share(endpoint.tokens_per_minute),
                concurrency=None if endpoint.concurrency is None else max(1, endpoint.concurrency // width),
            )
            for endpoint in source.endpoints
        )
        settings = SourceSettings(
            tuple(shared),
            source.prices,
            max(1, source.concurrency // width),
            source.timeout,
            source.patience,
            deadline,
            source.attempts,
            source.pause,
        )
        keys = (tuple((key.reveal(), key.origin) for key in endpoint.keys) for endpoint in source.endpoints)
        return cls(installed(), settings, tuple(keys))

    @property
    def settings(self) -> SourceSettings:
        """The settings, with the keys of each endpoint."""
        pairs = zip(self._settings.endpoints, self._keys, strict=True)
        endpoints = (replace(endpoint, keys=tuple(Secret(*key) for key in keys)) for endpoint, keys in pairs)
        return replace(self._settings, endpoints=tuple(endpoints))


def installed() -> str:
    """The version of this package on this machine."""
    return version("pytest-llmtune")


def ask_batch(spec: JobSpec, budget: Any, batch: int, items: Sequence[Item], known: ServerFacts) -> ServerFacts:
    """Send a batch of requests, reporting answers to the budget actor as they arrive; returns facts about the servers.

    Raises:
        LLMTuneError: another version of this package is installed here.
    """
    _check_version(spec.version)
    return asyncio.run(_ask_batch(spec.settings, _BudgetClient(budget, batch), items, known))


async def _ask_batch(
    settings: SourceSettings, budget: _BudgetClient, items: Sequence[Item], known: ServerFacts
) -> ServerFacts:
    redactor = Redactor().knowing({key.origin: key.reveal() for each in settings.endpoints for key in each.keys})
    requester = HttpRequester.of(settings, budget, budget.account, redactor.clean_text)
    requester.recall(known)

    async def one(item: Item) -> None:
        def on_exchange(exchange: Exchange, cost: Decimal) -> None:
            budget.report(Answered(item.number, redactor.clean_exchange(exchange), cost))

        error: LLMTuneError | None = None
        try:
            await requester.fill(item.request, item.request.n, on_exchange)
        except LLMTuneError as caught:
            error = caught.with_traceback(None)
        budget.report(Done(item.number, error))

    try:
        await asyncio.gather(*map(one, items))
        return requester.known
    finally:
        await requester.aclose()
        await budget.delivered()


@dataclass(slots=True, eq=False)
class _BudgetClient:
    """Client of the budget actor: reserves like a ledger, and reports events."""

    budget: Any
    batch: int
    account: RequestStats = field(default_factory=RequestStats)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _reports: list[Report] = field(default_factory=list)
    _sending: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def reserve(self, amount: Decimal, model: str = "") -> AsyncIterator[Reservation]:
        number = next(self._numbers)
        if refusal := await self.budget.reserve.remote(self.batch, number, amount, model):
            raise BudgetExhaustedError(refusal)

        def close(done: Reservation) -> None:
            self.report(Settled(number, done.price, done.uncertain))

        with closing_reservation(Reservation(amount, model=model, requested=amount), close) as reservation:
            yield reservation

    def report(self, report: Report) -> None:
        """Queue a report; those queued while a message is in flight are sent together."""
        self._reports.append(report)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def delivered(self) -> None:
        """Wait until all reports are delivered."""
        if self._sending is not None:
            await self._sending

    async def _send(self) -> None:
        """Send one message at a time, because Ray does not keep the order of concurrent ones."""
        while self._reports:
            reports, self._reports = [*self._reports, Counted(self.account.take())], []
            await self.budget.report.remote(self.batch, reports)


def grade_batch(version: str, packed: bytes, calls: Sequence[tuple[str, Sequence[str], Row]]) -> list[Any]:
    """Results of a grader's calls (method, responses, row), or the errors raised.

    Args:
        packed: the pickled grader.

    Raises:
        LLMTuneError: another version of this package is installed here.
    """
    _check_version(version)
    return asyncio.run(_grade_batch(_unpacked(packed), calls))


@lru_cache(maxsize=2)
def _unpacked(packed: bytes) -> Grader:
    """The grader, reused for all batches of this process, because it has worker processes and caches."""
    grader: Grader = pickle.loads(packed)  # noqa: S301  # like any Ray task
    return grader


async def _grade_batch(grader: Grader, calls: Sequence[tuple[str, Sequence[str], Row]]) -> list[Any]:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(method: str, responses: Sequence[str], row: Row) -> Any:
        async with slots:
            return await getattr(grader, f"a{method}")(responses, row, None)

    return await asyncio.gather(*(one(*call) for call in calls), return_exceptions=True)


def _check_version(required: str) -> None:
    if installed() != required:
        raise LLMTuneError(
            f"a node of the cluster has pytest-llmtune {installed()}, and pytest runs {required}; install the same "
            f"version on every node: pip install 'pytest-llmtune[ray]=={required}'"
        )
