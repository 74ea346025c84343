"""Names of suites: they become file names, on every system and in every checkout."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from pytest_llmtune._util.invalid import InvalidError, shown

__all__ = ["check_name"]


_MAX = 200
"""Bytes; with the longest ending a file name stays below the 255 that file systems take."""
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_name(raw: Any) -> str:
    """A suite's name in NFC.

    Raises:
        SuiteError: no text, too long, or no file may be called so.
    """
    if not isinstance(raw, str) or not raw.strip():
        raise InvalidError(f"is {shown(raw)}; valid: a text that can be part of a file's name")
    name = unicodedata.normalize("NFC", raw.strip())
    found = _FORBIDDEN.search(name) or next(
        (c for c in name if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")), None
    )
    if found:
        bad = found if isinstance(found, str) else found[0]
        raise InvalidError(f"is {shown(raw)}; {bad!r} cannot be part of a file's name")
    if name.startswith(".") or name.endswith(".") or _RESERVED.fullmatch(name):
        raise InvalidError(f"is {shown(raw)}; no file may be called so everywhere")
    if len(name.encode()) > _MAX:
        raise InvalidError(f"is {shown(raw)}, {len(name.encode())} bytes long; the limit is {_MAX}")
    return name
