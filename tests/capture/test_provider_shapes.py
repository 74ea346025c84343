"""Responses in the shapes of several providers, by a plain HTTP client: recorded the same twice, and replayed to the byte."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.providers import Providers, message
from support.replaying import COMMAND, replay_of

from pytest_llmtune.capture.matching import ClientRequest
from pytest_llmtune.capture.netguard import Offline, OpenHosts
from pytest_llmtune.capture.patches import recorded
from pytest_llmtune.capture.traffic import Traffic
from pytest_llmtune.errors import RecordingError
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MESSAGES = [{"role": "user", "content": "six times seven"}]
PARTS: dict[str, Any] = {"contents": [{"parts": [{"text": "six times seven"}]}]}
CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES}
GEMINI = "/v1beta/models/gemini-2.5-flash"

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", CHAT),
    "openai stream": ("/v1/chat/completions", CHAT | {"stream": True}),
    "openai responses": ("/v1/responses", {"model": "m", "input": "q"}),
    "openai embeddings": ("/v1/embeddings", {"model": "m", "input": "q"}),
    "openai speech": ("/v1/audio/speech", {"model": "tts-1", "input": "q"}),
    "openai status 400": ("/v1/chat/completions", {"model": "m", "messages": [{"content": "refuse this"}]}),
    "anthropic": ("/v1/messages", CHAT),
    "anthropic stream": ("/v1/messages", CHAT | {"stream": True}),
    "gemini": (f"{GEMINI}:generateContent", PARTS),
    "gemini stream": (f"{GEMINI}:streamGenerateContent?alt=sse", PARTS),
    "cohere": ("/v2/chat", CHAT),
    "cohere stream": ("/v2/chat", CHAT | {"stream": True}),
    "ollama": ("/api/chat", CHAT | {"stream": False}),
    "ollama stream": ("/api/chat", CHAT),
    "bedrock": ("/model/amazon.nova-lite-v1%3A0/converse", {"messages": [{"content": [{"text": "q"}]}]}),
    "bedrock stream": ("/model/amazon.nova-lite-v1%3A0/converse-stream", {"messages": [{"content": [{"text": "q"}]}]}),
    "bedrock model's stream": ("/model/anthropic.claude-haiku-4-5/invoke-with-response-stream", {"messages": MESSAGES}),
    "mistral tools": ("/mistral/v1/chat/completions", CHAT),
}


@pytest.fixture
def providers() -> Iterator[Providers]:
    with Providers() as running:
        yield running


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_recorded_the_same_twice_and_replayed(shape: str, providers: Providers, tmp_path: Path) -> None:
    """Ids, times and rate limits differ in every answer, and no byte of the recording does; errors count as no call."""
    path = tmp_path / "test_app.cassette.json"
    route, body = SHAPES[shape]

    def run(mode: Mode) -> tuple[int, bytes, str]:
        with recorded(replay_of(path, mode, traffic=Traffic.of((), OpenHosts()))) as replay:  # as in a run
            reply = httpx.post(providers.url + route, json=body)
            assert httpx.post(providers.url + route, json=body).status_code == reply.status_code
        assert replay.meter.calls == (0 if reply.status_code == 400 else 2)
        return reply.status_code, reply.content, reply.headers["content-type"]

    run(Mode.RECORD_ALL)
    once = path.read_bytes()
    run(Mode.RECORD_ALL)
    assert path.read_bytes() == once
    assert b"__cf_bm" not in once
    assert b"x-ratelimit-remaining-requests" in once
    with Offline(COMMAND):
        status, content, kind = run(Mode.REPLAY)
    assert len(providers.requests) == 4
    assert status == (400 if "400" in shape else 200)
    assert kind in once.decode()
    if "speech" in shape:
        assert content.startswith(b"ID3\x04\x00\xff")


def test_a_binary_stream_that_was_cut_fails_the_recording_run(tmp_path: Path) -> None:
    """Bedrock's, where the connection said that it was complete."""
    kind = {"content-type": "application/vnd.amazon.eventstream"}
    replay = replay_of(tmp_path / "test_app.cassette.json", Mode.RECORD_ALL)
    body = message("contentBlockDelta", {"delta": {"text": "forty-"}})

    def stream() -> None:
        with replay:
            call = replay.begin(ClientRequest.of("POST", "https://h/model/m/converse-stream", b"{}"))
            replay.answer(call, 200, "OK", kind, body[:-3])

    with pytest.raises(RecordingError, match="was cut"):
        stream()
    assert not replay.path.exists()


def test_an_id_that_is_sent_back_stays_linked(providers: Providers, tmp_path: Path) -> None:
    """Anthropic's id of a tool call, in the next request of the replay, is that of the recording."""
    path = tmp_path / "test_app.cassette.json"
    tools = {"tools": [{"name": "who"}]}

    def converse(mode: Mode) -> str:
        with recorded(replay_of(path, mode)):
            first = httpx.post(f"{providers.url}/v1/messages", json=CHAT | tools).json()["content"][0]["id"]
            result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": first, "content": "42"}]}
            again = {"messages": [*MESSAGES, result]}
            reply = httpx.post(f"{providers.url}/v1/messages", json=CHAT | tools | again).json()
        assert reply["content"][0]["text"] == "forty-two"
        return str(first)

    served = converse(Mode.RECORD_ALL)
    with Offline(COMMAND):
        played = converse(Mode.REPLAY)
    assert played.startswith("toolu_")
    assert played != served
    assert served not in path.read_text(encoding="utf-8")


def test_an_id_in_a_url_stays_linked(tmp_path: Path) -> None:
    """A file or a batch is polled by its id, which is a part of the path."""
    path, identity = tmp_path / "test_app.cassette.json", "batch_0123456789abcdef"
    made = {"id": identity, "object": "batch", "created_at": 1, "status": "validating"}
    with replay_of(path, Mode.RECORD_ALL) as replay:
        for asked, status in (
            (ClientRequest.of("POST", "https://h/v1/batches", b'{"input_file_id": "f"}'), "validating"),
            (ClientRequest.of("GET", f"https://h/v1/batches/{identity}", b""), "completed"),
        ):
            body = json.dumps(made | {"status": status}).encode()
            replay.answer(replay.begin(asked), 200, "OK", {"content-type": "application/json"}, body)
    assert identity not in path.read_text(encoding="utf-8")
    with replay_of(path) as replay:
        first = replay.begin(ClientRequest.of("POST", "https://h/v1/batches", b'{"input_file_id": "f"}')).interaction
        assert first is not None
        known = json.loads(first.text)["id"]
        second = replay.begin(ClientRequest.of("GET", f"https://h/v1/batches/{known}", b"")).interaction
    assert second is not None
    assert json.loads(second.text)["status"] == "completed"
