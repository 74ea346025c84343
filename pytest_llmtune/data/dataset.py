"""Load the rows of a dataset from any supported source."""

from __future__ import annotations

import math
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.functions import is_function_path, load_function, qualified_name
from pytest_llmtune._util.jsonhash import digest, weight_of
from pytest_llmtune._util.serialize import fields_of
from pytest_llmtune._util.text import InvalidError, did_you_mean, listed, shown
from pytest_llmtune.data import huggingface as hub
from pytest_llmtune.data.readers import FORMATS, MAX_BYTES, DataFile, delimiter_note, find, too_large
from pytest_llmtune.data.where import Condition, compile_condition
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.types import Example

MAX_ROWS = 5_000_000


def clean_row(raw: Any, where: str) -> dict[str, Any]:
    """One row as a dict of plain values; NaN, which tables use for missing values, becomes None. SuiteError for other values."""
    raw = fields_of(raw)
    if not isinstance(raw, Mapping):
        raise SuiteError(f"{where}: a row is a mapping of column to value, got {shown(raw)}")
    row: dict[str, Any] = {}
    for name, value in raw.items():
        if not isinstance(name, str):
            raise SuiteError(f"{where}: column names must be strings, got {shown(name)}")
        column = unicodedata.normalize("NFC", name)
        if column in row:
            raise SuiteError(f"{where}: duplicate column {shown(column)}")
        row[column] = _clean(value, where, column)
    return row


def _clean(value: Any, where: str, column: str) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value)):
        return None  # a missing value in a table
    value = fields_of(value)
    if isinstance(value, Mapping):
        return {str(key): _clean(item, where, column) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item, where, column) for item in value]
    if isinstance(value, (float, date, datetime, time, Decimal)):
        return value
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return _clean(value.tolist(), where, column)
    raise SuiteError(
        f"{where}: column {shown(column)} holds {shown(value)} ({type(value).__name__}); "
        "valid: strings, numbers, true, false, dates, lists and mappings of these"
    )


def content_id(row: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 of the row."""
    return digest(row, default=str)[:16]


def with_ids(numbered: Iterable[tuple[int, dict[str, Any]]]) -> tuple[Example, ...]:
    """Examples from (position, row); the second of two equal rows is ``<id>-2``."""
    seen: Counter[str] = Counter()
    examples = []
    for index, row in numbered:
        identity = content_id(row)
        seen[identity] += 1
        suffix = f"-{seen[identity]}" if seen[identity] > 1 else ""
        examples.append(Example(sys.intern(identity + suffix), index, row))
    return tuple(examples)


def fingerprint(examples: Iterable[Example]) -> str:
    """SHA-256 (hex) of the examples' content, independent of their order."""
    return digest(sorted(example.id for example in examples))


Raw = Iterator[tuple[str, Any]]
"""(path for messages, raw row)"""


@dataclass(frozen=True)
class Dataset:
    """The usable rows of a source."""

    examples: tuple[Example, ...]
    dropped: int = 0
    """Rows dropped because they lack a required column."""
    source: str = ""
    columns: tuple[str, ...] = ()
    filtered: int = 0
    """Rows excluded by ``where``."""
    lacking: Mapping[str, int] = field(default_factory=dict)
    """Column to the number of rows dropped for lacking it."""
    notes: tuple[str, ...] = ()
    """Remarks on how the data were read."""

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.examples)


def check_source(source: Any, base_dir: Path, root: Path | None = None) -> None:
    """Raise SuiteError if a dataset does not exist, has no rows or is of no supported kind; without reading it."""
    if isinstance(source, str):
        if source.startswith("hf:"):
            hub.parse_name(source)
        elif not is_function_path(source):
            for file in find(source, base_dir, root):
                _ = file.format
    elif isinstance(source, Path):
        check_source(str(source), base_dir, root)
    elif not isinstance(source, (list, tuple)) and not callable(source) and not _is_table(source):
        columns = isinstance(source, Mapping) and any(isinstance(values, (list, tuple)) for values in source.values())
        hint = ", a dict of columns; give a list of rows" if columns else ""
        raise InvalidError(
            f"is {shown(source)}{hint}; valid: a path ({', '.join(FORMATS)}; globs and zip members too), 'hf:NAME', "
            "'module:function', a list of rows, a table (pandas, polars, datasets), a function"
        )
    elif isinstance(source, (list, tuple)) and not source:
        raise InvalidError("is an empty list; a suite needs rows")


def _is_table(source: Any) -> bool:
    """Whether it is a table: a pandas or polars DataFrame, or a ``datasets.Dataset``."""
    names = getattr(source, "columns", None) is not None or getattr(source, "column_names", None) is not None
    return names and not isinstance(source, (str, bytes, Mapping, type))


_HEAD = 64_000  # bytes of a file inspected for its delimiter
_SWELLS = 4
"""Bytes of memory allowed per byte of a file."""


def load(
    source: Any,
    *,
    base_dir: Path | None = None,
    root: Path | None = None,
    where: str | Condition | None = None,
    needed: Iterable[str] | Callable[[Sequence[str]], Iterable[str]] = (),
    columns: Sequence[str] | None = None,
    delimiter: str | None = None,
    offline: bool = False,
    max_bytes: int | None = None,
) -> Dataset:
    """Read a dataset.

    Args:
        source: a path, a glob, ``archive.zip/member``, ``hf:NAME``, ``module:function``, a list of rows (mappings,
            dataclasses, pydantic models), a table (pandas, polars, datasets), or a function.
        base_dir: base of relative paths (default: the current directory).
        root: if given, nothing outside this directory is read or run.
        where: which rows to keep; an expression (see ``data.where``) or a function of the row.
        needed: columns that a row must have to be kept; or a function from all columns to these.
        columns: names for the columns of CSV and TSV files that have no header line.
        delimiter: the character between the cells of CSV and TSV files; None: seen from their first lines.
        offline: ``hf:`` uses local copies only.
        max_bytes: limit for unpacked files; their rows may take four times as much memory. Default: 50 MB.

    Raises:
        SuiteError: the source is missing or unreadable, ``where`` or ``needed`` names a column that no row has, or no
            row is left.
    """
    base = base_dir or Path.cwd()
    label = source_label(source)
    notes: list[str] = []
    table = {} if delimiter is None else {"delimiter": delimiter}
    raw = _raw(source, base, root, columns, table, offline=offline, max_bytes=max_bytes, notes=notes)
    everything = _clean_rows(raw, label)
    known = tuple(dict.fromkeys(column for row in everything for column in row))
    chosen = _filtered(everything, where, known)
    required = tuple(sorted(needed(known) if callable(needed) else needed))
    for name in required:
        if name not in known:
            raise SuiteError(
                f"{label} has no column {name!r}{did_you_mean(name, known)}; the columns are {listed(known)}"
            )
    lacking = Counter(name for _, row in chosen for name in required if row.get(name) is None)
    complete = [(index, row) for index, row in chosen if not any(row.get(name) is None for name in required)]
    filtered = len(everything) - len(chosen)
    if not complete:
        reasons = [f"{filtered} excluded by where={where!r}"] if filtered else []
        reasons += [f"{count} without {name!r}" for name, count in lacking.items()]
        raise SuiteError(f"{label}: no row of {len(everything)} is left: {', '.join(reasons)}")
    return Dataset(
        examples=with_ids(complete),
        dropped=len(chosen) - len(complete),
        source=label,
        columns=known,
        filtered=filtered,
        lacking=lacking,
        notes=tuple(notes),
    )


def source_label(source: Any) -> str:
    """The source on one line, for messages."""
    if isinstance(source, (str, Path)):
        return str(source)
    if _is_table(source):
        return "the table"
    return qualified_name(source) if callable(source) else "the list of rows"


def _raw(
    source: Any,
    base: Path,
    root: Path | None,
    columns: Sequence[str] | None,
    table: Mapping[str, str],
    *,
    offline: bool,
    max_bytes: int | None,
    notes: list[str],
) -> Raw:
    check_source(source, base, root)
    if isinstance(source, Path):
        source = str(source)
    if table and (not isinstance(source, str) or source.startswith("hf:") or is_function_path(source)):
        raise SuiteError(f"delimiter is for CSV and TSV files, and not for {source_label(source)}")
    if not isinstance(source, str):
        return _of_rows(_called(source) if callable(source) else source, source_label(source))
    most = MAX_BYTES if max_bytes is None else max_bytes
    if source.startswith("hf:"):
        return _weighed(_numbered(hub.open_rows(source, base, root, offline=offline, max_bytes=most), source), most)
    if is_function_path(source):
        return _of_rows(_called(load_function(source, base, root)), source)
    return _weighed(_of_files(find(source, base, root, most), columns, table, most, notes), most)


def _weighed(raw: Raw, max_bytes: int) -> Raw:
    """The rows, as long as all together take no more memory than ``max_bytes`` of a file may become."""
    memory = remaining = _SWELLS * max_bytes
    for where, row in raw:
        try:
            remaining -= weight_of(row)
        except ValueError as error:
            raise SuiteError(f"{where}: {error}") from None
        if remaining < 0:
            raise too_large(where, memory)
        yield where, row


def _of_files(
    found: Sequence[DataFile], columns: Sequence[str] | None, table: Mapping[str, str], max_bytes: int, notes: list[str]
) -> Raw:
    """Rows of files, which may be untrusted: their unpacked size is checked while they are read."""
    remaining = max_bytes
    for file in found:
        if table and file.format not in ("csv", "tsv"):
            raise SuiteError(f"delimiter is for CSV and TSV files, and not for {file.shown}")
        content = file.read(remaining)
        remaining -= len(content)
        if not table and (note := delimiter_note(content[:_HEAD], file.shown)):
            notes.append(note)
        yield from FORMATS[file.format](content, file.shown, columns, _SWELLS * max_bytes, **table)


def _called(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except LLMTuneError:
        raise
    except Exception as error:
        raise SuiteError(
            f"the dataset function {qualified_name(function)} raised {type(error).__name__}: {error}"
        ) from error


def _of_rows(data: Any, label: str) -> Raw:
    if hasattr(data, "iter_rows") and hasattr(data, "columns"):  # polars
        data = data.iter_rows(named=True)
    elif hasattr(data, "to_dict") and hasattr(data, "columns"):  # pandas
        data = data.to_dict("records")
    if isinstance(data, (str, bytes, Mapping)) or not hasattr(data, "__iter__"):
        raise SuiteError(f"{label} gave {shown(data)}; valid: a list of rows, each a mapping of column to value")
    return _numbered(data, label)


def _numbered(data: Iterable[Any], label: str) -> Raw:
    """Rows with their paths; an error while iterating becomes a SuiteError."""
    number = 0
    try:
        for row in data:
            number += 1
            yield f"{label}: row {number}", row
    except LLMTuneError:
        raise
    except Exception as error:
        raise SuiteError(f"{label} raised {type(error).__name__} after row {number}: {error}") from error


def _clean_rows(raw: Raw, label: str) -> list[dict[str, Any]]:
    everything: list[dict[str, Any]] = []
    for where, row in raw:
        if len(everything) >= MAX_ROWS:
            raise SuiteError(f"{label}: more than the limit of {MAX_ROWS:,} rows")
        everything.append(clean_row(row, where))
    if not everything:
        raise SuiteError(f"{label} holds no row")
    return everything


def _filtered(
    everything: list[dict[str, Any]], where: str | Condition | None, columns: Sequence[str]
) -> list[tuple[int, dict[str, Any]]]:
    if where is None:
        return list(enumerate(everything))
    condition, names = compile_condition(where) if isinstance(where, str) else (where, frozenset())
    for name in sorted(names - set(columns)):
        raise SuiteError(
            f"where={where!r} names {name!r}{did_you_mean(name, columns)}, but the columns are {listed(columns)}"
        )
    chosen = []
    for index, row in enumerate(everything):
        try:
            if condition(row):
                chosen.append((index, row))
        except Exception as error:
            what = str(error) if isinstance(error, LLMTuneError) else f"where raised {type(error).__name__}: {error}"
            raise SuiteError(f"{what}; in row {index + 1}: {shown(dict(row))}") from error
    return chosen
