"""Replay or record the calls of one test."""

from __future__ import annotations

import re
import threading
import time
import unicodedata
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import urlsplit

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.files import exclusive
from pytest_llmtune._util.jsonhash import text_digest
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import quoted
from pytest_llmtune.capture.call import Call, CallRefusedError, received, refused
from pytest_llmtune.capture.matching import ClientRequest, Key, Matching
from pytest_llmtune.capture.meter import Limits, Meter
from pytest_llmtune.capture.netguard import OpenHosts
from pytest_llmtune.capture.traffic import Kind, Traffic, is_answer
from pytest_llmtune.errors import LLMTuneError, RecordingError, StaleRecordingError, SuiteError
from pytest_llmtune.money.ledger import NotNowError
from pytest_llmtune.recording.storage import Layout, leftovers, read_all
from pytest_llmtune.settings import Mode
from pytest_llmtune.wire.billing import asks_a_model, model_asked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.recording.format import Interaction
    from pytest_llmtune.redaction.redactor import Redactor
    from pytest_llmtune.settings import Settings

_PLAYING = (Mode.REPLAY, Mode.ACCEPT, Mode.DRY_RUN, Mode.RECORD_MISSING, Mode.TUNE)
_WRITING = (Mode.RECORD_MISSING, Mode.TUNE, Mode.RECORD_ALL)
_SHOWN = 3
_RETRIED = frozenset({408, 409, 425, 429})
"""Statuses below 500 that clients retry."""
_LONGEST_WAIT = 120.0
"""Seconds without a settled call after which a waiting one is sent, or refused: no test hangs for the sake of a limit."""


@dataclass(slots=True, eq=False)
class Replay:
    """Context manager for the calls of one test, from any thread, that reads the recording and writes it on exit.

    Raises on exit:
        StaleRecordingError: a call had no recording; shows the difference, and the command that records it.
        BudgetExhaustedError: the calls exceeded ``max_calls`` or ``max_cost``.
        RecordingError: the recording cannot be read or written, or a response cannot be recorded.
    """

    owns_late_calls: ClassVar[bool] = False
    """Whether calls in the context of this recording belong to it even after it was closed, which refuses them."""
    path: Path
    mode: Mode
    command: str
    """The command that records what is missing: ``pytest NODEID --llm-record=missing``."""
    redactor: Redactor
    matching: Matching = field(default_factory=Matching)
    meter: Meter = field(default_factory=Meter)
    open_hosts: OpenHosts = field(default_factory=OpenHosts)
    """Hosts that are neither recorded nor blocked."""
    traffic: Traffic | None = None
    """Which requests are handled; None: all except those to open hosts."""
    layout: Layout = field(default_factory=Layout)
    """Layout of a large recording."""
    lock_directory: Path | None = None
    """Directory of lock files while recording; None: no locking."""
    keep_retries: bool = False
    """Whether errors that a client retried are recorded too."""
    missing: list[ClientRequest] = field(default_factory=list)
    """Calls without a recording."""
    own_server: str = ""
    """Host and port of a server of this process whose answers were recorded as a model's; empty: none."""
    called_model: bool = False
    """Whether a model call was sent, played or refused."""
    _recorded: list[Interaction] = field(default_factory=list)
    _waiting: dict[Key, deque[Interaction]] = field(default_factory=dict)
    _errors_played: dict[Key, Interaction] = field(default_factory=dict)
    """The last error played for each request, repeated if the client retries."""
    _pending: dict[Key, list[Call]] = field(default_factory=dict)
    """Calls that the client may retry."""
    _calls: list[Call] = field(default_factory=list)
    _errors: list[LLMTuneError] = field(default_factory=list)
    _refused: int = 0
    _reported: tuple[int, int] = (0, 0)
    """Numbers of missing calls and errors already raised."""
    _counted: int = 0
    """Number of calls already checked against the limits."""
    _queue: dict[Call, None] = field(default_factory=dict)
    """Calls that wait until they may be sent, in order of arrival."""
    _progress: float = 0.0
    """When a call was sent or settled last."""
    _canaries: dict[str, Call] = field(default_factory=dict)
    """By model: the call that goes alone."""
    _proven: set[str] = field(default_factory=set)
    """Models that have answered a call of this test."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: int = 0
    """The thread that opened it."""
    _stack: ExitStack | None = None
    """Resources held while open."""

    def __enter__(self) -> Replay:
        self.start()
        return self

    def start(self) -> None:
        """Read the recording; in the modes that write it, lock it.

        Raises:
            RecordingError: it cannot be read, or is being written by another run.
        """
        with self._lock:
            self._open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        self.close(failed=error is not None, interrupted=interrupted)
        if not interrupted:
            self.verify(error)

    def close(self, *, failed: bool, interrupted: bool = False) -> None:
        """Finish, and write the recording in the modes that do.

        Args:
            failed: the test did not complete, so that no earlier interaction is removed.
            interrupted: write nothing.
        """
        with self._lock:
            for call in self._queue:
                if call.ready is not None:
                    call.ready.set_result(RecordingError(f"{_name(call.request)} was not sent before the test ended"))
            self._queue.clear()
            for call in self._calls:
                if call.hold is not None:
                    self.meter.lost(call.hold)
                    call.hold = None  # an answer that comes later does not count
        with self._stack or ExitStack():
            self._stack = None
            if interrupted or self.mode not in _WRITING:
                return
            if not failed:
                self._errors.extend(
                    RecordingError(
                        f"the response to {_name(call.request)} {call.fault}, and cannot be recorded; {self.path} was not "
                        "written with it"
                    )
                    for call in self._calls
                    if call.recordable and call.interaction is None
                )
            self._write(complete=not failed and not self._errors)

    def verify(self, error: BaseException | None = None, *, limits: bool = True) -> None:
        """Raise problems since the last call.

        Args:
            error: the test's own exception, kept as the cause.
            limits: whether to check the limits; not if the test failed before.

        Raises:
            StaleRecordingError, BudgetExhaustedError, RecordingError: as on exit.
        """
        missing, errors = self._reported
        self._reported = len(self.missing), len(self._errors)
        if limits and error is None and not self._errors and self.meter.calls != self._counted:
            self._counted = self.meter.calls
            self.meter.check()
        if len(self.missing) > missing:
            raise StaleRecordingError(self._stale()) from _cause(error)
        if len(self._errors) > errors:
            raise self._errors[errors] from _cause(error)

    def fail(self, error: LLMTuneError) -> None:
        """Make the test fail at its end, even if its code swallows the error."""
        with self._lock:
            self._errors.append(error)

    @property
    def unused(self) -> tuple[Interaction, ...]:
        """Recorded interactions not played so far."""
        return tuple(item for waiting in self._waiting.values() for item in waiting)

    @property
    def oldest(self) -> str:
        """Date, ``YYYY-MM-DD``, of the oldest played answer; empty if unknown."""
        played = [call.interaction.recorded for call in self._calls if call.played and call.interaction is not None]
        return min(filter(None, played), default="")

    def kind(self, request: ClientRequest) -> Kind:
        """How a request is handled."""
        return (self.traffic or Traffic(open_hosts=self.open_hosts, own_ports=False)).kind(request)

    def begin(self, request: ClientRequest, *, counts: bool = True, waits: bool = False) -> Call:
        """Handle a client's request.

        Args:
            counts: whether it is a model call.
            waits: whether the caller can wait until the call is ``ready``. Where USD are limited, the first call of a model goes
                alone, so that one bill tells a server that bills more than requests allow; and what does not fit beside
                the calls in flight waits until they are settled. A caller that cannot wait is refused then.

        Returns:
            A call with its played ``interaction``; without one, the caller must send the request, and then call
            ``answer`` or ``drop``.

        Raises:
            CallRefusedError: it is not recorded and the network is blocked, or a limit is reached. In an event loop, and in
                threads other than the one that opened the recording, the answer is a non-retryable error instead, because
                code that passes only an ``Exception`` to its waiting parent would hang.
        """
        call = Call(request, counts and request.method == "POST")
        with self._lock:
            self._open()
            key = self.matching.key(request)
            if (
                not self._waiting.get(key) and key not in self._errors_played
            ):  # else recorded as it is: it has no secrets
                key = self.matching.key(self._clean(request))
            self._mark_retried(key)
            if call.counts:
                try:
                    call.hold = self.meter.enter(request)
                except LLMTuneError as error:
                    return self._refuse(call, error)
            waiting = self._waiting.get(key)
            if waiting:
                call.interaction, call.played = waiting.popleft(), True
                if may_retry(call.interaction.status):
                    self._errors_played[key] = call.interaction
                self._count(call, call.interaction)
            elif key in self._errors_played:
                call.interaction, call.played, call.recordable = self._errors_played[key], True, False
                self._count(call, call.interaction)
            elif not self.mode.online:
                if call.hold is not None:
                    self.meter.lost(call.hold)
                self.missing.append(request)
                return self._refuse(
                    call, StaleRecordingError(f"{_name(request)} has no recording; record it: {self.command}")
                )
            else:
                may_wait = waits and call.counts and self.meter.limited
                if may_wait and asks_a_model(request.method, request.uri, request.body):
                    call.model, call.ready = model_asked(request.uri, request.body), Future()
                    self._queue[call] = None
                    self._serve()
                else:
                    try:
                        self._reserve(call)
                    except LLMTuneError as error:
                        return self._refuse(call, error)
                self._pending.setdefault(key, []).append(call)
            self._calls.append(call)
            self.called_model = self.called_model or call.counts
        return call

    def recheck(self, call: Call) -> None:
        """Look again after a waiting call: other processes settle without notice, and none waits for ever."""
        with self._lock:
            if call is next(iter(self._queue), None):
                self._serve(overdue=time.perf_counter() - max(self._progress, call.started) > _LONGEST_WAIT)

    def resume(self, call: Call) -> Call:
        """The call, once it is ``ready``: it may be sent, or is refused.

        Raises:
            CallRefusedError: as in ``begin``.
        """
        error = None if call.ready is None else call.ready.result()
        with self._lock:
            return call if error is None else self._refuse(call, error)

    def cancel(self, call: Call) -> None:
        """Drop a call that waited: its task was cancelled, or its thread interrupted."""
        with self._lock:
            self._queue.pop(call, None)
            if call.hold is not None:
                self.meter.release(call.hold)
                self.meter.lost(call.hold)
            call.hold, call.recordable, call.counts = None, False, False
            self._finished(call)

    def refuse(self, request: ClientRequest) -> Call:
        """Refuse a request that the user's rules forbid.

        Raises:
            CallRefusedError: as in ``begin``.
        """
        host = urlsplit(request.uri).hostname
        with self._lock:
            return self._refuse(
                Call(request, counts=False),
                RecordingError(f"{_name(request)} to {host} is refused by llmtune_ignore_hosts"),
            )

    def answer(self, call: Call, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> None:
        """Handle a server's complete response; names of ``headers`` are in lower case."""
        request = call.request
        call.retryable = may_retry(status)
        try:
            interaction, why = received(call, status, reason, headers, body)
        except ValueError as error:
            self.drop(call, str(error))
            return
        if why:
            self.drop(call, why)  # what it reports of its usage is not final
            return
        redactor = replace(self.redactor, hooks=()).knowing(request.secrets)
        text = redactor.clean_body(interaction.text, headers.get("content-type", ""))
        clean = replace(interaction, text=text, data=redactor.clean_data(interaction.data))
        with self._lock:
            self._count(call, interaction)
            call.interaction = clean
            if call.counts and self.traffic is not None and self.traffic.is_own(request):
                self.own_server = urlsplit(request.uri).netloc
            self._finished(call, answered=status < 400)

    def drop(self, call: Call, why: str = "did not come") -> None:
        """Drop a call without a recordable answer; it does not count."""
        with self._lock:
            if call.hold is not None:
                self.meter.lost(call.hold)
            call.fault, call.retryable, call.counts = why, True, False
            self._finished(call)

    def _open(self) -> None:
        """Lock and read the file once: at the start, or when a fixture needs it before the test."""
        if self._stack is not None:
            return
        self._thread = threading.get_ident()
        with ExitStack() as stack:
            if self.mode in _WRITING and self.lock_directory is not None:
                stack.enter_context(exclusive(self.path, self.lock_directory))
            if self.mode in _PLAYING:
                self._recorded = list(read_all(self.path, torn=self.mode in _WRITING))
            self._stack = stack.pop_all()
        for interaction in self._recorded:
            self._waiting.setdefault(self.matching.key(interaction), deque()).append(interaction)

    def _serve(self, *, overdue: bool = False) -> None:
        """Let waiting calls go, in order of arrival; refuse what can never fit.

        Args:
            overdue: the first one waits no longer.
        """
        for call in [*self._queue]:
            if overdue and call.model in self._canaries:
                del self._canaries[call.model]
                self._proven.add(call.model)
            if call.model in self._canaries:
                continue
            error: LLMTuneError | None = None
            try:
                self._reserve(call, waits=not overdue)
            except LLMTuneError as refused:
                if isinstance(refused, NotNowError) and not overdue:
                    return
                error = refused
            del self._queue[call]
            overdue = False
            call.started = self._progress = time.perf_counter()
            if call.ready is not None:
                call.ready.set_result(error)

    def _finished(self, call: Call, *, answered: bool = False) -> None:
        """A call is settled; where it went alone, others follow: all after an answer, else the next one."""
        if self._canaries.get(call.model) is call:
            del self._canaries[call.model]
            if answered:
                self._proven.add(call.model)
        self._progress = time.perf_counter()
        self._serve()

    def _reserve(self, call: Call, *, waits: bool = False) -> None:
        """Reserve what the call may cost, within the test's limit and the run's.

        Args:
            waits: keep the call's hold where it does not fit now.
        """
        if call.hold is not None:
            self.meter.reserve(call.hold, may_wait=waits)
        if call.ready is not None and call.model not in self._proven:
            self._canaries.setdefault(call.model, call)

    def _mark_retried(self, key: Key) -> None:
        """Mark earlier answers to this request as retried."""
        pending = self._pending.get(key)
        if not pending or self.keep_retries:
            return
        for call in pending:
            if call.retryable:
                call.recordable = False
        self._pending[key] = [call for call in pending if not call.retryable]

    def _count(self, call: Call, interaction: Interaction) -> None:
        """Count an answer of a model: it looks like one, or answers a model request."""
        request, status = call.request, interaction.status
        if not interaction.data and not is_answer(interaction.text):
            call.counts = call.counts and asks_a_model(request.method, request.uri, request.body)
        call.counts = call.counts and status < 400
        if call.hold is not None:
            hold, call.hold = call.hold, None
            try:
                self.meter.answered(hold, status if call.counts else 400, interaction.data or interaction.text)
            except LLMTuneError as error:
                self._errors.append(error)

    def _refuse(self, call: Call, error: LLMTuneError) -> Call:
        self._errors.append(error)
        self._refused += 1
        return refused(call, error, self._thread, self._refused)

    def _clean(self, request: ClientRequest) -> ClientRequest:
        uri, body = self.redactor.clean_request(request.uri, request.body, request.content_type)
        return replace(request, uri=uri, body=body)

    def _write(self, *, complete: bool) -> None:
        """Write the recording atomically; an incomplete run removes no earlier interaction."""
        from pytest_llmtune.recording.housekeeping import remove
        from pytest_llmtune.recording.writer import write

        answered = [call for call in self._calls if call.interaction is not None and call.recordable]
        new = [call.interaction for call in answered if call.interaction is not None and not call.played]
        if complete:
            stored = [call.interaction for call in answered if call.interaction is not None]
        elif not new or (self.mode is Mode.RECORD_ALL and self.path.exists()):
            return
        else:
            stored = [*self._recorded, *new]
        if stored:
            write(self.path, stored, self.redactor, self.layout)
        else:
            remove(leftovers(self.path, ()))

    def _stale(self) -> str:
        from pytest_llmtune.recording.mismatch import explain

        first = self._clean(self.missing[0])
        names = ", ".join(dict.fromkeys(map(_name, self.missing[:_SHOWN])))
        count = len(self.missing)
        calls = "1 call of the test has" if count == 1 else f"{count} calls of the test have"
        lines = [f"{calls} no recording in {self.path}: {names}"]
        same = sum(self.matching.key(item) == self.matching.key(first) for item in self._recorded)
        if same:
            lines.append(f"the request was recorded {same} time{'s' * (same > 1)}, and is now made once more")
        elif difference := explain(first.body, self._recorded):
            lines.append(difference)
        elif query := urlsplit(first.uri).query:
            lines.append(f"sent now with the query {query:.300}")
        return "\n".join([*lines, f"record what it asks: {self.command}"])


def may_retry(status: int) -> bool:
    """Whether clients retry after this status."""
    return status >= 500 or status in _RETRIED


def _name(request: ClientRequest) -> str:
    return f"{request.method} {urlsplit(request.uri).path}"


def _cause(error: BaseException | None) -> BaseException | None:
    return None if isinstance(error, CallRefusedError) else error


_LONGEST = 120
"""Limit in bytes for a file name's stem; the whole path must fit into Windows' 260."""
_KEYS = ("keep_retries", "match_on", "max_calls", "max_cost")
_XUNIT = lazy_regex(r"_(?:xunit|unittest)_(\w+?)_fixture(?:_.*)?")
REPEATED = "__pytest_repeat_step_number"
"""The parameter that pytest-repeat adds to each run of a test."""


class _Run(Protocol):
    settings: Settings
    ledger: Ledger

    @property
    def redactor(self) -> Redactor: ...
    @property
    def prices(self) -> PriceBook: ...
    @property
    def traffic(self) -> Traffic: ...
    def target(self, nodeid: str) -> str: ...


def marked(test: Any) -> dict[str, Any]:
    """What a test's marks ``llm_replay`` say of its recording, as fields of ``Replay``, and ``limits``.

    Marks of module, class and function are merged; the nearest mark's value wins.

    Raises:
        SuiteError: a mark has an unknown key or an unusable limit.
    """
    keys: dict[str, Any] = {}
    for marker in test.iter_markers("llm_replay"):
        wrong = [*map(repr, marker.args), *sorted(marker.kwargs.keys() - set(_KEYS))]
        if wrong:
            raise SuiteError(f"{test.nodeid}: llm_replay got {', '.join(wrong)}; its keys are {', '.join(_KEYS)}")
        keys = dict(marker.kwargs) | keys
    keep_retries = keys.get("keep_retries", False)
    if not isinstance(keep_retries, bool):
        raise SuiteError(f"llm_replay: keep_retries is {keep_retries!r}; valid: True, False")
    return {
        "matching": Matching.on(keys.get("match_on")),
        "limits": Limits.of(keys.get("max_cost"), keys.get("max_calls")),
        "keep_retries": keep_retries,
    }


def replay_of(test: Any, run: _Run) -> Replay:
    """The recording of a test's client calls: ``<tests>/llmtune/<module>.<class>.<test>.cassette.json``.

    Args:
        test: a pytest item; only its name, path and markers are read.

    Raises:
        SuiteError: as ``marked``.
    """
    fields = marked(test)
    command = f"pytest {quoted(run.target(test.nodeid))} --llm-record=missing"
    names = without_repetition(test, test.nodeid).partition("::")[2].split("::")
    stem = _safe(".".join([test.path.stem, *(name for name in names if name != "()")]))
    replay = _replay(test.path.parent, stem, command, run, limits=fields.pop("limits"), **fields)
    replay.lock_directory = run.settings.root / ".llmtune" / "locks"
    return replay


def replay_of_fixture(directory: Path, scope: str, name: str, node: str, run: _Run) -> Replay:
    """The recording of a fixture with a wider scope than one test.

    ``<tests>/llmtune/<module>.<class>.fixture.<name>.cassette.json``; for session or package scope,
    ``<directory>/llmtune/<scope>.fixture.<name>.cassette.json``.

    Args:
        directory: of the fixture's definition, or of its module's tests.
        scope: ``session``, ``package``, or the module's stem and the class.
        name: the fixture's name, with the index of its parameter, if any.
        node: what to select to record it; empty for the whole session.
    """
    stem = f"{scope}.fixture.{match[1] if (match := _XUNIT.fullmatch(name)) else name}"
    command = " ".join(filter(None, ("pytest", node and quoted(run.target(node)), "--llm-record=missing")))
    return _replay(directory, _safe(stem), command, run)


def _replay(
    directory: Path, stem: str, command: str, run: _Run, *, limits: Limits | None = None, **fields: Any
) -> Replay:
    settings = run.settings
    return Replay(
        directory / "llmtune" / f"{stem}.cassette.json",
        Mode.REPLAY if settings.mode is Mode.MIGRATE else settings.mode,
        command,
        run.redactor,
        meter=Meter(limits or Limits(), run.prices, run.ledger),
        layout=Layout.of(settings),
        traffic=run.traffic,
        **fields,
    )


def without_repetition(test: Any, name: str) -> str:
    """A name of the test; all repetitions that pytest-repeat makes of it share its recording, or its suite."""
    if REPEATED not in getattr(getattr(test, "callspec", None), "params", {}):
        return name
    return re.sub(r"\[(?:(.*)-)?\d+-\d+\]$", lambda match: f"[{match[1]}]" if match[1] else "", name)


def _safe(stem: str) -> str:
    """A file name that is valid on every file system, and unique even if case is ignored."""
    name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", stem)).strip("_")
    if name == stem and name == name.lower() and len(name.encode()) <= _LONGEST:
        return name
    cut = name.encode()[:_LONGEST].decode(errors="ignore").rstrip("_")
    return f"{cut}-{text_digest(stem)[:8]}"
