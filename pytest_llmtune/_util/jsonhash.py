"""Canonical JSON, hashes of JSON and text, and the key of a completion request."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.types import CompletionRequest

__all__ = ["build", "canonical_json", "digest", "request_key", "safe_json", "text_digest", "without_n"]


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
        return {_name(key, where): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise SuiteError(
        f"the request parameter {where.lstrip('.') or 'body'} is {value!r:.80} ({type(value).__name__}), "
        "which JSON cannot represent; valid: strings, finite numbers, true, false, null, lists and mappings of these"
    )


def _name(key: Any, where: str) -> str:
    if isinstance(key, str):
        return key
    raise SuiteError(
        f"the request parameter {where.lstrip('.') or 'body'} has the key {key!r:.80}; keys must be strings"
    )


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
