"""Format strings that reach columns only: ``{name}``, ``{name!r}``, ``{name:.2f}``; ``{{ }}`` are literal braces."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from string import Formatter
from typing import TYPE_CHECKING

from pytest_llmtune._util.invalid import InvalidError, listed, meant, shown
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from pytest_llmtune.types import Row

__all__ = ["escape", "fields", "fill"]


_MAX_WIDTH = 1_000
_MAX_FILLED = 16_000_000
"""A width or precision beyond it is an attack on the memory."""

Part = tuple[str, str | None, str, str]
"""Literal text, then a column, its format and its conversion."""


@lru_cache(maxsize=1024)
def _parts(text: str) -> tuple[Part, ...]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise InvalidError(f"{shown(text, 60)}: {error}; literal braces are written {{{{ }}}}") from None
    return tuple(
        (literal, _column(text, name), spec or "", how or "") for literal, name, spec, how in map(_checked, parsed)
    )


def _checked(part: tuple[str, str | None, str | None, str | None]) -> tuple[str, str | None, str | None, str | None]:
    _, name, spec, how = part
    if spec and ("{" in spec or any(int(number) > _MAX_WIDTH for number in re.findall(r"\d+", spec))):
        raise InvalidError(f"the field {{{name}:{spec}}}: a format takes no braces, and no width above {_MAX_WIDTH}")
    if how not in (None, "s", "r", "a"):
        raise InvalidError(f"the field {{{name}!{how}}}: valid conversions are !s, !r and !a")
    return part


def _column(text: str, name: str | None) -> str | None:
    if name is None:
        return None
    if not name or name.isdecimal():
        raise InvalidError(
            f"{shown(text, 60)}: the field {{{name}}} names no column; "
            "a field is {column}, literal braces are written {{ }}"
        )
    if re.search(r"[.\[\]]", name):
        raise InvalidError(
            f"the field {{{name}}} reaches into a value; "
            "a field is a column's name alone (for more, use a function of the row)"
        )
    return unicodedata.normalize("NFC", name)  # as the data's columns are


def fields(text: str) -> frozenset[str]:
    """The columns that a format string names.

    Raises:
        SuiteError: it is malformed, or reaches further than columns.
    """
    return frozenset(name for _, name, _, _ in _parts(text) if name is not None)


def fill(text: str, row: Row) -> str:
    """The text with a row's values.

    Raises:
        SuiteError: the row lacks a column, a value does not fit its format, or the text gets too long: a column may hold
            megabytes, and a template may name it a million times.
    """
    parts, length = [], 0
    for literal, name, spec, how in _parts(text):
        part = literal + (_value(name, spec, how, row) if name is not None else "")
        if (length := length + len(part)) > _MAX_FILLED:
            raise SuiteError(f"the prompt {shown(text, 60)} gets longer than the limit of {_MAX_FILLED:,} characters")
        parts.append(part)
    return "".join(parts)


def _value(name: str, spec: str, how: str, row: Row) -> str:
    if name not in row:
        raise SuiteError(f"the prompt names {{{name}}}{meant(name, row)}, but the row has {listed(row)}")
    value = row[name]
    try:
        converted = repr(value) if how == "r" else ascii(value) if how == "a" else str(value) if how == "s" else value
        return format(converted, spec)
    except (ValueError, TypeError) as error:
        raise SuiteError(
            f"the prompt's field {{{name}:{spec}}} does not fit the value {shown(value)}: {error}"
        ) from None


def escape(text: str) -> str:
    """The format string that gives exactly this text."""
    return text.replace("{", "{{").replace("}", "}}")
