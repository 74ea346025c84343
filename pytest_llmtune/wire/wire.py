"""Response bodies as they come over the wire: decompressed, as text, and known to be complete."""

from __future__ import annotations

import gzip
import json
import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_llmtune.wire.body import is_stream
from pytest_llmtune.wire.response import documents_of, facts_of, parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["text_of", "why_incomplete"]


_ROUTES = ("/chat/completions", "/responses", "/completions", "/embeddings", "/messages")


def text_of(body: bytes, encoding: str = "") -> str:
    """A response's body as text.

    Args:
        encoding: the header ``content-encoding``. Some clients undo the encoding and leave the header as it came.

    Raises:
        ValueError: the body is binary, or its encoding is unknown here.
    """
    names = [name for part in encoding.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    for name in reversed(names):
        try:
            body = _DECODERS[name](body)
        except KeyError:
            raise ValueError(f"has the content encoding {name!r}, which is unknown here") from None
        except ImportError:
            raise ValueError(f"has the content encoding {name!r}, whose library is not installed") from None
        except (OSError, EOFError, ValueError, zlib.error):
            break  # decoded before
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ValueError("is binary, which a recording in JSON cannot hold") from None


def _deflate(body: bytes) -> bytes:
    try:
        return zlib.decompress(body)
    except zlib.error:
        return zlib.decompress(body, -zlib.MAX_WBITS)


def _brotli(body: bytes) -> bytes:
    brotli = import_module("brotli")
    try:
        return bytes(brotli.decompress(body))
    except brotli.error as error:
        raise ValueError(str(error)) from None


def _zstd(body: bytes) -> bytes:
    zstandard = import_module("zstandard")
    try:
        return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(body))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


_DECODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "x-gzip": gzip.decompress,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}


def why_incomplete(path: str, status: int, text: str, content_type: str) -> str:
    """Why a response must not be recorded, or the empty text: only complete, successful responses are.

    Args:
        path: of the request's URL; what a model is asked is answered in JSON, or in events.
    """
    if not 200 <= status < 400:
        return f"has the status {status}"
    data = parse_object(text)
    if data is None:
        if "event-stream" in content_type or is_stream(text):
            return _why_incomplete_stream(text)
        should_be = path.endswith(_ROUTES) or (text and "json" in content_type)
        return "is truncated, or no JSON" if should_be and not _is_json(text) else ""
    if data.get("error"):
        return "reports an error"
    return "has no choices" if data.get("choices") == [] and "usage" in data else ""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _why_incomplete_stream(text: str) -> str:
    if any(event.get("error") for event in documents_of(text)):
        return "reports an error"
    ended = "data: [DONE]" in text or "data:[DONE]" in text or _has_last_event(text) or facts_of(text).finish_reasons
    return "" if ended else "was cut before its last event"


def _has_last_event(text: str) -> bool:
    kinds: set[Any] = {event.get("type") for event in documents_of(text)}
    return bool(kinds & {"response.completed", "response.incomplete", "message_stop"})
