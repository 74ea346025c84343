"""dspy's own HTTP transport, by a module of its shape: recorded once, played with the network shut."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import LLMServer
from support.replaying import COMMAND, chat, replay_of

from pytest_llmtune._util.aio import outside
from pytest_llmtune.capture.netguard import Offline
from pytest_llmtune.capture.patches import recorded
from pytest_llmtune.errors import StaleRecordingError
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from pathlib import Path


class TransportResponse:
    def __init__(self, *, status: int, reason: str, headers: Any, http_version: str, chunks: Any, release: Any) -> None:
        self.status, self.reason, self.headers, self.http_version = status, reason, headers, http_version
        self._chunks, self._release = chunks, release

    def __enter__(self) -> TransportResponse:
        return self

    def __exit__(self, *_: object) -> None:
        self._release(True)

    def read(self) -> bytes:
        return b"".join(self._chunks)


class AsyncTransportResponse(TransportResponse):
    async def __aenter__(self) -> AsyncTransportResponse:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._release(True)

    def __aiter__(self) -> Any:
        return self._chunks


def fetched(request: Any) -> dict[str, Any]:
    """A server's response, over a socket."""
    sent = urllib.request.Request(request.url, request.body, dict(request.headers))  # noqa: S310
    with outside(), urllib.request.urlopen(sent) as response:  # noqa: S310
        headers = response.getheaders()
        return {"status": 200, "reason": "OK", "headers": headers, "http_version": "HTTP/1.1", "body": response.read()}


class StdlibTransport:
    def stream(self, request: Any) -> TransportResponse:
        found = fetched(request)
        return TransportResponse(chunks=iter([found.pop("body")]), release=lambda _: None, **found)


class StdlibAsyncTransport:
    async def _do_stream(self, request: Any) -> AsyncTransportResponse:
        found = fetched(request)
        body = found.pop("body")

        async def chunks() -> Any:
            yield body

        async def release(_: bool) -> None: ...

        return AsyncTransportResponse(chunks=chunks(), release=release, **found)


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("lm15.transports")
    for each in (TransportResponse, AsyncTransportResponse, StdlibTransport, StdlibAsyncTransport):
        setattr(module, each.__name__, each)
    monkeypatch.setitem(sys.modules, "lm15.transports", module)


def ask(url: str, question: str) -> bytes:
    body = json.dumps(chat(question)).encode()
    headers = [("content-type", "application/json")]
    with StdlibTransport().stream(SimpleNamespace(method="POST", url=url, body=body, headers=headers)) as response:
        assert (response.status, "content-length" in dict(response.headers)) == (200, False)
        return response.read()


def ask_async(url: str, question: str) -> bytes:
    body = json.dumps(chat(question)).encode()
    request = SimpleNamespace(method="POST", url=url, body=body, headers=[("content-type", "application/json")])

    async def read() -> bytes:
        async with await StdlibAsyncTransport()._do_stream(request) as response:
            return b"".join([part async for part in response])

    return asyncio.run(read())


@pytest.mark.parametrize("way", [ask, ask_async])
def test_recorded_and_played(tmp_path: Path, way: Any) -> None:
    """The same answer, and no socket."""
    path = tmp_path / "a.cassette.json"
    with LLMServer(answer="hello") as server:
        url = f"{server.base_url}/chat/completions"
        with recorded(replay_of(path, Mode.RECORD_ALL)) as replay:
            first = way(url, "q")
        assert b"hello" in first
        with Offline(COMMAND), recorded(replay_of(path)):
            assert json.loads(way(url, "q"))["choices"] == json.loads(first)["choices"]
        assert (server.count, replay.meter.calls) == (1, 1)
    with pytest.raises(StaleRecordingError), recorded(replay_of(path)):
        way(url, "another")
