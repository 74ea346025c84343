"""Which recording the code that now runs belongs to: contexts keep threads and tasks of several tests apart."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pytest_llmtune.capture.session import CallRefusedError, Replay
from pytest_llmtune.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Belonging", "outside"]


_CURRENT: ContextVar[tuple[Replay | None] | None] = ContextVar("llmtune_replay", default=None)
"""What a context belongs to, as a tuple of one; None where nobody said."""


@contextmanager
def _inside(replay: Replay | None) -> Iterator[None]:
    token = _CURRENT.set((replay,))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def outside() -> AbstractContextManager[None]:
    """Requests made in this context go straight to the network, whatever is being recorded around it."""
    return _inside(None)


class Belonging:
    """The recordings that are open in this process, and the one that a piece of running code belongs to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: tuple[Replay, ...] = ()

    @property
    def any_open(self) -> bool:
        """Whether any recording is open."""
        return bool(self._open)

    @contextmanager
    def opened(self, replay: Replay) -> Iterator[None]:
        """The recording is open, and this context belongs to it."""
        with self._lock:
            self._open = (*self._open, replay)
        try:
            with _inside(replay):
                yield
        finally:
            with self._lock:
                self._open = tuple(other for other in self._open if other is not replay)

    def replay(self) -> Replay | None:
        """The recording that a request made here belongs to; None: it is nobody's.

        A thread that was started without its parent's context belongs to the only recording there is.

        Raises:
            CallRefusedError: such a thread, while several recordings are open.
        """
        if (belongs := _CURRENT.get()) is not None:
            return belongs[0]
        opened = self._open
        if len(opened) > 1:
            raise CallRefusedError(
                RecordingError(
                    f"a thread makes a request while {len(opened)} recordings are open, and belongs to none of them; "
                    "start it with its parent's context: contextvars.copy_context().run"
                )
            )
        return opened[0] if opened else None
