"""Request n answers from endpoints: split, retry, reserve, store each exchange as it arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.text import cell_cut, dollars
from pytest_llmtune.completions.billing import Billing
from pytest_llmtune.completions.failures import Failure, Hide, Kind, backoff, n_limit
from pytest_llmtune.completions.routing import ANY, AdaptiveLimiter, EndpointPool, KeyChannel, ServerFacts
from pytest_llmtune.completions.sending import base_urls, model_names, send
from pytest_llmtune.errors import CompletionError
from pytest_llmtune.types import CompletionRequest, Exchange, ModelUsage
from pytest_llmtune.wire.response import answers_in, filtered_in, is_refusal, wants_embedding
from pytest_llmtune.wire.tokens import completion_of

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from pytest_llmtune.completions.endpoints import SourceSettings
    from pytest_llmtune.completions.stats import RequestStats
    from pytest_llmtune.money.ledger import Reservation


@dataclass(slots=True, eq=False)
class Attempts:
    """State of one request over its attempts."""

    request: CompletionRequest
    end: float
    """Deadline on the monotonic clock; the run's until it is first sent."""
    started: float | None = None
    sent: float = 0.0
    """When it was last sent."""
    tries: int = 0
    odd: bool = False
    """Whether it had a refusal that may be specific to this request."""
    failure: Failure | None = None
    avoid: set[KeyChannel] = field(default_factory=set)

    @property
    def model(self) -> str:
        return str(self.request.body.get("model"))

    def begin(self, settings: SourceSettings) -> float:
        """Start the clock, at the first attempt or rest and not while queued; returns seconds for this attempt."""
        self.sent = now = time.monotonic()
        if self.started is None:
            self.started, self.end = now, min(now + settings.total_seconds, self.end)
        return min(settings.request_seconds, self.end - now)


OnExchange = Callable[[Exchange, Decimal], None]
"""Stores an exchange and its cost in USD; called before the cost is counted."""


class Reserving(Protocol):
    """A ledger, in this process or another, in which USD are reserved before they are spent."""

    def reserve(self, amount: Decimal, model: str = "") -> AbstractAsyncContextManager[Reservation]: ...


_FREE = Decimal(0)
_GRACE = 2.0  # seconds for requests in flight to be answered after Ctrl-C
_COURTESY = 10.0  # seconds for a server to list its models
_TIME_IS_UP = "the time of the run is up (--llm-deadline, or deadline of the suite)"


@dataclass(slots=True, eq=False)
class HttpRequester:
    """Sends a source's requests over HTTP."""

    settings: SourceSettings
    pool: EndpointPool
    billing: Billing
    ledger: Reserving
    account: RequestStats
    hide: Hide
    """Removes keys from servers' messages."""
    slots: AdaptiveLimiter
    """Limits HTTP requests in flight, over all channels."""
    end: float
    """Deadline of the run, on the monotonic clock."""
    _largest: dict[tuple[int, str, bool], int] = field(default_factory=dict)
    """The largest n that an endpoint accepts for a model, greedy or not, if it refused more."""

    @classmethod
    def of(
        cls,
        settings: SourceSettings,
        ledger: Reserving,
        account: RequestStats,
        hide: Hide,
        pool: EndpointPool | None = None,
    ) -> HttpRequester:
        """A requester with these settings; the deadline starts now.

        Args:
            pool: the channels; None: new ones.
        """
        from pytest_llmtune.completions import http_client  # noqa: F401  # importing it takes seconds, which must not count

        share = Decimal(1) if settings.batching is None else settings.batching.price
        return cls(
            settings,
            pool or EndpointPool.of(settings.endpoints, settings.concurrency, settings.timeout, settings.batching),
            Billing(settings.prices, account, settings.request_seconds, share),
            ledger,
            account,
            hide,
            AdaptiveLimiter(settings.concurrency),
            float("inf") if settings.deadline is None else time.monotonic() + settings.deadline,
        )

    async def fill(self, request: CompletionRequest, n: int, on_exchange: OnExchange) -> None:
        """Get and store n answers, in as many requests as the server's limits need.

        Raises:
            CompletionError: given up; answers so far are stored.
            EndpointError: no endpoint can serve the model.
            BudgetExhaustedError: it exceeds the budget.
        """
        missing = n

        def counted(exchange: Exchange, cost: Decimal) -> None:
            nonlocal missing
            on_exchange(exchange, cost)
            missing -= answers_in(exchange)

        while missing > 0:
            most = self._limit(self.pool.open_for(str(request.body.get("model")))[0], request) or missing
            sizes = [min(most, missing - start) for start in range(0, missing, most)]
            await _all(self.ask(request, size, counted) for size in sizes)

    async def aclose(self) -> None:
        """Close the clients."""
        await self.pool.aclose()

    @property
    def known(self) -> ServerFacts:
        """What is known about the servers so far."""
        passed = ((at, model) for at, channel in enumerate(self.pool.channels) for model in channel.passed)
        return ServerFacts(dict(self._largest), self.billing.counting_modes, frozenset(passed))

    def recall(self, known: ServerFacts) -> None:
        """Take over what another requester learned about the same servers."""
        self._largest.update(known.largest)
        self.billing.recall(known.counts_one)
        for at, model in known.passed:
            self.pool.channels[at].canary(model).passed = True

    async def ask(self, request: CompletionRequest, n: int, on_exchange: OnExchange) -> None:
        """Get and store n answers; fewer, but at least one, if the server does not support n. Raises as ``fill``."""
        job = Attempts(request, self.end)
        while True:
            channel = await self._channel(job)
            size = min(n, self._limit(channel, request) or n)
            failure = await self._attempt(channel, job, size, on_exchange)
            if failure is None:
                return
            job.failure = job.failure if failure.kind is Kind.CLOSED else failure
            if failure.kind is Kind.NO_N and size > 1:
                self._learn(channel, job, n_limit(failure.message, size))
            else:
                self._retry_or_raise(channel, job, failure)

    async def _channel(self, job: Attempts) -> KeyChannel:
        """The channel for the next attempt; waits while all are resting."""
        while True:
            if time.monotonic() > job.end:
                raise self._given_up(job)
            channel, seconds = self.pool.choose(job.model, job.avoid)
            if channel is not None:
                return channel
            if seconds == 0.0:  # every channel has failed this request: start over, later
                job.avoid.clear()
                seconds = backoff(max(1, job.tries), self.settings.pause)
            else:
                job.begin(self.settings)
                job.failure = job.failure or self.pool.why_resting(job.model)
            if time.monotonic() + seconds > job.end:
                raise self._given_up(job)
            self.account.waited += seconds
            if job.failure is not None:
                why = cell_cut(job.failure.message, 60)
                self.account.retry(f"{why} (attempt {job.tries + 1}, next in {seconds:.0f} s)")
            await asyncio.sleep(seconds)

    async def _attempt(self, channel: KeyChannel, job: Attempts, n: int, on_exchange: OnExchange) -> Failure | None:
        """Send the request once; None if answers were stored."""
        body = {**job.request.body, **({} if wants_embedding(job.request.body) else {"n": n})}
        worst = self.billing.worst(channel, body, n)
        async with self.slots.entered(), self.ledger.reserve(worst, job.model) as reservation:
            reservation.settle(_FREE)  # until it is sent
            async with channel.gate.entered():
                if time.monotonic() + channel.pace > job.end:
                    raise self._given_up(job)
                if (pause := channel.reserve_pace(self.billing.tokens(body, n))) > 0:
                    await asyncio.sleep(pause)
                async with channel.canary(ANY).entered() as first, channel.canary(job.model).entered() as canary:
                    await channel.connect()
                    seconds = job.begin(self.settings)
                    too_many = n > (self._limit(channel, job.request) or n)
                    if seconds <= 0 or too_many or reservation.overdrawn or not channel.usable(job.model):
                        return Failure(Kind.CLOSED, "")  # closed while this request waited
                    found = await self._send(channel, body, seconds, reservation, on_exchange)
                    if isinstance(found, Failure):
                        # after a timeout all others would wait for it, one after another
                        canary.passed |= found.kind is Kind.TIMEOUT
                        first.passed |= found.kind in (Kind.TIMEOUT, Kind.NO_MODEL)
                        await self._lost(channel, job, found, reservation)
                        return found
                    self._billed(channel, found, reservation)  # before other requests follow
                    first.passed = canary.passed = True
            channel.succeeded()
            await self._received(channel, found, reservation, on_exchange)
        if answers_in(found) < n:
            self._learn(channel, job, answers_in(found))
        return None

    async def _send(
        self,
        channel: KeyChannel,
        body: Mapping[str, Any],
        seconds: float,
        reservation: Reservation,
        on_exchange: OnExchange,
    ) -> Exchange | Failure:
        """Post the request; on cancellation, wait two seconds for the answer, which is paid for, and store it."""
        reservation.settle(reservation.amount, uncertain=True)  # until it is answered
        sending = asyncio.ensure_future(send(channel, body, seconds, self.hide))
        try:
            with self.account.sending():
                return await asyncio.shield(sending)
        except asyncio.CancelledError:
            await asyncio.wait([sending], timeout=_GRACE)
            found = sending.result() if sending.done() else None
            sending.cancel()
            if isinstance(found, Exchange):
                cost = self.billing.cost(channel, found)
                reservation.settle(cost)
                self._deliver(found, cost, on_exchange)
            elif found is None or found.uncertain:
                self.account.uncertain += reservation.amount
            else:
                reservation.settle(_FREE)
            raise

    async def _lost(self, channel: KeyChannel, job: Attempts, failure: Failure, reservation: Reservation) -> None:
        """Update ledger and channel after a failure, before another request uses the channel."""
        reservation.settle(reservation.amount if failure.uncertain else _FREE, uncertain=failure.uncertain)
        self.account.uncertain += reservation.cost or _FREE
        match failure.kind:
            case Kind.BAD_KEY | Kind.NO_QUOTA if channel.may_concern_one_request(
                None, failure, job.request.key, job.sent
            ):
                return
            case Kind.NO_MODEL if channel.may_concern_one_request(job.model, failure, job.request.key, job.sent):
                return
            case Kind.BAD_KEY | Kind.NO_QUOTA | Kind.MOVED:
                channel.closed.setdefault(None, f"{failure.kind} ({channel.key.origin}): {failure.message}")
            case Kind.NO_MODEL if channel.why_closed(job.model) is None:
                seconds = max(0.0, min(_COURTESY, job.end - time.monotonic()))
                names = await model_names(channel, seconds)
                hint = self.hide(f"; it has: {', '.join(names[:40])}") if names else ""
                if not names and channel.endpoint.kind == "openai":
                    tried, found = await base_urls(channel, seconds)
                    base = channel.endpoint.base_url.rstrip("/")
                    hint = f"; no list of models at {base} nor at {' or '.join(tried)}: is the base URL right?"
                    if found:
                        hint = f"; nothing is at {base}/chat/completions, but {found} answers: make that the base URL"
                self.pool.close(channel.endpoint, job.model, f"{failure.message}{hint}")
            case Kind.RATE_LIMIT:
                channel.slow_down(job.sent, failure, self.settings.pause)

    def _billed(self, channel: KeyChannel, found: Exchange, reservation: Reservation) -> None:
        """Settle the cost of an answer by its own usage; if above its reservation, enlarge other reservations."""
        cost = self.billing.cost(channel, found)
        if reservation.billed(cost):
            self.account.note(
                f"{channel.endpoint.label} bills more for {reservation.model} than its requests allow ({dollars(cost, 6)} instead of at "
                f"most {dollars(reservation.requested, 6)}): later requests reserve accordingly"
            )

    async def _received(
        self, channel: KeyChannel, found: Exchange, reservation: Reservation, on_exchange: OnExchange
    ) -> None:
        exchange, extra = found, _FREE
        try:
            exchange, extra = await self.billing.counted(channel, found)
        finally:  # even if cancelled, because it is paid for
            cost = self.billing.cost(channel, exchange) + extra
            reservation.settle(cost)
            self._deliver(exchange, cost, on_exchange)

    def _deliver(self, exchange: Exchange, cost: Decimal, on_exchange: OnExchange) -> None:
        on_exchange(exchange, cost)
        account, answers = self.account, answers_in(exchange)
        account.retrying = ""
        account.answered += 1
        account.samples += answers
        account.refused += is_refusal(exchange)
        account.filtered += filtered_in(exchange)
        account.paid += cost
        usage = replace(completion_of([exchange], answers).usage, requests=1)
        account.bill(str(exchange.request["model"]), ModelUsage(usage, cost))

    def _retry_or_raise(self, channel: KeyChannel, job: Attempts, failure: Failure) -> None:
        """Raise if this request has failed for good; return to try again."""
        kind, refused = failure.kind, failure.kind in (Kind.BAD_KEY, Kind.NO_QUOTA, Kind.NO_MODEL)
        if kind in (Kind.CLOSED, Kind.MOVED) or (refused and channel.why_closed(job.model) is not None):
            return  # another channel may serve it
        if refused and not job.odd:  # one odd reply: only this request fails, after another try
            job.odd = True
            job.avoid.add(channel)
        elif kind.passing and kind is not Kind.RATE_LIMIT:
            if channel.keeps_failing(failure, 10 * self.settings.pause):
                self.pool.close(channel.endpoint, job.model, f"no request has been answered yet: {failure.message}")
                return
            job.tries += 1
            if job.tries >= self.settings.attempts:
                raise self._given_up(job)
            if failure.retry_after:
                channel.rest(failure.retry_after, failure)
            job.avoid.add(channel)
        elif kind is not Kind.RATE_LIMIT:
            self.account.given_up[str(kind)] += 1
            raise CompletionError(f"{job.model} at {channel.endpoint.label}: {failure.message}")
        self.account.retried[str(kind)] += 1

    def _given_up(self, job: Attempts) -> CompletionError:
        self.account.given_up[str(job.failure.kind) if job.failure else "deadline"] += 1
        why = _TIME_IS_UP if job.end >= self.end else f"no turn within {self.settings.total_seconds:g} s"
        if job.failure is None:
            return CompletionError(f"{job.model}: not sent: {why}")
        seconds = time.monotonic() - (job.started or time.monotonic())
        text = f"given up after {seconds:.1f} s and {job.tries} faults; the last: {job.failure.message}"
        late = f"; {_TIME_IS_UP}" if job.end >= self.end else ""
        return CompletionError(f"{job.model}: {text}{late if job.tries < self.settings.attempts else ''}")

    def _limit(self, channel: KeyChannel, request: CompletionRequest) -> int | None:
        known = self._largest.get(_size_key(channel, request))
        return min((most for most in (known, channel.endpoint.max_n) if most), default=None)

    def _learn(self, channel: KeyChannel, job: Attempts, limit: int) -> None:
        """Remember the largest n."""
        key = _size_key(channel, job.request)
        self._largest[key] = min(limit, self._largest.get(key, limit))
        self.account.note(
            f"{channel.endpoint.label} gives at most {self._largest[key]} answers per request for {job.model}"
        )


def _size_key(channel: KeyChannel, request: CompletionRequest) -> tuple[int, str, bool]:
    """Key of a limit of n; some servers accept n > 1 only when sampling."""
    return channel.order, str(request.body.get("model")), request.body.get("temperature") == 0


async def _all(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Complete all parts of a completion, so that paid answers are stored; then raise the most severe error."""
    results = await asyncio.gather(*jobs, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:
        raise min(errors, key=lambda error: type(error) is CompletionError)
