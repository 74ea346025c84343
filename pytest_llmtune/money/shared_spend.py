"""What the processes of one run spend of one limit: a small table on disk that each of them keeps its line in."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune.errors import LLMTuneError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SharedSpend"]


_BUSY = 30.0  # seconds to wait for another process, which holds the table for less than a millisecond
_TABLE = "CREATE TABLE IF NOT EXISTS spend (process TEXT PRIMARY KEY, spent TEXT NOT NULL, reserved TEXT NOT NULL)"
_Figures = tuple[Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class SharedSpend:
    """The table, as one process of the run sees it; the first one to look makes it."""

    path: Path
    process: str
    """Who keeps this line: xdist's ``gw0``."""

    def others(self) -> _Figures:
        """USD that the other processes have spent, and have reserved for requests in flight.

        Raises:
            LLMTuneError: the table cannot be read.
        """
        try:
            with closing(self._connect()) as connection:
                return self._others(connection)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def publish(self, spent: Decimal, reserved: Decimal, limit: Decimal | None = None) -> bool:
        """Write what this process has spent and reserved, unless all together would pass the limit; else False.

        Raises:
            LLMTuneError: the table cannot be written.
        """
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")  # nobody else writes between the sum and the line
                if limit is not None and sum(self._others(connection), spent + reserved) > limit:
                    return False
                row = self.process, str(spent), str(reserved)
                connection.execute("INSERT OR REPLACE INTO spend VALUES (?, ?, ?)", row)
                connection.execute("COMMIT")
                return True
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def bury(self, process: str) -> None:
        """A process has died: what it had reserved may have been billed, and nobody will ever say.

        Raises:
            LLMTuneError: the table cannot be written.
        """
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                rows = connection.execute("SELECT spent, reserved FROM spend WHERE process = ?", (process,))
                for spent, reserved in rows.fetchall():
                    gone = str(Decimal(spent) + Decimal(reserved)), "0", process
                    connection.execute("UPDATE spend SET spent = ?, reserved = ? WHERE process = ?", gone)
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _connect(self) -> sqlite3.Connection:
        # one connection for each look: the threads of a process may all use it, and nothing is ever left open
        connection = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")  # it outlives a process, and need not outlive the machine
        connection.execute(_TABLE)
        return connection

    def _others(self, connection: sqlite3.Connection) -> _Figures:
        rows = connection.execute("SELECT spent, reserved FROM spend WHERE process != ?", (self.process,)).fetchall()
        zero = Decimal(0)
        return sum((Decimal(spent) for spent, _ in rows), zero), sum((Decimal(held) for _, held in rows), zero)

    def _unusable(self, error: sqlite3.Error) -> LLMTuneError:
        return LLMTuneError(
            f"--llm-max-spend cannot be shared among the processes of this run by {self.path}: {error}; "
            "run without -n, or where all workers are on this machine"
        )
