"""Handle one request of a patched client: play its response, or send and record it."""

from __future__ import annotations

import asyncio
from concurrent import futures
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.aio import has_loop, outside
from pytest_llmtune.capture.netguard import ignoring, passing
from pytest_llmtune.capture.traffic import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_llmtune.capture.call import Call
    from pytest_llmtune.capture.matching import ClientRequest
    from pytest_llmtune.capture.session import Replay
    from pytest_llmtune.recording.format import Interaction

_RECHECK = 0.5  # seconds between checks of what other processes have settled


def wait(replay: Replay, call: Call) -> Call:
    """Wait in a thread until a call may be sent, or is refused."""
    last = None
    while (ready := call.ready) is not None and ready is not last:  # one may follow on another
        try:
            while not futures.wait([ready], _RECHECK).done:
                replay.recheck(call)
        except BaseException:
            replay.cancel(call)
            raise
        call, last = replay.resume(call), ready
    return call


async def wait_async(replay: Replay, call: Call) -> Call:
    """Wait in an event loop until a call may be sent, or is refused."""
    last = None
    while (ready := call.ready) is not None and ready is not last:
        waiting = asyncio.wrap_future(ready)
        try:
            while not (await asyncio.wait([waiting], timeout=_RECHECK))[0]:
                replay.recheck(call)
        except BaseException:
            replay.cancel(call)
            raise
        call, last = replay.resume(call), ready
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
        """Start handling a client's request; where ``waits``, the call may have to wait.

        Raises:
            CallRefusedError: the request is not allowed.
        """
        kind = replay.kind(request)
        if kind is Kind.REFUSE:
            return cls(replay, kind, replay.refuse(request))
        handled = kind in (Kind.MODEL, Kind.RECORD)
        return cls(replay, kind, replay.begin(request, counts=kind is Kind.MODEL, waits=waits) if handled else None)

    @classmethod
    def of(cls, replay: Replay, request: ClientRequest) -> Flow:
        """Start handling a client's request, once it may be sent; not waiting in an event loop's thread, which it would hold up."""
        flow = cls.begun(replay, request, waits=not has_loop())
        if flow.call is not None:
            wait(replay, flow.call)
        return flow

    @classmethod
    async def of_async(cls, replay: Replay, request: ClientRequest) -> Flow:
        """``of``, in an event loop."""
        flow = cls.begun(replay, request, waits=has_loop())
        if flow.call is not None:
            await wait_async(replay, flow.call)
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
