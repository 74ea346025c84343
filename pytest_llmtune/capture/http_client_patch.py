"""Record and play requests of ``http.client``, urllib3, requests, botocore and httplib2 below their connections.

vcrpy replaces these libraries' connection classes, and restores the real ones for the whole process while one thread
sends a request, so that other threads' requests escape. Here connections keep their class and get another socket.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
from typing import IO, TYPE_CHECKING, Any

from pytest_llmtune.capture.flow import Flow
from pytest_llmtune.capture.matching import ClientRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_llmtune.capture.session import Replay

LIBRARIES = {
    "http.client": ("HTTPConnection", "HTTPSConnection"),
    "urllib3.connection": ("HTTPConnection", "HTTPSConnection"),
    "httplib2": ("HTTPConnectionWithTimeout", "HTTPSConnectionWithTimeout"),
}
"""Modules and their connection classes."""
_TRANSFER = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive"})
_MOCKS = ("httpretty", "mocket")
"""Mocking libraries that replace Python's socket, which take precedence."""


def patches(module: Any, replay_here: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """(owner, name, replacement) for one of the libraries; ``replay_here`` gives a connection's recording."""
    for name in LIBRARIES[module.__name__]:
        owner = getattr(module, name)
        if "connect" in vars(owner):
            yield owner, "connect", _connect(owner.connect, replay_here)
    if module is http.client:
        base = http.client.HTTPConnection
        yield base, "putrequest", _putrequest(base.putrequest, replay_here)


@functools.cache  # else every test would make its own
def _connect(original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def connect(connection: Any) -> None:
        replay = replay_here()
        if replay is None or socket.socket.__module__.startswith(_MOCKS):
            original(connection)
        else:
            connection.sock = _Socket(connection, replay)
            connection.is_verified = True  # otherwise urllib3 warns

    return connect


@functools.cache
def _putrequest(original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def putrequest(connection: Any, *args: Any, **options: Any) -> Any:
        """Reopen a connection kept open from an earlier test."""
        sock, replay = connection.sock, replay_here()
        foreign = sock.replay is not replay if isinstance(sock, _Socket) else replay is not None
        if sock is not None and foreign and not socket.socket.__module__.startswith(_MOCKS):
            sock.close()
            connection.sock = None
        return original(connection, *args, **options)

    return putrequest


def _uri(connection: Any, target: str) -> str:
    """The URL of a request; through a proxy, its target is the whole URL, or the connection has a tunnel."""
    if not target.startswith("/"):
        return target
    tunnel = getattr(connection, "_tunnel_host", None)
    host, port = (tunnel, connection._tunnel_port) if tunnel else (connection.host, connection.port)  # noqa: SLF001
    scheme = "https" if tunnel or connection.default_port == http.client.HTTPS_PORT else "http"
    usual = http.client.HTTPS_PORT if scheme == "https" else http.client.HTTP_PORT
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}{'' if port in (usual, None) else f':{port}'}{target}"


class _Socket:
    """A socket that takes a request's bytes and returns its response: played, or fetched over the real socket."""

    def __init__(self, connection: Any, replay: Replay) -> None:
        self.replay = replay
        self._connection = connection
        self._sent = bytearray()

    def sendall(self, data: bytes) -> None:
        self._sent += data

    def makefile(self, *_: Any, **__: Any) -> IO[bytes]:
        """The response, read by http.client when the request is complete."""
        try:
            return self._response()
        except BaseException as error:  # noqa: BLE001  # raised on reading
            return _Failed(error)

    def _response(self) -> IO[bytes]:
        sent, self._sent = bytes(self._sent), bytearray()
        client_request = _client_request(self._connection, sent)
        flow = Flow.of(self.replay, client_request)
        if (played := flow.played) is not None:
            return _raw(played.status, played.reason, played.headers.items(), played.content)
        return self._fetch(flow, client_request.method, sent)

    def _fetch(self, flow: Flow, method: str, sent: bytes) -> IO[bytes]:
        connection = self._connection
        try:
            with flow.sent():
                connection.connect()
                connection.sock.sendall(sent)
                response = http.client.HTTPResponse(connection.sock, method=method)
                response.begin()
                body = response.read()
        finally:
            if connection.sock is not None and connection.sock is not self:
                connection.sock.close()
            connection.sock = self
        headers = {name.lower(): value for name, value in response.getheaders()}
        flow.answered(response.status, response.reason, headers, body)
        return _raw(response.status, response.reason, response.getheaders(), body)

    def close(self) -> None:
        """Nothing to close: the real socket never stays open."""

    def settimeout(self, _: float | None) -> None:
        """Ignored: the real socket has its connection's timeout."""

    def setsockopt(self, *_: Any) -> None:
        """Ignored: the real socket gets its options when it is created."""

    def shutdown(self, _: int) -> None:
        """Nothing to shut down."""


class _Failed(io.BytesIO):
    """A file that raises on reading; without a file the response would be half initialised, which warns on Python 3.13."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def readline(self, *_: Any) -> bytes:
        raise self._error


def _client_request(connection: Any, sent: bytes) -> ClientRequest:
    head, _, body = sent.partition(b"\r\n\r\n")
    first, _, rest = head.partition(b"\r\n")
    method, target, _ = first.decode("latin-1").split(" ", 2)
    headers = http.client.parse_headers(io.BytesIO(rest + b"\r\n\r\n"))
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b"".join(_chunks(body))
    return ClientRequest.of(method, _uri(connection, target), body, headers.items())


def _chunks(body: bytes) -> Iterator[bytes]:
    stream = io.BytesIO(body)
    while size := int(stream.readline().partition(b";")[0] or b"0", 16):
        yield stream.read(size)
        stream.readline()


def _raw(status: int, reason: str, headers: Iterable[tuple[str, str]], body: bytes) -> IO[bytes]:
    """A response as bytes, with ``connection: close``, so that clients do not keep our socket."""
    kept = [(name, value) for name, value in headers if name.lower() not in _TRANSFER]
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in kept)]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    return io.BytesIO("\r\n".join(lines).encode("latin-1", "replace") + body)
