"""Record and play requests of dspy, which since 3.4 uses its own HTTP transport (lm15's, on plain sockets)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from pytest_llmtune.capture.flow import Flow
from pytest_llmtune.capture.matching import ClientRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from pytest_llmtune.capture.session import Replay

__all__ = ["LIBRARIES", "patches"]

LIBRARIES = {"dspy._vendor.lm15.transports": "dspy", "lm15.transports": "lm15"}
"""Modules with the transports, and their owners."""
_OF_THE_WIRE = frozenset({"transfer-encoding", "connection", "keep-alive", "content-length"})


def patches(module: Any, replay_here: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """(owner, name, replacement)."""
    response = module.TransportResponse
    yield module.StdlibTransport, "stream", _stream(response, module.StdlibTransport.stream, replay_here)
    response = module.AsyncTransportResponse
    name = "_do_stream"  # called by the context manager that ``stream`` returns
    original = getattr(module.StdlibAsyncTransport, name)
    yield module.StdlibAsyncTransport, name, _stream_async(response, original, replay_here)


def _stream(response: Any, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def stream(transport: Any, request: Any) -> Any:
        if (replay := replay_here()) is None:
            return original(transport, request)
        client_request = _client_request(request)
        flow = Flow.of(replay, client_request)
        if (played := flow.played) is not None:
            return _made(
                response,
                played.status,
                played.reason,
                headers=list(played.headers.items()),
                chunks=iter([played.content]),
            )
        with flow.sent():
            answer = original(transport, request)
            if flow.call is None:
                return answer
            with answer:
                body = answer.read()
        flow.answered(answer.status, answer.reason, _headers(answer), body)
        return _made(response, answer.status, answer.reason, headers=_kept(answer), chunks=iter([body]))

    return stream


def _stream_async(response: Any, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    async def stream(transport: Any, request: Any) -> Any:
        if (replay := replay_here()) is None:
            return await original(transport, request)
        client_request = _client_request(request)
        flow = await Flow.of_async(replay, client_request)
        if (played := flow.played) is not None:
            headers = list(played.headers.items())
            return _made(
                response,
                played.status,
                played.reason,
                headers=headers,
                chunks=_once(played.content),
                released=_released,
            )
        with flow.sent():
            answer = await original(transport, request)
            if flow.call is None:
                return answer
            async with answer:
                body = b"".join([part async for part in answer])
        flow.answered(answer.status, answer.reason, _headers(answer), body)
        return _made(
            response, answer.status, answer.reason, headers=_kept(answer), chunks=_once(body), released=_released
        )

    return stream


def _client_request(request: Any) -> ClientRequest:
    return ClientRequest.of(request.method, request.url, request.body or b"", request.headers)


def _headers(answer: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers}


def _kept(answer: Any) -> list[tuple[str, str]]:
    return [(name, value) for name, value in answer.headers if name.lower() not in _OF_THE_WIRE]


def _made(kind: Any, status: int, reason: str, *, headers: Any, chunks: Any, released: Any = None) -> Any:
    return kind(
        status=status,
        reason=reason,
        headers=headers,
        http_version="HTTP/1.1",
        chunks=chunks,
        release=released or (lambda _: None),
    )


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _released(_: bool) -> None:
    """No connection to release."""
