"""Bodies as they travel: unpacked, and known when something is missing."""

from __future__ import annotations

import gzip
import json
import zlib
from importlib import import_module

import pytest

from pytest_llmtune.wire.body import decoded, text_or_data, why_incomplete

BODY = json.dumps({"choices": [], "text": "안녕"}, ensure_ascii=False).encode()
CHAT = "/v1/chat/completions"
EVENTS = "text/event-stream"


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (BODY, ""),
        (BODY, "identity"),
        (gzip.compress(BODY, mtime=0), "gzip"),
        (gzip.compress(BODY, mtime=0), " X-GZIP "),
        (zlib.compress(BODY), "deflate"),
        (raw_deflate(BODY), "deflate"),
        (gzip.compress(zlib.compress(BODY), mtime=0), "deflate, gzip"),
        (BODY, "gzip"),  # a client has unpacked it already
        (BODY, "deflate"),
    ],
)
def test_a_body_is_unpacked(packed: bytes, encoding: str) -> None:
    """The last encoding first; what is unpacked already stays."""
    assert decoded(packed, encoding) == BODY


def test_zstd() -> None:
    """By the library that httpx takes too."""
    zstandard = pytest.importorskip("zstandard")
    assert decoded(zstandard.ZstdCompressor().compress(BODY), "zstd") == BODY
    assert decoded(BODY, "zstd") == BODY


def test_an_encoding_that_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than an answer of noise."""

    def missing(name: str) -> object:
        if name == "brotli":
            raise ImportError(name)
        return import_module(name)

    monkeypatch.setattr("pytest_llmtune.wire.body.import_module", missing)
    with pytest.raises(ValueError, match="the content encoding 'br', whose library is not installed"):
        decoded(BODY, "br")
    with pytest.raises(ValueError, match="the unsupported content encoding 'lzma'"):
        decoded(gzip.compress(BODY, mtime=0), "lzma, gzip")


def events(*documents: object) -> str:
    return "".join(f"data: {json.dumps(document)}\n\n" for document in documents)


CUT = "was cut before its last event"
BROKEN = "is truncated, or not JSON"


@pytest.mark.parametrize(
    ("text", "content_type", "why"),
    [
        (events({"choices": [{"delta": {"content": "Hi"}}]}), EVENTS, CUT),
        (events({"choices": [{"finish_reason": "stop"}]}), EVENTS, ""),
        (events({"choices": [{"delta": {"content": "Hi"}}]}) + "data: [DONE]\n\n", EVENTS, ""),
        (events({"choices": []}, {"error": {"message": "overloaded"}}), EVENTS, ""),
        (events({"type": "response.created"}), EVENTS, CUT),
        (events({"type": "response.created"}, {"type": "response.failed"}), EVENTS, ""),
        (events({"type": "message_start"}, {"type": "content_block_delta"}), EVENTS, CUT),
        (events({"type": "message_start"}, {"type": "message_stop"}), EVENTS, ""),
        (events({"type": "content-delta"}), EVENTS, CUT),
        (events({"candidates": [{"content": {}}]}), EVENTS, CUT),
        (events({"candidates": [{"finishReason": "STOP"}]}), EVENTS, ""),
        (events({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {}}), EVENTS, ""),
        (events({"something": "else"}), EVENTS, ""),
        (events({"choices": [{"delta": {"content": "data: [DONE]"}}]}), EVENTS, CUT),  # said by the model
        (events({"choices": [{"index": 0}]}, {"choices": [{"index": 1, "finish_reason": "stop"}]}), EVENTS, CUT),
        ('data: {"choices": [{"ind', EVENTS, CUT),  # within the only event
        ('data: {"choices":\ndata: [{"finish_reason": "stop"}]}\n\n', EVENTS, ""),  # one event on two lines
        ('\ufeffdata: {"choices": [{}]}\r\n\r\n', EVENTS, CUT),
        ("", EVENTS, CUT),
        (": keep-alive\n\n: keep-alive\n\n", EVENTS, CUT),
        ('[{"candidates": [{"content": {}}]}]', "application/json", CUT),
        ('[{"candidates": [{"finishReason": "STOP"}]}]', "application/json", ""),
        ('{"response": "a", "done": false}\n{"response": "b"', "application/x-ndjson", BROKEN),
        ('{"response": "a", "done": false}\n', "application/x-ndjson", "was cut before its last line"),
        ('{"response": "a", "done": false}\n{"done": false}\n', "application/x-ndjson", "was cut before its last line"),
        ('{"response": "a", "done": false}\n{"done": true}\n', "application/x-ndjson", ""),
        ('{"choices": [], "usage": {}}', "application/json", "has no choices"),
        ('{"choices": [', "application/json", BROKEN),
        ("", "application/json", BROKEN),
        ("[1, 2]", "application/json", ""),
    ],
)
def test_an_answer_that_is_not_complete(text: str, content_type: str, why: str) -> None:
    """Each provider's stream has a last event; JSON Lines a line that is done."""
    assert why_incomplete(CHAT, 200, text, content_type) == why


@pytest.mark.parametrize(
    ("path", "content_type", "why"),
    [
        (CHAT, EVENTS, "is truncated, or not UTF-8"),
        (CHAT, "", "is truncated, or not UTF-8"),
        ("/api/chat", "application/x-ndjson", "is truncated, or not UTF-8"),
        ("/weather", "application/json; charset=utf-8", "is truncated, or not UTF-8"),
        ("/weather", "application/json; charset=latin-1", ""),
        ("/v1/audio/speech", "audio/mpeg", ""),
    ],
)
def test_a_cut_within_a_character(path: str, content_type: str, why: str) -> None:
    """The bytes are no text then; an answer in JSON or events is not complete for that."""
    cut = (
        events({"choices": [{"delta": {"content": "caf\xe9"}}]})
        .replace("\\u00e9", "\xe9")
        .encode()
        .partition(b"\xa9")[0]
    )
    text, data = text_or_data(cut, 200, content_type)
    assert (text, data) == ("", cut)
    assert why_incomplete(path, 200, text, content_type, data) == why


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_packed_body_that_was_cut_is_no_body(encoding: str) -> None:
    """Nor is what could be unpacked of it."""
    body = b"data: 1\n\n" * 1000
    packed = (
        gzip.compress(body, mtime=0)
        if encoding == "gzip"
        else pytest.importorskip("zstandard").ZstdCompressor().compress(body)
    )
    assert decoded(packed, encoding) == body
    assert decoded(packed + packed, encoding) == body + body
    assert decoded(body, encoding) == body  # unpacked already, as aiohttp does
    for cut in (packed[:-4], packed[: len(packed) // 2]):
        with pytest.raises(ValueError, match=f"was cut, or has not the content encoding '{encoding}'"):
            decoded(cut, encoding)


@pytest.mark.parametrize(("path", "status"), [("/v1/files", 200), (CHAT, 502)])
def test_what_need_not_be_json(path: str, status: int) -> None:
    """Other routes, and the page of a proxy that failed."""
    assert why_incomplete(path, status, "<html>", "text/html") == ""
    assert why_incomplete(CHAT, 200, "<html>", "text/html") == BROKEN
