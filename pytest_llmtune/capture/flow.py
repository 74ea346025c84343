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

    from pytest_llmtune.capture.matching import Asked
    from pytest_llmtune.capture.session import Call, Replay
    from pytest_llmtune.recording.format import Interaction

__all__ = ["Flow", "turn", "turn_async"]


_LONGEST = 60.0  # seconds that a call waits for another one to go ahead: no test hangs for the sake of a limit


def turn(replay: Replay, asked: Asked) -> None:
    """Wait until a call may ask, in a thread; not in that of an event loop, whose calls it would hold up."""
    while asyncio._get_running_loop() is None and (ahead := replay.ahead(asked)) is not None:  # noqa: SLF001
        if not wait([ahead], _LONGEST).done:
            return


async def turn_async(replay: Replay, asked: Asked) -> None:
    """Wait until a call may ask, in an event loop of asyncio's."""
    while asyncio._get_running_loop() is not None and (ahead := replay.ahead(asked)) is not None:  # noqa: SLF001
        if not (await asyncio.wait([asyncio.wrap_future(ahead)], timeout=_LONGEST))[0]:
            return


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """A request that belongs to a recording, or is passed through."""

    replay: Replay
    kind: Kind
    call: Call | None
    """None: the request is neither recorded nor played."""

    @classmethod
    def of(cls, replay: Replay, asked: Asked) -> Flow:
        """Start handling a client's request.

        Raises:
            CallRefusedError: the request is not allowed.
        """
        kind = replay.kind(asked)
        if kind is Kind.REFUSE:
            return cls(replay, kind, replay.refuse(asked))
        did_you_mean = kind in (Kind.MODEL, Kind.RECORD)
        return cls(replay, kind, replay.ask(asked, counts=kind is Kind.MODEL) if did_you_mean else None)

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
