"""Whatever client a test uses: the libraries beneath it, patched in front of the test's recording."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

from pytest_llmtune._util.aio import CURRENT, inside
from pytest_llmtune.capture import http_client_patch, httpcore_patch, lm15_patch, vcrpy_patch
from pytest_llmtune.capture.late import when_imported
from pytest_llmtune.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from pytest_llmtune.capture.session import Replay

__all__ = ["ActiveRecordings", "belonging_to", "recorded"]


class ActiveRecordings:
    """The recordings that are open in this process, and the one that a piece of running code belongs to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: tuple[Replay, ...] = ()

    @contextmanager
    def opened(self, replay: Replay, *, alone: bool = False) -> Iterator[None]:
        """The recording is open.

        Args:
            alone: the recordings that were open before are suspended meanwhile.
        """
        with self._lock:
            before = self._open
            self._open = (replay,) if alone else (*before, replay)
        try:
            yield
        finally:
            with self._lock:
                self._open = before if alone else tuple(other for other in self._open if other is not replay)

    def replay(self) -> Replay | None:
        """The recording that a request made here belongs to; None: it is nobody's.

        A thread that was started without its parent's context belongs to the only recording that is open, and so does
        code that kept the context of a recording that is closed, as an event loop that outlives a test does.

        Raises:
            RecordingError: such a thread, while several recordings are open; their tests fail with it too.
        """
        belongs, opened = CURRENT.get(), self._open
        if belongs is not None and (belongs[0] is None or belongs[0] in opened):
            return cast("Replay | None", belongs[0])
        if len(opened) > 1:
            error = RecordingError(
                f"a thread makes a request while {len(opened)} recordings are open, and belongs to none of them; "
                "start it with its parent's context: contextvars.copy_context().run"
            )
            for replay in opened:
                replay.fail(error)
            raise error
        return opened[0] if opened else None


@contextmanager
def recorded(replay: Replay) -> Iterator[Replay]:
    """Every HTTP request made in this context belongs to the recording, whatever client makes it.

    Several may be open at once, in threads of their own: each keeps to itself what its context, and the tasks and
    threads that inherit it, ask.
    """
    with replay, belonging_to(replay), inside(replay):
        yield replay


def belonging_to(replay: Replay, *, alone: bool = False) -> AbstractContextManager[None]:
    """Requests of this process belong to the recording, as far as no context says otherwise.

    Args:
        alone: the recordings that were open before are suspended meanwhile.
    """
    return _PATCHES.for_one(replay, alone=alone)


@contextmanager
def installed() -> Iterator[None]:
    """The libraries stay patched while in this context, so that opening many recordings one after another is cheap."""
    with _PATCHES.in_place():
        yield


class _Patches:
    """The libraries of this process are patched once, while any recording is open."""

    def __init__(self) -> None:
        self._belonging = ActiveRecordings()
        self._lock = threading.Lock()
        self._users = 0
        self._patched: list[tuple[Any, str, Any, Any]] = []  # owner, name, ours, the original
        self._late = ExitStack()

    @contextmanager
    def for_one(self, replay: Replay, *, alone: bool) -> Iterator[None]:
        with self.in_place(), self._belonging.opened(replay, alone=alone):
            yield

    @contextmanager
    def in_place(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._late.enter_context(when_imported(dict.fromkeys(_LIBRARIES, self._patch)))
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._late.close()
                    self._unpatch()

    def _patch(self, module: Any) -> None:
        for owner, name, ours in _LIBRARIES[module.__name__](module, self._belonging.replay):
            self._patched.append((owner, name, ours, getattr(owner, name)))
            setattr(owner, name, ours)

    def _unpatch(self) -> None:
        while self._patched:
            owner, name, ours, original = self._patched.pop()
            if getattr(owner, name) is ours:  # else somebody patched over ours, which asks for nobody any more
                setattr(owner, name, original)


_LIBRARIES: dict[str, Callable[[Any, Callable[[], Replay | None]], Iterable[tuple[Any, str, Any]]]] = {
    "httpcore": httpcore_patch.patches,
    "httpcore2": httpcore_patch.patches,
    **dict.fromkeys(http_client_patch.LIBRARIES, http_client_patch.patches),
    **dict.fromkeys(lm15_patch.LIBRARIES, lm15_patch.patches),
    **dict.fromkeys(vcrpy_patch.LIBRARIES, vcrpy_patch.patches),
}
_PATCHES = _Patches()
