"""Patch HTTP libraries so that requests of any client go through the test's recording."""

from __future__ import annotations

import functools
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from pytest_llmtune._util.aio import CURRENT, inside
from pytest_llmtune.capture.http_client_patch import LIBRARIES as STANDARD
from pytest_llmtune.capture.http_client_patch import patches as standard_patches
from pytest_llmtune.capture.httpcore_patch import httpx_patches
from pytest_llmtune.capture.httpcore_patch import patches as httpcore_patches
from pytest_llmtune.capture.late import when_imported
from pytest_llmtune.capture.lm15_patch import LIBRARIES as LM15
from pytest_llmtune.capture.lm15_patch import patches as lm15_patches
from pytest_llmtune.capture.vcrpy_patch import LIBRARIES as VCRPY
from pytest_llmtune.capture.vcrpy_patch import patches as vcrpy_patches
from pytest_llmtune.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from pytest_llmtune.capture.session import Replay


class _ActiveRecordings:
    """The open recordings of this process, and which one the running code belongs to; libraries are patched meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: tuple[Replay, ...] = ()
        self._users = 0
        self._patched: list[tuple[Any, str, Any, Any]] = []  # owner, name, ours, the original
        self._late = ExitStack()

    @contextmanager
    def opened(self, replay: Replay, *, alone: bool) -> Iterator[None]:
        with self.installed():
            with self._lock:
                before = self._open
                self._open = (replay,) if alone else (*before, replay)
            try:
                yield
            finally:
                with self._lock:
                    self._open = before if alone else tuple(other for other in self._open if other is not replay)

    @contextmanager
    def installed(self) -> Iterator[None]:
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

    def replay(self) -> Replay | None:
        """The recording that a request made here belongs to; None: none.

        A thread started without its parent's context belongs to the only open recording, and so does code with the context of
        a closed recording, such as an event loop that outlives a test.

        Raises:
            RecordingError: such a thread, while several recordings are open; their tests fail too.
        """
        belongs, opened = CURRENT.get(), self._open
        if belongs is not None and (belongs[0] is None or belongs[0] in opened or belongs[0].owns_late_calls):
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

    def _patch(self, module: Any) -> None:
        for owner, name, ours in _LIBRARIES[module.__name__](module, self.replay):
            self._patched.append((owner, name, ours, getattr(owner, name)))
            setattr(owner, name, ours)

    def _unpatch(self) -> None:
        while self._patched:
            owner, name, ours, original = self._patched.pop()
            if getattr(owner, name) is ours:  # else patched over by others; ours is then inactive
                setattr(owner, name, original)


@contextmanager
def recorded(replay: Replay) -> Iterator[Replay]:
    """All HTTP requests made in this context, by any client, belong to the recording.

    Several may be open in different threads: each gets the requests of its context, and of tasks and threads that inherit
    it.
    """
    with replay, belonging_to(replay), inside(replay):
        yield replay


def belonging_to(replay: Replay, *, alone: bool = False) -> AbstractContextManager[None]:
    """Requests of this process belong to the recording, unless their context says otherwise.

    Args:
        alone: suspend the other open recordings.
    """
    return _RECORDINGS.opened(replay, alone=alone)


def installed() -> AbstractContextManager[None]:
    """Keep the libraries patched in this context, so that opening many recordings in turn is cheap."""
    return _RECORDINGS.installed()


def _executor_patches(module: Any, _: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """Work of a thread pool belongs to the recording of the code that submitted it; the pool may serve several."""
    yield module.ThreadPoolExecutor, "submit", _submitting(module.ThreadPoolExecutor.submit)


def _pool_patches(module: Any, _: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """The same of the thread pools of ``multiprocessing``, whose threads are started with the pool."""
    pool, original = module.ThreadPool, module.ThreadPool.__init__

    def with_named_arguments(submit: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(submit)
        def by_name(self: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
            return submit(self, func, *args, **kwargs)

        return by_name

    for name in ("apply_async", "imap", "imap_unordered", "_map_async"):
        yield pool, name, with_named_arguments(_submitting(getattr(pool, name)))

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        with _outside_runs():
            original(self, *args, **kwargs)

    yield pool, "__init__", init


def _thread_patches(module: Any, _: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """Threads started by a task's run belong to it; those of a test belong to the only open recording anyway."""
    original = module.Thread.start

    @functools.wraps(original)
    def start(thread: Any) -> None:
        belongs = CURRENT.get()
        if belongs is not None and belongs[0] is not None and belongs[0].owns_late_calls:
            run = thread.run

            def run_inside() -> None:
                with suppress(AttributeError):
                    del thread.run  # the thread holds itself no longer
                _called_inside(belongs[0], run)

            thread.run = run_inside
        original(thread)

    yield module.Thread, "start", start


@functools.cache
def _submitting(original: Callable[..., Any]) -> Callable[..., Any]:
    """A method that gives work to a pool, whose function then runs inside the submitter's recording."""

    @functools.wraps(original)
    def submit(pool: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if (belongs := CURRENT.get()) is None:
            return original(pool, function, *args, **kwargs)
        with _outside_runs():  # a thread that is started for it serves others too
            return original(pool, functools.partial(_called_inside, belongs[0], function), *args, **kwargs)

    return submit


@contextmanager
def _outside_runs() -> Iterator[None]:
    """Threads started in this context belong to no run."""
    token = CURRENT.set(None)
    try:
        yield
    finally:
        CURRENT.reset(token)


def _called_inside(replay: Replay | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    with inside(replay):
        return function(*args, **kwargs)


_LIBRARIES: dict[str, Callable[[Any, Callable[[], Replay | None]], Iterable[tuple[Any, str, Any]]]] = {
    "httpcore": httpcore_patches,
    "httpcore2": httpcore_patches,
    "httpx": httpx_patches,
    "httpx2": httpx_patches,
    **dict.fromkeys(STANDARD, standard_patches),
    **dict.fromkeys(LM15, lm15_patches),
    **dict.fromkeys(VCRPY, vcrpy_patches),
    "concurrent.futures.thread": _executor_patches,
    "multiprocessing.pool": _pool_patches,
    "threading": _thread_patches,
}
_RECORDINGS = _ActiveRecordings()
