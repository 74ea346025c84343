"""What a run has spent so far, on disk: the next run tells of one that was killed."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any

from pytest_llmtune._util.files import claimed, lock_file

__all__ = ["SpendLog"]


@dataclass(slots=True, eq=False)
class SpendLog:
    """One file for each process that spends anything, locked while it runs, and removed when it ends by itself."""

    directory: Path
    """``<root>/.llmtune/spend``."""
    _file: IO[str] | None = field(default=None, repr=False)

    def note(self, usd: Decimal) -> None:
        """So many USD more were billed. A log that cannot be written is no reason to stop: it only tells."""
        with suppress(OSError):
            if self._file is None:
                self.directory.mkdir(parents=True, exist_ok=True)
                path = self.directory / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.log"
                self._file = path.open("a+", encoding="utf-8")
                self._file.write(" \n")  # the first byte is the locked one
                lock_file(self._file)
            self._file.write(f"{usd}\n")
            self._file.flush()

    def close(self) -> None:
        """The run has come to its end, and tells itself what it spent."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()
            with suppress(OSError):
                Path(file.name).unlink()

    def earlier(self) -> Decimal:
        """USD that killed runs had spent; each is told of once."""
        spent = Decimal(0)
        for path in sorted(self.directory.glob("*.log")) if self.directory.is_dir() else ():
            with suppress(OSError):
                with claimed(path) as gone:
                    spent += _sum(path.read_text(encoding="utf-8")) if gone else 0
                if gone:
                    path.unlink()
        return spent

    def __reduce__(self) -> Any:
        return type(None), ()  # the ledger that goes to another process has no log: this process hears what is spent


def _sum(text: str) -> Decimal:
    """Of the lines that a kill did not tear."""
    spent = Decimal(0)
    for line in text.split("\n")[:-1]:
        with suppress(InvalidOperation):
            usd = Decimal(line.strip() or "0")
            spent += usd if usd.is_finite() and usd > 0 else 0
    return spent
