"""Notes of the batches under way, one small file each: a run that died finds its batches again."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_llmtune._util.atomic import write_text
from pytest_llmtune.wire.response import parse_object

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

__all__ = ["BatchNote", "BatchNotes"]


_OLDEST = 2 * 86_400.0
"""Seconds after which a note counts no more: batches end after a day."""
_MAX_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class BatchNote:
    """One batch."""

    name: str
    """A digest of its requests."""
    requests: frozenset[str]
    """The ids of its requests; nothing of what they say."""
    batch: str | None = None
    """The provider's name for it; None: it was about to be created."""


@dataclass(frozen=True, slots=True)
class BatchNotes:
    """The notes in a directory."""

    directory: Path

    def holding(self, ids: Sequence[str]) -> tuple[list[BatchNote], Collection[str]]:
        """The notes that hold any of these requests, and the requests that none holds; a request is in one note."""
        rest, found = set(ids), []
        for note in self._all():
            if mine := rest & note.requests:
                found.append(replace(note, requests=frozenset(mine)))
                rest -= mine
        return found, rest

    def begin(self, ids: Sequence[str]) -> BatchNote:
        """Note a batch that is about to be created."""
        name = hashlib.sha256("\n".join([*ids, str(time.time())]).encode()).hexdigest()[:32]
        note = BatchNote(name, frozenset(ids))
        self._write(note)
        return note

    def created(self, note: BatchNote, batch: str) -> BatchNote:
        """The provider has it."""
        whole = self._read(self._path(note)) or note
        self._write(replace(whole, batch=batch))
        return replace(note, batch=batch)

    def forget(self, note: BatchNote) -> None:
        """Everything that was in it has arrived, or nothing ever will."""
        self._path(note).unlink(missing_ok=True)

    def _path(self, note: BatchNote) -> Path:
        return self.directory / f"{note.name}.json"

    def _write(self, note: BatchNote) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        document = {"batch": note.batch, "requests": sorted(note.requests)}
        write_text(self._path(note), json.dumps(document))

    def _all(self) -> list[BatchNote]:
        paths = sorted(self.directory.glob("*.json")) if self.directory.is_dir() else []
        fresh = [path for path in paths if time.time() - path.stat().st_mtime < _OLDEST]
        return [note for path in fresh if (note := self._read(path)) is not None]

    def _read(self, path: Path) -> BatchNote | None:
        """None where it is not a note of ours."""
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return None
        match parse_object(path.read_text(encoding="utf-8", errors="replace")):
            case {"batch": str() | None as batch, "requests": list(requests)}:
                return BatchNote(path.stem, frozenset(map(str, requests)), batch)
        return None
