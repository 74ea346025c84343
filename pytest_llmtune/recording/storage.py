"""Read recordings: in memory, packed, or in parts."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import sys
import tempfile
import time
import weakref
from array import array
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any, overload

from pytest_llmtune._util.files import open_regular
from pytest_llmtune.errors import DamagedRecordingError, RecordingError
from pytest_llmtune.recording.format import MAX_BYTES, Interaction, entries, entry, is_own_format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_llmtune.settings import Settings

__all__ = [
    "IN_MEMORY",
    "PACKED",
    "Layout",
    "Stored",
    "files_of",
    "leftovers",
    "load_interactions",
    "pack",
    "place",
    "read_all",
    "unpacked",
    "whole",
]


PACKED = ".zst"
"""What the name of a compressed part ends with."""
_SUFFIX = ".cassette.json"
_PART = re.compile(r"(?P<stem>.+)\.(?P<number>\d{1,5})-of-(?P<count>\d{1,5})\.cassette\.json(\.zst)?")


@dataclass(frozen=True, slots=True)
class Layout:
    """How recordings are laid out on disk."""

    part_bytes: int = 20_000_000
    """A recording of more bytes is split into parts that have less, on average."""
    compressed: bool = False
    """Whether parts are compressed by zstd."""

    @classmethod
    def of(cls, settings: Settings) -> Layout:
        """The layout that the options ask for."""
        return cls(int(settings.part_size * 1_000_000), settings.compress)

    def files(self, path: Path, size: int) -> tuple[Path, ...]:
        """Where a recording of so many bytes goes: one file, or its parts in order."""
        count = self._count(size, len(_in_force(path)))
        if count == 1:
            return (path,)
        stem, width = path.name.removesuffix(_SUFFIX), len(str(count))
        packed = PACKED if self.compressed else ""
        return tuple(
            path.with_name(f"{stem}.{number:0{width}}-of-{count}{_SUFFIX}{packed}") for number in range(1, count + 1)
        )

    def _count(self, size: int, before: int) -> int:
        """The least power of two that will do; while a quarter would do, fewer than there are do not pay the move."""
        count = 1
        while size > count * self.part_bytes:
            count *= 2
        return before if count < before and size * 4 > before * self.part_bytes else count


def place(files: Sequence[Path], request: str) -> Path:
    """The file of a request, by its content alone."""
    digest = hashlib.sha256(request.encode("utf-8", "surrogatepass")).digest()
    return files[int.from_bytes(digest[:8], "big") % len(files)]


def files_of(path: Path, *, torn: bool = False) -> tuple[Path, ...]:
    """The files that a recording lies in, in order; none where there is no recording.

    While a recording changes its layout, old and new parts stand side by side: of complete sets, that with the most
    parts is in force, so that a run that was killed leaves one whole recording.

    Args:
        torn: whether the parts that are there will do where others are missing.

    Raises:
        RecordingError: parts are missing.
    """
    found = _in_force(path)
    if found or not (sets := _sets(path)):
        return found
    count, parts = max(sets.items())
    if torn:
        return tuple(parts[number][0] for number in sorted(parts))
    lacking = [number for number in range(1, count + 1) if number not in parts]
    raise RecordingError(
        f"{path.with_name(path.name.removesuffix(_SUFFIX))}.*{_SUFFIX}: of {count} parts of the recording "
        f"{len(lacking)} are missing, the first is number {lacking[0]}; restore them from git, or record what is missing: "
        "pytest --llm-record=missing"
    )


def leftovers(path: Path, files: Sequence[Path]) -> list[Path]:
    """Files of the recording other than these: of another layout, or of none."""
    every = [file for parts in _sets(path).values() for both in parts.values() for file in both]
    return sorted({*every, *([path] if path.exists() else [])} - set(files))


def whole(file: Path) -> Path:
    """The recording that a file is of: the name it would have as one file."""
    match = _PART.fullmatch(file.name)
    return file.with_name(match["stem"] + _SUFFIX) if match else file


def _in_force(path: Path) -> tuple[Path, ...]:
    complete = [(count, parts) for count, parts in _sets(path).items() if len(parts) == count]
    if not complete:
        return (path,) if path.exists() else ()
    count, parts = max(complete)
    return tuple(parts[number][0] for number in range(1, count + 1))


def _sets(path: Path) -> dict[int, dict[int, list[Path]]]:
    """Number of parts to the parts that are there; each plain, compressed, or both, the plain one first."""
    sets: defaultdict[int, defaultdict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    stem = path.name.removesuffix(_SUFFIX)
    for name in _parts_in(path.parent):
        match = _PART.fullmatch(name) if name.startswith(stem) else None
        if match and match["stem"] == stem and 1 <= (number := int(match["number"])) <= (count := int(match["count"])):
            sets[count][number].append(path.with_name(name))
    return {count: dict(parts) for count, parts in sets.items()}


def _parts_in(directory: Path) -> tuple[str, ...]:
    """The names of all parts in a directory, sorted: hundreds of tests share one listing."""
    try:
        changed = directory.stat().st_mtime_ns
    except OSError:
        return ()
    settled = time.time_ns() - changed > _SETTLED
    return _listed(str(directory), changed if settled else time.perf_counter_ns())


@lru_cache(maxsize=256)
def _listed(directory: str, _: int) -> tuple[str, ...]:
    try:
        with os.scandir(directory) as entries:
            return tuple(sorted(entry.name for entry in entries if _PART.fullmatch(entry.name)))
    except OSError:
        return ()


_SETTLED = 2_000_000_000
"""Nanoseconds after which a directory that changes once more is sure to have another time stamp."""
_LEVEL = 10


def pack(text: bytes) -> bytes:
    """The text compressed.

    Raises:
        RecordingError: no zstd is installed.
    """
    packed: bytes = _zstd().compress(text, _LEVEL)
    return packed


def unpacked(path: Path, most: int) -> IO[bytes]:
    """A temporary file with what a compressed one holds, at its start.

    Raises:
        RecordingError: no zstd is installed, it is damaged, or holds more than ``most`` bytes.
        OSError: it cannot be read.
    """
    zstd, file = _zstd(), tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with open_regular(path) as packed, zstd.open(packed, "rb") as source:
            shutil.copyfileobj(_Limited(source, path, most), file)
    except BaseException as error:
        file.close()
        if isinstance(error, (getattr(zstd, "ZstdError", EOFError), EOFError)):
            raise RecordingError(f"the recording {path} is damaged: {error}; restore it from git") from None
        raise
    file.seek(0)
    return file


class _Limited(io.RawIOBase):
    """A few bytes may hold terabytes: stops in time."""

    def __init__(self, source: Any, path: Path, most: int) -> None:
        self._source, self._path, self._most, self._left = source, path, most, most

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise RecordingError(f"the recording {self._path} unpacks to more than the limit of {self._most:,} bytes")
        return data


def _zstd() -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            import zstandard as zstd
    except ImportError:
        raise RecordingError(
            "a part of a recording is compressed by zstd, which is not installed: pip install 'pytest-llmtune[zstd]'"
        ) from None
    return zstd


IN_MEMORY = 20_000_000
"""A recording of more bytes stays on disk."""
_DENSEST = 1000
"""Bytes that one compressed byte may stand for: a hundred small parts must not fill the disk. Answers have 5 to 50."""


def read_all(path: Path, *, torn: bool = False) -> Iterator[Interaction]:
    """All interactions of a recording, in order; none where there is no recording.

    Args:
        torn: whether what is there will do where parts are missing or damaged.

    Raises:
        RecordingError: a file is corrupt, truncated, too large, of an unknown version, or holds git conflict markers,
            and the message names the line; or parts are missing.
    """
    for file in files_of(path, torn=torn):
        for _, interaction in _Part(file).scan(torn=torn):
            yield interaction


def load_interactions(
    path: Path, seen: Callable[[int, Interaction], None], *, torn: bool = False
) -> Sequence[Interaction]:
    """A recording's interactions; each is shown once, with its position, while the files are read.

    Raises:
        RecordingError: as ``read_all``.
    """
    files = [_Part(file) for file in files_of(path, torn=torn)]
    large = len(files) > 1 or sum(file.size for file in files) > IN_MEMORY
    kept: list[Interaction] = []
    stored = Stored()
    keep = stored.keep if large and all(file.is_own for file in files) else None
    for file in files:
        for offset, interaction in file.scan(torn=torn):
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
            return is_own_format(file.readline())

    def scan(self, *, torn: bool = False) -> Iterator[tuple[int, Interaction]]:
        """Every interaction with the byte where its line begins; of a damaged file, if ``torn``, those before the damage."""
        with self._open() as file:
            try:
                yield from entries(self._path, file)
            except DamagedRecordingError:
                if not torn:
                    raise

    def at(self, offset: int) -> Interaction:
        """The interaction whose line begins there.

        Raises:
            RecordingError: the file is not as it was.
        """
        if self._unpacked is None and _stamp(self._path) != self._stamp:
            raise RecordingError(f"the recording {self._path} was changed while it was replayed; run again")
        with self._open() as file:
            file.seek(offset)
            return entry(self._path, file.readline())

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        try:
            if self._path.suffix != PACKED:
                return open_regular(self._path)
            if self._unpacked is None:
                most = min(MAX_BYTES, _DENSEST * self.size)
                self._unpacked = unpacked(self._path, most)
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
