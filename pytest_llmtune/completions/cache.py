"""The cache of paid completions, keyed by seed and request."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.files import open_regular
from pytest_llmtune.errors import CacheError
from pytest_llmtune.types import Exchange

if TYPE_CHECKING:
    from pathlib import Path

    import diskcache


VERSION = 1
_APPLICATION = 0x6C6C6D74  # "llmt" in the header of the SQLite file marks it as ours
_DATABASE = "cache.db"
_CORRUPT = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})

T = TypeVar("T")


class _UntrustedError(Exception):
    """The files at the cache's path were not written by us."""


@dataclass(slots=True)
class Cache:
    """Exchanges by request key, in order of arrival; several processes may share a cache.

    What reads or writes raises a CacheError if the files cannot be used: locked for too long, no permission, a full disk.
    """

    path: Path
    """A directory, created on first use."""
    seed: int | str = 0
    """Different seeds do not see each other's samples."""
    notes: list[str] = field(default_factory=list)
    """Remarks for the user: where an untrusted cache was moved."""
    _store: diskcache.Cache | None = None

    def get(self, key: str) -> tuple[Exchange, ...]:
        """All exchanges of a request, oldest first."""

        def read(store: diskcache.Cache) -> tuple[Exchange, ...]:
            exchanges: list[Exchange] = []
            while (value := store.get(self._name(key, len(exchanges)))) is not None:
                exchanges.append(_exchange(value))
            return tuple(exchanges)

        return self._safely(read)

    def add(self, key: str, exchange: Exchange, *, after: int = 0) -> None:
        """Store an exchange; it is on disk when this returns.

        Args:
            after: number of exchanges known to be stored already.

        Raises:
            CacheError: it cannot be written, so that no further request should be sent.
        """
        value = asdict(exchange)

        def write(store: diskcache.Cache) -> None:
            index = after
            while self._name(key, index) in store or not store.add(self._name(key, index), value):
                index += 1

        self._safely(write)

    def recall(self, name: str) -> Any:
        """The JSON value stored under a name; None if absent. It may be untrusted."""
        return self._safely(lambda store: store.get(f"{self.seed}/{name}"))

    def remember(self, name: str, value: Any) -> None:
        """Store a JSON value next to the exchanges.

        Args:
            name: must not be a request key, which has 64 hex digits.
        """
        self._safely(lambda store: store.set(f"{self.seed}/{name}", value))

    def close(self) -> None:
        """Close the files; the next use reopens them."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _name(self, key: str, index: int) -> str:
        return f"{self.seed}/{key}/{index}"

    def _safely(self, action: Callable[[diskcache.Cache], T]) -> T:
        """Run an action; if the files turn out not to be ours, move them away and run it with new ones."""
        import diskcache

        from pytest_llmtune.completions.disk import RefusedRowError

        try:
            try:
                return action(self._opened())
            except (_UntrustedError, RefusedRowError) as error:
                reason = str(error)
            except sqlite3.DatabaseError as error:
                code = getattr(error, "sqlite_errorcode", None)  # None: Python could not decode a string
                if code is not None and code & 0xFF not in _CORRUPT:
                    raise
                reason = f"it is corrupt: {error}"
            except UnicodeDecodeError as error:  # SQLite does not validate text
                reason = f"it is corrupt: {error.reason} in a text"
            self._set_aside(reason)
            return action(self._opened())
        except (OSError, sqlite3.Error, diskcache.Timeout) as error:
            raise CacheError(
                f"the cache of paid completions {self.path} cannot be used: {str(error) or 'locked or read-only'}; "
                "free disk space, or make the directory writable, and run again: what was paid for before is kept"
            ) from None

    def _opened(self) -> diskcache.Cache:
        if self._store is None:
            from pytest_llmtune.completions.disk import DataCache

            if os.path.expandvars(self.path) != str(self.path):  # diskcache would expand it
                raise OSError("its path has the name of an environment variable")
            _prepare(self.path)
            self._store = DataCache(
                str(self.path),
                eviction_policy="none",  # paid answers are never evicted
                cull_limit=0,
                sqlite_auto_vacuum=0,
                sqlite_cache_size=1024,  # pages, 4 MiB: eight times as many would fill with the rows
                sqlite_mmap_size=0,  # a file truncated by another process would crash this one
            )
        return self._store

    def _set_aside(self, reason: str) -> None:
        self.close()
        aside = self.path.with_name(f"{self.path.name}.set-aside-{secrets.token_hex(4)}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:  # another process was first
            return
        self.notes.append(f"the cache {self.path} was set aside as {aside.name}: {reason}; a new one was begun")


def _exchange(value: Any) -> Exchange:
    shape = {"method": str, "uri": str, "request": dict, "response": dict, "status": int, "headers": dict}
    if not isinstance(value, Mapping) or not all(isinstance(value.get(name), kind) for name, kind in shape.items()):
        raise _UntrustedError("an entry is not a recorded exchange")
    latency, recorded = float(value.get("latency") or 0.0), str(value.get("recorded") or "")[:10]
    return Exchange(**{name: value[name] for name in shape}, latency=latency, recorded=recorded)


def _prepare(path: Path) -> None:
    """Create the database file, or check that the existing one is ours, before anything else reads it."""
    path.mkdir(parents=True, exist_ok=True)
    file = path / _DATABASE
    if not file.exists():
        _create(file)
    for name in (f"{_DATABASE}-wal", f"{_DATABASE}-shm", f"{_DATABASE}-journal"):  # SQLite opens them too
        with suppress(FileNotFoundError), open_regular(path / name, follow=False):
            pass
    with open_regular(file, follow=False) as header:
        head = header.read(72)
    if head[:16] != b"SQLite format 3\0" or int.from_bytes(head[68:72], "big") != _APPLICATION:
        raise _UntrustedError("it was not written by pytest-llmtune")
    if (version := int.from_bytes(head[60:64], "big")) != VERSION:
        raise _UntrustedError(f"it has version {version}, and this pytest-llmtune reads version {VERSION}")
    _check_settings(file)


def _create(file: Path) -> None:
    """Atomically create an empty database with our mark."""
    new = file.with_name(f"new-{secrets.token_hex(8)}.db")
    with closing(sqlite3.connect(new, isolation_level=None)) as database:
        database.execute(f"PRAGMA application_id = {_APPLICATION}")
        database.execute(f"PRAGMA user_version = {VERSION}")
    try:
        os.link(new, file)
    except FileExistsError:  # another process was faster
        return
    except OSError:  # no hard links on this file system
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _check_settings(file: Path) -> None:
    """Check the settings table, from which diskcache sets attributes and pragmas: only its own are allowed."""
    from diskcache.core import DEFAULT_SETTINGS, METADATA

    with closing(sqlite3.connect(file, timeout=60)) as database:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'Settings'").fetchone() is None:
            return
        rows = database.execute("SELECT key, value FROM Settings").fetchall()
    known = DEFAULT_SETTINGS.keys() | METADATA.keys()
    if not all(key in known and (isinstance(value, int) or value in ("none", "wal")) for key, value in rows):
        raise _UntrustedError("its settings are not ours")
