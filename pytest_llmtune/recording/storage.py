"""The interactions of a recording: a small one's in memory, a large one's in their files, read when they are asked for."""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Sequence
from contextlib import nullcontext
from typing import IO, TYPE_CHECKING, overload

from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording import cassette_file, packing, parts
from pytest_llmtune.recording.format import Interaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["IN_MEMORY", "Stored", "load", "read_all"]


IN_MEMORY = 20_000_000
"""A recording of more bytes stays on disk."""
_DENSEST = 1000
"""Bytes that one compressed byte may stand for: a hundred small parts must not fill the disk. Answers have 5 to 50."""


def read_all(path: Path, *, torn: bool = False) -> Iterator[Interaction]:
    """All interactions of a recording, in order; none where there is no recording.

    Args:
        torn: whether the parts that are there will do where others are missing.

    Raises:
        RecordingError: a file is corrupt, truncated, too large, of an unknown version, or holds git conflict markers,
            and the message names the line; or parts are missing.
    """
    for file in parts.files_of(path, torn=torn):
        for _, interaction in _Part(file).scan():
            yield interaction


def load(path: Path, seen: Callable[[int, Interaction], None], *, torn: bool = False) -> Sequence[Interaction]:
    """A recording's interactions; each is shown once, with its position, while the files are read.

    Raises:
        RecordingError: as ``read_all``.
    """
    files = [_Part(file) for file in parts.files_of(path, torn=torn)]
    large = len(files) > 1 or sum(file.size for file in files) > IN_MEMORY
    kept: list[Interaction] = []
    stored = Stored()
    keep = stored.keep if large and all(file.is_own for file in files) else None
    for file in files:
        for offset, interaction in file.scan():
            seen(len(kept) + len(stored), interaction)
            if keep is None:
                kept.append(interaction)
            else:
                keep(file, offset)
    return tuple(kept) if keep is None else stored


class Stored(Sequence[Interaction]):
    """Interactions that stay in their files: memory does not grow with their texts."""

    def __init__(self) -> None:
        self._files: list[_Part] = []
        self._numbers, self._offsets = array("H"), array("Q")

    def keep(self, file: _Part, offset: int) -> None:
        """One more, which is to be found at this byte of its file."""
        if not self._files or self._files[-1] is not file:
            self._files.append(file)
        self._numbers.append(len(self._files) - 1)
        self._offsets.append(offset)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, position: int) -> Interaction: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Interaction, ...]: ...
    def __getitem__(self, position: int | slice) -> Interaction | tuple[Interaction, ...]:
        if isinstance(position, slice):
            return tuple(self[place] for place in range(*position.indices(len(self))))
        return self._files[self._numbers[position]].at(self._offsets[position])


class _Part:
    """One file of a recording; a compressed one is unpacked to disk once, when it is first read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unpacked: IO[bytes] | None = None
        self._stamp = _stamp(path)

    @property
    def size(self) -> int:
        return self._stamp[0]

    @property
    def is_own(self) -> bool:
        with self._open() as file:
            return cassette_file.is_own(file.readline())

    def scan(self) -> Iterator[tuple[int, Interaction]]:
        """Every interaction with the byte where its line begins."""
        with self._open() as file:
            yield from cassette_file.entries(self._path, file)

    def at(self, offset: int) -> Interaction:
        """The interaction whose line begins there.

        Raises:
            RecordingError: the file is not as it was.
        """
        if self._unpacked is None and _stamp(self._path) != self._stamp:
            raise RecordingError(f"the recording {self._path} was changed while it was replayed; run again")
        with self._open() as file:
            file.seek(offset)
            return cassette_file.entry(self._path, file.readline())

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        try:
            if self._path.suffix != parts.PACKED:
                return self._path.open("rb")
            if self._unpacked is None:
                most = min(cassette_file.MAX_BYTES, _DENSEST * self.size)
                self._unpacked = packing.unpacked(self._path, most)
                weakref.finalize(self, self._unpacked.close)
            self._unpacked.seek(0)
            return nullcontext(self._unpacked)
        except OSError as error:
            raise _unreadable(self._path, error) from error


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_size, found.st_mtime_ns


def _unreadable(path: Path, error: OSError) -> RecordingError:
    return RecordingError(f"the recording {path} cannot be read: {error.strerror or error}")
