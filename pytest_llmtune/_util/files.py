"""One writer for each file: a lock that the operating system gives back when its holder ends, however it ends."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from pytest_llmtune.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["claimed", "exclusive"]


@contextmanager
def exclusive(path: Path, directory: Path) -> Iterator[None]:
    """Be the only one, among all processes and threads of this machine, to write the file ``path``.

    Args:
        directory: where lock files live; ``<root>/.llmtune/locks``.

    Raises:
        RecordingError: somebody else writes it; names the process. Or the directory cannot be written to.
    """
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / f"{name}.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise RecordingError(f"no lock for {path} can be made in {directory}: {error.strerror or error}") from error
    with file:
        if not _lock(file):
            file.seek(1)
            raise RecordingError(
                f"{path} is being written by another run{_holder(file.read())}; "
                "wait for it to end, or stop it, and run again"
            )
        _sign(file, path)
        yield


def _sign(file: IO[str], path: Path) -> None:
    try:
        file.truncate(0)
        file.write(f" {os.getpid()}")  # the first byte is the locked one: on Windows nobody else can read it
        file.flush()
    except OSError as error:  # what is paid for now could not be kept
        raise RecordingError(f"{path} cannot be recorded: {error.strerror or error}; free the disk") from error


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this is the one to hold a lock file, which it makes where there is none."""
    with path.open("a+", encoding="utf-8") as file:
        yield _lock(file)


def _holder(text: str) -> str:
    return f" (process {text.strip()})" if text.strip().isdecimal() else ""


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: IO[str]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
