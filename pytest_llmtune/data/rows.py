"""Rows from every source, made alike: NFC column names, plain values, None for what is missing, ids by content."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from pytest_llmtune._util.invalid import shown
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.types import Example

__all__ = ["MAX_ROWS", "clean_row", "content_id", "digest", "fingerprint", "with_ids"]


MAX_ROWS = 5_000_000


def clean_row(raw: Any, where: str) -> dict[str, Any]:
    """One row as a dict of plain values; NaN, which tables use for it, becomes None: missing.

    Raises:
        SuiteError: no mapping, a column whose name is no text or stands twice, a value that is no data.
    """
    if not isinstance(raw, Mapping):
        raise SuiteError(f"{where}: a row is a mapping of column to value, got {shown(raw)}")
    row: dict[str, Any] = {}
    for name, value in raw.items():
        if not isinstance(name, str):
            raise SuiteError(f"{where}: the column name {shown(name)} is no text")
        column = unicodedata.normalize("NFC", name)
        if column in row:
            raise SuiteError(f"{where}: the column {shown(column)} stands twice")
        row[column] = _clean(value, where, column)
    return row


def _clean(value: Any, where: str, column: str) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {str(key): _clean(item, where, column) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item, where, column) for item in value]
    if isinstance(value, (date, datetime, time, Decimal)):
        return value
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return _clean(value.tolist(), where, column)
    raise SuiteError(
        f"{where}: column {shown(column)} holds {shown(value)} ({type(value).__name__}); "
        "valid: text, numbers, true, false, dates, lists and mappings of these"
    )


def digest(value: Any) -> str:
    """SHA-256 (hex) of data, whatever the order of its keys."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def content_id(row: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 of the row."""
    return digest(row)[:16]


def with_ids(numbered: Iterable[tuple[int, dict[str, Any]]]) -> tuple[Example, ...]:
    """Examples from (position, row); the second of two equal rows is ``<id>-2``."""
    seen: Counter[str] = Counter()
    examples = []
    for index, row in numbered:
        identity = content_id(row)
        seen[identity] += 1
        count = seen[identity]
        examples.append(Example(sys.intern(identity if count == 1 else f"{identity}-{count}"), index, row))
    return tuple(examples)


def fingerprint(examples: Iterable[Example]) -> str:
    """SHA-256 (hex) of a set of examples by content, whatever their order."""
    return digest(sorted(example.id for example in examples))
