"""Canonical JSON, hashes of JSON and text, the key of a completion request, and the memory that JSON will take."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.types import CompletionRequest

# Valid raw in JSON, but they break lines or mislead the reader of a diff (line separators, C1 and bidirectional
# controls), or cannot be encoded (lone surrogates).
_UNSAFE = lazy_regex("[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


_write = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def safe_json(value: Any) -> str:
    """Compact JSON on one line with sorted keys, readable in any script; unsafe characters are escaped."""
    text = _write(value)
    return text if text.isascii() and "\x7f" not in text else _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def canonical_json(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, and ``1``, ``1.0`` and ``1e0`` are the same number.

    Raises:
        SuiteError: the value is not representable in JSON (NaN, an arbitrary object, a non-string key, a cycle).
    """
    try:
        try:
            return safe_json(_usual(value))
        except TypeError:
            return safe_json(_plain(value, ""))
    except RecursionError:
        raise SuiteError("the request body is nested too deeply, or contains itself") from None


def _usual(value: Any) -> Any:
    """Like ``_plain``, but fast, for parsed JSON; anything else raises a TypeError."""
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is dict and all(type(key) is str for key in value):
        return {key: _usual(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_usual(item) for item in value]
    if kind is float and math.isfinite(value):
        return int(value) if value.is_integer() else value
    raise TypeError(kind)


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                name = where.lstrip(".") or "body"
                raise SuiteError(f"the request parameter {name} has the key {key!r:.80}; keys must be strings")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise SuiteError(
        f"the request parameter {where.lstrip('.') or 'body'} is {value!r:.80} ({type(value).__name__}), "
        "which JSON cannot represent; valid: strings, finite numbers, true, false, null, lists and mappings of these"
    )


def is_json(text: str) -> bool:
    """Whether a text is a whole JSON document."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def text_digest(text: str) -> str:
    """SHA-256 (hex) of a text, which may hold lone surrogates."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digest(value: Any, *, spaced: bool = False, default: Callable[[Any], Any] | None = None) -> str:
    """SHA-256 (hex) of data, independent of the order of keys.

    Args:
        spaced: with spaces after separators, as in the fingerprints of lock files.
        default: what turns other objects into JSON data; None: they raise a TypeError.
    """
    separators = None if spaced else (",", ":")
    return text_digest(json.dumps(value, ensure_ascii=False, sort_keys=True, separators=separators, default=default))


def without_n(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without ``n``: requests that differ only in ``n`` share their recording."""
    return {name: value for name, value in body.items() if name != "n"}


def request_key(body: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON of a chat completion's body without ``n``.

    Raises:
        SuiteError: the body is not representable in JSON.
    """
    return text_digest(canonical_json(without_n(body)))


def build(body: Mapping[str, Any], n: int) -> CompletionRequest:
    """A request for ``n`` answers; an ``n`` in ``body`` is ignored.

    Raises:
        SuiteError: the body is not representable in JSON, or ``n`` is not a positive integer.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise SuiteError(f"n is {n!r}; valid: a whole number of answers from 1")
    return CompletionRequest(body=without_n(body), n=n, key=request_key(body))


# Upper estimates of memory, made before or while data are read: a small file may unpack to GBs.

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
