"""How much memory data becomes, estimated from above before or while it is read: a small file may unpack to gigabytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MAX_JSON", "json_weight", "weight_of"]


MAX_JSON = 256_000_000
"""Bytes of memory that one JSON text from outside may become."""

_MAPPING, _LIST, _VALUE = 232, 88, 60  # bytes: of CPython's objects, rounded up


def json_weight(text: str) -> int:
    """Bytes of memory that ``json.loads(text)`` takes at most, about. Counts what may begin a value; takes no time."""
    width = 1 if text.isascii() and "\\u" not in text else 4  # one wide character makes its whole text wide
    return (
        len(text) * width
        + text.count("{") * _MAPPING
        + text.count("[") * _LIST
        + (text.count(",") + text.count(":")) * _VALUE
    )


def weight_of(value: Any) -> int:
    """Bytes of memory of plain data, about; what stands there twice counts twice."""
    if isinstance(value, str):
        return _VALUE + (len(value) if value.isascii() else 4 * len(value))
    if isinstance(value, Mapping):
        return _MAPPING + sum(_VALUE + weight_of(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return _LIST + sum(map(weight_of, value))
    if isinstance(value, (bytes, bytearray)):
        return _VALUE + len(value)
    return _VALUE
