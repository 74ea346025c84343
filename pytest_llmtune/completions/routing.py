"""Spread requests over endpoints and keys within their limits."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_llmtune.completions.batch_api import Batcher
from pytest_llmtune.completions.failures import Failure, Kind, backoff
from pytest_llmtune.errors import EndpointError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterable, Mapping

    import openai

    from pytest_llmtune.completions.batch_api import Batching
    from pytest_llmtune.completions.endpoints import Endpoint
    from pytest_llmtune.redaction.keys import Secret

_FAILING = 5
"""Failures before the first answer after which a server counts as down."""

__all__ = ["ANY", "AdaptiveLimiter", "Canary", "EndpointPool", "KeyChannel", "RateLimiter", "ServerFacts"]


@dataclass(slots=True, eq=False)
class AdaptiveLimiter:
    """At most ``most`` at once; fewer after a server said that it is too many, and slowly more again.

    Additive increase, multiplicative decrease, as TCP does it.
    """

    most: int
    allowed: float = 0.0
    inside: int = 0
    _shrunk: float = 0.0
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.allowed = float(self.most)

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Be one of those inside."""
        if self.inside >= int(self.allowed) or self._waiting:
            await self._wait()
        else:
            self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
            self._admit()

    def shrink(self, sent: float) -> bool:
        """Too many: allow 30 % fewer; of the refusals of one burst only the first counts, and gives True.

        Args:
            sent: when the refused request was sent, on the monotonic clock.
        """
        if sent < self._shrunk:
            return False
        self._shrunk = time.monotonic()
        self.allowed = max(1.0, min(self.allowed, self.inside) * 0.7)
        return True

    def grow(self) -> None:
        """It went well: allow one more after as many successes as are allowed at once."""
        if self.allowed < self.most:
            self.allowed = min(float(self.most), self.allowed + 1 / self.allowed)
            self._admit()

    async def _wait(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # admitted in the same moment
                self.inside -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self.inside < int(self.allowed):
            place = self._waiting.popleft()
            if not place.done():
                self.inside += 1
                place.set_result(None)


@dataclass(slots=True, eq=False)
class RateLimiter:
    """So many units a minute, evenly: each caller waits for its place on the time line (a leaky bucket)."""

    per_minute: float
    _next: float = 0.0

    def wait(self) -> float:
        """Seconds that the next caller waits."""
        return max(0.0, self._next - time.monotonic())

    async def take(self, amount: float = 1.0) -> None:
        """Wait until ``amount`` more may go."""
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + amount * 60.0 / self.per_minute
        if start > now:
            await asyncio.sleep(start - now)


@dataclass(slots=True, eq=False)
class Canary:
    """The first request goes alone: a wrong key or a model that is gone is then found out once, not sixteen times."""

    landed: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def flight(self) -> AsyncIterator[Canary]:
        """Alone until one has ``landed``, then together."""
        if not self.landed:
            async with self._lock:
                if not self.landed:
                    yield self
                    return
        yield self


ANY = ""
"""The pilot of all models: one request finds out whether the key is taken."""

_CONNECTIONS = 60 / 0.004
"""New connections a minute: more at once than the queue of a small server takes are reset, or stand for a second."""
_POOLED = 8
"""Requests at once by one client: its pool looks at all its connections for each of them, and keeps but a hundred."""
_BELIEVED = 3
"""Bursts of 429 in a row for which a wait shorter than the first retry's is kept to."""


@dataclass(slots=True, eq=False)
class KeyChannel:
    """One key of one endpoint."""

    endpoint: Endpoint
    key: Secret
    order: int
    """The endpoint's place in the list."""
    timeout: float
    gate: AdaptiveLimiter
    requests: RateLimiter | None = None
    tokens: RateLimiter | None = None
    pilots: dict[str, Canary] = field(default_factory=dict)
    """By model."""
    strikes: int = 0
    """Bursts of 429 since the last success."""
    opening: RateLimiter = field(default_factory=lambda: RateLimiter(_CONNECTIONS))
    opened: int = 0
    """Connections, or a few less: as many as there were requests at once."""
    taken: int = 0
    """How often it was chosen; keys take turns by it."""
    rests_until: float = 0.0
    """On the monotonic clock."""
    rests_for: Failure | None = None
    works: bool = False
    """Whether anything was ever answered."""
    doubts: dict[str | None, tuple[float, str]] = field(default_factory=dict)
    """Of a model, or (None) of the key: since when, and by which request."""
    failing: list[float] = field(default_factory=list)
    """When requests failed before anything was answered, on the monotonic clock."""
    closed: dict[str | None, str] = field(default_factory=dict)
    """Why it cannot be used any more: for one model, or (None) for all."""
    batching: Batching | None = None
    """Where requests go as batches instead of one by one."""
    _clients: deque[openai.AsyncOpenAI] = field(default_factory=deque, repr=False)
    _trusted: ssl.SSLContext | None = field(default=None, repr=False)
    _batcher: Batcher | None = field(default=None, repr=False)

    async def post(self, model: str, body: Mapping[str, Any]) -> str:
        """The text of the answer to a chat completion; raises what the openai client raises."""
        wire = {**body, "model": self.endpoint.own_name(model)}
        if self.batching is not None:
            self._batcher = self._batcher or Batcher(self.client(), self.batching, self.endpoint.base_url)
            return await self._batcher.post(wire)
        return str(await self.client().post("/chat/completions", cast_to=str, body=wire))

    def client(self) -> openai.AsyncOpenAI:
        """The next one; as many as it takes to have few connections in each take turns."""
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

    def pilot(self, model: str) -> Canary:
        """Who goes first; in a batch all go together."""
        return self.pilots.setdefault(model, Canary(landed=self.batching is not None))

    @property
    def landed(self) -> list[str]:
        """The models that have answered."""
        return [model for model, pilot in self.pilots.items() if pilot.landed]

    async def connect(self) -> None:
        """Wait for the turn to open a connection, where more requests go at once than ever before."""
        if self.batching is None and self.opened < self.gate.inside:
            self.opened += 1
            await self.opening.take()

    @property
    def pace(self) -> float:
        """Seconds until the endpoint's limits a minute let the next request go."""
        return max((each.wait() for each in (self.requests, self.tokens) if each is not None), default=0.0)

    async def keep_pace(self, tokens: int) -> None:
        """Wait as long as the endpoint's limits a minute ask for."""
        if self.requests is not None:
            await self.requests.take()
        if self.tokens is not None:
            await self.tokens.take(tokens)

    def slow_down(self, sent: float, failure: Failure, pause: float) -> None:
        """The server said 429 to what was ``sent`` then: rest as long as it asked for, and go on with fewer at once.

        One that asks for next to no time again and again is not believed.
        """
        self.strikes += self.gate.shrink(sent)
        least = pause if self.strikes > _BELIEVED else 0.0
        asked = failure.retry_after
        self.rest(backoff(max(1, self.strikes), pause) if asked is None else max(asked, least), failure)

    def succeeded(self) -> None:
        self.strikes = 0
        self.works = True
        self.doubts.clear()
        self.gate.grow()

    def doubted(self, place: str | None, failure: Failure, request: str, sent: float) -> bool:
        """Whether a refusal may be one request's own: a firewall's page for a row's text, one 404, one empty account.

        Then the next request goes alone. Where that is another one and is refused too, or where the model's server itself
        refuses the very first, the channel is of no use.

        Args:
            place: the model that is refused; None: the key.
            request: its key.
            sent: when it was sent, on the monotonic clock.
        """
        if not self.works and not failure.page:
            return False
        if place not in self.doubts:
            self.doubts[place] = time.monotonic(), request
            for canary in self.pilots.values():
                canary.landed = self.batching is not None
            return True
        since, first = self.doubts[place]
        return request == first or sent < since

    def hopeless(self, failure: Failure, seconds: float) -> bool:
        """Whether nothing was ever answered, and the server has failed several times for a while."""
        if self.works or failure.kind not in (Kind.SERVER, Kind.CONNECT):
            return False
        self.failing.append(time.monotonic())
        return len(self.failing) >= _FAILING and self.failing[-1] - self.failing[0] >= seconds

    def rest(self, seconds: float, reason: Failure) -> None:
        """Take nothing more for a while."""
        self.rests_until = max(self.rests_until, time.monotonic() + seconds)
        self.rests_for = reason

    def usable(self, model: str) -> bool:
        """Whether it neither rests nor is closed."""
        return self.rests_until <= time.monotonic() and self.why_closed(model) is None

    def why_closed(self, model: str) -> str | None:
        return self.closed.get(None) or self.closed.get(model)


@dataclass(slots=True, eq=False)
class EndpointPool:
    """All lanes, in the order of failover."""

    lanes: tuple[KeyChannel, ...]

    @classmethod
    def of(
        cls, endpoints: Iterable[Endpoint], concurrency: int, timeout: float, batching: Batching | None = None
    ) -> EndpointPool:
        return cls(
            tuple(
                KeyChannel(
                    endpoint,
                    key,
                    order,
                    timeout,
                    AdaptiveLimiter(concurrency if batching else min(concurrency, endpoint.concurrency or concurrency)),
                    RateLimiter(endpoint.requests_per_minute)
                    if endpoint.requests_per_minute and not batching
                    else None,
                    RateLimiter(endpoint.tokens_per_minute) if endpoint.tokens_per_minute and not batching else None,
                    batching=batching,
                )
                for order, endpoint in enumerate(endpoints)
                for key in endpoint.keys
            )
        )

    def open_for(self, model: str) -> list[KeyChannel]:
        """The lanes that may still serve a model.

        Raises:
            EndpointError: there is none; says why, for each endpoint.
        """
        serving = [lane for lane in self.lanes if lane.endpoint.serves(model)]
        if usable := [lane for lane in serving if lane.why_closed(model) is None]:
            return usable
        if not serving:
            listed = sorted({name for lane in self.lanes for name in lane.endpoint.models or ()})
            raise EndpointError(f"no endpoint serves the model {model!r}; the endpoints list: {', '.join(listed)}")
        reasons = dict.fromkeys(f"{lane.endpoint.label}: {lane.why_closed(model)}" for lane in serving)
        raise EndpointError(
            f"the model {model!r} cannot be asked: {'; '.join(reasons)}; "
            "give another model, key or endpoint, and run again"
        )

    def close(self, endpoint: Endpoint, model: str, reason: str) -> None:
        """An endpoint turned out not to have a model."""
        for lane in self.lanes:
            if lane.endpoint is endpoint:
                lane.closed.setdefault(model, reason)

    def choose(self, model: str, avoid: Iterable[KeyChannel]) -> tuple[KeyChannel | None, float]:
        """The lane to take now: the first endpoint in order that is neither resting nor among ``avoid``.

        Of its keys the one that was chosen least. None with 0 seconds: all that are rested are among ``avoid``; None
        with more: so long until one is rested.
        """
        now = time.monotonic()
        usable = self.open_for(model)
        rested = [lane for lane in usable if lane.rests_until <= now]
        if fresh := [lane for lane in rested if lane not in avoid]:
            lane = min(fresh, key=lambda lane: (lane.order, lane.taken))
            lane.taken += 1
            return lane, 0.0
        if rested:
            return None, 0.0
        return None, min(lane.rests_until for lane in usable) - now

    def why_resting(self, model: str) -> Failure | None:
        """What made a lane rest, where all do."""
        return next((lane.rests_for for lane in self.open_for(model) if lane.rests_for), None)

    async def aclose(self) -> None:
        for lane in self.lanes:
            await lane.aclose()


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Places are of the list of endpoints and keys, which must be the same for whoever is told."""

    largest: Mapping[tuple[int, str, bool], int] = field(default_factory=dict)
    """The largest n that an endpoint takes for a model, greedy or not."""
    counts_one: Mapping[tuple[int, str], bool | None] = field(default_factory=dict)
    """Whether an endpoint counts the tokens of one choice only, by model; None: it cannot be found out."""
    landed: frozenset[tuple[int, str]] = frozenset()
    """Lanes and models that have answered: nobody needs to go first any more."""

    def __or__(self, other: ServerFacts) -> ServerFacts:
        return ServerFacts(
            {**self.largest, **other.largest},
            {**self.counts_one, **other.counts_one},
            self.landed | other.landed,
        )
