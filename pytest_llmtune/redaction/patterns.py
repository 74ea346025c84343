"""Names and patterns of secrets: our own rules, and those of detect-secrets and Betterleaks as data next to this file."""

from __future__ import annotations

import base64
import html
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

from pytest_llmtune._util.lazy import lazy_regex

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


SHORTEST = 8
"""Minimum length in characters; a shorter value would match innocent text."""

_VARIABLE = lazy_regex(r"(?:key|token|secret|passw(?:or)?d|passphrase|credential|_pat)s?\d*(?:_|$)", re.IGNORECASE)
_PERHAPS = lazy_regex(
    r"(?:^|_)(?:auth|authorization|bearer|cookie|session|webhook|hook|pass|pwd|dsn|jwt|sig|signature|cert|pem|private|login"
    r"|connection_?string|conn_?str)\d*(?:_|$)",
    re.IGNORECASE,
)
"""A variable with such a name is secret if its value looks like one: AUTH_MODE=kerberos does not."""
_NO_SECRET = lazy_regex(r"_(?:file|path|dir|sock|socket)$", re.IGNORECASE)
_IDENTITIES = ("OPENAI_ORG_ID", "OPENAI_ORGANIZATION", "OPENAI_PROJECT_ID")
_LOOKS_RANDOM = lazy_regex(r"(?=\S*\d)(?=\S*[A-Za-z])\S{12,}|\S{32,}")
_WITH_LOGIN = lazy_regex(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/@]*:[^\s/@]+@")

PARAMETER = lazy_regex(
    r"(?:^|[-_.])(?:api-?key|key|access|token|secret|passw(?:or)?d|pwd|signature|sig|credential|auth|authorization|code"
    r"|jwt|session)$",
    re.IGNORECASE,
)
"""Suffixes of query parameters whose values are secret."""

FIELD = lazy_regex(
    r".*api[-_]?key|.*(?:access|secret|private|account|subscription|signing|encryption|master)[-_]?key"
    r"|(?:.*[-_])?authorization|.*passw(?:or)?d|.*passphrase|(?:.*[-_])?secret|.*(?:client|app|consumer|shared)secret"
    r"|.*(?:access|refresh|session|auth|authorization|bearer|security|secret|api|bot|github|gitlab|slack)[-_]?token"
    r"|(?:.*[-_])?(?:id|hf)[-_]?token|(?:set-)?cookie|.*[-_]credentials?|openai-(?:organization|project)",
    re.IGNORECASE,
)
"""Full names of JSON fields and form fields whose texts are secret, as ``api_key``, ``authorization_token``, ``clientSecret``."""

_FIELD_HINTS = (
    'key"',
    "key\\",  # in JSON within JSON
    'token"',
    "token\\",
    "authorization",
    "passw",
    "passphrase",
    "secret",
    "credential",
    "cookie",
    "openai-",
)

HEADERS = lazy_regex(
    r"authorization|api-?key|cookie|token|secret|organization|project|passw(?:or)?d|credential"
    r"|(?<!idempotency)(?:^|-)(?:key|auth|session|signature|jwt)$",
    re.IGNORECASE,
)
"""Substrings, or last words, of the names of headers whose values are secret."""

_FORM_FIELD = lazy_regex(r'(\bname="([^"]+)"[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n)(.*?)(?=\r?\n--)', re.DOTALL)


def is_secret_name(name: str) -> bool:
    """Whether a parameter, or a field of a form, has a secret value."""
    return PARAMETER.search(name) is not None or FIELD.fullmatch(name) is not None


def form_fields(text: str, content_type: str) -> Iterator[tuple[str, str]]:
    """Names and values of a form's fields, where the body is one."""
    if "urlencoded" in content_type:
        pairs = (pair.partition("=") for pair in text.split("&"))
        yield from ((unquote_plus(name), unquote_plus(value)) for name, _, value in pairs)
    elif "multipart" in content_type:
        yield from ((field[2], field[3]) for field in _FORM_FIELD.finditer(text))


def clean_form(text: str, placeholder: str) -> str:
    """A multipart form without the values of its secret fields."""
    return _FORM_FIELD.sub(
        lambda field: field[1] + (placeholder if field[3] and is_secret_name(field[2]) else field[3]), text
    )


_OWN_FORMS = (
    (("sk-",), r"sk-[A-Za-z0-9_-]{20,}"),  # OpenAI, Anthropic, OpenRouter, DeepSeek, ...
    (("Bearer ",), r"Bearer [A-Za-z0-9._~+/=-]{16,}"),
    (("Basic ",), r"Basic (?=[A-Za-z]*[0-9+/=])[A-Za-z0-9+/=]{12,}"),
    (("org-",), r"org-[A-Za-z0-9]{16,}"),
    (("proj_",), r"proj_[A-Za-z0-9]{16,}"),
    (("AIza",), r"AIza[A-Za-z0-9_-]{30,}"),
    (("ya29.",), r"ya29\.[A-Za-z0-9_-]{20,}"),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[opusr]_[A-Za-z0-9]{30,}"),
    (("github_pat_",), r"github_pat_[A-Za-z0-9_]{30,}"),
    (("glpat-",), r"glpat-[A-Za-z0-9_.-]{20,}"),
    (("hf_",), r"hf_[A-Za-z0-9]{30,}"),
    (("gsk_", "xai-", "pplx-", "nvapi-", "tvly-"), r"(?:gsk_|xai-|pplx-|nvapi-|tvly-)[A-Za-z0-9_-]{20,}"),
    (("r8_", "lsv2_", "fw_"), r"(?:r8_|lsv2_(?:pt|sk)_|fw_)[A-Za-z0-9_]{24,}"),
    (("sntrys_",), r"sntrys_[A-Za-z0-9+/=_-]{30,}"),
    (("npm_",), r"npm_[A-Za-z0-9]{30,}"),
    (("dop_v1_", "shpat_", "dapi"), r"(?:dop_v1_|shpat_|dapi)[a-f0-9]{32,}"),
    (("sk_", "rk_", "pk_live_", "whsec_"), r"(?:[rs]k_(?:live|test)_|pk_live_|whsec_)[A-Za-z0-9+/=]{16,}"),
    (("xox", "xapp-"), r"(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,}"),
    (("eyJ",), r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    (
        ("PRIVATE KEY",),
        r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|$)",
    ),
    (("://",), r"(?<=://)[^\s/?#@:\"'<>\\]*:(?!\[?REDACTED)[^\s/?#@:\"'<>\\]+(?=@)"),  # user and password of a URL
)
"""(hints, one of which is in every match; pattern of a well-known service's keys)."""


@cache
def _forms() -> tuple[tuple[tuple[str, ...], str, int], ...]:
    """Our own patterns and those that `.ci/secret_patterns` took: (hints, pattern, flags)."""
    sources: list[dict[str, Any]] = json.loads(Path(__file__).with_name("known_forms.json").read_text("utf-8"))
    return (
        *((hints, _apart(pattern), 0) for hints, pattern in _OWN_FORMS),
        *(
            (tuple(rule["hints"]), _apart(rule["pattern"]), re.IGNORECASE if rule["ignore_case"] else 0)
            for source in sources
            for rule in source["rules"]
        ),
    )


def _apart(pattern: str) -> str:
    """Require a word boundary: ``risk-...`` does not contain ``sk-...``."""
    return pattern if pattern.startswith(("(?<=", "https:")) else rf"(?<![A-Za-z0-9])(?:{pattern})"


@cache
def _hints() -> tuple[str, ...]:
    """The hints of all forms, without those that contain another."""
    kept: list[str] = []
    for hint in sorted({hint for hints, _, _ in _forms() for hint in hints}, key=len):
        if not any(shorter in hint for shorter in kept):
            kept.append(hint)
    return tuple(sorted(kept))


@cache
def _compiled(pattern: str, flags: int) -> re.Pattern[str]:
    """Compile a pattern when its hint is first seen; compiling all takes longer than a small guard."""
    return re.compile(pattern, flags)


def may_hold_known_forms(text: str) -> bool:
    """Quick check whether ``known_forms`` may find anything."""
    for hint in _hints():  # noqa: SIM110  # half the time of any()
        if hint in text:
            return True
    return False


def known_forms(text: str) -> Iterator[tuple[int, int, str]]:
    """Find keys in well-known formats: (start, end, hint of the format)."""
    for hints, pattern, flags in _forms() if may_hold_known_forms(text) else ():
        if any(hint in text for hint in hints):
            for match in _compiled(pattern, flags).finditer(text):
                yield match.start(), match.end(), hints[0]


def names_a_secret(text: str) -> bool:
    """Quick check whether a JSON text may have a field that matches ``FIELD``, ten times as fast as the pattern."""
    lowered = text.lower()
    return any(hint in lowered for hint in _FIELD_HINTS)


def secrets_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The secrets in environment variables whose name or value looks secret, by a name for messages.

    A variable named like a key, token, password or organisation ID always counts; one named like a session, cookie or
    webhook only if its value looks random. In a URL, the user and password count; in a list of keys, each one; in any
    value, whatever has a well-known format.
    """
    found: dict[str, str] = {}
    for name, value in environ.items():
        text = value.strip()
        if (
            name in _IDENTITIES
            or (_VARIABLE.search(name) and not _NO_SECRET.search(name))
            or (
                _PERHAPS.search(name)
                and not _NO_SECRET.search(name)
                and _LOOKS_RANDOM.fullmatch(text)
                and not _is_path(text)
            )
        ):
            found[name] = text
        for number, part in enumerate(_parts(text), 1):
            found[f"{name} (part {number})"] = part
    return {name: value for name, value in found.items() if len(value) >= SHORTEST}


def _is_path(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # too long for a path
        return False


def _parts(text: str) -> Iterator[str]:
    """Secrets inside a variable's value."""
    if "://" in text and _WITH_LOGIN.match(text):
        try:
            login = urlsplit(text).netloc.rpartition("@")[0]
        except ValueError:
            login = text.partition("://")[2].partition("@")[0]
        yield login
        password = login.partition(":")[2]
        yield from dict.fromkeys((password, unquote(password)))
    for start, end, _ in known_forms(text):
        yield text[start:end]
    if "," in text and all(_LOOKS_RANDOM.fullmatch(part.strip()) for part in text.split(",")):
        yield from (part.strip() for part in text.split(","))


_CODED = re.compile(r"%[0-9A-F]{2}")
_FOR_GO, _FOR_NET = re.compile("[<>&]"), re.compile(r"""[<>&'+`]|\\\"""")
"""What their JSON escapes although it need not, since HTML could misread it."""
_SHORTEST_BASE64 = 10
"""Base64 characters determined by eight bytes alone, whatever surrounds them."""


def spellings(value: str) -> Iterable[str]:
    """The value as it is and in base64 (also twice, and of UTF-16), each as it stands in other formats; in hexadecimal
    digits; decoded."""
    data = value.encode("utf-8", "surrogatepass")
    once = [*_in_base64(data), *_in_base64(value.encode("utf-16-le", "surrogatepass"))]
    twice = [text for core in once for text in _in_base64(core.encode())]
    found = dict.fromkeys((value, *_written(value)))
    found |= dict.fromkeys(text for core in (*once, *twice) for text in _written(core))
    for separator in ("", ":", " "):
        digits = data.hex(separator) if separator else data.hex()
        found |= dict.fromkeys((digits, digits.upper()))
    found["".join(f"\\x{byte:02x}" for byte in data)] = None
    if "%" in value and len(decoded := unquote(value)) >= SHORTEST:
        found[decoded] = None
    return found


def _written(value: str) -> Iterator[str]:
    """A text in a URL (also in a URL's), as Python shows it, in HTML, in JSON and nested JSON (with all that writers escape)."""
    for text in (quote(value, safe=""), quote(value), quote_plus(value)):
        yield text
        yield _CODED.sub(lambda match: match[0].lower(), text)
    yield quote(quote(value, safe=""), safe="")
    yield repr(value)[1:-1]
    yield html.escape(value)
    yield html.escape(value, quote=False)
    yield html.escape(value).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")  # as Jinja and Go write them
    inside = [value]
    for _ in range(2):
        inside = [json.dumps(text, ensure_ascii=ascii_only)[1:-1] for text in inside for ascii_only in (False, True)]
        for text in dict.fromkeys(inside):
            yield text
            yield text.replace("/", r"\/")  # as PHP writes it
            yield _FOR_GO.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
            yield _FOR_NET.sub(lambda match: f"\\u{ord(match[0][-1]):04X}", text)


def _in_base64(data: bytes) -> Iterator[str]:
    """The base64 encodings of a value at each of the three possible offsets in a longer text."""
    for before in range(3):
        coded = base64.b64encode(bytes(before) + data).decode()
        # the first and last characters also depend on the surrounding text
        core = coded[(0, 2, 3)[before] : len(coded) - (0, 3, 2)[(before + len(data)) % 3]].rstrip("=")
        if len(core) >= _SHORTEST_BASE64:
            yield core
            if (safe := core.replace("+", "-").replace("/", "_")) != core:
                yield safe
