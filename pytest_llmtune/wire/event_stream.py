"""Read and rewrite AWS event streams, the binary streams of Bedrock.

A message has a prelude (its length, and that of its headers), a checksum of the prelude, headers, a payload and a checksum.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.jsonhash import safe_json
from pytest_llmtune.wire.response import documents_of, parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_PRELUDE, _CHECKSUM = 12, 4


def payloads(data: bytes) -> Iterator[dict[str, Any]]:
    """The JSON payloads, with nested ``bytes`` unpacked; empty if it is not an event stream."""
    for message in _messages(data):
        payload = _payload(message)
        if payload is not None:
            yield _nested(payload) or payload


def answer_documents(answer: str | bytes) -> list[dict[str, Any]]:
    """The JSON objects of a response's body: text, or bytes where it is binary, as Bedrock's streams."""
    return list(payloads(answer) if isinstance(answer, bytes) else documents_of(answer))


def is_complete(data: bytes) -> bool:
    """Whether the data are messages and nothing else: no part of one that was cut."""
    return sum(map(len, _messages(data))) == len(data)


def rewritten(data: bytes, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    """The stream with each JSON payload changed; other messages stay as they are, to the byte.

    Bedrock's random padding, ``p``, is dropped.
    """
    return b"".join(_rewritten(message, change) for message in _messages(data)) if is_complete(data) else data


def _rewritten(message: bytes, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    payload = _payload(message)
    if payload is None:
        return message
    changed = {name: value for name, value in payload.items() if name != "p"}
    if (nested := _nested(payload)) is None:
        changed = change(changed)
    else:
        changed["bytes"] = base64.b64encode(safe_json(change(nested)).encode()).decode()
    content = safe_json(changed).encode()
    headers = message[_PRELUDE : _PRELUDE + _lengths(message)[1]]
    prelude = struct.pack(">II", _PRELUDE + len(headers) + len(content) + _CHECKSUM, len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + content
    return message + struct.pack(">I", zlib.crc32(message))


def _messages(data: bytes) -> Iterator[bytes]:
    """The complete messages from the start."""
    position = 0
    while position + _PRELUDE + _CHECKSUM <= len(data):
        length, headers = _lengths(data, position)
        if not _PRELUDE + _CHECKSUM + headers <= length <= len(data) - position:
            return
        yield data[position : position + length]
        position += length


def _lengths(data: bytes, position: int = 0) -> tuple[int, int]:
    """Lengths of a message and of its headers."""
    length, headers = struct.unpack_from(">II", data, position)
    return int(length), int(headers)


def _payload(message: bytes) -> dict[str, Any] | None:
    return parse_object(message[_PRELUDE + _lengths(message)[1] : -_CHECKSUM].decode("utf-8", "replace"))


def _nested(payload: dict[str, Any]) -> dict[str, Any] | None:
    """The model's own event, of InvokeModelWithResponseStream."""
    text = payload.get("bytes")
    if not isinstance(text, str):
        return None
    try:
        return parse_object(base64.b64decode(text).decode())
    except ValueError:
        return None
