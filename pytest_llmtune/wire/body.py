"""Decode response bodies: compression, JSON, server-sent events."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.jsonhash import is_json, safe_json
from pytest_llmtune.wire.event_stream import is_complete
from pytest_llmtune.wire.response import dicts_in, documents_of, event_data, lines_of, parse_list, parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping


Spans = Callable[[str], list[tuple[int, int]]]
Change = Callable[[Any], Any]


def is_stream(text: str) -> bool:
    """Whether a body looks like an event stream."""
    return text.startswith(("data:", "event:", ": ", "id:", "retry:"))


def is_documents(text: str) -> bool:
    """Whether a body is a JSON array, or has a JSON object on each line."""
    lines = [line for line in text.split("\n") if line.strip()] if text.lstrip("\ufeff").startswith("{") else []
    return (bool(lines) and all(parse_object(line) is not None for line in lines)) or parse_list(text) is not None


def rewrite(text: str, change: Change, together: Callable[[list[Any]], None] | None = None) -> str:
    """A stream with the JSON of every event, line or item of an array changed; other lines are changed as text.

    Args:
        change: maps a document, or a text, to its replacement.
        together: called with the list of all changed documents, to change them in place.
    """
    if (items := parse_list(text)) is not None:
        new = [change(item) for item in items]
        if together is not None:
            together(new)
        return text if new == items else safe_json(new)
    lines, documents = _documents(text)
    changed = {number: change(document) for number, (_, document) in documents.items()}
    for number, line in enumerate(lines):
        if number not in documents and line.strip():
            lines[number] = change(line)
    together_changed = list(changed.values())
    if together is not None:
        together(together_changed)
    for (number, (prefix, document)), new_document in zip(documents.items(), together_changed, strict=True):
        if prefix or new_document != document:
            lines[number] = f"{prefix}{safe_json(new_document)}"
    return "\n".join(lines)


def _documents(text: str) -> tuple[list[str], dict[int, tuple[str, Any]]]:
    """The lines of a stream, and those that are JSON objects, by number: what is before the object, and the object.

    The lines of an event whose JSON takes several become one.
    """
    lines: list[str] = []
    documents: dict[int, tuple[str, Any]] = {}
    open_lines: list[str] = []
    for line in text.lstrip("\ufeff").split("\n" if "\n" in text else "\r"):
        prefix = "data: " if line.startswith("data:") else ""
        lines.append(line)
        document = parse_object(line[5:] if prefix else line)
        if document is None and prefix:
            open_lines.append(line[5:])
            document = parse_object("\n".join(open_lines))
            if document is not None:
                del lines[-len(open_lines) :]
                lines.append(line)
        if document is not None:
            documents[len(lines) - 1] = prefix, document
        if document is not None or not prefix:
            open_lines = []
    return lines, documents


def clean_pieces(documents: list[Any], spans: Spans, placeholder: str) -> bool:
    """Remove secrets that are spread over several events, as a model's words are.

    Args:
        spans: finds what to remove in a text: (start, end), in order.
        placeholder: replaces it.

    Returns:
        Whether anything was removed.
    """
    removed = False
    groups: defaultdict[object, list[tuple[dict[str, Any], str]]] = defaultdict(list)
    for document in documents:
        kind = (document.get("type"), document.get("output_index"), document.get("content_index"))
        for path, holder, name in _texts(document, ()):
            groups[kind, path].append((holder, name))
    for pieces in groups.values():
        texts = [holder[name] for holder, name in pieces]
        if len(texts) > 1 and (found := spans("".join(texts))):
            removed = True
            for (holder, name), text in zip(pieces, _without(texts, found, placeholder), strict=True):
                holder[name] = text
    return removed


def _texts(data: Any, path: tuple[object, ...]) -> Iterator[tuple[tuple[object, ...], dict[str, Any], str]]:
    """(path, container, key) of every string in a mapping; list items are identified by their ``index`` field."""
    if isinstance(data, dict):
        for name, value in data.items():
            if isinstance(value, str):
                yield (*path, name), data, name
            else:
                yield from _texts(value, (*path, name))
    elif isinstance(data, list):
        for position, item in enumerate(data):
            index = item.get("index", position) if isinstance(item, dict) else position
            yield from _texts(item, (*path, index))


def _without(texts: list[str], spans: list[tuple[int, int]], placeholder: str) -> list[str]:
    """The pieces without the given spans of their concatenation; a placeholder marks where a span began."""
    cleaned, start = [], 0
    for text in texts:
        out, position, end = "", start, start + len(text)
        for low, high in spans:
            if high <= position or low >= end:
                continue
            out += text[position - start : max(low, position) - start] + (placeholder if low >= start else "")
            position = min(high, end)
        cleaned.append(out + text[position - start :])
        start = end
    return cleaned


_ROUTES = ("/chat/completions", "/responses", "/completions", "/embeddings", "/messages")


def decoded(body: bytes, encoding: str = "") -> bytes:
    """Decompress a response's body; ValueError if the encoding is not supported."""
    names = [name for part in encoding.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    for name in reversed(names):
        try:
            body = _DECODERS[name](body)
        except KeyError:
            raise ValueError(f"has the unsupported content encoding {name!r}") from None
        except ImportError:
            raise ValueError(f"has the content encoding {name!r}, whose library is not installed") from None
        except (OSError, EOFError, ValueError, zlib.error):
            if body.startswith(_PACKED):
                raise ValueError(f"was cut, or has not the content encoding {name!r} that it names") from None
            break  # already decoded
    return body


_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""How gzip and zstd begin; other encodings have no such mark."""


def _deflate(body: bytes) -> bytes:
    try:
        return zlib.decompress(body)
    except zlib.error:
        return zlib.decompress(body, -zlib.MAX_WBITS)


def _gunzip(body: bytes) -> bytes:
    import gzip

    return gzip.decompress(body)


def _brotli(body: bytes) -> bytes:
    brotli = import_module("brotli")
    try:
        return bytes(brotli.decompress(body))
    except brotli.error as error:
        raise ValueError(str(error)) from None


def _zstd(body: bytes) -> bytes:
    zstandard = import_module("zstandard")
    parts: list[bytes] = []
    try:
        while body or not parts:  # a body may have several frames
            frame = zstandard.ZstdDecompressor().decompressobj()
            parts.append(bytes(frame.decompress(body)))
            if not frame.eof:  # of a frame that was cut, it gives what there is
                raise EOFError
            body = frame.unused_data
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None
    return b"".join(parts)


_DECODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}


def text_or_data(body: bytes, status: int, content_type: str) -> tuple[str, bytes]:
    """A decoded body as text, or else as data; an AWS event stream is binary even where its bytes happen to be UTF-8."""
    if status >= 400 or _AWS_EVENTS not in content_type:
        with suppress(UnicodeDecodeError):
            return body.decode(), b""
    return "", body


def why_incomplete(path: str, status: int, text: str, content_type: str, binary: bytes = b"") -> str:
    """Why a response is incomplete, or the empty string; a server's error response is complete too.

    Args:
        path: of the request's URL; model routes answer in JSON or in events.
        binary: in place of ``text``, the body of a binary response.
    """
    answers = status < 300 and path.endswith(_ROUTES)
    if binary and _AWS_EVENTS in content_type:
        return "" if is_complete(binary) else "was cut"
    if binary:  # a cut may be within a character
        return "is truncated, or not UTF-8" if answers or _is_utf8_by_type(content_type) else ""
    if any(kind in content_type for kind in _LINES):  # of which the first alone is a JSON object too
        return _why_incomplete_lines(text)
    data = parse_object(text)
    if data is not None:
        return "has no choices" if data.get("choices") == [] and "usage" in data else ""
    if "event-stream" in content_type or is_stream(text):
        return _why_incomplete_events(text, answers=answers)
    should_be = answers or (text and "json" in content_type)
    items = list(documents_of(text)) if text.lstrip().startswith("[") else []  # Gemini's stream without events
    return "is truncated, or not JSON" if should_be and not is_json(text) else _unfinished(items)


_AWS_EVENTS = "vnd.amazon.eventstream"
_LINES = ("ndjson", "jsonl", "json-lines", "stream+json")


def _is_utf8_by_type(content_type: str) -> bool:
    """Whether a body of this type is UTF-8: JSON and event streams, unless a server names another encoding."""
    _, named, charset = content_type.lower().partition("charset=")
    other = named and not charset.strip(" \"'").startswith(("utf-8", "utf8"))
    return not other and any(kind in content_type for kind in ("json", "event-stream"))


_LAST = {
    "response.": ("response.completed", "response.incomplete", "response.failed", "error"),
    "message_": ("message_stop", "error"),
    "content_block_": ("message_stop", "error"),
    "message-": ("message-end",),
    "content-": ("message-end",),
}
"""Prefix of a provider's event types to the types of its final event."""


_CUT = "was cut before its last event"


def _why_incomplete_events(text: str, *, answers: bool) -> str:
    """Why an event stream is incomplete: it must end with its provider's final event, if known.

    Args:
        answers: whether it is a model's, which has events.
    """
    data = [event.strip() for event in event_data(text)]
    if "[DONE]" in data:
        return ""
    unread = any(event.startswith("{") and parse_object(event) is None for event in data)
    return _CUT if unread or (answers and not data) else _unfinished(list(documents_of(text)))


def _unfinished(events: list[dict[str, Any]]) -> str:
    """Why events, or the items of an array, are not a complete answer; empty for those that are none of a known provider's."""
    if any(event.get("error") for event in events):
        return ""  # the final event
    kinds = [str(event.get("type") or "") for event in events]
    for begins, last in _LAST.items():
        if any(kind.startswith(begins) for kind in kinds):
            return "" if set(kinds) & set(last) else _CUT
    if any("candidates" in event or "usageMetadata" in event for event in events):
        candidates = [each for event in events for each in dicts_in(event.get("candidates"))]
        # a candidate ends with its finishReason; a blocked prompt has none
        begun, ended = ({each.get("index", 0) for each in some} for some in (candidates, filter(_ended, candidates)))
        return "" if (ended and begun <= ended) or any(event.get("promptFeedback") for event in events) else _CUT
    if any(isinstance(event.get("choices"), list) for event in events):
        choices = [each for event in events for each in dicts_in(event.get("choices"))]
        begun, ended = ({each.get("index", 0) for each in some} for some in (choices, filter(_ended, choices)))
        return "" if ended and begun <= ended else _CUT
    return ""


def _ended(choice: dict[str, Any]) -> bool:
    return bool(choice.get("finish_reason") or choice.get("finishReason"))


def _why_incomplete_lines(text: str) -> str:
    """Why JSON Lines are incomplete; Ollama's last line has ``done``."""
    documents = [parse_object(line) for line in lines_of(text) if line.strip()]
    if None in documents:
        return "is truncated, or not JSON"
    done = [document["done"] for document in documents if document and "done" in document]
    return "was cut before its last line" if done and not any(done) else ""
