"""The formats of data files: bytes in, rows out, and errors that name the file and the line."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pytest_llmtune._util import plain_yaml
from pytest_llmtune._util.invalid import listed, shown
from pytest_llmtune.errors import SuiteError

__all__ = ["FORMATS", "Reader", "format_of"]


Reader = Callable[[bytes, str, Sequence[str] | None], Iterator[tuple[str, Any]]]
"""(content, name for messages, columns of a file without a header) to (place, raw row)."""

_LISTS = ("data", "rows", "examples", "instances", "questions")
"""Where a JSON document that is no list keeps its rows."""
_CELL = 64 * 1024 * 1024
_BATCH = 1024
"""Rows of a parquet file that are in memory at once."""
_SWOLLEN = 4 << 30
"""Bytes of a parquet file's cells, repeated ones counted as often as they stand there."""


def format_of(name: str) -> str | None:
    """The format that a file's name promises, or None."""
    suffix = name.lower().removesuffix(".gz").rpartition(".")[2]
    return suffix if suffix in FORMATS else None


def _text(content: bytes, name: str) -> str:
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # "Unicode text" of a spreadsheet
    encoding = "utf-16" if utf16 else "utf-8"
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
        return text.replace("\r\n", "\n")  # inside of cells too: git's core.autocrlf changes no row
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SuiteError(
            f"{name}:{line}: byte 0x{content[error.start]:02x} is not {encoding.upper()}; save the file as UTF-8 "
            "(from Korean, Japanese, Western Windows: iconv -f CP949, CP932, CP1252 -t UTF-8)"
        ) from None


def _parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SuiteError(f"{place}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{place}: not usable JSON: {error}") from None


def _jsonl(content: bytes, name: str, _: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    # by \n alone: JSON strings may hold U+2028 and other ends of lines
    for number, line in enumerate(_text(content, name).split("\n"), 1):
        if line.strip():
            place = f"{name}:{number}"
            yield place, _parse_json(line, place)


def _json(content: bytes, name: str, _: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    text = _text(content, name)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise SuiteError(f"{name}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{name}: not usable JSON: {error}") from None
    yield from _entries(data, name)


def _entries(data: Any, name: str) -> Iterator[tuple[str, Any]]:
    """A list of rows, ``{"data": [...]}``, or one row alone (a directory of one file a row, as MATH has it)."""
    if isinstance(data, Mapping):
        held = [data[key] for key in _LISTS if isinstance(data.get(key), list)]
        data = held[0] if len(held) == 1 and all(isinstance(row, Mapping) for row in held[0]) else [data]
    if not isinstance(data, list):
        raise SuiteError(f"{name}: holds {shown(data)}; valid: a list of rows")
    for number, row in enumerate(data, 1):
        yield f"{name}: row {number}", row


def _yaml(content: bytes, name: str, _: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    try:
        data = plain_yaml.load(_text(content, name), max_chars=64_000_000)
    except ValueError as error:
        raise SuiteError(f"{name}: not YAML: {error}") from None
    yield from _entries(data, name)


@contextmanager
def _large_cells() -> Iterator[None]:
    """csv refuses cells above 128 KB, by a limit that the whole process shares."""
    before = csv.field_size_limit(_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _table(text: str, name: str, **dialect: Any) -> list[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect)
    with _large_cells():
        try:
            return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
        except csv.Error as error:
            raise SuiteError(f"{name}:{reader.line_num}: no table: {error}") from None


def _csv(content: bytes, name: str, columns: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    return _records(_table(_text(content, name), name), name, columns)


def _tsv(content: bytes, name: str, columns: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    """Spreadsheets quote cells in TSV too; other programs write a lone quotation mark as it is."""
    text = _text(content, name)
    try:
        lines = _table(text, name, delimiter="\t")
    except SuiteError:
        lines = _table(text, name, delimiter="\t", quoting=csv.QUOTE_NONE)
    return _records(lines, name, columns)


def _records(lines: list[tuple[int, list[str]]], name: str, columns: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    header = list(columns) if columns is not None else lines.pop(0)[1] if lines else []
    header = [column.strip() for column in header]
    named = [column for column in header if column]
    if len(set(named)) < len(named):
        twice = sorted({column for column in named if named.count(column) > 1})
        raise SuiteError(f"{name}: the header names {listed(twice)} twice")
    for number, cells in lines:
        place = f"{name}:{number}"
        for cell, column in zip(cells[len(header) :] or [], [""] * len(cells), strict=False):
            _refuse_unnamed(cell, column, place, header)
        for cell, column in zip(cells, header, strict=False):
            _refuse_unnamed(cell, column, place, header)
        padded = [cell if cell.strip() else None for cell in cells] + [None] * len(header)
        yield place, {column: cell for column, cell in zip(header, padded, strict=False) if column}


def _refuse_unnamed(cell: str, column: str, place: str, header: Sequence[str]) -> None:
    """A column without a name and without a value is a spreadsheet's leftover; one with a value is a lost cell."""
    if not column and cell.strip():
        raise SuiteError(f"{place}: the cell {shown(cell, 40)} is in no named column; the header is {listed(header)}")


def _parquet(content: bytes, name: str, _: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SuiteError(f"{name}: reading parquet needs pyarrow: pip install 'pytest-llmtune[parquet]'") from None
    try:
        with parquet.ParquetFile(io.BytesIO(content)) as file:
            number, size = 0, 0
            for batch in file.iter_batches(_BATCH):
                size += batch.nbytes
                if size > _SWOLLEN:  # a few bytes may stand for a long text in every row
                    raise SuiteError(f"{name}: unpacks to more than the limit of {_SWOLLEN:,} bytes")
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}: row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise SuiteError(f"{name}: not usable parquet: {error}") from None


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
