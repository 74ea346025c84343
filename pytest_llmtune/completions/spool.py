"""Texts that are put away for later: a small number in memory, more of them on disk."""

from __future__ import annotations

import tempfile
import weakref

__all__ = ["Spool"]

_IN_MEMORY = 4_000_000
"""Bytes, past which they go to disk, into a file without a name, gone with this process."""


class Spool:
    """Texts by the place where they were put: memory does not grow with them."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="llmtune-")  # noqa: SIM115  # as long as this is
        self._end = 0
        weakref.finalize(self, self._file.close)

    def put(self, text: str) -> tuple[int, int]:
        """Keep a text; returns where.

        Raises:
            OSError: the disk is full.
        """
        data = text.encode("utf-8", "surrogatepass")
        place = self._end, len(data)
        self._file.seek(self._end)
        self._file.write(data)
        self._end += len(data)
        return place

    def get(self, place: tuple[int, int]) -> str:
        """The text that was put there."""
        start, size = place
        self._file.seek(start)
        return self._file.read(size).decode("utf-8", "surrogatepass")
