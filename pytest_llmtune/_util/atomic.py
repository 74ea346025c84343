"""Files are written whole or not at all."""

from __future__ import annotations

import io
import os
import secrets
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["write_bytes", "write_lines", "write_text"]


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
    with path.open("rb") as file:
        pairs = zip_longest(file, lines)
        return all(old is not None and new in (old, old.replace(b"\r\n", b"\n")) for old, new in pairs)
