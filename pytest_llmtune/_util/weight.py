"""Upper estimates of the memory that data will take, made before or while it is read: a small file may unpack to GBs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MAX_JSON", "is_heavy", "json_weight", "weight_of"]


MAX_JSON = 256_000_000
"""Limit in bytes of memory for one untrusted JSON text."""

_LIGHT = 1_000_000
"""Length of a text that cannot exceed the limit, whatever its characters."""
_MAPPING, _LIST, _VALUE = 232, 88, 60  # sizes of CPython objects in bytes, rounded up


def json_weight(text: str) -> int:
    """Approximate upper limit in bytes of memory for ``json.loads(text)``, from counts of delimiters."""
    width = 1 if text.isascii() and "\\u" not in text else 4  # one wide character makes its whole string wide
    return (
        len(text) * width
        + text.count("{") * _MAPPING
        + text.count("[") * _LIST
        + (text.count(",") + text.count(":")) * _VALUE
    )


def is_heavy(text: str) -> bool:
    """Whether a JSON text may need more than ``MAX_JSON``."""
    return len(text) > _LIGHT and json_weight(text) > MAX_JSON


def weight_of(value: Any, levels: int = 100) -> int:
    """Approximate bytes of memory of plain data; shared objects count each time.

    Raises:
        ValueError: it is nested more than ``levels`` deep.
    """
    if isinstance(value, str):
        return _VALUE + (len(value) if value.isascii() else 4 * len(value))
    if not levels:
        raise ValueError("nested too deeply")
    if isinstance(value, Mapping):
        return _MAPPING + sum(_VALUE + weight_of(item, levels - 1) for item in value.values())
    if isinstance(value, (list, tuple)):
        return _LIST + sum(weight_of(item, levels - 1) for item in value)
    if isinstance(value, (bytes, bytearray)):
        return _VALUE + len(value)
    return _VALUE
