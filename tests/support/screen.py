"""A command on a real pseudo-terminal, and what a person would have seen on it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["PYTEST", "Seen", "on_a_terminal"]

PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]


@dataclass
class Seen:
    """The screen over time."""

    sent: bytes = b""
    """All that the command wrote."""
    moments: list[tuple[str, ...]] = field(default_factory=list)
    """The lines of the screen, after each piece that arrived."""
    cursor_hidden: bool = False
    code: int = 0

    @property
    def end(self) -> str:
        return "\n".join(self.moments[-1])


def on_a_terminal(
    command: Sequence[str],
    directory: Path,
    *,
    width: int = 80,
    height: int = 50,
    watch: Callable[[Any], None] = lambda _: None,
) -> Seen:
    """Run a command to its end on a terminal of this size; ``watch`` gets pyte's screen after each piece that arrived."""
    if sys.platform == "win32":
        pytest.skip("needs a pseudo-terminal")
    import fcntl
    import pty
    import struct
    import termios

    pyte = pytest.importorskip("pyte", reason="needs a terminal emulator: pip install pyte")
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "CI")}
    process = subprocess.Popen(
        command, cwd=directory, stdin=writer, stdout=writer, stderr=writer, env=environment | {"TERM": "xterm-256color"}
    )
    os.close(writer)
    screen, seen = pyte.Screen(width, height), Seen()
    stream = pyte.ByteStream(screen)
    while data := _read(reader):
        seen.sent += data
        stream.feed(data)
        seen.moments.append(tuple(line.rstrip() for line in screen.display))
        watch(screen)
    os.close(reader)
    seen.cursor_hidden, seen.code = screen.cursor.hidden, process.wait()
    return seen


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65_536)
    except OSError:  # how Linux says that the other end is closed
        return b""
