"""Record and play requests of httpx, httpx2 and other users of httpcore at its connection pools.

Anything above is left to the client: a transport to an application in this process, or a mocked transport or pool, is
not affected.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from pytest_llmtune.capture.flow import Flow
from pytest_llmtune.capture.matching import ClientRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_llmtune.capture.session import Replay
    from pytest_llmtune.recording.format import Interaction

__all__ = ["patches"]


_OF_THE_WIRE = frozenset({b"transfer-encoding", b"connection", b"keep-alive"})


def patches(module: Any, replay_here: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """(owner, name, replacement) for httpcore, or its fork httpcore2.

    What is already mocked, for example by ``respx.start()``, stays mocked.
    """
    pool, async_pool = module.ConnectionPool, module.AsyncConnectionPool
    for owner, name, wrap in (
        (pool, "handle_request", _handle_request),
        (async_pool, "handle_async_request", _handle_async_request),
    ):
        original = getattr(owner, name)
        if os.path.dirname(module.__file__) in getattr(getattr(original, "__code__", None), "co_filename", ""):  # noqa: PTH120
            yield owner, name, wrap(module, original, replay_here)


def _handle_request(module: Any, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def handle_request(pool: Any, request: Any) -> Any:
        if (replay := replay_here()) is None or _upgrades(request):
            return original(pool, request)
        body = b"".join(request.stream)
        client_request = _client_request(request, body)
        flow = Flow.of(replay, client_request)
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


def _handle_async_request(module: Any, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    async def handle_async_request(pool: Any, request: Any) -> Any:
        if (replay := replay_here()) is None or _upgrades(request):
            return await original(pool, request)
        body = b"".join([part async for part in request.stream])
        client_request = _client_request(request, body)
        flow = await Flow.of_async(replay, client_request)
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


def _upgrades(request: Any) -> bool:
    """Whether the request opens a WebSocket, which has no response to record."""
    return any(name.lower() == b"upgrade" for name, _ in request.headers)


def _again(module: Any, request: Any, body: bytes) -> Any:
    """A copy of the request with its body, which has been consumed."""
    return module.Request(
        method=request.method, url=request.url, headers=request.headers, content=body, extensions=request.extensions
    )


def _client_request(request: Any, body: bytes) -> ClientRequest:
    url = request.url
    host = url.host.decode("ascii")
    name = f"[{host}]" if ":" in host else host
    port = "" if url.port is None else f":{url.port}"
    uri = f"{url.scheme.decode('ascii')}://{name}{port}{url.target.decode('ascii')}"
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
    return ClientRequest.of(request.method.decode("ascii"), uri, body, headers)


def _played(module: Any, played: Interaction) -> Any:
    named = ((name, value) for name, value in played.headers.items())
    headers = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in named]
    extensions = {"http_version": b"HTTP/1.1", "reason_phrase": played.reason.encode("latin-1", "replace")}
    return module.Response(played.status, headers=headers, content=played.content, extensions=extensions)


def _answered(module: Any, flow: Flow, response: Any, content: bytes) -> Any:
    headers: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    extensions = {name: value for name, value in response.extensions.items() if name != "network_stream"}
    reason = extensions.get("reason_phrase", b"").decode("latin-1")
    flow.answered(response.status, reason, headers, content)
    kept = [(name, value) for name, value in response.headers if name.lower() not in _OF_THE_WIRE]
    return module.Response(response.status, headers=kept, content=content, extensions=extensions)
