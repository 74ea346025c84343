"""Capture the calls of a task's run: played from the recording or the cache, or sent and stored."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from decimal import ROUND_CEILING, Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.jsonhash import text_digest
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.capture.call import Call, received, refused
from pytest_llmtune.capture.matching import Matching
from pytest_llmtune.capture.traffic import Traffic
from pytest_llmtune.completions import failures
from pytest_llmtune.errors import LLMTuneError, RecordingError, StaleRecordingError
from pytest_llmtune.recording import mismatch
from pytest_llmtune.recording.format import CallPosition, Interaction, MalformedError, path_of, redacted
from pytest_llmtune.settings import Mode
from pytest_llmtune.wire.billing import model_asked
from pytest_llmtune.wire.response import parse_object
from pytest_llmtune.wire.tokens import most_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from pytest_llmtune.capture.matching import ClientRequest, Key
    from pytest_llmtune.capture.tariff import Tariff
    from pytest_llmtune.capture.traffic import Kind
    from pytest_llmtune.completions.routing import EndpointPool, KeyChannel
    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.money.prices import Price
    from pytest_llmtune.redaction.redactor import Redactor

_MATCHING = Matching()
_UNBOUNDED = Decimal("0.05")
"""USD reserved at least for a call without a bound: a deployment, billed by the second, or with a prompt that is elsewhere."""
_TRANSIENT = frozenset({407, 410, 421, 423, 424, 425})
_ENDPOINTS = frozenset(
    {
        failures.Kind.NO_MODEL,
        failures.Kind.NO_QUOTA,
        failures.Kind.RATE_LIMIT,
        failures.Kind.SERVER,
        failures.Kind.BAD_KEY,
    }
)
_ACCOUNT = lazy_regex(
    r"\bapi[ _-]?key\b|\b(?:credit|billing|quota|credentials|security token|user location)\b", re.IGNORECASE
)
"""Messages of servers that refuse a key, an account or a country with status 400: xAI, Gemini, Anthropic."""
_BUSY = 429
_ENDPOINT_HEADERS = frozenset({"host", "authorization", "api-key", "content-length"})
_LONGEST_WAIT = 120.0
"""Seconds that a call waits for the first one of its model."""


class NoRoomError(LLMTuneError):
    """The run needs a larger reservation, and is repeated with it."""

    def __init__(self, amount: Decimal) -> None:
        super().__init__(f"the run may cost {amount:f} USD, which are not set aside")
        self.amount = amount


@dataclass(frozen=True, slots=True)
class Fault:
    """A call without a valid answer."""

    key: Key
    name: str
    why: str
    status: int = 0
    """HTTP status; 0: no response."""
    channel: KeyChannel | None = None
    """Which endpoint's key it was sent with, where our own client made it."""


@dataclass(slots=True)
class Store:
    """The cache of paid answers, else those paid in this run; used from any thread."""

    live: LiveSource
    lock: Any
    own: dict[str, Interaction] = field(default_factory=dict)
    paid: Decimal = Decimal(0)
    """USD."""

    def recall(self, name: str) -> Interaction | None:
        """The answer stored under this name."""
        if (found := self.own.get(name)) is not None:
            return found
        value = None if self.live.cache is None else self.live.cache.recall(name)
        if value is None:
            return None
        try:
            return Interaction.from_plain(value)
        except (MalformedError, AttributeError, TypeError):  # untrusted data
            return None

    def add(self, name: str, interaction: Interaction, usd: Decimal) -> None:
        """Store a paid answer."""
        self.own[name] = interaction
        with self.lock:
            self.paid += usd
            self.live.ledger.note(usd)
            if self.live.journal is not None:
                self.live.journal(name, 0, usd)
            if self.live.cache is not None:
                facts = {"latency": interaction.latency, "recorded": interaction.recorded}
                self.live.cache.remember(name, {**interaction.to_plain(), "llmtune": facts})


@dataclass(slots=True)
class Allowance:
    """USD reserved for one run; the owner must lock."""

    limit: Decimal | None = None
    """None: no limit."""
    more: Callable[[Decimal], bool] | None = None
    """Reserves more USD immediately, or returns False."""
    spent: Decimal = Decimal(0)
    lost: Decimal = Decimal(0)
    """USD of unanswered calls, which may have been billed."""
    reserved: Decimal = Decimal(0)
    most: Decimal = Decimal(0)
    """The largest simultaneous reservation so far."""

    def reserve(self, amount: Decimal) -> None:
        """Reserve a call's worst case.

        Raises:
            NoRoomError: it does not fit.
        """
        needed = self.spent + self.lost + self.reserved + amount
        if self.limit is not None and needed > self.limit:
            missing = needed - self.limit
            if self.more is None or not self.more(missing):
                raise NoRoomError(needed)
            self.limit += missing
        self.reserved += amount
        self.most = max(self.most, needed)

    def settle(self, amount: Decimal, cost: Decimal, *, lost: bool = False) -> None:
        """Settle a call's reservation with its cost; ``lost``: it may have been billed."""
        self.reserved -= amount
        self.spent += Decimal(0) if lost else cost
        self.lost += cost if lost else Decimal(0)
        over = self.spent + self.lost + self.reserved - (self.limit or Decimal(0))
        if self.limit is not None and over > 0 and self.more is not None and self.more(over):
            self.limit += over  # a bill over its reservation: other runs must not spend the same USD


@dataclass(slots=True, eq=False)
class _Call(Call):
    """A call of a run."""

    key: Key = ()
    cache_name: str = ""
    """Name in the store."""
    elapsed: float = 0.0
    worst: Decimal | None = None
    """USD reserved while in flight."""
    bound: Decimal = Decimal(0)
    """USD that it costs at most according to its request."""
    cached: bool = False
    channel: KeyChannel | None = None
    """Of our own client: which endpoint's key it is sent with."""
    slot: Future[Any] | None = None
    """One of the requests in flight that the channel allows, or its place in the queue."""
    waits: bool = False
    """Whether it waits until it is ``ready``, and so was not sent."""

    def leave_slot(self, *, answered: bool = False) -> None:
        """Give back its slot, or its place in the queue; after a 429 the channel has fewer, until others are ``answered``."""
        if self.slot is not None and self.channel is not None:
            if answered:
                self.channel.gate.grow()
            self.channel.gate.leave(self.slot)
        self.slot = None

    def go(self) -> None:
        """End its wait; several may."""
        with suppress(InvalidStateError):
            if self.ready is not None:
                self.ready.set_result(None)

    @property
    def own_price(self) -> Price | None:
        """Of the endpoint, where it gives the model one."""
        return self.channel.endpoint.prices.get(_model(self.request)) if self.channel else None


@dataclass(slots=True, eq=False)
class Canaries:
    """Under a limit in USD the first call of each model goes alone, over all runs, and shows what the server bills."""

    growth: dict[str, Decimal] = field(default_factory=dict)
    """The ledger's: how many times what its requests allow a model has billed at most, if over 1."""
    _leading: dict[str, _Call] = field(default_factory=dict)
    """By model: the call that goes alone."""
    _proven: set[str] = field(default_factory=set)
    _waiting: dict[str, list[_Call]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def enter(self, call: _Call) -> None:
        """Make the call wait if another of its model goes alone."""
        with self._lock:
            if call.model not in self._proven and self._leading.setdefault(call.model, call) is not call:
                call.ready = Future()
                self._waiting.setdefault(call.model, []).append(call)

    def leave(self, call: _Call, *, billed: Decimal | None = None) -> None:
        """The call ended, or waits no longer; after a bill all others follow, else the next one."""
        with self._lock:
            if billed is not None and call.bound and billed > call.bound:
                factor = (billed / call.bound).quantize(Decimal("0.01"), ROUND_CEILING)
                self.growth[call.model] = max(self.growth.get(call.model, factor), factor)
            waiting = self._waiting.get(call.model, [])
            if call in waiting:
                waiting.remove(call)
            if self._leading.get(call.model) is not call:
                return
            del self._leading[call.model]
            if billed is not None:
                self._proven.add(call.model)
            following = waiting[:1] if billed is None else waiting[:]
            del waiting[: len(following)]
            if billed is None and following:
                self._leading[call.model] = following[0]
        for each in following:
            each.go()


@dataclass(slots=True, eq=False)
class RunCapture:
    """Takes the place of a test's recording for the patched HTTP libraries; usable from several threads and tasks."""

    owns_late_calls: ClassVar[bool] = True
    row: str
    """The example's id."""
    label: str
    """The row's index and ID, for messages."""
    run: int
    """From 1."""
    recorded: Sequence[Interaction]
    """The recorded calls of this run, in order."""
    redactor: Redactor
    tariff: Tariff
    store: Store | None = None
    """None: the network is blocked."""
    allowance: Allowance = field(default_factory=Allowance)
    traffic: Traffic = field(default_factory=Traffic)
    """Which requests are handled."""
    pool: EndpointPool | None = None
    """Serves the calls of our own clients; None: they go where they say."""
    canaries: Canaries | None = None
    """Of all runs; None: no limit in USD."""
    task_thread: int = 0
    """The thread that runs a synchronous task, or ran it."""
    in_thread: bool = False
    """Whether that runs now, so that our event loop is free."""
    late: list[LLMTuneError] = field(default_factory=list)
    """Receives the errors of calls made after the run."""
    calls: list[_Call] = field(default_factory=list)
    """In order, without dropped calls."""
    faults: list[Fault] = field(default_factory=list)
    miss: str = ""
    """Which call could not be played, and how it differs from the recorded one."""
    error: LLMTuneError | None = None
    """The error that stopped the run from our side."""
    worst: Decimal = Decimal(0)
    """Worst-case USD of the call that could not be played."""
    _waiting: dict[Key, deque[Interaction]] = field(default_factory=dict)
    _played: set[int] = field(default_factory=set)
    """Numbers of played recorded calls."""
    _counts: Counter[Key] = field(default_factory=Counter)
    _diverged: bool = False
    """Whether an unrecorded call was made, after which all calls are sent."""
    _closed: bool = False
    _refused: int = 0
    _started: float = field(default_factory=time.perf_counter)
    _waiting_until: float = 0.0
    """When the waits for rate limits so far end."""
    _lock: Any = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        for interaction in self.recorded:  # our recordings are canonical
            key = interaction.method, path_of(interaction.uri), interaction.body
            self._waiting.setdefault(key, deque()).append(interaction)

    def __enter__(self) -> RunCapture:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Give up unanswered calls."""
        with self._lock:
            self._closed = True
            for call in [call for call in self.calls if call.interaction is None]:
                self._abandon(call, "was not answered before the task ended")
                call.go()

    @property
    def mode(self) -> Mode:
        """For the patched libraries: whether the network is open."""
        return Mode.REPLAY if self.store is None else Mode.LIVE

    @property
    def latency(self) -> float:
        """Seconds from the start of the run to its last answer, as recorded if played."""
        return max((call.elapsed for call in self.calls), default=0.0)

    @property
    def interactions(self) -> tuple[Interaction, ...]:
        """The interactions to record for the run."""
        return tuple(
            call.interaction
            if call.interaction.position == (position := CallPosition(self.row, self.run, number, call.elapsed))
            else replace(call.interaction, position=position)
            for number, call in enumerate(self.calls, 1)
            if call.interaction is not None
        )

    @property
    def bodies(self) -> tuple[Mapping[str, Any] | None, ...]:
        """Of the requests, as far as they were read and hold no secret."""
        return tuple(
            call.request.data if call.interaction.body == call.request.body else None
            for call in self.calls
            if call.interaction is not None
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the run's calls in the store."""
        return tuple(call.cache_name for call in self.calls if call.cache_name)

    @property
    def cached(self) -> int:
        """Number of calls answered by the store."""
        return sum(call.cached for call in self.calls)

    @property
    def unresolved_faults(self) -> tuple[Fault, ...]:
        """Faults that were not followed by an answer to the same request, as after a retry."""
        answered = {call.key for call in self.calls}
        return tuple(fault for fault in self.faults if fault.key not in answered)

    def kind(self, request: ClientRequest) -> Kind:
        """How a request is handled."""
        return self.traffic.kind(request)

    def begin(self, request: ClientRequest, *, counts: bool = True, waits: bool = False) -> Call:  # noqa: ARG002  # counts
        """Handle a client's request.

        Args:
            counts: whether it is a model call; calls of a run are priced by their answers.
            waits: whether the caller can wait until the call is ``ready``, behind the first call of its model.

        Returns:
            A call with its answer, if recorded or paid for; without one, the caller must send the request. In an event
            loop, and in threads other than the task's own, a refused call is answered with a non-retryable error, so that
            code waiting for an ``Exception`` does not hang.

        Raises:
            CallRefusedError: it must not be sent; see ``error`` and ``miss``.
        """
        with self._lock:
            call = _Call(request, key=(request.method, path_of(request.uri), request.body))
            clean = request
            if not self._waiting.get(call.key):  # recorded as it is, so it has no secrets
                clean = self._clean(request)
                call.key = _MATCHING.key(clean)
                self._match_other_spelling(call.key, clean.route)
            try:
                if self.error is not None:
                    raise self.error
                if self._closed:
                    what = f"{_request_line(request)} is sent after the task has returned; wait for all calls before returning"
                    self.late.append(RecordingError(f"row {self.label}, run {self.run}: {what}"))
                    raise self.late[-1]
                if (found := self._recorded(call.key)) is not None:
                    call.interaction, call.played = found, True
                    call.elapsed = found.position.elapsed if found.position else 0.0
                else:
                    self._answer_unrecorded(clean, call, waits=waits)
            except LLMTuneError as error:
                return self._refuse(call, error)
            self._counts[call.key] += 1
            self.calls.append(call)
            return call

    def recheck(self, call: Call) -> None:
        """The first call of a model may take long: the others do not wait for ever."""
        if time.perf_counter() - call.started > _LONGEST_WAIT and isinstance(call, _Call) and call.slot is None:
            self._pass_canary(call)
            call.go()

    def resume(self, call: Call) -> Call:
        """The call, once it is ``ready``: its USD are reserved, it may have to wait for a slot, or it is refused.

        Raises:
            CallRefusedError: as in ``begin``.
        """
        assert isinstance(call, _Call)  # noqa: S101  # ``begin`` made it
        with self._lock:
            queued, call.started = call.started, time.perf_counter()
            self._exclude(queued, call.started)
            call.waits = False
            try:
                if self._closed:
                    raise RecordingError(
                        f"row {self.label}, run {self.run}: {_request_line(call.request)} waited until the task had returned"
                    )
                if call.slot is None:
                    self._reserve(call, waits=True)
                elif call.channel is not None:
                    self._schedule(call, call.channel)
            except LLMTuneError as error:
                if call in self.calls:
                    self._counts[call.key] -= 1
                    self.calls.remove(call)
                return self._refuse(call, error)
        return call

    def cancel(self, call: Call) -> None:
        """Drop a call that waited: its task was cancelled, or its thread interrupted."""
        with self._lock:
            if isinstance(call, _Call) and call in self.calls:
                self._abandon(call, "was given up while it waited for its turn")

    def refuse(self, request: ClientRequest) -> Call:
        """Refuse a request that the user's rules forbid.

        Raises:
            CallRefusedError: as in ``begin``.
        """
        with self._lock:
            what = f"row {self.label}, run {self.run}: {_request_line(request)} is refused by llmtune_ignore_hosts"
            return self._refuse(_Call(request), RecordingError(what))

    def fail(self, error: LLMTuneError) -> None:
        """Make the run fail, even if the task swallows the error."""
        with self._lock:
            self.error = self.error or error

    def answer(self, call: Call, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> None:
        """Handle a server's complete response; names of ``headers`` are in lower case."""
        assert isinstance(call, _Call)  # noqa: S101  # ``begin`` made it
        try:
            interaction, why = received(call, status, reason, headers, body)
        except ValueError as error:
            self._fail(call, f"its answer {error}", status)
            return
        text = interaction.text
        if status >= 400 and _is_fault(status, text):
            why = f"was answered with status {status}"
        if status < 400 and (parse_object(text) or {}).get("error"):
            why = "reports an error"
        if why:
            self._fail(call, f"{why}: {' '.join(text.split())[:200]}".rstrip(": "), status)
            return
        interaction = redacted(self.redactor.knowing(call.request.secrets), interaction)
        with self._lock:
            call.interaction, call.elapsed = interaction, max(interaction.latency, time.perf_counter() - self._started)
            call.leave_slot(answered=True)
            self._settle(call, interaction)

    def drop(self, call: Call, why: str = "did not come") -> None:
        """Drop a call without an answer."""
        with self._lock:
            if isinstance(call, _Call) and call in self.calls:
                call.fault = why
                error = sys.exc_info()[1]
                self._abandon(call, f"{type(error).__name__}: {error}" if error else why)

    def _match_other_spelling(self, key: Key, route: str) -> None:
        """Find what is recorded for a call in another spelling: its body was edited by hand, or another endpoint served it."""
        if key in self._waiting:
            return
        for other in [*self._waiting]:
            for interaction in [*self._waiting[other]]:
                method, path, body = _MATCHING.key(interaction)
                if other != key and (method, body) == (key[0], key[2]) and _same_route(str(path), str(key[1]), route):
                    self._waiting[other].remove(interaction)
                    self._waiting.setdefault(key, deque()).append(interaction)

    def _recorded(self, key: Key) -> Interaction | None:
        if self._diverged or not (waiting := self._waiting.get(key)):
            return None
        found = waiting.popleft()
        if found.position is not None:
            self._played.add(found.position.call)
        return found

    def _answer_unrecorded(self, request: ClientRequest, call: _Call, *, waits: bool) -> None:
        """Handle an unrecorded call: refused if the network is blocked, else from the store, or paid for."""
        if self.store is None:
            self.miss = self._explain(request)
            self.worst = self._worst(call)
            raise StaleRecordingError(self.miss)
        self._diverged = True
        call.cache_name = self._name(call.key)
        if (known := self.store.recall(call.cache_name)) is not None:
            call.interaction, call.played, call.cached = known, True, True
            call.elapsed = time.perf_counter() - self._started + known.latency
            return
        if call.request.route and self.pool is not None:
            self._route(call, self.pool)
        call.bound = self._worst(call)
        call.model = _model(call.request)
        if waits and call.bound and self.canaries is not None:
            self.canaries.enter(call)
        call.waits = call.ready is not None
        if not call.waits:
            self._reserve(call, waits=waits)

    def _worst(self, call: _Call) -> Decimal:
        """USD that a call may cost at most; 0 if it is not a model call."""
        bound = self.tariff.bound(call.request, call.own_price)
        if bound is None:
            return Decimal(0)
        return max(_UNBOUNDED, bound.least) if bound.usd is None else bound.usd

    def _reserve(self, call: _Call, *, waits: bool) -> None:
        """Reserve its USD, and one of the requests in flight that its endpoint allows, for which it may wait.

        A caller that cannot wait, as it would hold up an event loop, takes no slot where none is free.
        """
        worst = call.bound * (Decimal(1) if self.canaries is None else self.canaries.growth.get(call.model, Decimal(1)))
        try:
            self.allowance.reserve(worst)
        except LLMTuneError:
            self._pass_canary(call)
            raise
        call.worst = worst
        if call.channel is None:
            return
        call.slot = call.channel.gate.enter()
        if waits and not call.slot.done():
            call.ready, call.waits = call.slot, True
            return
        if not call.slot.done():
            call.leave_slot()
        self._schedule(call, call.channel)

    def _schedule(self, call: _Call, channel: KeyChannel) -> None:
        """Have the call wait for the rate limits of its endpoint."""
        most = most_tokens(call.request.uri, call.request.body)
        call.delay = channel.reserve_pace(
            most.prompt // 3 + (1024 * most.choices if most.answer is None else most.answer)
        )
        self._exclude(now := time.perf_counter(), now + call.delay)

    def _exclude(self, since: float, until: float) -> None:
        """Leave a wait out of the run's latency; calls that wait at the same time count once."""
        end = max(self._waiting_until, until)
        self._started += max(0.0, end - max(self._waiting_until, since))
        self._waiting_until = end

    def _route(self, call: _Call, pool: EndpointPool) -> None:
        """Choose the first endpoint that serves its model; for a retry after a fault, the next one.

        Raises:
            EndpointError: none does.
        """
        request, model = call.request, _model(call.request)
        failed = [fault.channel for fault in self.faults if fault.key == call.key and fault.channel is not None]
        channel, _ = pool.choose(model, failed)
        channel = channel or pool.open_for(model)[0]
        call.channel, call.request = channel, replace(request, uri=channel.endpoint.url(model, request.route))
        call.instead = partial(_rerouted, channel, model, call.request.uri)

    def _settle(self, call: _Call, interaction: Interaction) -> None:
        if self.store is None or call.worst is None:
            return
        worst, call.worst = call.worst, None
        try:
            usd = self.tariff.charge(interaction, own=call.own_price).usd
        except LLMTuneError as error:
            self.allowance.settle(worst, worst, lost=True)
            self._pass_canary(call)
            self.error = self.error or error
            return
        self.allowance.settle(worst, usd)
        if self.canaries is not None:
            self.canaries.leave(call, billed=usd)
        try:
            self.store.add(call.cache_name, interaction, usd)
        except LLMTuneError as error:
            self.error = self.error or error

    def _fail(self, call: _Call, why: str, status: int) -> None:
        """Note an invalid answer; errors are not billed."""
        with self._lock:
            if call in self.calls:
                if status == _BUSY and call.channel is not None:
                    call.channel.gate.shrink(time.monotonic() - (time.perf_counter() - call.started))
                if status >= 400 and call.worst is not None:
                    self.allowance.settle(call.worst, Decimal(0))
                    call.worst = None
                self._abandon(call, why, status)

    def _abandon(self, call: _Call, why: str, status: int = 0) -> None:
        if call.interaction is not None:
            return
        self.faults.append(Fault(call.key, _request_line(call.request), why, status, call.channel))
        self._counts[call.key] -= 1
        call.leave_slot()
        if call.worst is not None:
            self.allowance.settle(call.worst, Decimal(0) if call.waits else call.worst, lost=not call.waits)
            call.worst = None
        self._pass_canary(call)
        self.calls.remove(call)

    def _pass_canary(self, call: _Call) -> None:
        """Let the other calls of its model go on without it."""
        if self.canaries is not None:
            self.canaries.leave(call)

    def _refuse(self, call: _Call, error: LLMTuneError) -> Call:
        if not self._closed:  # later nobody looks, or somebody may just be looking
            self.error = self.error or error
        self._refused += 1
        return refused(call, error, self.task_thread, self._refused)

    def _clean(self, request: ClientRequest) -> ClientRequest:
        uri, body = self.redactor.clean_request(request.uri, request.body, request.content_type or "application/json")
        return (
            request if (uri, body) == (request.uri, request.body) else replace(request, uri=uri, body=body, data=None)
        )

    def _name(self, key: Key) -> str:
        """Name in the store: the same for the same call of the same run, whatever calls precede it."""
        parts = "\0".join([self.row, str(self.run), str(self._counts[key]), *map(str, key)])
        return f"task/{text_digest(parts)}"

    def _explain(self, request: ClientRequest) -> str:
        """Which call has no recording, and how it differs from the recorded one."""
        number = len(self.calls) + 1
        where = f"row {self.label}, run {self.run}, call {number}"
        if not self.recorded:
            return f"{where}: nothing is recorded of this run; it asks {_request_line(request)}"
        unplayed = [item for item in self.recorded if item.position is None or item.position.call not in self._played]
        if not unplayed:
            return f"{where}: {_request_line(request)} is one call more than the {len(self.recorded)} recorded"
        expected = next((item for item in unplayed if item.position and item.position.call == number), unplayed[0])
        if expected.method != request.method or not _same_route(expected.path, path_of(request.uri), request.route):
            return f"{where}: recorded was {expected.method} {expected.path}, sent now {_request_line(request)}"
        difference = mismatch.difference(expected.body, request.body)
        return f"{where} asks something else than was recorded there:\n{difference}"


def _is_fault(status: int, text: str) -> bool:
    """Whether an error is due to the endpoint, its key or its account, rather than to the request."""
    document = parse_object(text) or {}
    error = document.get("error")
    body = error if isinstance(error, Mapping) else document
    message = str(body.get("message") or error or "")
    kind = failures.kind_of(status, body, message)
    return status in _TRANSIENT or kind in _ENDPOINTS or bool(_ACCOUNT.search(message))


def _same_route(recorded: str, request: str, route: str) -> bool:
    """Whether two paths lead to the same; those of our own clients do where what is behind their base is the same."""
    return recorded == request or (bool(route) and recorded.endswith(route))


def _model(request: ClientRequest) -> str:
    return model_asked(request.uri, request.body if request.data is None else request.data)


def _rerouted(
    channel: KeyChannel, model: str, url: str, headers: Mapping[str, str], body: bytes
) -> tuple[str, dict[str, str], bytes]:
    """A request of our own client as its endpoint takes it: with the endpoint's key and name of the model."""
    key, endpoint = channel.key.reveal(), channel.endpoint
    sent = {name: value for name, value in headers.items() if name.lower() not in _ENDPOINT_HEADERS}
    sent |= {"api-key": key} if endpoint.kind == "azure" else {"authorization": f"Bearer {key}"}
    if endpoint.own_name(model) != model and (data := parse_object(body.decode())) is not None:
        body = json.dumps({**data, "model": endpoint.own_name(model)}).encode()
    return url, sent, body


def _request_line(request: ClientRequest) -> str:
    return f"{request.method} {path_of(request.uri)}"
