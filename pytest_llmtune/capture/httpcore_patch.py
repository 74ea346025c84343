"""Record and play requests of users of httpcore at its connection pools, and most of httpx's one level higher.

Anything above is left to the client: a transport to an application in this process, or a mocked transport or pool, is
not affected. httpx's own transports are the shorter way, about 0.05 ms a call; what has a body that can be read only once
takes the longer one.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune.capture.flow import Flow
from pytest_llmtune.capture.matching import ClientRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_llmtune.capture.session import Replay
    from pytest_llmtune.recording.format import Interaction

_NAME, _ASYNC_NAME = "handle_request", "handle_async_request"
_Headers: TypeAlias = "list[tuple[bytes, bytes]]"
_TRANSFER = frozenset({b"transfer-encoding", b"connection", b"keep-alive"})


def patches(module: Any, replay_here: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """(owner, name, replacement) for httpcore, or its fork httpcore2.

    What is already mocked, for example by ``respx.start()``, stays mocked.
    """
    return _patches(_Pools(module), module.ConnectionPool, module.AsyncConnectionPool, replay_here)


def httpx_patches(module: Any, replay_here: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """(owner, name, replacement) for httpx, or its fork httpx2; what is already mocked stays mocked."""
    return _patches(_Transports(module), module.HTTPTransport, module.AsyncHTTPTransport, replay_here)


def _patches(
    library: _Pools, owner: Any, async_owner: Any, replay_here: Callable[[], Replay | None]
) -> Iterator[tuple[Any, str, Any]]:
    directory = os.path.dirname(library.module.__file__)  # noqa: PTH120
    for each, name, wrap in (owner, _NAME, _handle_request), (async_owner, _ASYNC_NAME, _handle_async_request):
        original = getattr(each, name)
        if directory in getattr(getattr(original, "__code__", None), "co_filename", ""):
            yield each, name, wrap(library, original, replay_here)


@dataclass(frozen=True)
class _Pools:
    """How the requests and responses of httpcore's connection pools are read and created."""

    module: Any

    def handles(self, _pool: Any, request: Any, _name: str) -> bool:
        """Whether a request is ours to handle."""
        return not _upgrades(request.headers)

    def client_request(self, request: Any, body: bytes) -> ClientRequest:
        url, method, scheme = request.url, request.method.decode("ascii"), request.url.scheme.decode("ascii")
        return _client_request(method, scheme, url.host, url.port, url.target, headers=request.headers, body=body)

    def to_send(self, request: Any, body: bytes) -> Any:
        """The request with its body, which has been consumed."""
        return self.module.Request(
            method=request.method, url=request.url, headers=request.headers, content=body, extensions=request.extensions
        )

    def status_and_headers(self, response: Any) -> tuple[int, _Headers]:
        return response.status, response.headers

    def response(self, status: int, headers: _Headers, extensions: dict[str, Any], content: bytes) -> Any:
        return self.module.Response(status, headers=headers, content=content, extensions=extensions)

    def played(self, interaction: Interaction) -> Any:
        """The response of a recorded interaction."""
        named = interaction.headers.items()
        headers = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in named]
        reason = interaction.reason.encode("latin-1", "replace")
        extensions = {"http_version": b"HTTP/1.1", "reason_phrase": reason}
        return self.response(interaction.status, headers, extensions, interaction.content)

    def answered(self, flow: Flow, response: Any, content: bytes) -> Any:
        """Record a server's response; returns what the client is given."""
        status, received = self.status_and_headers(response)
        headers: dict[str, str] = {}
        for name, value in received:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        extensions = {name: value for name, value in response.extensions.items() if name != "network_stream"}
        flow.answered(status, extensions.get("reason_phrase", b"").decode("latin-1"), headers, content)
        kept = [(name, value) for name, value in received if name.lower() not in _TRANSFER]
        return self.response(status, kept, extensions, content)


class _Transports(_Pools):
    """The same of httpx's transports."""

    def handles(self, transport: Any, request: Any, name: str) -> bool:
        """Whether a transport would only hand the request on to our own patch of its pool, which is not mocked."""
        pool = getattr(transport, "_pool", None)
        handler = getattr(getattr(pool, name, None), "__func__", None)
        readable = isinstance(request.stream, self.module.ByteStream)  # else its body can be read only once
        return readable and getattr(handler, "__globals__", None) is globals() and not _upgrades(request.headers.raw)

    def client_request(self, request: Any, body: bytes) -> ClientRequest:
        url, headers = request.url, request.headers.raw
        return _client_request(
            request.method, url.scheme, url.raw_host, url.port, url.raw_path, headers=headers, body=body
        )

    def to_send(self, request: Any, _body: bytes) -> Any:
        return request

    def status_and_headers(self, response: Any) -> tuple[int, _Headers]:
        return response.status_code, response.headers.raw

    def response(self, status: int, headers: _Headers, extensions: dict[str, Any], content: bytes) -> Any:
        stream = self.module.ByteStream(content)
        return self.module.Response(status, headers=headers, stream=stream, extensions=extensions)


@functools.cache  # else every test would make its own
def _handle_request(library: _Pools, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def handle_request(owner: Any, request: Any) -> Any:
        if (replay := replay_here()) is None or not library.handles(owner, request, _NAME):
            return original(owner, request)
        body = b"".join(request.stream)
        flow = Flow.of(replay, library.client_request(request, body))
        if flow.played is not None:
            return library.played(flow.played)
        with flow.sent():
            response = original(owner, library.to_send(request, body))
            if flow.call is None:
                return response
            try:
                content = b"".join(response.stream)
            finally:
                response.close()
        return library.answered(flow, response, content)

    return handle_request


@functools.cache
def _handle_async_request(library: _Pools, original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    async def handle_async_request(owner: Any, request: Any) -> Any:
        if (replay := replay_here()) is None or not library.handles(owner, request, _ASYNC_NAME):
            return await original(owner, request)
        body = b"".join([part async for part in request.stream])
        flow = await Flow.of_async(replay, library.client_request(request, body))
        if flow.played is not None:
            return library.played(flow.played)
        with flow.sent():
            response = await original(owner, library.to_send(request, body))
            if flow.call is None:
                return response
            try:
                content = b"".join([part async for part in response.stream])
            finally:
                await response.aclose()
        return library.answered(flow, response, content)

    return handle_async_request


def _upgrades(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request opens a WebSocket, which has no response to record."""
    return any(len(name) == len(b"upgrade") and name.lower() == b"upgrade" for name, _ in headers)


def _client_request(
    method: str, scheme: str, host: bytes, port: int | None, target: bytes, *, headers: _Headers, body: bytes
) -> ClientRequest:
    name = host.decode("ascii")
    name = f"[{name}]" if ":" in name else name
    uri = f"{scheme}://{name}{'' if port is None else f':{port}'}{target.decode('ascii')}"
    return ClientRequest.of(
        method, uri, body, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    )
