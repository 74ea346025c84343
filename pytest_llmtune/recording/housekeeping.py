"""Find and remove unused recordings; keep track of re-recording sessions."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.files import open_regular, write_text
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording.storage import recording_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator


_DIRECTORY = "llmtune"
_SUFFIXES = (".cassette.json", ".cassette.json.zst", ".lock.yaml")


def orphans(root: Path, in_use: Collection[Path]) -> list[Path]:
    """Suite files below ``root`` that no suite uses.

    Only lock files and recordings in directories named ``llmtune`` are considered; hidden directories and virtual
    environments are skipped.

    Args:
        in_use: lock files and recordings of all suites, collected without any selection.
    """
    used = {path.resolve() for path in in_use}
    return sorted(path for path in _files(root) if recording_of(path).resolve() not in used)


def remove(paths: Iterable[Path]) -> None:
    """Remove files, if they exist, and directories that become empty.

    Raises:
        RecordingError: a file cannot be removed.
    """
    for path in paths:
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()
        except OSError as error:
            raise RecordingError(f"{path} cannot be removed: {error.strerror or error}") from error


def _files(root: Path) -> Iterator[Path]:
    for name, directories, files in os.walk(root):
        directory = Path(name)
        directories[:] = [
            child
            for child in directories
            if not child.startswith(".") and child != "node_modules" and not (directory / child / "pyvenv.cfg").exists()
        ]
        if directory.name == _DIRECTORY:
            yield from (directory / file for file in files if file.endswith(_SUFFIXES))


_NAME = lazy_regex(r"record-[0-9a-f]{16}\n")


@dataclass(frozen=True, slots=True)
class RerecordSession:
    """The name under which a re-recording caches its answers, in a file, so that a killed run can resume.

    Only the holder of the recording's lock may use it.
    """

    file: Path
    today: bool = False
    """Whether only a run of today (UTC) is resumed."""

    @classmethod
    def of(cls, recording: Path, root: Path, *, today: bool = False) -> RerecordSession:
        """The session for a recording of the project at ``root``, or for a live run of all of it."""
        digest = hashlib.sha256(str(recording.resolve()).encode()).hexdigest()[:32]
        return cls(root / ".llmtune" / "anew" / f"{digest}{'-live' if today else ''}.txt", today)

    def begin(self) -> str:
        """The cache seed for this run: the killed run's, else a new one.

        Raises:
            RecordingError: the file cannot be written.
        """
        known, written, today = "", None, datetime.now(UTC).date()
        with self._usable():
            with suppress(FileNotFoundError), open_regular(self.file, follow=False) as file:
                known = file.read(100).decode(errors="replace")
                written = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC).date()
            if _NAME.fullmatch(known) and (written == today or not self.today):
                return known.strip()
            name = f"record-{secrets.token_hex(8)}"
            write_text(self.file, f"{name}\n")
        return name

    def end(self) -> None:
        """Forget the cached answers: the next run requests new ones.

        Raises:
            RecordingError: the file cannot be removed.
        """
        with self._usable():
            self.file.unlink(missing_ok=True)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = error.strerror or error
            raise RecordingError(f"{self.file} cannot be used: {what}; make the directory writable") from error
