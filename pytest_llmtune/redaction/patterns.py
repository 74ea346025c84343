"""Patterns of secrets."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["FIELD", "HEADERS", "KNOWN", "PARAMETER", "SHORTEST", "names_a_secret", "secrets_of", "spellings"]


SHORTEST = 8
"""Characters; a shorter value would be found in innocent text."""

_VARIABLE = re.compile(r"(?:key|token|secret|passw(?:or)?d|passphrase|credential|_pat)s?(?:_|$)", re.IGNORECASE)
_NO_SECRET = re.compile(r"_(?:file|path|dir)$", re.IGNORECASE)
_IDENTITIES = ("OPENAI_ORG_ID", "OPENAI_ORGANIZATION", "OPENAI_PROJECT_ID")

PARAMETER = re.compile(
    r"(?:^|[-_.])(?:api-?key|key|access|token|secret|passw(?:or)?d|pwd|signature|sig|credential|auth|authorization|code"
    r"|jwt|session)$",
    re.IGNORECASE,
)
"""Ends of the names of query parameters whose values are secrets."""

FIELD = re.compile(
    r"(?:x-)?api[-_]?key|(?:proxy-)?authorization|passw(?:or)?d|(?:client_)?secret|(?:access|refresh|id|session)_token"
    r"|private_key|(?:set-)?cookie|openai-(?:organization|project)",
    re.IGNORECASE,
)
"""Whole names of JSON fields whose texts are secrets."""

_FIELD_HINTS = (
    "api_key",
    "apikey",
    "api-key",
    "authorization",
    "passw",
    "secret",
    '_token"',
    "private_key",
    "cookie",
    "openai-",
)

HEADERS = re.compile(r"authorization|api-?key|cookie|token|secret|organization|project", re.IGNORECASE)
"""Parts of the names of headers whose values are secrets."""

KNOWN = tuple(
    (hint, re.compile(r"(?<![A-Za-z0-9])" + pattern))
    for hint, pattern in (
        ("sk-", r"sk-[A-Za-z0-9_-]{20,}"),
        ("Bearer ", r"Bearer [A-Za-z0-9._~+/=-]{16,}"),
        ("org-", r"org-[A-Za-z0-9]{16,}"),
        ("proj_", r"proj_[A-Za-z0-9]{16,}"),
        ("AIza", r"AIza[A-Za-z0-9_-]{30,}"),
        ("AKIA", r"AKIA[A-Z0-9]{16}"),
        ("ghp_", r"ghp_[A-Za-z0-9]{30,}"),
        ("github_pat_", r"github_pat_[A-Za-z0-9_]{30,}"),
        ("hf_", r"hf_[A-Za-z0-9]{30,}"),
        ("xox", r"xox[abprs]-[A-Za-z0-9-]{10,}"),
        ("eyJ", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
        ("PRIVATE KEY-----", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"),
    )
)
"""(a text that every match holds, the form in which a well-known service gives out its keys)."""


def names_a_secret(text: str) -> bool:
    """Whether a JSON text may have a field named as ``FIELD`` says; searching for the pattern itself takes ten times as long."""
    lowered = text.lower()
    return any(hint in lowered for hint in _FIELD_HINTS)


def secrets_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that look like they hold a key, a token, a password, or an organisation's id."""
    return {
        name: value.strip()
        for name, value in environ.items()
        if (name in _IDENTITIES or (_VARIABLE.search(name) and not _NO_SECRET.search(name)))
        and len(value.strip()) >= SHORTEST
    }


def spellings(value: str) -> Iterable[str]:
    """The value as it is, inside JSON, inside JSON inside JSON (with and without escapes), and inside a URL."""
    found = dict.fromkeys((value, quote(value, safe="")))
    inside = {value}
    for _ in range(2):
        inside = {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for text in inside for ascii_only in (False, True)}
        found |= dict.fromkeys(sorted(inside))
    return found
