"""Distribute requests over endpoints and keys within their limits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune.completions.batch_api import Batcher, Batching
from pytest_llmtune.completions.failures import Failure, Kind, backoff
from pytest_llmtune.errors import EndpointError
from pytest_llmtune.wire.response import route_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterable, Mapping

    import openai

    from pytest_llmtune.completions.endpoints import Endpoint
    from pytest_llmtune.redaction.keys import Secret

_FAILING = 5
"""Number of failures before the first answer after which a server is considered down."""


@dataclass(slots=True, eq=False)
class AdaptiveLimiter:
    """Limits concurrent requests to ``most``; fewer after a 429, and slowly more again. Used from any thread.

    Additive increase, multiplicative decrease, as in TCP.
    """

    most: int
    allowed: float = 0.0
    inside: int = 0
    _shrunk: float = 0.0
    _waiting: deque[Future[Any]] = field(default_factory=deque)
    _lock: Any = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.allowed = float(self.most)

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Hold one of the slots."""
        slot = self.enter()
        try:
            if not slot.done():
                await asyncio.wrap_future(slot)
            yield
        finally:
            self.leave(slot)

    def enter(self) -> Future[Any]:
        """Queue for a slot; done once it is given, which may be at once."""
        slot: Future[Any] = Future()
        with self._lock:
            self._waiting.append(slot)
            self._admit()
        return slot

    def leave(self, slot: Future[Any]) -> None:
        """Give a slot back, or leave the queue; once for each ``enter``."""
        with self._lock:
            if not slot.done():
                self._waiting.remove(slot)
            elif not slot.cancelled():  # those are left out when it is their turn
                self.inside -= 1
            self._admit()

    def shrink(self, sent: float) -> bool:
        """Allow 30 % fewer; only the first refusal of a burst counts, and returns True.

        Args:
            sent: when the refused request was sent, on the monotonic clock.
        """
        with self._lock:
            if sent < self._shrunk:
                return False
            self._shrunk = time.monotonic()
            self.allowed = max(1.0, min(self.allowed, self.inside) * 0.7)
            return True

    def grow(self) -> None:
        """Note a success: allow one more after as many successes as the current limit."""
        with self._lock:
            if self.allowed < self.most:
                self.allowed = min(float(self.most), self.allowed + 1 / self.allowed)
                self._admit()

    def _admit(self) -> None:
        while self._waiting and self.inside < int(self.allowed):
            slot = self._waiting.popleft()
            if slot.set_running_or_notify_cancel():
                self.inside += 1
                slot.set_result(None)


@dataclass(slots=True, eq=False)
class RateLimiter:
    """Limits units per minute, evenly spaced (a leaky bucket); used from any thread."""

    per_minute: float
    _next: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> float:
        """Seconds that the next caller has to wait."""
        return max(0.0, self._next - time.monotonic())

    def reserve(self, amount: float = 1.0) -> float:
        """Reserve ``amount`` units; returns the seconds until they may be used."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + amount * 60.0 / self.per_minute
            return start - now


@dataclass(slots=True, eq=False)
class Canary:
    """Sends the first request alone, so that a wrong key or missing model is found by one request, not sixteen."""

    passed: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[Canary]:
        """One at a time until one has ``passed``, then concurrently."""
        if not self.passed:
            async with self._lock:
                if not self.passed:
                    yield self
                    return
        yield self


ANY = ""
"""Key of the canary for all models: one request finds out whether the key is accepted."""

_CONNECTIONS = 60 / 0.004
"""New connections per minute: more than a small server's queue holds are reset, or delayed by a second."""
_POOLED = 8
"""Concurrent requests per client: its pool scans all connections for each request, and keeps only a hundred."""
_BELIEVED = 3
"""Consecutive bursts of 429 for which a short ``retry-after`` is respected."""


@dataclass(slots=True, eq=False)
class KeyChannel:
    """One key of one endpoint."""

    endpoint: Endpoint
    key: Secret
    order: int
    """The endpoint's position in the list."""
    timeout: float
    gate: AdaptiveLimiter
    requests: RateLimiter | None = None
    tokens: RateLimiter | None = None
    canaries: dict[str, Canary] = field(default_factory=dict)
    """Canaries by model."""
    bursts: int = 0
    """Bursts of 429 since the last success."""
    connection_rate: RateLimiter = field(default_factory=lambda: RateLimiter(_CONNECTIONS))
    opened: int = 0
    """Approximate number of connections: the most concurrent requests so far."""
    chosen: int = 0
    """How often it was chosen, for rotating keys."""
    rests_until: float = 0.0
    """End of the rest, on the monotonic clock."""
    rests_for: Failure | None = None
    works: bool = False
    """Whether it ever answered."""
    suspicions: dict[str | None, tuple[float, str]] = field(default_factory=dict)
    """Suspected model, or (None) key: since when, and by which request."""
    failing: list[float] = field(default_factory=list)
    """Times of failures before the first answer, on the monotonic clock."""
    closed: dict[str | None, str] = field(default_factory=dict)
    """Why it is closed: for one model, or (None) for all."""
    batching: Batching | None = None
    """Settings for sending requests as batches; None: one by one."""
    _clients: deque[openai.AsyncOpenAI] = field(default_factory=deque, repr=False)
    _trusted: ssl.SSLContext | None = field(default=None, repr=False)
    _batcher: Batcher | None = field(default=None, repr=False)

    async def post(self, model: str, body: Mapping[str, Any]) -> str:
        """The response to a chat completion or an embedding; raises the openai client's exceptions."""
        wire = {**body, "model": self.endpoint.own_name(model)}
        if self.batching is not None:
            self._batcher = self._batcher or Batcher(self.client(), self.batching, self.endpoint.base_url)
            return await self._batcher.post(wire)
        return str(await self.client().post(route_of(body), cast_to=str, body=wire))

    def client(self) -> openai.AsyncOpenAI:
        """The next client in rotation; enough clients that each has few connections."""
        if len(self._clients) * _POOLED < self.gate.most:
            import httpx2

            self._trusted = self._trusted or httpx2.create_ssl_context()
            self._clients.appendleft(self.endpoint.client(self.key, self.timeout, self._trusted))
        else:
            self._clients.rotate()
        return self._clients[0]

    async def aclose(self) -> None:
        if self._batcher is not None:
            await self._batcher.aclose()
            self._batcher = None
        while self._clients:
            await self._clients.pop().close()

    def canary(self, model: str) -> Canary:
        """The canary for a model; a batch needs none."""
        return self.canaries.setdefault(model, Canary(passed=self.batching is not None))

    @property
    def passed(self) -> list[str]:
        """Models that have answered."""
        return [model for model, canary in self.canaries.items() if canary.passed]

    async def connect(self) -> None:
        """Wait before opening another connection, if there are more concurrent requests than ever."""
        if self.batching is None and self.opened < self.gate.inside:
            self.opened += 1
            if (seconds := self.connection_rate.reserve()) > 0:
                await asyncio.sleep(seconds)

    @property
    def pace(self) -> float:
        """Seconds until the endpoint's rate limits allow the next request."""
        return max((each.wait() for each in (self.requests, self.tokens) if each is not None), default=0.0)

    def reserve_pace(self, tokens: int) -> float:
        """Reserve a request of so many tokens in the rate limits; returns the seconds until it may be sent."""
        return max(
            0.0 if self.requests is None else self.requests.reserve(),
            0.0 if self.tokens is None else self.tokens.reserve(tokens),
        )

    def slow_down(self, sent: float, failure: Failure, pause: float) -> None:
        """Handle a 429 for a request ``sent`` at that time: rest as requested, and reduce concurrency.

        A server that repeatedly asks for a very short wait is not believed.
        """
        self.bursts += self.gate.shrink(sent)
        least = pause if self.bursts > _BELIEVED else 0.0
        retry_after = failure.retry_after
        self.rest(backoff(max(1, self.bursts), pause) if retry_after is None else max(retry_after, least), failure)

    def succeeded(self) -> None:
        self.bursts = 0
        self.works = True
        self.suspicions.clear()
        self.gate.grow()

    def may_concern_one_request(self, model: str | None, failure: Failure, request: str, sent: float) -> bool:
        """Whether a refusal may be specific to one request: a firewall's page for a row's text, one 404, one quota error.

        Then the next request is sent alone; if it is another one and is refused too, the channel cannot be used. Nor can it
        if the very first request is refused with a clear message about the key or the model, or twice for the quota.

        Args:
            model: the refused model; None: the key.
            request: the request's key.
            sent: when it was sent, on the monotonic clock.
        """
        if not self.works and not failure.odd:
            return False
        if model not in self.suspicions:
            self.suspicions[model] = time.monotonic(), request
            for canary in self.canaries.values():
                canary.passed = self.batching is not None
            return True
        since, first = self.suspicions[model]
        return sent < since or (request == first and (self.works or failure.kind is not Kind.NO_QUOTA))

    def keeps_failing(self, failure: Failure, seconds: float) -> bool:
        """Whether the server never answered, and has failed repeatedly for some time."""
        if self.works or failure.kind not in (Kind.SERVER, Kind.CONNECT):
            return False
        self.failing.append(time.monotonic())
        return len(self.failing) >= _FAILING and self.failing[-1] - self.failing[0] >= seconds

    def rest(self, seconds: float, reason: Failure) -> None:
        """Do not use the channel for some time."""
        self.rests_until = max(self.rests_until, time.monotonic() + seconds)
        self.rests_for = reason

    def usable(self, model: str) -> bool:
        """Whether it is neither resting nor closed."""
        return self.rests_until <= time.monotonic() and self.why_closed(model) is None

    def why_closed(self, model: str) -> str | None:
        return self.closed.get(None) or self.closed.get(model)


@dataclass(slots=True, eq=False)
class EndpointPool:
    """All channels, in order of failover."""

    channels: tuple[KeyChannel, ...]

    @classmethod
    def of(
        cls, endpoints: Iterable[Endpoint], concurrency: int, timeout: float, batching: Batching | None = None
    ) -> EndpointPool:
        def limiter(per_minute: float | None) -> RateLimiter | None:
            return RateLimiter(per_minute) if per_minute and not batching else None

        return cls(
            tuple(
                KeyChannel(
                    endpoint,
                    key,
                    order,
                    timeout,
                    AdaptiveLimiter(concurrency if batching else min(concurrency, endpoint.concurrency or concurrency)),
                    limiter(endpoint.requests_per_minute),
                    limiter(endpoint.tokens_per_minute),
                    batching=batching,
                )
                for order, endpoint in enumerate(endpoints)
                for key in endpoint.keys
            )
        )

    def open_for(self, model: str) -> list[KeyChannel]:
        """The channels that may still serve a model.

        Raises:
            EndpointError: there are none; the message says why, for each endpoint.
        """
        serving = [channel for channel in self.channels if channel.endpoint.serves(model)]
        if usable := [channel for channel in serving if channel.why_closed(model) is None]:
            return usable
        if not serving:
            names = sorted({name for channel in self.channels for name in channel.endpoint.models or ()})
            raise EndpointError(f"no endpoint serves the model {model!r}; the endpoints list: {', '.join(names)}")
        reasons = dict.fromkeys(f"{channel.endpoint.label}: {channel.why_closed(model)}" for channel in serving)
        raise EndpointError(
            f"no endpoint answers for the model {model!r}: {'; '.join(reasons)}; "
            "correct the model, key or address, and run again"
        )

    def close(self, endpoint: Endpoint, model: str, reason: str) -> None:
        """Note that an endpoint does not have a model."""
        for channel in self.channels:
            if channel.endpoint is endpoint:
                channel.closed.setdefault(model, reason)

    def choose(self, model: str, avoid: Iterable[KeyChannel]) -> tuple[KeyChannel | None, float]:
        """The channel to use now: of the first endpoint that is neither resting nor in ``avoid``.

        Of its keys, the one chosen least. None with 0 seconds: all available ones are in ``avoid``; None with more: the time
        until one is available.
        """
        now = time.monotonic()
        usable = self.open_for(model)
        rested = [channel for channel in usable if channel.rests_until <= now]
        if fresh := [channel for channel in rested if channel not in avoid]:
            channel = min(fresh, key=lambda channel: (channel.order, channel.chosen))
            channel.chosen += 1
            return channel, 0.0
        if rested:
            return None, 0.0
        return None, min(channel.rests_until for channel in usable) - now

    def why_resting(self, model: str) -> Failure | None:
        """Why a channel is resting, if all are."""
        return next((channel.rests_for for channel in self.open_for(model) if channel.rests_for), None)

    async def aclose(self) -> None:
        for channel in self.channels:
            await channel.aclose()


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Facts about servers, by position in the list of endpoints and keys, which must be the same for the receiver."""

    largest: Mapping[tuple[int, str, bool], int] = field(default_factory=dict)
    """The largest n that an endpoint accepts for a model, greedy or not."""
    counts_one: Mapping[tuple[int, str], bool | None] = field(default_factory=dict)
    """Whether an endpoint counts the tokens of only one choice, by model; None: unknown."""
    passed: frozenset[tuple[int, str]] = frozenset()
    """Channels and models that have answered and need no canary."""

    def __or__(self, other: ServerFacts) -> ServerFacts:
        return ServerFacts(
            {**self.largest, **other.largest}, {**self.counts_one, **other.counts_one}, self.passed | other.passed
        )
