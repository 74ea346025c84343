"""Patch HTTP clients so that an app's calls reach the active recording."""

from __future__ import annotations

import functools
import http.client
import io
import threading
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any, cast

from pytest_llmtune._util.aio import CURRENT, inside, outside
from pytest_llmtune._util.jsonhash import canonical_json
from pytest_llmtune.capture.matching import Asked
from pytest_llmtune.capture.session import CallRefusedError, Replay
from pytest_llmtune.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vcr.request import Request

    from pytest_llmtune.capture.session import Call

__all__ = ["ActiveRecordings", "patched", "recorded"]


class ActiveRecordings:
    """The recordings that are open in this process, and the one that a piece of running code belongs to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: tuple[Replay, ...] = ()

    @contextmanager
    def opened(self, replay: Replay) -> Iterator[None]:
        """The recording is open, and this context belongs to it."""
        with self._lock:
            self._open = (*self._open, replay)
        try:
            with inside(replay):
                yield
        finally:
            with self._lock:
                self._open = tuple(other for other in self._open if other is not replay)

    def replay(self) -> Replay | None:
        """The recording that a request made here belongs to; None: it is nobody's.

        A thread that was started without its parent's context belongs to the only recording there is.

        Raises:
            CallRefusedError: such a thread, while several recordings are open.
        """
        if (belongs := CURRENT.get()) is not None:
            return cast("Replay | None", belongs[0])
        opened = self._open
        if len(opened) > 1:
            raise CallRefusedError(
                RecordingError(
                    f"a thread makes a request while {len(opened)} recordings are open, and belongs to none of them; "
                    "start it with its parent's context: contextvars.copy_context().run"
                )
            )
        return opened[0] if opened else None


_CLASSES = (
    ("http.client", ("HTTPConnection", "HTTPSConnection")),
    ("urllib3.connection", ("HTTPConnection", "HTTPSConnection")),
    ("httplib2", ("HTTPConnectionWithTimeout", "HTTPSConnectionWithTimeout")),
)
_OF_THE_WIRE = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive"})


@contextmanager
def patched(replay_here: Callable[[], Replay | None]) -> Iterator[None]:
    """While in this context, connections ask ``replay_here`` whose they are, and belong to the network if to nobody."""
    undo: list[tuple[Any, str, Any]] = []
    try:
        for owner in _classes():
            if "connect" in vars(owner):
                undo.append((owner, "connect", owner.connect))
                owner.connect = _connect(owner.connect, replay_here)
        base: Any = http.client.HTTPConnection
        undo.append((base, "putrequest", base.putrequest))
        base.putrequest = _putrequest(base.putrequest, replay_here)
        yield
    finally:
        for owner, name, original in undo:
            setattr(owner, name, original)


def _classes() -> Iterator[Any]:
    for module, names in _CLASSES:
        if find_spec(module.partition(".")[0]) is not None:
            yield from (getattr(import_module(module), name) for name in names)


def _connect(original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def connect(connection: Any) -> None:
        replay = replay_here()
        if replay is None or replay.ignores(_uri(connection, "/")):
            original(connection)
        else:
            connection.sock = _Socket(connection, replay)
            connection.is_verified = True  # urllib3 warns of connections that are not

    return connect


def _putrequest(original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def putrequest(connection: Any, *args: Any, **options: Any) -> Any:
        """A connection kept open from before, or from another test, is opened anew."""
        sock, replay = connection.sock, replay_here()
        foreign = sock.replay is not replay if isinstance(sock, _Socket) else replay is not None
        if sock is not None and foreign and not (replay is not None and replay.ignores(_uri(connection, "/"))):
            sock.close()
            connection.sock = None
        return original(connection, *args, **options)

    return putrequest


def _uri(connection: Any, target: str) -> str:
    """The URL of a request, from its target; one sent through a proxy names the whole URL itself, or has a tunnel."""
    if not target.startswith("/"):
        return target
    tunnel = getattr(connection, "_tunnel_host", None)
    host, port = (tunnel, connection._tunnel_port) if tunnel else (connection.host, connection.port)  # noqa: SLF001
    scheme = "https" if tunnel or connection.default_port == http.client.HTTPS_PORT else "http"
    usual = http.client.HTTPS_PORT if scheme == "https" else http.client.HTTP_PORT
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}{'' if port in (usual, None) else f':{port}'}{target}"


class _Socket:
    """Takes a request's bytes and gives its response's: played, or fetched over the connection's real socket."""

    def __init__(self, connection: Any, replay: Replay) -> None:
        self.replay = replay
        self._connection = connection
        self._sent = bytearray()

    def sendall(self, data: bytes) -> None:
        self._sent += data

    def makefile(self, *_: Any, **__: Any) -> IO[bytes]:
        """The response; http.client asks for it when the request is complete."""
        try:
            return self._response()
        except BaseException as error:  # noqa: BLE001  # raised where it is read
            return _Failed(error)

    def _response(self) -> IO[bytes]:
        sent, self._sent = bytes(self._sent), bytearray()
        asked = _asked_of_connection(self._connection, sent)
        call = self.replay.ask(asked)
        played = call.interaction
        if played is None:
            return self._fetch(call, sent)
        return _raw(played.status, played.reason, played.headers.items(), played.text.encode())

    def _fetch(self, call: Call, sent: bytes) -> IO[bytes]:
        connection = self._connection
        try:
            with outside():
                connection.connect()
            connection.sock.sendall(sent)
            response = http.client.HTTPResponse(connection.sock, method=call.asked.method)
            response.begin()
            body = response.read()
        except BaseException:
            self.replay.drop(call)
            raise
        finally:
            if connection.sock is not None and connection.sock is not self:
                connection.sock.close()
            connection.sock = self
        headers = {name.lower(): value for name, value in response.getheaders()}
        self.replay.answer(call, response.status, response.reason, headers, body)
        return _raw(response.status, response.reason, response.getheaders(), body)

    def close(self) -> None:
        """There is nothing to close; the real socket never stays open."""

    def settimeout(self, _: float | None) -> None:
        """What is in memory does not wait; the real socket has its connection's timeout."""

    def setsockopt(self, *_: Any) -> None:
        """The real socket gets its options when it is made."""

    def shutdown(self, _: int) -> None:
        """There is nobody to tell."""


class _Failed(io.BytesIO):
    """Raises when it is read: a response that got no file would be left half made, which Python 3.13 complains of."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def readline(self, *_: Any) -> bytes:
        raise self._error


def _asked_of_connection(connection: Any, sent: bytes) -> Asked:
    head, _, body = sent.partition(b"\r\n\r\n")
    first, _, rest = head.partition(b"\r\n")
    method, target, _ = first.decode("latin-1").split(" ", 2)
    headers = http.client.parse_headers(io.BytesIO(rest + b"\r\n\r\n"))
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b"".join(_chunks(body))
    return Asked.of(method, _uri(connection, target), body, headers.items())


def _chunks(body: bytes) -> Iterator[bytes]:
    stream = io.BytesIO(body)
    while size := int(stream.readline().partition(b";")[0] or b"0", 16):
        yield stream.read(size)
        stream.readline()


def _raw(status: int, reason: str, headers: Iterable[tuple[str, str]], body: bytes) -> IO[bytes]:
    """A response as bytes; it closes its connection, so that no client keeps one of ours."""
    kept = [(name, value) for name, value in headers if name.lower() not in _OF_THE_WIRE]
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in kept)]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    return io.BytesIO("\r\n".join(lines).encode("latin-1", "replace") + body)


# vcrpy's patches of these are not thread-safe; http_patch takes their place
_OURS = ("httplib", "requests", "boto3", "urllib3", "httplib2")


@contextmanager
def recorded(replay: Replay) -> Iterator[Replay]:
    """Every HTTP request made in this context belongs to the recording, whatever client makes it.

    Several may be open at once, in threads of their own: each keeps to itself what its context, and the tasks and
    threads that inherit it, ask.
    """
    with replay, _PATCHES.for_one(replay):
        yield replay


class _Patches:
    """The libraries of this process are patched once, while any recording is open."""

    def __init__(self) -> None:
        self._belonging = ActiveRecordings()
        self._lock = threading.Lock()
        self._users = 0
        self._stack = ExitStack()

    @contextmanager
    def for_one(self, replay: Replay) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._install()
            self._users += 1
        try:
            with self._belonging.opened(replay):
                yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._stack.close()

    def _install(self) -> None:
        from vcr.patch import CassettePatcherBuilder

        with ExitStack() as stack:
            for patcher in CassettePatcherBuilder(_Cassette(self._belonging)).build():
                stack.enter_context(patcher)
            stack.enter_context(patched(self._belonging.replay))
            self._stack = stack.pop_all()


class _Cassette:
    """What vcrpy's stubs talk to instead of a cassette: it finds the recording that a request belongs to."""

    _path = "llmtune"
    skip_patchers = _OURS
    custom_patches = ()
    write_protected = False  # a request without a recording is refused by ``Replay.ask``

    def __init__(self, belonging: ActiveRecordings) -> None:
        self._belonging = belonging

    def filter_request(self, request: Request) -> Request:
        return request

    def can_play_response_for(self, request: Request) -> bool:
        """The first thing that a stub asks; the call is kept on the request until its end."""
        replay = self._belonging.replay()
        if replay is None or replay.ignores(request.uri):
            return False
        call = replay.ask(_asked(request))
        request.llmtune = replay, call
        return call.interaction is not None

    def play_response(self, request: Request) -> dict[str, Any]:
        _, call = request.llmtune
        response: dict[str, Any] = call.interaction.to_plain()["response"]
        response["body"]["string"] = call.interaction.text.encode()
        return response

    def append(self, request: Request, response: dict[str, Any]) -> None:
        """A real response came; one that aiohttp was redirected to was not asked about before."""
        if not hasattr(request, "llmtune") and self.can_play_response_for(request):
            return
        if not hasattr(request, "llmtune"):
            return
        replay, call = request.llmtune
        headers = {name.lower(): ", ".join(values) for name, values in response["headers"].items()}
        status = response["status"]
        replay.answer(call, status["code"], status["message"] or "", headers, response["body"].get("string") or b"")

    def find_requests_with_most_matches(self, request: Request) -> list[tuple[Request]]:
        """aiohttp's stub looks for the target of a redirect: it is the request itself."""
        return [(request,)]


def _asked(request: Request) -> Asked:
    body = request.body
    if hasattr(body, "read"):
        body = body.read()
    if isinstance(body, dict):  # aiohttp's json=
        body = canonical_json(body)
    if not isinstance(body, (bytes, str, type(None))):
        body = b"".join(part if isinstance(part, bytes) else str(part).encode() for part in body)
    return Asked.of(request.method, request.uri, body or b"", request.headers.items())


_PATCHES = _Patches()
