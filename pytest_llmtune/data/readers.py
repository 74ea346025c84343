"""Readers for JSON Lines, JSON, CSV, TSV, YAML and Parquet files."""

from __future__ import annotations

import codecs
import csv
import glob
import io
import itertools
import json
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.files import has_controls, open_regular
from pytest_llmtune._util.jsonhash import json_weight
from pytest_llmtune._util.serialize import strict_decoder
from pytest_llmtune._util.text import did_you_mean, listed, shown
from pytest_llmtune._util.yaml import load
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterable


Reader = Callable[..., Iterator[tuple[str, Any]]]
"""(content, name for messages, columns of a file without a header, limit in bytes of memory) to (path, raw row); those of
tables take a ``delimiter``."""

_LISTS = ("data", "rows", "examples", "instances", "questions")
"""Keys under which a JSON object may have its rows."""
_CELL = 16 * 1024 * 1024
_MOST_COLUMNS = 10_000
_BATCH = 1024
"""Maximum number of parquet rows in memory at once."""
_MOST = 200_000_000
_YAML_NODE = 700
"""Bytes of memory per value while a YAML document is read."""
_FOR_ARROW = 200_000_000
"""Bytes of address space that pyarrow takes for itself."""
_PER_VALUE = 16
"""Memory overhead of a value in bytes, which parquet's own sizes do not include."""


def format_of(name: str) -> str | None:
    """The format by a file's name, or None."""
    suffix = name.lower().removesuffix(".gz").rpartition(".")[2]
    return suffix if suffix in FORMATS else None


def _text(content: bytes, name: str) -> str:
    head = content[:1000]
    if b"\0" in head and not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        is_utf16 = head.count(b"\0") * 3 > len(head)
        kind = "is UTF-16 without a byte order mark" if is_utf16 else "contains NUL bytes: not a text file"
        order = "BE" if head[::2].count(b"\0") > head[1::2].count(b"\0") else "LE"
        raise SuiteError(f"{name}: {kind}; save the file as UTF-8 (iconv -f UTF-16{order} -t UTF-8)")
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # "Unicode text" of a spreadsheet
    encoding = "utf-16" if utf16 else "utf-8"
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
        return text.replace("\r\n", "\n")  # also inside cells, so that git's core.autocrlf changes no row
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SuiteError(
            f"{name}:{line}: byte 0x{content[error.start]:02x} is not {encoding.upper()}; save the file as UTF-8 "
            "(from Korean, Japanese, Western Windows: iconv -f CP949, CP932, CP1252 -t UTF-8)"
        ) from None


def too_large(where: str, most: int) -> SuiteError:
    """The error for data that take more than ``most`` bytes of memory."""
    return SuiteError(
        f"{where}: unpacks to more than the limit of {most:,} bytes of memory; to allow more: --llm-max-data=MB (default 50)"
    )


def _parse_json(text: str, where: str, most: int, *, lines: bool = False) -> Any:
    """The data; ``lines``: an error names its line, because the text has several."""
    if json_weight(text) > most:
        raise too_large(where, most)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        line = f":{error.lineno}" if lines else ""
        raise SuiteError(f"{where}{line}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{where}: not usable JSON: {error}") from None


_DECODER = strict_decoder(nan=True)  # a missing value of a table


def _jsonl(content: bytes, name: str, _: Sequence[str] | None, most: int = _MOST) -> Iterator[tuple[str, Any]]:
    # split at \n only: JSON strings may contain U+2028 and other line separators
    for number, line in enumerate(_text(content, name).split("\n"), 1):
        if line.strip():
            where = f"{name}:{number}"
            yield where, _parse_json(line, where, most)


def _json(content: bytes, name: str, _: Sequence[str] | None, most: int = _MOST) -> Iterator[tuple[str, Any]]:
    yield from _entries(_parse_json(_text(content, name), name, most, lines=True), name)


def _entries(data: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Rows of a list, of ``{"data": [...]}``, of pandas' ``to_json`` in any orientation with column names, or a single row
    (one file per row, as in MATH).
    """
    if isinstance(data, Mapping) and (rows := _of_pandas(data, name)) is not None:
        data = rows
    elif isinstance(data, Mapping):
        lists = [data[key] for key in _LISTS if isinstance(data.get(key), list)]
        data = lists[0] if len(lists) == 1 and all(isinstance(row, Mapping) for row in lists[0]) else [data]
    if not isinstance(data, list):
        raise SuiteError(f"{name}: contains {shown(data)}; valid: a list of rows")
    for number, row in enumerate(data, 1):
        yield f"{name}: row {number}", row


def _of_pandas(data: Mapping[str, Any], name: str) -> list[dict[str, Any]] | None:
    """Rows of ``DataFrame.to_json()``: split, index, or (its default) columns; None for anything else."""
    if {"columns", "data"} <= data.keys() <= {"columns", "data", "index"} and isinstance(data["columns"], list):
        header, table = data["columns"], data["data"]
        if not isinstance(table, list) or not all(isinstance(row, list) and len(row) == len(header) for row in table):
            raise SuiteError(f"{name}: the rows of `data` do not have as many values as there are `columns`")
        return [dict(zip(map(str, header), row, strict=True)) for row in table]
    inner = list(data.values())
    if not inner or not all(isinstance(one, Mapping) and one and one.keys() == inner[0].keys() for one in inner):
        return None
    numbered, inside = (all(str(name).isdecimal() for name in names) for names in (data, inner[0]))
    if inside and not numbered:
        return [{column: cells[label] for column, cells in data.items()} for label in inner[0]]
    return inner if numbered else None


def _yaml(content: bytes, name: str, _: Sequence[str] | None, most: int = _MOST) -> Iterator[tuple[str, Any]]:
    try:
        data = load(_text(content, name), max_chars=64_000_000, max_nodes=most // _YAML_NODE, core=True)
    except ValueError as error:
        raise SuiteError(f"{name}: not YAML: {error}") from None
    yield from _entries(data, name)


@contextmanager
def _large_cells() -> Iterator[None]:
    """Lift csv's limit of 128 KB per cell, which is global to the process."""
    before = csv.field_size_limit(_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _table(text: str, name: str, **dialect: Any) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect)
    while True:
        with _large_cells():  # per row: other code may read tables between two rows
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise SuiteError(f"{name}:{reader.line_num}: not a table: {error}") from None
        if cells is None:
            return
        if len(cells) > _MOST_COLUMNS:
            raise SuiteError(
                f"{name}:{reader.line_num}: {len(cells):,} cells are more than the limit of {_MOST_COLUMNS:,} columns"
            )
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells


def _csv(
    content: bytes, name: str, columns: Sequence[str] | None, _: int = _MOST, delimiter: str | None = None
) -> Iterator[tuple[str, Any]]:
    text = _text(content, name)
    seen, first = _delimiter(text), text.partition("\n")[0]
    if delimiter is not None and delimiter not in first and seen in first:
        raise SuiteError(
            f"{name}: the first line has no {delimiter!r}, and cells seem to be separated by {_MARKS[seen]}: "
            f"delimiter={seen!r}"
        )
    return _records(_table(text, name, delimiter=delimiter or seen), name, columns)


def delimiter_note(content: bytes, name: str) -> str:
    """Remark on a CSV file that is not separated by commas; empty for others."""
    if format_of(name) != "csv":
        return ""
    try:
        mark = _delimiter(_text(content, name))
    except SuiteError:
        return ""
    if mark == ",":
        return ""
    return f"{name}: cells are separated by {_MARKS[mark]}, as its first lines show; the key `delimiter` names another"


_MARKS = {";": "semicolons", "\t": "tabs", ",": "commas"}
_SAMPLE = 20  # lines


def _delimiter(text: str) -> str:
    """A comma, unless semicolons or tabs split the first lines into equally many cells and commas do not."""
    lines = text.split("\n", _SAMPLE)[:_SAMPLE]
    if ";" not in lines[0] and "\t" not in lines[0]:
        return ","
    sample = "\n".join(lines)
    widths = {mark: _widths(sample, mark) for mark in _MARKS}
    even = [mark for mark, found in widths.items() if len(found) == 1 and min(found) > 1]
    return even[0] if len(even) == 1 else ","


def _widths(sample: str, mark: str) -> set[int]:
    """Numbers of cells per line; the last line may be truncated."""
    with _large_cells():
        try:
            rows = [row for row in csv.reader(io.StringIO(sample, newline=""), delimiter=mark) if any(row)]
        except csv.Error:
            return set()
    return {len(row) for row in (rows[:-1] if len(rows) > 2 else rows)}


def _tsv(
    content: bytes, name: str, columns: Sequence[str] | None, most: int = _MOST, delimiter: str = "\t"
) -> Iterator[tuple[str, Any]]:
    """Spreadsheets quote TSV cells; other programs write a lone quotation mark unescaped."""
    if delimiter != "\t":
        return _csv(content, name, columns, most, delimiter)
    text = _text(content, name)
    quoting = csv.QUOTE_MINIMAL
    try:
        for _line in _table(text, name, delimiter="\t"):
            pass
    except SuiteError:
        quoting = csv.QUOTE_NONE
    return _records(_table(text, name, delimiter="\t", quoting=quoting), name, columns)


def _records(
    lines: Iterator[tuple[int, list[str]]], name: str, columns: Sequence[str] | None
) -> Iterator[tuple[str, Any]]:
    header = [column.strip() for column in (next(lines, (0, []))[1] if columns is None else columns)]
    named = [column for column in header if column]
    if len(set(named)) < len(named):
        twice = sorted({column for column in named if named.count(column) > 1})
        raise SuiteError(f"{name}: the header names {listed(twice)} twice")
    for number, cells in lines:
        where = f"{name}:{number}"
        for cell, column in itertools.zip_longest(cells, header, fillvalue=""):
            if not column and cell.strip():  # an empty unnamed column is a spreadsheet's leftover
                raise SuiteError(
                    f"{where}: the cell {shown(cell, 40)} is in no named column; the header is {listed(header)}"
                )
        padded = [cell if cell.strip() else None for cell in cells] + [None] * len(header)
        yield where, {column: cell for column, cell in zip(header, padded, strict=False) if column}


def _parquet(content: bytes, name: str, _: Sequence[str] | None, most: int = _MOST) -> Iterator[tuple[str, Any]]:
    """First read in a process of its own: on some damaged files pyarrow aborts the process."""
    if content.endswith((b"PAR1", b"PARE")):  # pyarrow looks at nothing else before
        import subprocess

        trial = [sys.executable, "-I", "-c", _TRIAL, json.dumps(sys.path), str(most)]
        names = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")
        environment = {key: os.environ[key] for key in names if key in os.environ}
        try:
            done = subprocess.run(  # noqa: S603
                trial, input=content, capture_output=True, timeout=_TRIAL_SECONDS, check=False, env=environment
            )
        except subprocess.TimeoutExpired:
            raise SuiteError(
                f"{name}: not usable parquet: reading it takes more than {_TRIAL_SECONDS} seconds"
            ) from None
        if done.returncode:
            raise SuiteError(f"{name}: not usable parquet: pyarrow crashes on it")
    yield from _parquet_rows(content, name, most)


_TRIAL_SECONDS = 120
_TRIAL = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from pytest_llmtune.data.readers import SuiteError, _parquet_rows
try:
    for _ in _parquet_rows(sys.stdin.buffer.read(), "", int(sys.argv[2])):
        pass
except SuiteError:
    pass  # the parent process finds it too, and reports it
"""


def _parquet_rows(content: bytes, name: str, most: int) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SuiteError(f"{name}: reading parquet needs pyarrow: pip install 'pytest-llmtune[parquet]'") from None
    try:
        with parquet.ParquetFile(io.BytesIO(content)) as file:
            number = 0
            for group in range(file.metadata.num_row_groups):
                # of one row: a few bytes may encode a long text in every row, which is in its column's data at least
                # once; a list has at most all of its column's values
                columns = [file.metadata.row_group(group).column(i) for i in range(file.metadata.num_columns)]
                largest = 1 + sum(int(c.total_uncompressed_size + _PER_VALUE * c.num_values) for c in columns)
                if largest > most:
                    raise too_large(f"{name}: row {number + 1}", most)
                batch_rows = max(1, min(_BATCH, most // 8 // largest))
                batches = file.iter_batches(batch_rows, row_groups=[group], use_threads=False)
                while True:
                    try:
                        with _memory_limited(_FOR_ARROW + 2 * most):  # the file's own figures may lie
                            batch = next(batches, None)
                    except MemoryError:
                        raise too_large(f"{name}: row {number + 1}", most) from None
                    if batch is None:
                        break
                    if batch.nbytes > most:
                        raise too_large(f"{name}: row {number + 1}", most)
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{name}: row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise SuiteError(f"{name}: not usable parquet: {error}") from None


@contextmanager
def _memory_limited(most: int) -> Iterator[None]:
    """Limit this process to ``most`` more bytes of memory; on Linux, exceeding them raises MemoryError."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = min([used + most, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


FORMATS: Mapping[str, Reader] = {
    "jsonl": _jsonl,
    "ndjson": _jsonl,
    "json": _json,
    "csv": _csv,
    "tsv": _tsv,
    "yaml": _yaml,
    "yml": _yaml,
    "parquet": _parquet,
}


MAX_BYTES = 50_000_000
"""Limit for all unpacked files of a dataset together, unless `--llm-max-data` is given."""
MAX_FILES = 100_000
_ALLOW = "; to allow more: --llm-max-data=MB"
_BROKEN_ZIP = (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, struct.error)


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of rows, on disk or inside a zip."""

    path: Path
    member: str | None = None
    shown: str = ""

    @property
    def format(self) -> str:
        """One of ``FORMATS``; SuiteError if the file name has no known extension."""
        found = format_of(self.member or self.path.name)
        if found is None:
            raise SuiteError(
                f"{self.shown}: unknown kind of file; valid endings: .{', .'.join(FORMATS)}, each also with .gz"
            )
        return found

    def read(self, limit: int = MAX_BYTES) -> bytes:
        """The unpacked content; SuiteError if it cannot be read, or is larger than ``limit`` bytes."""
        try:
            with ExitStack() as stack:
                stream: IO[bytes] = stack.enter_context(open_regular(self.path))
                if self.member is not None:
                    stream = stack.enter_context(stack.enter_context(zipfile.ZipFile(stream)).open(self.member))
                if (self.member or self.path.name).lower().endswith(".gz"):
                    import gzip

                    stream = cast("IO[bytes]", stack.enter_context(gzip.open(stream)))
                content = stream.read(limit + 1)
        except (*_BROKEN_ZIP, zlib.error, EOFError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SuiteError(f"{self.shown}: cannot be read: {reason}") from None
        if len(content) > limit:
            raise SuiteError(f"{self.shown}: larger than the limit of {limit:,} bytes{_ALLOW}")
        return content


def find(source: str, base_dir: Path, root: Path | None = None, limit: int | None = None) -> tuple[DataFile, ...]:
    """The files that a dataset's path matches, sorted by name.

    Args:
        source: relative to ``base_dir``; a file, a glob (``data/*.jsonl``), or a zip, optionally followed by a member or a
            glob of members (``exam.zip/test/*.jsonl``).
        root: if given, every file must be in this directory.
        limit: total bytes of an archive's members; default: ``MAX_BYTES``.

    Raises:
        SuiteError: no file, a file outside ``root``, or too large.
    """
    most = MAX_BYTES if limit is None else limit
    archive, member = _archive(source)
    if archive is not None:
        paths = _paths(archive, base_dir, root, source)
        return tuple(file for path in paths for file in _members(path, member, source, most))
    return tuple(DataFile(path, shown=_relative(path, base_dir)) for path in _paths(source, base_dir, root, source))


def _archive(source: str) -> tuple[str | None, str]:
    """The path up to a component that ends in .zip, and the rest."""
    parts = source.replace("\\", "/").split("/")
    for index, part in enumerate(parts):
        if part.lower().endswith(".zip"):
            return "/".join(parts[: index + 1]), "/".join(parts[index + 1 :])
    return None, ""


def _paths(pattern: str, base_dir: Path, root: Path | None, source: str) -> list[Path]:
    direct = base_dir / pattern
    try:
        # before globbing: a glob from / would walk the whole disk
        plain = itertools.takewhile(lambda part: not glob.has_magic(part), direct.parts)
        keep_inside([direct if direct.exists() else Path(*plain)], root, source)
        if direct.is_file():
            found = [direct]
        else:
            # Path.glob takes no absolute pattern
            names = glob.iglob(pattern, root_dir=base_dir, recursive=True) if glob.has_magic(pattern) else iter(())  # noqa: PTH207
            matches = list(itertools.islice(names, MAX_FILES + 1))
            if len(matches) > MAX_FILES:
                raise SuiteError(f"{shown(source)} matches more than the limit of {MAX_FILES:,} files")
            found = sorted(path for name in matches if (path := base_dir / name).is_file())
        keep_inside(found, root, source)
        _refuse_controls([_relative(path, base_dir) for path in found], source)
    except (OSError, ValueError) as error:  # name too long, NUL
        raise SuiteError(f"{shown(source)} is not a usable path: {getattr(error, 'strerror', None) or error}") from None
    if not found:
        raise SuiteError(_absence(pattern, direct))
    return found


def _refuse_controls(names: Iterable[str], source: str) -> None:
    """Refuse file names with line breaks or escapes, which would be interpreted in messages and reports."""
    for name in names:
        if has_controls(name):
            raise SuiteError(f"{shown(source)} names {name!a}, which contains control characters; rename the file")


def keep_inside(paths: Iterable[Path], root: Path | None, source: str) -> None:
    """Raise SuiteError if one is outside ``root``, where that is given."""
    for path in paths:
        if root is not None and not path.resolve().is_relative_to(root.resolve()):
            raise SuiteError(
                f"{shown(source)} is outside the project {root}; a YAML suite may only read the project's own files"
            )


def _absence(pattern: str, direct: Path) -> str:
    if glob.has_magic(pattern):
        return f"no file matches {shown(str(direct), 200)}"
    if direct.is_dir():
        return (
            f"{shown(str(direct), 200)} is a directory; name its files, as in {shown(pattern.rstrip('/') + '/*.jsonl')}"
        )
    neighbours = sorted(path.name for path in direct.parent.iterdir()) if direct.parent.is_dir() else []
    return f"no file {shown(str(direct), 200)}{did_you_mean(direct.name, neighbours)}"


def _relative(path: Path, base_dir: Path) -> str:
    return path.relative_to(base_dir).as_posix() if path.is_relative_to(base_dir) else str(path)


def _members(path: Path, pattern: str, source: str, most: int) -> list[DataFile]:
    """Archive members, which are never unpacked to disk, so that their names cannot escape."""
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
    _refuse_controls([info.filename for info in chosen], source)
    for info in chosen:
        member = PurePosixPath(info.filename)
        if member.is_absolute() or ".." in member.parts or "\\" in info.filename:
            raise SuiteError(
                f"{path.name} holds the member {shown(info.filename)}, whose name leads out of the archive"
            )
    total = sum(info.file_size for info in chosen)
    if total > most or len(chosen) > MAX_FILES:
        raise SuiteError(
            f"{path.name}: {total:,} bytes in {len(chosen):,} members are more than the limit of {most:,} bytes{_ALLOW}"
        )
    return [DataFile(path, info.filename, f"{path.name}/{info.filename}") for info in chosen]
