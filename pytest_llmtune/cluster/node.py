"""Functions that run on a node: a batch of requests, or of grades."""

from __future__ import annotations

import asyncio
import itertools
import pickle
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune.cluster.budget_actor import Closed, Counted, Done, Kept, News
from pytest_llmtune.cluster.job_spec import Item, JobSpec, installed
from pytest_llmtune.completions.requester import HttpRequester
from pytest_llmtune.completions.stats import RequestStats
from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError
from pytest_llmtune.money.ledger import Reservation, closing_reservation
from pytest_llmtune.redaction.redactor import Redactor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from decimal import Decimal

    from pytest_llmtune.completions.routing import ServerFacts
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.types import Exchange, Row


_AT_ONCE = 16
"""Concurrent grading calls on a node."""


def ask_batch(order: JobSpec, budget: Any, batch: int, items: Sequence[Item], known: ServerFacts) -> ServerFacts:
    """Send a batch of requests, reporting answers to the budget actor as they arrive; returns facts about the servers.

    Raises:
        LLMTuneError: another version of this package is installed here.
    """
    _check_version(order.version)
    return asyncio.run(_ask_batch(order, _Post(budget, batch), items, known))


async def _ask_batch(order: JobSpec, post: _Post, items: Sequence[Item], known: ServerFacts) -> ServerFacts:
    settings = order.settings
    redactor = Redactor().knowing({key.origin: key.reveal() for each in settings.endpoints for key in each.keys})
    asking = HttpRequester.of(settings, post, post.account, redactor.clean_text)
    asking.recall(known)

    async def one(item: Item) -> None:
        def on_exchange(exchange: Exchange, cost: Decimal) -> None:
            post.tell(Kept(item.number, redactor.clean_exchange(exchange), cost))

        error: LLMTuneError | None = None
        try:
            await asking.fill(item.request, item.request.n, on_exchange)
        except LLMTuneError as caught:
            error = caught.with_traceback(None)
        post.tell(Done(item.number, error))

    try:
        await asyncio.gather(*map(one, items))
        return asking.known
    finally:
        await asking.aclose()
        await post.sent()


@dataclass(slots=True, eq=False)
class _Post:
    """Client of the budget actor: reserves like a ledger, and reports events."""

    budget: Any
    batch: int
    account: RequestStats = field(default_factory=RequestStats)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _news: list[News] = field(default_factory=list)
    _sending: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def reserve(self, amount: Decimal, model: str = "") -> AsyncIterator[Reservation]:
        number = next(self._numbers)
        if refusal := await self.budget.reserve.remote(self.batch, number, amount, model):
            raise BudgetExhaustedError(refusal)

        def close(done: Reservation) -> None:
            self.tell(Closed(number, done.price, done.uncertain))

        with closing_reservation(Reservation(amount, model=model, requested=amount), close) as reservation:
            yield reservation

    def tell(self, news: News) -> None:
        """Queue a report; those queued while a message is in flight are sent together."""
        self._news.append(news)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def sent(self) -> None:
        """Wait until all reports are delivered."""
        if self._sending is not None:
            await self._sending

    async def _send(self) -> None:
        """Send one message at a time, because Ray does not keep the order of concurrent ones."""
        while self._news:
            news, self._news = [*self._news, Counted(self.account.take())], []
            await self.budget.report.remote(self.batch, news)


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


def _check_version(wanted: str) -> None:
    if installed() != wanted:
        raise LLMTuneError(
            f"a node of the cluster has pytest-llmtune {installed()}, and pytest runs {wanted}; install the same "
            f"version on every node: pip install 'pytest-llmtune[ray]=={wanted}'"
        )
