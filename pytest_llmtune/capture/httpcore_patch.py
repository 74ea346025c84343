"""Record and play requests of users of httpcore at its connection pools, and most of httpx's one level higher.

Anything above is left to the client: a transport to an application in this process, or a mocked transport or pool, is
not affected. httpx's own transports are the shorter way, about 0.05 ms a call; what has a body that can be read only once
takes the longer one.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_llmtune.capture.flow import Flow
from pytest_llmtune.capture.matching import ClientRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pytest_llmtune.capture.session import Replay
    from pytest_llmtune.recording.format import Interaction

__all__ = ["httpx_patches", "patches"]


_Headers: TypeAlias = "list[tuple[bytes, bytes]]"
_OF_THE_WIRE = frozenset({b"transfer-encoding", b"connection", b"keep-alive"})


def patches(module: Any, replay_here: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """(owner, name, replacement) for httpcore, or its fork httpcore2.

    What is already mocked, for example by ``respx.start()``, stays mocked.
    """
    yield from _unmocked(module, module.ConnectionPool, "handle_request", _handle_request, replay_here)
    yield from _unmocked(module, module.AsyncConnectionPool, "handle_async_request", _handle_async_request, replay_here)


def httpx_patches(module: Any, replay_here: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """(owner, name, replacement) for httpx, or its fork httpx2; what is already mocked stays mocked."""
    yield from _unmocked(module, module.HTTPTransport, "handle_request", _transport, replay_here)
    yield from _unmocked(module, module.AsyncHTTPTransport, "handle_async_request", _async_transport, replay_here)


def _unmocked(
    module: Any, owner: Any, name: str, wrap: Callable[..., Any], replay_here: Callable[[], Replay | None]
) -> Iterator[tuple[Any, str, Any]]:
    original = getattr(owner, name)
    if os.path.dirname(module.__file__) in getattr(getattr(original, "__code__", None), "co_filename", ""):  # noqa: PTH120
        yield owner, name, wrap(module, original, replay_here)


@functools.cache  # else every test would make its own
def _handle_request(module: Any, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def handle_request(pool: Any, request: Any) -> Any:
        if (replay := replay_here()) is None or _upgrades(request.headers):
            return original(pool, request)
        body = b"".join(request.stream)
        flow = Flow.of(replay, _request_of_core(request, body))
        if flow.played is not None:
            return _played(module, flow.played)
        request = _again(module, request, body)
        with flow.sent():
            response = original(pool, request)
            if flow.call is None:
                return response
            try:
                content = response.read()
            finally:
                response.close()
        return _answered(module, flow, response, content)

    return handle_request


@functools.cache
def _handle_async_request(module: Any, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    async def handle_async_request(pool: Any, request: Any) -> Any:
        if (replay := replay_here()) is None or _upgrades(request.headers):
            return await original(pool, request)
        body = b"".join([part async for part in request.stream])
        flow = await Flow.of_async(replay, _request_of_core(request, body))
        if flow.played is not None:
            return _played(module, flow.played)
        request = _again(module, request, body)
        with flow.sent():
            response = await original(pool, request)
            if flow.call is None:
                return response
            try:
                content = await response.aread()
            finally:
                await response.aclose()
        return _answered(module, flow, response, content)

    return handle_async_request


@functools.cache
def _transport(module: Any, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def handle_request(transport: Any, request: Any) -> Any:
        replay = replay_here()
        if replay is None or not _is_short(module, request, getattr(transport, "_pool", None), "handle_request"):
            return original(transport, request)
        flow = Flow.of(replay, _request_of_httpx(request))
        if flow.played is not None:
            return _played_to_httpx(module, flow.played)
        with flow.sent():
            response = original(transport, request)
            if flow.call is None:
                return response
            try:
                content = b"".join(response.stream)
            finally:
                response.close()
        return _answered_to_httpx(module, flow, response, content)

    return handle_request


@functools.cache
def _async_transport(module: Any, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    async def handle_async_request(transport: Any, request: Any) -> Any:
        replay = replay_here()
        if replay is None or not _is_short(module, request, getattr(transport, "_pool", None), "handle_async_request"):
            return await original(transport, request)
        flow = await Flow.of_async(replay, _request_of_httpx(request))
        if flow.played is not None:
            return _played_to_httpx(module, flow.played)
        with flow.sent():
            response = await original(transport, request)
            if flow.call is None:
                return response
            try:
                content = b"".join([part async for part in response.stream])
            finally:
                await response.aclose()
        return _answered_to_httpx(module, flow, response, content)

    return handle_async_request


def _is_short(module: Any, request: Any, pool: Any, name: str) -> bool:
    """Whether httpx's transport would only hand the request on to our own patch of the pool, which is not mocked."""
    handler = getattr(getattr(pool, name, None), "__func__", None)
    body = isinstance(request.stream, module.ByteStream)  # else it can be read only once
    return body and getattr(handler, "__globals__", None) is globals() and not _upgrades(request.headers.raw)


def _request_of_httpx(request: Any) -> ClientRequest:
    url, body = request.url, b"".join(request.stream)
    return _client_request(
        request.method, url.scheme, url.raw_host, url.port, url.raw_path, headers=request.headers.raw, body=body
    )


def _played_to_httpx(module: Any, played: Interaction) -> Any:
    headers, extensions = _parts(played)
    stream = module.ByteStream(played.content)
    return module.Response(played.status, headers=headers, stream=stream, extensions=extensions)


def _answered_to_httpx(module: Any, flow: Flow, response: Any, content: bytes) -> Any:
    headers, extensions = _answer(flow, response.status_code, response.headers.raw, response.extensions, content)
    stream = module.ByteStream(content)
    return module.Response(response.status_code, headers=headers, stream=stream, extensions=extensions)


def _upgrades(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request opens a WebSocket, which has no response to record."""
    return any(len(name) == len(b"upgrade") and name.lower() == b"upgrade" for name, _ in headers)


def _again(module: Any, request: Any, body: bytes) -> Any:
    """A copy of the request with its body, which has been consumed."""
    return module.Request(
        method=request.method, url=request.url, headers=request.headers, content=body, extensions=request.extensions
    )


def _client_request(
    method: str, scheme: str, host: bytes, port: int | None, target: bytes, *, headers: _Headers, body: bytes
) -> ClientRequest:
    name = host.decode("ascii")
    place = f"[{name}]" if ":" in name else name
    uri = f"{scheme}://{place}{'' if port is None else f':{port}'}{target.decode('ascii')}"
    return ClientRequest.of(
        method, uri, body, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    )


def _request_of_core(request: Any, body: bytes) -> ClientRequest:
    url, method = request.url, request.method.decode("ascii")
    scheme = url.scheme.decode("ascii")
    return _client_request(method, scheme, url.host, url.port, url.target, headers=request.headers, body=body)


def _parts(played: Interaction) -> tuple[_Headers, dict[str, Any]]:
    """Headers and extensions of a played response."""
    named = played.headers.items()
    headers = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in named]
    return headers, {"http_version": b"HTTP/1.1", "reason_phrase": played.reason.encode("latin-1", "replace")}


def _played(module: Any, played: Interaction) -> Any:
    headers, extensions = _parts(played)
    return module.Response(played.status, headers=headers, content=played.content, extensions=extensions)


def _answer(
    flow: Flow, status: int, given: _Headers, extensions: Mapping[str, Any], content: bytes
) -> tuple[_Headers, dict[str, Any]]:
    """Record a server's response; returns headers and extensions of what the client is given."""
    headers: dict[str, str] = {}
    for name, value in given:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    kept = {name: value for name, value in extensions.items() if name != "network_stream"}
    flow.answered(status, kept.get("reason_phrase", b"").decode("latin-1"), headers, content)
    return [(name, value) for name, value in given if name.lower() not in _OF_THE_WIRE], kept


def _answered(module: Any, flow: Flow, response: Any, content: bytes) -> Any:
    headers, extensions = _answer(flow, response.status, response.headers, response.extensions, content)
    return module.Response(response.status, headers=headers, content=content, extensions=extensions)
