"""Files are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_bytes", "write_text"]


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
    if path.is_file() and data in ((old := path.read_bytes()), old.replace(b"\r\n", b"\n")):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".llmtune-{secrets.token_hex(8)}.tmp")  # short: the name itself may be at the limit
    try:
        with temporary.open("xb") as file:  # created with the umask's permissions, as any new file
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return True
