"""Atomic writes, regular files only, spooled temporary data and file locks."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import stat
import sys
import tempfile
import weakref
from array import array
from contextlib import contextmanager
from itertools import zip_longest
from typing import IO, TYPE_CHECKING

from pytest_llmtune.errors import CacheError, RecordingError, SuiteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = [
    "Spool",
    "check_writable",
    "claimed",
    "exclusive",
    "from_here",
    "has_controls",
    "lock_file",
    "open_regular",
    "refuse_links",
    "write_bytes",
    "write_lines",
    "write_text",
]

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def has_controls(name: str) -> bool:
    """Whether a file's name holds what terminals, CI systems or XML obey: line ends, escapes, marks of direction."""
    return _CONTROLS.search(name) is not None


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading; a pipe, a device or a directory in its place is refused at once instead of waited for.

    A symbolic link is followed first; one that is put there meanwhile is not.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    flags = os.O_RDONLY | _flag("O_NONBLOCK") | _flag("O_NOFOLLOW") | _flag("O_CLOEXEC") | _flag("O_BINARY")
    file = os.fdopen(os.open(os.path.realpath(path), flags), "rb")  # a directory is refused by this
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def _flag(name: str) -> int:
    """A flag of ``os.open``, where the platform has it."""
    flag: int = getattr(os, name, 0)
    return flag


def check_writable(directory: Path) -> None:
    """Make and remove a file in a directory, or in the nearest one above that there is.

    Raises:
        OSError: nothing can be written there.
    """
    place = directory
    while not os.path.lexists(place):
        place = place.parent
    with tempfile.NamedTemporaryFile(dir=place, prefix=".llmtune-"):
        pass


def write_text(path: Path, text: str) -> bool:
    """Replace ``path`` by ``text`` (UTF-8, line ends as given) in one step; a crash or a full disk leaves the old file.

    Returns:
        False where the file already held this text, be it with the line ends of a Windows checkout, and nothing was
        written.

    Raises:
        OSError: the directory cannot be written to, or the disk is full.
    """
    return write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> bool:
    """As ``write_text``."""
    return write_lines(path, lambda: io.BytesIO(data))


def write_lines(path: Path, lines: Callable[[], Iterable[bytes]]) -> bool:
    """As ``write_text``, of lines with their ends, which are gone through twice: they need not be in memory."""
    if path.is_file() and _holds(path, lines()):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".llmtune-{secrets.token_hex(8)}.tmp")  # short: the name itself may be at the limit
    try:
        with temporary.open("xb") as file:  # created with the umask's permissions, as any new file
            file.writelines(lines())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return True


def _holds(path: Path, lines: Iterable[bytes]) -> bool:
    with open_regular(path) as file:
        pairs = zip_longest(file, lines)
        return all(old is not None and new in (old, old.replace(b"\r\n", b"\n")) for old, new in pairs)


def refuse_links(directories: Iterable[Path], root: Path) -> None:
    """Look at directories of ours and everything in them; one that is not there is fine.

    Raises:
        SuiteError: one of them is a link that leads out of the project, and out of the directory that holds it.
    """
    for directory in directories:
        allowed = (root.resolve(), directory.parent.resolve())
        for path in (directory, *directory.rglob("*")):
            if path.is_symlink() and not any(path.resolve().is_relative_to(place) for place in allowed):
                raise SuiteError(f"{path} is a symbolic link that leads out of the project {root}; remove it")


_IN_MEMORY = 500_000
"""Bytes, past which they go to disk, into a file without a name, gone with this process."""


class Spool:
    """Texts by the number under which they were put: memory does not grow with them, but by eight bytes for each."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="llmtune-")  # noqa: SIM115  # as long as this is
        self._ends = array("Q", [0])
        weakref.finalize(self, self._file.close)

    def put(self, text: str) -> int:
        """Keep a text; returns its number, counted from 0.

        Raises:
            CacheError: there is no room for temporary files.
        """
        data = text.encode("utf-8", "surrogatepass")
        try:
            self._file.seek(self._ends[-1])
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise CacheError(
                f"no temporary file can hold what was answered: {error.strerror or error}; free the disk, or name another "
                "directory in the environment variable TMPDIR, and run again: what was paid for before is kept"
            ) from None
        self._ends.append(self._ends[-1] + len(data))
        return len(self) - 1

    def get(self, number: int) -> str:
        """The text that was put under a number."""
        start, end = self._ends[number : number + 2]
        self._file.seek(start)
        return self._file.read(end - start).decode("utf-8", "surrogatepass")

    def __len__(self) -> int:
        return len(self._ends) - 1


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
        if not lock_file(file):
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
        yield lock_file(file)


def _holder(text: str) -> str:
    return f" (process {text.strip()})" if text.strip().isdecimal() else ""


if sys.platform == "win32":
    import msvcrt

    def lock_file(file: IO[str]) -> bool:
        """Lock the first byte of an open file until it is closed; False where another process has."""
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def lock_file(file: IO[str]) -> bool:
        """Lock the first byte of an open file until it is closed; False where another process has."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def from_here(path: Path) -> str:
    """The path as a command names it that is run where pytest was."""
    try:
        return os.path.relpath(path).replace(os.sep, "/")
    except ValueError:  # on another drive
        return str(path)
