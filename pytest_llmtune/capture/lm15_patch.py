"""Record and play requests of dspy, which since 3.4 uses its own HTTP transport (lm15's, on plain sockets)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_llmtune.capture.flow import Flow
from pytest_llmtune.capture.matching import ClientRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from pytest_llmtune.capture.session import Replay

LIBRARIES = {"dspy._vendor.lm15.transports": "dspy", "lm15.transports": "lm15"}
"""Modules with the transports, and their owners."""
_Headers: TypeAlias = "list[tuple[str, str]]"
_TRANSFER = frozenset({"transfer-encoding", "connection", "keep-alive", "content-length"})


def patches(module: Any, replay_here: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """(owner, name, replacement)."""
    owner = module.StdlibTransport
    yield owner, "stream", _stream(module.TransportResponse, owner.stream, replay_here)
    owner, name = module.StdlibAsyncTransport, "_do_stream"  # called by the context manager that ``stream`` returns
    yield owner, name, _stream_async(module.AsyncTransportResponse, getattr(owner, name), replay_here)


def _stream(kind: Any, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def stream(transport: Any, request: Any) -> Any:
        if (replay := replay_here()) is None:
            return original(transport, request)
        flow = Flow.of(replay, _client_request(request))
        if (played := flow.played) is not None:
            return response(played.status, played.reason, list(played.headers.items()), played.content)
        with flow.sent():
            answer = original(transport, request)
            if flow.call is None:
                return answer
            with answer:
                body = answer.read()
        return response(answer.status, answer.reason, _recorded(flow, answer, body), body)

    def response(status: int, reason: str, headers: _Headers, body: bytes) -> Any:
        fields = {"status": status, "reason": reason, "headers": headers, "http_version": "HTTP/1.1"}
        return kind(**fields, chunks=iter([body]), release=lambda _: None)

    return stream


def _stream_async(kind: Any, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    async def stream(transport: Any, request: Any) -> Any:
        if (replay := replay_here()) is None:
            return await original(transport, request)
        flow = await Flow.of_async(replay, _client_request(request))
        if (played := flow.played) is not None:
            return response(played.status, played.reason, list(played.headers.items()), played.content)
        with flow.sent():
            answer = await original(transport, request)
            if flow.call is None:
                return answer
            async with answer:
                body = b"".join([part async for part in answer])
        return response(answer.status, answer.reason, _recorded(flow, answer, body), body)

    def response(status: int, reason: str, headers: _Headers, body: bytes) -> Any:
        async def chunks() -> AsyncIterator[bytes]:
            yield body

        async def release(_: bool) -> None:
            """No connection to release."""

        fields = {"status": status, "reason": reason, "headers": headers, "http_version": "HTTP/1.1"}
        return kind(**fields, chunks=chunks(), release=release)

    return stream


def _client_request(request: Any) -> ClientRequest:
    return ClientRequest.of(request.method, request.url, request.body or b"", request.headers)


def _recorded(flow: Flow, answer: Any, body: bytes) -> _Headers:
    """Record a server's response; returns the headers that the client is given."""
    flow.answered(answer.status, answer.reason, {name.lower(): value for name, value in answer.headers}, body)
    return [(name, value) for name, value in answer.headers if name.lower() not in _TRANSFER]
