"""``--llm-record=all`` asks everything anew, once: a run of it that was killed is gone on with, for nothing.

What such a run pays for is kept in the cache under a name of its own. The name stands in a small file from the run's
start until its result was written and told; a run that finds it there goes on with what the killed one has paid for.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmtune._util.atomic import write_text
from pytest_llmtune.errors import RecordingError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Anew"]


_NAME = re.compile(r"record-[0-9a-f]{16}\n")


@dataclass(frozen=True, slots=True)
class Anew:
    """The file of one recording; only who holds the recording's lock touches it."""

    file: Path

    @classmethod
    def of(cls, recording: Path, root: Path) -> Anew:
        """The file for a recording of the project at ``root``."""
        digest = hashlib.sha256(str(recording.resolve()).encode()).hexdigest()[:32]
        return cls(root / ".llmtune" / "anew" / f"{digest}.txt")

    def begin(self) -> str:
        """Where the cache keeps what is asked: the killed run's name, else a new one.

        Raises:
            RecordingError: it cannot be written.
        """
        try:
            with self.file.open(encoding="utf-8", errors="replace") as file:
                known = file.read(100)
        except FileNotFoundError:
            known = ""
        except OSError as error:
            raise self._unusable(error) from error
        if _NAME.fullmatch(known):
            return known.strip()
        name = f"record-{secrets.token_hex(8)}"
        try:
            write_text(self.file, f"{name}\n")
        except OSError as error:
            raise self._unusable(error) from error
        return name

    def end(self) -> None:
        """The answers are of no more use: the next run asks anew.

        Raises:
            RecordingError: the file cannot be removed.
        """
        try:
            self.file.unlink(missing_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> RecordingError:
        return RecordingError(f"{self.file} cannot be used: {error.strerror or error}; make the directory writable")
