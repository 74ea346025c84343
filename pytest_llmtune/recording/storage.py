"""Read recordings: in memory, packed, or in parts."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tempfile
import time
import weakref
from array import array
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any, overload

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.files import open_regular
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import DamagedRecordingError, RecordingError
from pytest_llmtune.recording.format import MAX_BYTES, Interaction, entries, entry, is_own_format, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_llmtune.settings import Settings


PACKED = ".zst"
"""Suffix of compressed parts."""
_SUFFIX = ".cassette.json"
_PART = lazy_regex(r"(?P<stem>.+)\.(?P<number>\d{1,5})-of-(?P<count>\d{1,5})\.cassette\.json(\.zst)?")


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of recordings on disk."""

    part_bytes: int = 20_000_000
    """A larger recording is split into parts, smaller than this on average."""
    compressed: bool = False
    """Whether parts are compressed with zstd."""

    @classmethod
    def of(cls, settings: Settings) -> Layout:
        """The layout given by the options."""
        return cls(int(settings.part_size * 1_000_000), settings.compress)

    def files(self, path: Path, size: int) -> tuple[Path, ...]:
        """The files for a recording of ``size`` bytes: one file, or its parts in order."""
        count = self._count(size, len(_complete_files(path)))
        if count == 1:
            return (path,)
        stem, width = path.name.removesuffix(_SUFFIX), len(str(count))
        packed = PACKED if self.compressed else ""
        return tuple(
            path.with_name(f"{stem}.{number:0{width}}-of-{count}{_SUFFIX}{packed}") for number in range(1, count + 1)
        )

    def _count(self, size: int, before: int) -> int:
        """The smallest sufficient power of two; fewer parts than before only if a quarter would suffice."""
        count = 1
        while size > count * self.part_bytes:
            count *= 2
        return before if count < before and size * 4 > before * self.part_bytes else count


def part_for(files: Sequence[Path], request: str) -> Path:
    """The file of a request, determined by its content."""
    digest = hashlib.sha256(request.encode("utf-8", "surrogatepass")).digest()
    return files[int.from_bytes(digest[:8], "big") % len(files)]


def files_of(path: Path, *, torn: bool = False) -> tuple[Path, ...]:
    """The files of a recording, in order; empty if there is no recording.

    While a recording changes its layout, old and new parts coexist: the complete set with the most parts is valid, so that
    a killed run leaves one complete recording.

    Args:
        torn: accept the existing parts if others are missing.

    Raises:
        RecordingError: parts are missing.
    """
    found = _complete_files(path)
    if found or not (sets := _sets(path)):
        return found
    count, parts = max(sets.items())
    if torn:
        return tuple(parts[number][0] for number in sorted(parts))
    missing = [number for number in range(1, count + 1) if number not in parts]
    raise RecordingError(
        f"{path.with_name(path.name.removesuffix(_SUFFIX))}.*{_SUFFIX}: of {count} parts of the recording "
        f"{len(missing)} are missing, the first is number {missing[0]}; restore them from git, or record what is missing: "
        "pytest --llm-record=missing"
    )


def leftovers(path: Path, files: Sequence[Path]) -> list[Path]:
    """Files of the recording that belong to another layout, or to none."""
    every = [file for parts in _sets(path).values() for both in parts.values() for file in both]
    return sorted({*every, *([path] if path.exists() else [])} - set(files))


def recording_of(file: Path) -> Path:
    """The recording that a file belongs to, by the name it would have as a single file."""
    match = _PART.fullmatch(file.name)
    return file.with_name(match["stem"] + _SUFFIX) if match else file


def _complete_files(path: Path) -> tuple[Path, ...]:
    complete = [(count, parts) for count, parts in _sets(path).items() if len(parts) == count]
    if not complete:
        return (path,) if path.exists() else ()
    count, parts = max(complete)
    return tuple(parts[number][0] for number in range(1, count + 1))


def _sets(path: Path) -> dict[int, dict[int, list[Path]]]:
    """Number of parts to the existing parts; each plain, compressed, or both, plain first."""
    sets: defaultdict[int, defaultdict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    stem = path.name.removesuffix(_SUFFIX)
    for name in _parts_in(path.parent):
        match = _PART.fullmatch(name) if name.startswith(stem) else None
        if match and match["stem"] == stem and 1 <= (number := int(match["number"])) <= (count := int(match["count"])):
            sets[count][number].append(path.with_name(name))
    return {count: dict(parts) for count, parts in sets.items()}


def _parts_in(directory: Path) -> tuple[str, ...]:
    """Sorted names of all parts in a directory, cached because hundreds of tests share a listing."""
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
"""Nanoseconds after which a further change of a directory is certain to change its timestamp."""
_LEVEL = 10


def pack(text: bytes) -> bytes:
    """Compress a text.

    Raises:
        RecordingError: zstd is not installed.
    """
    packed: bytes = _zstd().compress(text, _LEVEL)
    return packed


def unpacked(path: Path, most: int) -> IO[bytes]:
    """A temporary file with the content of a compressed one, at its start.

    Raises:
        RecordingError: zstd is not installed, the file is damaged, or has more than ``most`` bytes.
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
    """A reader that stops at a limit, because a few bytes may unpack to terabytes."""

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
            "a part of a recording is compressed with zstd, which is not installed: pip install 'pytest-llmtune[zstd]'"
        ) from None
    return zstd


IN_MEMORY = 20_000_000
"""A larger recording stays on disk."""
_DENSEST = 1000
"""Maximum compression ratio, so that a hundred small parts cannot fill the disk; answers have 5 to 50."""


def read_all(path: Path, *, torn: bool = False) -> Iterator[Interaction]:
    """All interactions of a recording, in order; empty if there is no recording.

    Args:
        torn: read what is there even if parts are missing or damaged.

    Raises:
        RecordingError: a file is corrupt, truncated, too large, of an unknown version, or has git conflict markers, and the
            message names the line; or parts are missing.
    """
    for file in files_of(path, torn=torn):
        for _, interaction in _Part(file).scan(torn=torn):
            yield interaction


def load_interactions(
    path: Path, seen: Callable[[int, Interaction], None], *, torn: bool = False
) -> Sequence[Interaction]:
    """A recording's interactions; ``seen`` is called with each and its position while the files are read.

    Raises:
        RecordingError: as ``read_all``.
    """
    files = [_Part(file) for file in files_of(path, torn=torn)]
    large = len(files) > 1 or sum(file.size for file in files) > IN_MEMORY
    loaded: list[Interaction] = []
    stored = Stored()
    add = stored.add if large and all(file.is_own for file in files) else None
    for file in files:
        for offset, interaction in file.scan(torn=torn):
            seen(len(loaded) + len(stored), interaction)
            if add is None:
                loaded.append(interaction)
            else:
                add(file, offset)
    return tuple(loaded) if add is None else stored


class Stored(Sequence[Interaction]):
    """Interactions that stay on disk and are read on access."""

    def __init__(self) -> None:
        self._files: list[_Part] = []
        self._numbers, self._offsets = array("H"), array("Q")

    def add(self, file: _Part, offset: int) -> None:
        """Add the interaction at this offset of a file."""
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
            return tuple(self[index] for index in range(*position.indices(len(self))))
        return self._files[self._numbers[position]].at(self._offsets[position])


class _Part:
    """One file of a recording; a compressed one is unpacked to disk when first read."""

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

    def scan(self, *, torn: bool) -> Iterator[tuple[int, Interaction]]:
        """All interactions with the offset of their line; if ``torn``, a damaged file gives those before the damage."""
        with self._open() as file:
            try:
                yield from entries(self._path, file)
            except DamagedRecordingError:
                if not torn:
                    raise

    def at(self, offset: int) -> Interaction:
        """The interaction whose line starts at ``offset``.

        Raises:
            RecordingError: the file has changed.
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
            raise unreadable(self._path, error) from error


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return found.st_size, found.st_mtime_ns
