"""Texts that are put away for later: a small number in memory, more of them on disk."""

from __future__ import annotations

import tempfile
import weakref
from array import array

from pytest_llmtune.errors import CacheError

__all__ = ["Spool"]


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
