"""A diskcache disk that never unpickles."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from contextlib import suppress
from typing import Any, NoReturn

import diskcache

MAX_BYTES = 64 * 2**20
"""Limit for a decompressed value: a small file must not exhaust memory."""

_RAW = 1  # diskcache's mode for a value stored in the row itself


class RefusedRowError(ValueError):
    """A row of the cache was not written by us."""


class _Connection(sqlite3.Connection):
    """Closed when it is dropped, by whichever thread; Python 3.13 warns of one that is left open."""

    def __del__(self) -> None:
        self.close()


class DataCache(diskcache.Cache):  # type: ignore[misc]
    """A cache whose database is closed even if opening finds it damaged."""

    @property
    def _con(self) -> sqlite3.Connection:
        """This thread's connection, as diskcache opens it."""
        if getattr(self._local, "pid", None) != os.getpid():  # the thread's first, or after a fork
            self.close()
            self._local.pid = os.getpid()
        if getattr(self._local, "con", None) is None:
            file = os.path.join(self._directory, "cache.db")  # noqa: PTH118 - as diskcache does
            options: dict[str, Any] = {"timeout": self._timeout, "isolation_level": None, "check_same_thread": False}
            self._local.con = sqlite3.connect(file, factory=_Connection, **options)
            with suppress(sqlite3.OperationalError):  # a new one has no settings yet
                for key, value in self._sql("SELECT key, value FROM Settings").fetchall():
                    if key.startswith("sqlite_"):
                        self.reset(key, value, update=False)
        found: sqlite3.Connection = self._local.con
        return found

    def __init__(self, directory: str, **settings: Any) -> None:
        try:
            super().__init__(directory, disk=DataDisk, **settings)
        except BaseException:
            self.close()
            raise


class DataDisk(diskcache.Disk):  # type: ignore[misc]
    """Text keys and JSON values in SQLite; nothing else is read or written."""

    def put(self, key: Any) -> tuple[str, bool]:
        """The key as stored in the database."""
        if not isinstance(key, str):
            raise RefusedRowError(f"a key of the cache is {type(key).__name__}, not text")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        """The key of a row."""
        if not raw or not isinstance(key, str):
            raise RefusedRowError("a key of the cache is pickled or not text")
        return key

    def store(self, value: Any, read: bool, key: Any = None) -> tuple[int, int, None, sqlite3.Binary]:  # noqa: ARG002
        """(size, mode, file name, value) of a row."""
        if read:
            raise RefusedRowError("the cache keeps no files")
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return 0, _RAW, None, sqlite3.Binary(zlib.compress(text.encode("utf-8", "surrogatepass"), 1))

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> Any:
        """The value of a row.

        Raises:
            RefusedRowError: the row is pickled, names a file, is too large, or is not JSON.
        """
        if mode != _RAW or filename is not None or read or not isinstance(value, bytes):
            raise RefusedRowError("a row of the cache is pickled, or in a file")
        unzip = zlib.decompressobj()
        try:
            data = unzip.decompress(value, MAX_BYTES)
            if unzip.unconsumed_tail or not unzip.eof:
                raise RefusedRowError(f"a row of the cache is truncated, or larger than {MAX_BYTES} bytes")
            return json.loads(data.decode("utf-8", "surrogatepass"))
        except (zlib.error, ValueError, RecursionError) as error:
            raise RefusedRowError(f"a row of the cache is corrupt: {error}") from None

    def remove(self, file_path: Any) -> NoReturn:
        """Refuse to delete a file that a row names; our rows name none."""
        raise RefusedRowError(f"a row of the cache names the file {file_path!r:.100}")
