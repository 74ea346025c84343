"""Open and write files safely: regular files only, atomic writes, spooled temporary data, and file locks.

All files of a project are opened here, because a checkout may contain symbolic links, pipes and devices in their place.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import stat
import sys
import tempfile
import weakref
from array import array
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from typing import IO, TYPE_CHECKING

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import CacheError, RecordingError, SuiteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


_CONTROLS = lazy_regex("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def has_controls(name: str) -> bool:
    """Whether a file name contains control characters: line breaks, escapes, bidirectional marks."""
    return _CONTROLS.search(name) is not None


def open_regular(path: Path, *, follow: bool = True) -> IO[bytes]:
    """Open a regular file for reading; a pipe, device or directory is refused without blocking.

    Args:
        follow: resolve a symbolic link first; one that appears in the meantime is not followed. False for files that only
            this package writes, below ``.llmtune/``: there a link is refused.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    return open(path, "rb", opener=partial(_opened, follow=follow))


def read_regular(path: Path, most: int, *, follow: bool = True) -> bytes:
    """The content of a regular file.

    Args:
        most: limit in bytes.
        follow: as for ``open_regular``.

    Raises:
        OSError: it cannot be opened, is not a regular file, or is larger.
    """
    with open_regular(path, follow=follow) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than the limit of {most:,} bytes", str(path))
    return content


def open_append(path: Path) -> IO[str]:
    """Open a file below ``.llmtune/`` for reading and appending text, as mode ``a+`` does; a symbolic link is refused.

    Raises:
        OSError: it cannot be opened or created, or is not a regular file.
    """
    return open(path, "a+", encoding="utf-8", errors="replace", opener=partial(_opened, follow=False))


def _opened(path: str, flags: int, *, follow: bool) -> int:
    linked = os.path.islink(path)  # noqa: PTH114  # of a string
    if linked and not follow:  # not every platform has O_NOFOLLOW
        raise OSError(errno.ELOOP, "a symbolic link", path)
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(os.path.realpath(path) if linked else path, flags, 0o666)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def check_writable(directory: Path) -> None:
    """Create and remove a file in a directory, or in its nearest existing parent.

    Raises:
        OSError: the directory is not writable.
    """
    while not os.path.lexists(directory):
        directory = directory.parent
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".llmtune-"):
        pass


def write_text(path: Path, text: str) -> bool:
    """Atomically replace ``path`` by ``text`` (UTF-8, line endings as given); a crash or a full disk leaves the old file.

    Returns:
        False if the file already had this text (possibly with CRLF line endings), so that nothing was written.

    Raises:
        OSError: the directory is not writable, or the disk is full.
    """
    return write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> bool:
    """Like ``write_text``, for bytes."""
    return write_lines(path, lambda: io.BytesIO(data))


def write_lines(path: Path, lines: Callable[[], Iterable[bytes]]) -> bool:
    """Like ``write_text``, for lines with their endings, which are iterated twice and need not fit in memory."""
    if path.is_file():
        with open_regular(path) as file:
            pairs = zip_longest(file, lines())
            if all(old is not None and new in (old, old.replace(b"\r\n", b"\n")) for old, new in pairs):
                return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".llmtune-{secrets.token_hex(8)}.tmp")  # short: the name itself may be at the limit
    try:
        with temporary.open("xb") as file:  # with the umask's permissions, like any new file
            file.writelines(lines())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return True


def refuse_links(directories: Iterable[Path], root: Path) -> None:
    """Check that these directories, which need not exist, have no symbolic link that leaves the project, and no pipe or device.

    Raises:
        SuiteError: a link leads out of the project, and out of the directory that contains it; or what is no regular file.
    """
    for directory in directories:
        allowed = (root.resolve(), directory.parent.resolve())
        for path in (directory, *directory.rglob("*")):
            try:
                mode = path.lstat().st_mode
            except OSError:
                continue  # not there, or no longer
            if stat.S_ISLNK(mode):
                if not any(path.resolve().is_relative_to(parent) for parent in allowed):
                    raise SuiteError(f"{path} is a symbolic link that leads out of the project {root}; remove it")
                mode = path.resolve().stat().st_mode if path.exists() else stat.S_IFREG
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise SuiteError(f"{path} is not a regular file; remove it")


_IN_MEMORY = 500_000
"""Bytes above which a spool moves to disk, into an unnamed file that is deleted with this process."""


class Spool:
    """Stores texts on disk under consecutive numbers; takes eight bytes of memory for each."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="llmtune-")  # noqa: SIM115  # as long as this is
        self._ends = array("Q", [0])
        weakref.finalize(self, self._file.close)

    def put(self, text: str) -> int:
        """Store a text; returns its number, from 0.

        Raises:
            CacheError: no space for temporary files.
        """
        data = text.encode("utf-8", "surrogatepass")
        try:
            self._file.seek(self._ends[-1])
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise CacheError(
                f"responses cannot be written to a temporary file: {error.strerror or error}; free disk space, or set "
                "the environment variable TMPDIR to another directory, and run again: what was paid for is kept"
            ) from None
        self._ends.append(self._ends[-1] + len(data))
        return len(self) - 1

    def get(self, number: int) -> str:
        """The text stored under a number."""
        start, end = self._ends[number : number + 2]
        self._file.seek(start)
        return self._file.read(end - start).decode("utf-8", "surrogatepass")

    def __len__(self) -> int:
        return len(self._ends) - 1


@contextmanager
def exclusive(path: Path, directory: Path) -> Iterator[None]:
    """Hold an exclusive lock for writing ``path``, among all processes and threads of this machine.

    Args:
        directory: of lock files; ``<root>/.llmtune/locks``.

    Raises:
        RecordingError: another run holds the lock (the message names its process), or the directory is not writable.
    """
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = open_append(directory / f"{name}.lock")
    except OSError as error:
        raise RecordingError(f"cannot create a lock for {path} in {directory}: {error.strerror or error}") from error
    with file:
        if not lock_file(file):
            file.seek(1)
            process = file.read().strip()
            holder = f" (process {process})" if process.isdecimal() else ""
            raise RecordingError(
                f"{path} is being written by another run{holder}; wait for it to finish, or stop it, and run again"
            )
        try:
            file.truncate(0)
            file.write(f" {os.getpid()}")  # the first byte is locked: on Windows other processes cannot read it
            file.flush()
        except OSError as error:  # a paid response could not be saved
            raise RecordingError(f"{path} cannot be recorded: {error.strerror or error}; free disk space") from error
        yield


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process got the lock on a file, which is created if it does not exist."""
    with open_append(path) as file:
        yield lock_file(file)


if sys.platform == "win32":
    import msvcrt

    def lock_file(file: IO[str]) -> bool:
        """Lock the first byte of an open file until it is closed; False if another process holds the lock."""
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def lock_file(file: IO[str]) -> bool:
        """Lock the first byte of an open file until it is closed; False if another process holds the lock."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def relative_to_cwd(path: Path) -> str:
    """The path as a command names it that is run where pytest was."""
    try:
        return os.path.relpath(path).replace(os.sep, "/")
    except ValueError:  # on another drive
        return str(path)
