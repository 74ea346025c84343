"""Replay or record the calls of one test."""

from __future__ import annotations

import hashlib
import re
import threading
import time
import unicodedata
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import urlsplit

from pytest_llmtune._util.files import exclusive
from pytest_llmtune.capture.matching import Asked, Key, Matching
from pytest_llmtune.capture.meter import ClientSpend, Limits, Meter
from pytest_llmtune.capture.netguard import OpenHosts
from pytest_llmtune.errors import LLMTuneError, RecordingError, StaleRecordingError, SuiteError
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.recording import mismatch as stale
from pytest_llmtune.recording.format import Interaction, path_of
from pytest_llmtune.recording.housekeeping import remove
from pytest_llmtune.recording.storage import Layout, leftovers, read_all
from pytest_llmtune.recording.writer import write
from pytest_llmtune.settings import Mode
from pytest_llmtune.wire.body import text_of, why_incomplete
from pytest_llmtune.wire.tokens import noted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from pytest_llmtune.capture.meter import Hold
    from pytest_llmtune.money.ledger import Ledger, Reservation
    from pytest_llmtune.redaction.redactor import Redactor
    from pytest_llmtune.settings import Settings

__all__ = ["Call", "CallRefusedError", "Replay", "replay_of"]


_PLAYING = (Mode.REPLAY, Mode.ACCEPT, Mode.DRY_RUN, Mode.RECORD_MISSING, Mode.TUNE)
_WRITING = (Mode.RECORD_MISSING, Mode.TUNE, Mode.RECORD_ALL)
_SHOWN = 3


class CallRefusedError(BaseException):
    """A call that must not be made. No ``Exception``: clients would retry it, and tests would swallow it.

    It does not leave the ``Replay`` context, which raises the error behind it.
    """

    def __init__(self, error: LLMTuneError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True, eq=False)
class Call:
    """One request of a client, on its way to an answer."""

    asked: Asked
    interaction: Interaction | None = None
    """The answer, once there is one that may be recorded."""
    played: bool = False
    """Whether the answer is from the recording."""
    hold: Hold | None = None
    """Of the test's limits, while it is on its way."""
    reservation: Reservation | None = None
    """Of the run's money, while it is on its way."""
    started: float = field(default_factory=time.perf_counter)


@dataclass(slots=True, eq=False)
class Replay:
    """The calls of one test, from any number of threads: a context that reads the recording, and in the end writes it.

    Raises, on leaving:
        StaleRecordingError: a call had no recording; shows what differs, and the mending command.
        BudgetExhaustedError: the calls passed ``max_calls`` or ``max_cost``.
        RecordingError: the recording cannot be read or written, or a response cannot be recorded.
    """

    path: Path
    mode: Mode
    command: str
    """What mends a missing recording: ``pytest NODEID --llm-record=missing``."""
    redactor: Redactor
    matching: Matching = field(default_factory=Matching)
    meter: Meter = field(default_factory=Meter)
    open_hosts: OpenHosts = field(default_factory=OpenHosts)
    """Hosts whose requests are nobody's business here."""
    layout: Layout = field(default_factory=Layout)
    """How a recording that has grown large is laid out."""
    lock_directory: Path | None = None
    """Where a recording run locks the file; None: it does not."""
    spend: ClientSpend | None = None
    """What limits the run's money; None: nothing does."""
    missing: list[Asked] = field(default_factory=list)
    """Calls without a recording."""
    _recorded: list[Interaction] = field(default_factory=list)
    _waiting: dict[Key, deque[Interaction]] = field(default_factory=dict)
    _calls: list[Call] = field(default_factory=list)
    _errors: list[LLMTuneError] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stack: ExitStack | None = None
    """What is held while it is open."""

    def __enter__(self) -> Replay:
        with self._lock:
            self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for call in self._calls:
            self._lost(call)
        with self._stack or ExitStack():
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                return
            if self.mode in _WRITING:
                self._write(complete=error is None and not self._errors)
        if error is None and not self._errors:
            self.meter.check()
        if self.missing:
            raise StaleRecordingError(self._stale()) from _cause(error)
        if self._errors:
            raise self._errors[0] from _cause(error)

    @property
    def unused(self) -> tuple[Interaction, ...]:
        """Recorded interactions that no call has played so far."""
        return tuple(item for waiting in self._waiting.values() for item in waiting)

    def ignores(self, uri: str) -> bool:
        """Whether a request goes to a host that the user left open."""
        parts = urlsplit(uri)
        return bool(self.open_hosts.entries) and self.open_hosts.allows(parts.hostname or "", parts.port)

    def ask(self, asked: Asked) -> Call:
        """A client makes a request.

        Returns:
            A call with its ``interaction`` played from the recording; without one, the client is to send the request
            and to tell ``answer`` or ``drop`` what became of it.

        Raises:
            CallRefusedError: nothing is recorded for it and the network is shut, or a limit is reached.
        """
        call = Call(asked)
        with self._lock:
            self._open()
            try:
                call.hold = self.meter.enter(asked)
            except LLMTuneError as error:
                self._refuse(error)
            waiting = self._waiting.get(self.matching.key(self._clean(asked)))
            if waiting:
                call.interaction, call.played = waiting.popleft(), True
                self.meter.answered(call.hold, call.interaction.status, call.interaction.text)
            elif not self.mode.online:
                self.meter.lost(call.hold)
                self.missing.append(asked)
                self._refuse(StaleRecordingError(f"{_name(asked)} has no recording; record it: {self.command}"))
            else:
                self._reserve(call)
            self._calls.append(call)
        return call

    def answer(self, call: Call, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> None:
        """The server answered a call; ``body`` has come to its end, ``headers`` are in lower case."""
        latency = time.perf_counter() - call.started
        content_type = headers.get("content-type", "")
        try:
            text = noted(call.asked.body, text_of(body, headers.get("content-encoding", "")))
        except ValueError as error:
            self._unrecordable(call, f"the response to {_name(call.asked)} {error}")
            return
        self._settle(call, status, text)
        if why_incomplete(path_of(call.asked.uri), status, text, content_type):
            self.drop(call)
            return
        asked = call.asked
        interaction = Interaction(
            asked.method,
            asked.uri,
            asked.body,
            status,
            replace(self.redactor, hooks=()).knowing(asked.secrets).clean_body(text, content_type),
            reason,
            {"content-type": asked.content_type} if asked.content_type else {},
            headers,
            latency,
        )
        with self._lock:
            if call.hold is not None:
                self.meter.answered(call.hold, status, text)
            call.interaction = interaction

    def drop(self, call: Call) -> None:
        """A call got no answer, or none that may be recorded; it does not count."""
        with self._lock:
            self._lost(call)
            self._calls.remove(call)

    def _open(self) -> None:
        """Lock and read the file, once: at the start, or when a fixture asks before the test."""
        if self._stack is not None:
            return
        with ExitStack() as stack:
            if self.mode in _WRITING and self.lock_directory is not None:
                stack.enter_context(exclusive(self.path, self.lock_directory))
            if self.mode in _PLAYING:
                self._recorded = list(read_all(self.path, torn=self.mode in _WRITING))
            self._stack = stack.pop_all()
        for interaction in self._recorded:
            self._waiting.setdefault(self.matching.key(interaction), deque()).append(interaction)

    def _reserve(self, call: Call) -> None:
        """Set aside what the call may cost, of the test's limit and the run's."""
        asked = call.asked
        try:
            if call.hold is not None:
                self.meter.reserve(call.hold)
            if self.spend is not None:
                call.reservation = self.spend.reserve(asked)
        except LLMTuneError as error:
            if call.hold is not None:
                self.meter.lost(call.hold)
            self._refuse(error)

    def _settle(self, call: Call, status: int, text: str) -> None:
        asked = call.asked
        with self._lock:
            if self.spend is not None and call.reservation is not None:
                reservation, call.reservation = call.reservation, None
                try:
                    self.spend.answered(reservation, asked, status, text)
                except LLMTuneError as error:
                    self._errors.append(error)

    def _lost(self, call: Call) -> None:
        if call.hold is not None and call.interaction is None:
            self.meter.lost(call.hold)
        if self.spend is not None and call.reservation is not None:
            self.spend.lost(call.reservation)
            call.reservation = None

    def _unrecordable(self, call: Call, what: str) -> None:
        self.drop(call)
        if self.mode in _WRITING:
            self._errors.append(RecordingError(f"{what}; {self.path} was not written with it"))

    def _refuse(self, error: LLMTuneError) -> NoReturn:
        self._errors.append(error)
        raise CallRefusedError(error)

    def _clean(self, asked: Asked) -> Asked:
        uri, body = self.redactor.clean_request(asked.uri, asked.body, asked.content_type)
        return replace(asked, uri=uri, body=body)

    def _write(self, *, complete: bool) -> None:
        """Whole or not at all: a run that did not come to its end removes nothing that was recorded before."""
        answered = [call for call in self._calls if call.interaction is not None]
        new = [call.interaction for call in answered if call.interaction is not None and not call.played]
        if complete:
            kept = [call.interaction for call in answered if call.interaction is not None]
        elif not new or (self.mode is Mode.RECORD_ALL and self.path.exists()):
            return
        else:
            kept = [*self._recorded, *new]
        if kept:
            write(self.path, kept, self.redactor, self.layout)
        else:
            remove(leftovers(self.path, ()))

    def _stale(self) -> str:
        first = self._clean(self.missing[0])
        names = ", ".join(dict.fromkeys(map(_name, self.missing[:_SHOWN])))
        count = len(self.missing)
        calls = "1 call of the test has" if count == 1 else f"{count} calls of the test have"
        lines = [f"{calls} no recording in {self.path}: {names}"]
        same = sum(self.matching.key(item) == self.matching.key(first) for item in self._recorded)
        if same:
            lines.append(f"the request was recorded {same} time{'s' * (same > 1)}, and is now made once more")
        elif difference := stale.explain(first.body, self._recorded):
            lines.append(difference)
        return "\n".join([*lines, f"record what it asks: {self.command}"])


def _name(asked: Asked) -> str:
    return f"{asked.method} {urlsplit(asked.uri).path}"


def _cause(error: BaseException | None) -> BaseException | None:
    return None if isinstance(error, CallRefusedError) else error


_LONGEST = 120
"""Bytes of a file's name before its endings; the whole path has to fit into Windows' 260 too."""
_KEYS = ("match_on", "max_calls", "max_cost")


class _Run(Protocol):
    settings: Settings
    ledger: Ledger

    @property
    def redactor(self) -> Redactor: ...


def replay_of(test: Any, run: _Run) -> Replay:
    """The recording of a test's client calls: ``<tests>/llmtune/<module>.<class>.<test>.cassette.json``.

    Args:
        test: a pytest item; only its name, path and markers are read.

    Raises:
        SuiteError: the marker ``llm_replay`` has an unknown key or an unusable limit.
    """
    marker = test.get_closest_marker("llm_replay")
    keys = dict(marker.kwargs) if marker else {}
    if (marker and marker.args) or not keys.keys() <= set(_KEYS):
        wrong = [*map(repr, marker.args), *sorted(keys.keys() - set(_KEYS))]
        raise SuiteError(f"{test.nodeid}: llm_replay got {', '.join(wrong)}; its keys are {', '.join(_KEYS)}")
    settings, prices = run.settings, PriceBook(run.settings.prices)
    return Replay(
        test.path.parent / "llmtune" / f"{_file_stem(test)}.cassette.json",
        settings.mode,
        f"pytest {test.nodeid} --llm-record=missing",
        run.redactor,
        matching=Matching.on(keys.get("match_on")),
        meter=Meter(Limits.of(keys.get("max_cost"), keys.get("max_calls")), prices),
        spend=ClientSpend(run.ledger, prices),
        layout=Layout.of(settings),
        open_hosts=OpenHosts.of(settings.allow_hosts),
        lock_directory=settings.root / ".llmtune" / "locks",
    )


def _file_stem(test: Any) -> str:
    """A name that every file system takes, and that no other test's file has, whatever the case of its letters."""
    parts = [part for part in test.nodeid.partition("::")[2].split("::") if part != "()"]
    said = ".".join([test.path.stem, *parts])
    name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", said)).strip("_")
    if name == said and name == name.lower() and len(name.encode()) <= _LONGEST:
        return name
    cut = name.encode()[:_LONGEST].decode(errors="ignore").rstrip("_")
    return f"{cut}-{hashlib.sha256(said.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
