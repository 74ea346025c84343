"""Where a dataset's files are: a path, a glob, members of a zip; within limits, and within the project if asked."""

from __future__ import annotations

import glob
import gzip
import itertools
import struct
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, cast

from pytest_llmtune._util.invalid import listed, meant, shown
from pytest_llmtune.data.formats import FORMATS, format_of
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MAX_BYTES", "DataFile", "find"]


MAX_BYTES = 1 << 30
"""Of one file, unpacked, and of all members of an archive together."""
MAX_FILES = 100_000
_BROKEN_ZIP = (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, struct.error)


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of rows, on disk or inside a zip."""

    path: Path
    member: str | None = None
    shown: str = ""

    @property
    def format(self) -> str:
        """One of ``FORMATS``.

        Raises:
            SuiteError: the name has no ending that says it.
        """
        found = format_of(self.member or self.path.name)
        if found is None:
            raise SuiteError(
                f"{self.shown}: unknown kind of file; valid endings: .{', .'.join(FORMATS)}, each also with .gz"
            )
        return found

    def read(self, limit: int = MAX_BYTES) -> bytes:
        """The content, unpacked.

        Raises:
            SuiteError: it cannot be read, or is larger than ``limit`` bytes.
        """
        try:
            with self._open() as stream:
                content = stream.read(limit + 1)
        except (*_BROKEN_ZIP, zlib.error, EOFError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SuiteError(f"{self.shown}: cannot be read: {reason}") from None
        if len(content) > limit:
            raise SuiteError(f"{self.shown}: larger than the limit of {limit:,} bytes")
        return content

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        with ExitStack() as stack:
            stream: IO[bytes]
            if self.member is None:
                stream = stack.enter_context(self.path.open("rb"))
            else:
                archive = stack.enter_context(zipfile.ZipFile(self.path))
                stream = stack.enter_context(archive.open(self.member))
            if (self.member or self.path.name).lower().endswith(".gz"):
                stream = cast("IO[bytes]", stack.enter_context(gzip.open(stream)))
            yield stream


def find(source: str, base_dir: Path, root: Path | None = None) -> tuple[DataFile, ...]:
    """The files that a dataset's path names, in order of their names.

    Args:
        source: relative to ``base_dir``; a file, a glob (``data/*.jsonl``), or a zip followed by nothing, a member, or
            a glob of members (``exam.zip/test/*.jsonl``).
        root: where given, every file must lie in this directory.

    Raises:
        SuiteError: nothing is there, or it lies outside ``root``.
    """
    archive, member = _archive(source)
    if archive is not None:
        files = tuple(_members(path, member, source) for path in _paths(archive, base_dir, root, source))
        return tuple(file for found in files for file in found)
    return tuple(DataFile(path, shown=_relative(path, base_dir)) for path in _paths(source, base_dir, root, source))


def _archive(source: str) -> tuple[str | None, str]:
    """The path up to a component that ends in .zip, and what stands behind it."""
    parts = source.replace("\\", "/").split("/")
    for index, part in enumerate(parts):
        if part.lower().endswith(".zip"):
            return "/".join(parts[: index + 1]), "/".join(parts[index + 1 :])
    return None, ""


def _paths(pattern: str, base_dir: Path, root: Path | None, source: str) -> list[Path]:
    direct = base_dir / pattern
    try:
        _keep_inside([_before_magic(direct)], root, source)  # first: a glob from / would walk the whole disk
        if direct.is_file():
            found = [direct]
        else:
            # Path.glob takes no absolute pattern
            names = glob.iglob(pattern, root_dir=base_dir, recursive=True) if glob.has_magic(pattern) else iter(())  # noqa: PTH207
            found = sorted(path for name in _at_most(names, source) if (path := base_dir / name).is_file())
        _keep_inside(found, root, source)
    except (OSError, ValueError) as error:  # a name too long, a NUL
        raise SuiteError(f"{shown(source)} is no usable path: {getattr(error, 'strerror', None) or error}") from None
    if not found:
        raise SuiteError(_absence(pattern, direct))
    return found


def _before_magic(path: Path) -> Path:
    plain = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
    return path if path.exists() else Path(*plain)


def _keep_inside(paths: Iterable[Path], root: Path | None, source: str) -> None:
    for path in paths:
        if root is not None and not path.resolve().is_relative_to(root.resolve()):
            raise SuiteError(
                f"{shown(source)} lies outside the project {root}; a YAML suite reads only the project's own files"
            )


def _at_most(names: Iterator[str], source: str) -> Iterator[str]:
    for count, name in enumerate(names):
        if count >= MAX_FILES:
            raise SuiteError(f"{shown(source)} matches more than the limit of {MAX_FILES:,} files")
        yield name


def _absence(pattern: str, direct: Path) -> str:
    if glob.has_magic(pattern):
        return f"no file matches {shown(str(direct), 200)}"
    if direct.is_dir():
        return (
            f"{shown(str(direct), 200)} is a directory; name its files, as in {shown(pattern.rstrip('/') + '/*.jsonl')}"
        )
    there = sorted(path.name for path in direct.parent.iterdir()) if direct.parent.is_dir() else []
    return f"no file {shown(str(direct), 200)}{meant(direct.name, there)}"


def _relative(path: Path, base_dir: Path) -> str:
    return path.relative_to(base_dir).as_posix() if path.is_relative_to(base_dir) else str(path)


def _members(path: Path, pattern: str, source: str) -> list[DataFile]:
    """Members are read from the archive, never unpacked to disk: their names lead nowhere."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except _BROKEN_ZIP as error:
        raise SuiteError(f"{path}: not a usable zip: {error}") from None
    usable = sorted((info for info in infos if format_of(info.filename)), key=lambda info: info.filename)
    chosen = [info for info in usable if fnmatchcase(info.filename, pattern)] if pattern else usable
    names = [info.filename for info in usable]
    if not chosen:
        raise SuiteError(f"{shown(source)}: no such member in {path.name}; there are {listed(names)}")
    if not pattern and len(chosen) > 1:
        raise SuiteError(f"{path.name} holds {listed(names)}; name what to read, as in {shown(f'{source}/{names[0]}')}")
    for info in chosen:
        if (
            PurePosixPath(info.filename).is_absolute()
            or ".." in PurePosixPath(info.filename).parts
            or "\\" in info.filename
        ):
            raise SuiteError(
                f"{path.name} holds the member {shown(info.filename)}, whose name leads out of the archive"
            )
    total = sum(info.file_size for info in chosen)
    if total > MAX_BYTES or len(chosen) > MAX_FILES:
        raise SuiteError(
            f"{path.name}: {total:,} bytes in {len(chosen):,} members are more than the limit of {MAX_BYTES:,} bytes"
        )
    return [DataFile(path, info.filename, f"{path.name}/{info.filename}") for info in chosen]
