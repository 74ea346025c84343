"""Recording and network access of a test, from its first fixture to its last finaliser."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from pytest_llmtune._util.aio import inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_llmtune.capture.netguard import Offline
    from pytest_llmtune.capture.session import Replay


class Scope:
    """Recording and network block of a test, or of a fixture with a wider scope: opened once, run in phases, closed.

    Args:
        replay: its recording; None: none.
        every_client: whether all clients' requests belong to the recording, and not only those of our fixtures.
        offline: blocks the network; None: it is open in this mode.
    """

    def __init__(self, replay: Replay | None, *, every_client: bool, offline: Offline | None) -> None:
        self.replay = replay
        self._every_client = every_client
        self._offline = offline
        self._stack = ExitStack()
        self._open = False
        self.failed = False
        """Whether one of its phases failed."""
        self._interrupted = False

    def open(self) -> None:
        """Block the network, read the recording, and patch HTTP libraries.

        Raises:
            RecordingError: the recording cannot be read, or is being written by another run.
        """
        if self._open:
            return
        with ExitStack() as stack:
            if self._offline is not None:
                stack.enter_context(self._offline.shut())
            if self.replay is not None:
                self.replay.start()
                if self._every_client:
                    from pytest_llmtune.capture.patches import belonging_to

                    stack.enter_context(belonging_to(self.replay, alone=True))
            self._stack, self._open = stack.pop_all(), True

    @contextmanager
    def phase(self) -> Iterator[None]:
        """Run setup, call or teardown; problems are raised at its end, even if the code swallowed the errors.

        Raises:
            LLMTuneError: unrecorded calls, exceeded limits, blocked connections.
        """
        try:
            with inside(self.replay) if self.replay is not None and self._every_client else nullcontext():
                yield
        except BaseException as error:
            self.failed = True
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                self._interrupted = True
            else:
                self._verify(error)
            raise
        try:
            self._verify(None)
        except BaseException:
            self.failed = True
            raise

    def close(self, *, failed: bool = False) -> None:
        """Write the recording, and unblock the network.

        Args:
            failed: the test or fixture failed for another reason.

        Raises:
            LLMTuneError: the recording cannot be written, or has a response that cannot be recorded.
        """
        self._open = False
        with self._stack:
            if self.replay is not None:
                failed = failed or self.failed
                self.replay.close(failed=failed, interrupted=self._interrupted)
                if not failed:
                    self.replay.verify()

    def suspend(self) -> None:
        """Remove the network block and the patches until the next ``open``; the recording is kept."""
        self._open = False
        self._stack.close()

    def _verify(self, error: BaseException | None) -> None:
        if self.replay is not None:
            self.replay.verify(error, limits=not self.failed)
        if self._offline is not None:
            self._offline.verify(error)
