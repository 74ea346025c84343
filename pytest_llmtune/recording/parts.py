"""A large recording lies in numbered parts: which files these are, and which part an interaction is of.

Each part is a cassette of its own. A request's hash chooses its part, and the number of parts is a power of two: what
changes about one example changes one file, and when the number doubles, each part falls into two.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmtune.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["PACKED", "Layout", "files_of", "leftovers", "place", "whole"]


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
    for file in sorted(path.parent.iterdir()) if path.parent.is_dir() else ():
        match = _PART.fullmatch(file.name) if file.name.startswith(stem) else None
        if match and match["stem"] == stem and 1 <= (number := int(match["number"])) <= (count := int(match["count"])):
            sets[count][number].append(file)
    return {count: dict(parts) for count, parts in sets.items()}
