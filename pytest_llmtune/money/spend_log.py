"""Log a run's spending on disk, so that the next run can report what a killed run spent."""

from __future__ import annotations

import os
import threading
import uuid
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.files import lock_file, open_append
from pytest_llmtune._util.text import parse_number

_MAX_CHARS = 10_000_000


@dataclass(slots=True, eq=False)
class SpendLog:
    """One file per process that spends anything, locked while it runs and removed when it ends normally."""

    directory: Path
    """``<root>/.llmtune/spend``."""
    _file: IO[str] | None = field(default=None, repr=False)
    _killed: list[IO[str]] = field(default_factory=list, repr=False)
    """Logs of killed runs, locked: if this run is killed too, the next one reports them."""
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def note(self, usd: Decimal) -> None:
        """Log that ``usd`` was billed; from any thread. A log that cannot be written does not stop the run."""
        with suppress(OSError), self._lock:
            if self._file is None:
                self.directory.mkdir(parents=True, exist_ok=True)
                path = self.directory / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.log"
                self._file = open_append(path)
                self._file.write(" \n")  # the first byte is locked
                lock_file(self._file)
            self._file.write(f"{usd}\n")
            self._file.flush()

    def close(self) -> None:
        """Remove the log, and those of killed runs: this one ended normally, and reports their spending and its own."""
        files = [*self._killed, *([self._file] if self._file is not None else [])]
        self._file, self._killed = None, []
        for file in files:
            with suppress(OSError):
                Path(file.name).unlink()
            file.close()

    def earlier(self) -> Decimal:
        """USD spent by killed runs, each reported once, by a run that ends normally."""
        spent = Decimal(0)
        for path in sorted(self.directory.glob("*.log")) if self.directory.is_dir() else ():
            with suppress(OSError):
                file = open_append(path)
                self._killed.append(file)
                if not lock_file(file):  # its run is alive, or another reports it
                    self._killed.pop().close()
                    continue
                file.seek(0)
                for line in file.read(_MAX_CHARS).split("\n")[:-1]:  # a kill may truncate the last
                    spent += max(parse_number(line) or Decimal(0), Decimal(0))
        return spent

    def __reduce__(self) -> Any:
        return type(None), ()  # a ledger sent to another process has no log: its spending is reported back here
