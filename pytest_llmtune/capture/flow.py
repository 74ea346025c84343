"""Handle one request of a patched client: play its response, or send and record it."""

from __future__ import annotations

import asyncio
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.aio import outside
from pytest_llmtune.capture.netguard import ignoring, passing
from pytest_llmtune.capture.traffic import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_llmtune.capture.matching import ClientRequest
    from pytest_llmtune.capture.session import Call, Replay
    from pytest_llmtune.recording.format import Interaction

__all__ = ["Flow", "in_loop", "wait_turn", "wait_turn_async"]


_GLANCE = 0.5  # seconds between looks at what other processes have settled


def in_loop() -> bool:
    """Whether this thread runs an event loop of asyncio's."""
    return asyncio._get_running_loop() is not None  # noqa: SLF001


def wait_turn(replay: Replay, call: Call) -> Call:
    """Wait in a thread until a call may be sent, or is refused."""
    last = None
    while (turn := call.turn) is not None and turn is not last:  # one may follow on another
        try:
            while not wait([turn], _GLANCE).done:
                replay.urge(call)
        except BaseException:
            replay.withdraw(call)
            raise
        call, last = replay.turned(call), turn
    return call


async def wait_turn_async(replay: Replay, call: Call) -> Call:
    """Wait in an event loop until a call may be sent, or is refused."""
    last = None
    while (turn := call.turn) is not None and turn is not last:
        waiting = asyncio.wrap_future(turn)
        try:
            while not (await asyncio.wait([waiting], timeout=_GLANCE))[0]:
                replay.urge(call)
        except BaseException:
            replay.withdraw(call)
            raise
        call, last = replay.turned(call), turn
    return call


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """A request that belongs to a recording, or is passed through."""

    replay: Replay
    kind: Kind
    call: Call | None
    """None: the request is neither recorded nor played."""

    @classmethod
    def begun(cls, replay: Replay, request: ClientRequest, *, waits: bool) -> Flow:
        """Start handling a client's request; where ``waits``, the call may have to wait for its turn.

        Raises:
            CallRefusedError: the request is not allowed.
        """
        kind = replay.kind(request)
        if kind is Kind.REFUSE:
            return cls(replay, kind, replay.refuse(request))
        handled = kind in (Kind.MODEL, Kind.RECORD)
        return cls(replay, kind, replay.ask(request, counts=kind is Kind.MODEL, waits=waits) if handled else None)

    @classmethod
    def of(cls, replay: Replay, request: ClientRequest) -> Flow:
        """Start handling a client's request, once it may be sent; not waiting in an event loop's thread, which it would hold up."""
        flow = cls.begun(replay, request, waits=not in_loop())
        if flow.call is not None:
            wait_turn(replay, flow.call)
        return flow

    @classmethod
    async def of_async(cls, replay: Replay, request: ClientRequest) -> Flow:
        """``of``, in an event loop."""
        flow = cls.begun(replay, request, waits=in_loop())
        if flow.call is not None:
            await wait_turn_async(replay, flow.call)
        return flow

    @property
    def played(self) -> Interaction | None:
        """The recorded response; None: the request must be sent."""
        return None if self.call is None else self.call.interaction

    @contextmanager
    def sent(self) -> Iterator[None]:
        """Send the request in this context; if there is no response, the call is dropped."""
        with ExitStack() as stack:
            stack.enter_context(outside())
            shut = self.kind is Kind.PASS and not self.replay.mode.online
            stack.enter_context(ignoring() if shut else passing())
            try:
                yield
            except BaseException as error:
                if self.call is not None and self.call.interaction is None and not self.call.fault:
                    self.replay.drop(self.call, f"did not come ({type(error).__name__})")
                raise

    def answered(self, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> None:
        """Handle the complete response; names of ``headers`` are in lower case."""
        if self.call is not None:
            self.replay.answer(self.call, status, reason, headers, body)
