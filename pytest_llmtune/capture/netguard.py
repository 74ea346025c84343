"""Block the network while a guarded test runs."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import ipaddress
import socket
import sys
import threading
from asyncio import proactor_events
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from pytest_llmtune.errors import RecordingError, SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

__all__ = [
    "HERE",
    "Attempt",
    "NetworkShutError",
    "Offline",
    "OpenHosts",
    "Patches",
    "Questions",
    "host_name",
    "ip_number",
]


HERE = "localhost"
_NAMES = frozenset({"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104  # names of this machine


@dataclass(frozen=True, slots=True)
class OpenHosts:
    """Hosts that stay open while the network is shut."""

    entries: frozenset[tuple[str, int | None]] = frozenset()
    """(host, port); None opens every port."""

    @classmethod
    def of(cls, hosts: Iterable[str]) -> OpenHosts:
        """Read entries such as ``localhost``, ``127.0.0.1:8000`` or ``[::1]:8000``.

        Raises:
            SuiteError: an entry is no loopback host.
        """
        return cls(frozenset(map(_entry, hosts)))

    def allows(self, host: str, port: int | None) -> bool:
        """Whether a socket may reach the host."""
        name = host_name(host)
        return (name, None) in self.entries or (name, port) in self.entries


def ip_number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that the text spells, or None; an IPv4 address inside an IPv6 one is taken out."""
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(number, "ipv4_mapped", None) or number


def host_name(host: str) -> str:
    """One name for each host: every usual name of this machine is ``localhost``."""
    number = ip_number(host)
    name = host.lower().rstrip(".") if number is None else str(number)
    return HERE if name in _NAMES else name


def _entry(text: str) -> tuple[str, int | None]:
    host, port = text.strip(), ""
    if host.startswith("["):
        host, _, port = host[1:].partition("]")
        port = port.removeprefix(":")
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    number = ip_number(host)
    loopback = bool(host) and (host_name(host) == HERE or (number is not None and number.is_loopback))
    if not loopback or (port and not port.isdecimal()):
        raise SuiteError(
            f"llmtune_allow_hosts names {text!r}, which is no loopback host; "
            "valid: localhost, 127.0.0.1, ::1 or any 127.x.y.z, each with or without :PORT"
        )
    return host_name(host), int(port) if port else None


_Wrap = Callable[[Any], Callable[..., Any]]


class Questions(Protocol):
    """What is asked at each place; an answer is no answer, or an exception."""

    def reach(self, family: int, address: Any) -> None:
        """A socket is about to connect, or to send to an address."""

    def look_up(self, host: Any, port: Any = None, *, backwards: bool = False) -> None:
        """A name is about to be resolved; ``backwards``: an address to its name."""


class Patches:
    """Puts the questions before every place; what others patched meanwhile stays as they want it."""

    def __init__(self, questions: Questions) -> None:
        self._ask = questions
        self._inside = threading.local()
        self._installed: list[tuple[Any, str, Any, Any]] = []  # owner, name, ours, what the owner itself had (or None)

    def install(self) -> None:
        """Patch every place."""
        for owner, name, wrap in self._places():
            original = getattr(owner, name)
            ours = functools.wraps(original)(wrap(original))
            self._installed.append((owner, name, ours, vars(owner).get(name)))
            setattr(owner, name, ours)

    def remove(self) -> None:
        """Give every place back."""
        while self._installed:
            owner, name, ours, had = self._installed.pop()
            if vars(owner).get(name) is not ours:
                continue  # somebody patched over ours and will put ours back; nothing is asked then
            if had is None:
                delattr(owner, name)
            else:
                setattr(owner, name, had)

    def _places(self) -> Iterator[tuple[Any, str, _Wrap]]:
        yield socket.socket, "connect", self._connect
        yield socket.socket, "connect_ex", self._connect
        yield socket.socket, "sendto", self._sendto
        if hasattr(socket.socket, "sendmsg"):
            yield socket.socket, "sendmsg", self._sendmsg
        yield socket, "socketpair", self._socketpair
        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
            yield socket, name, self._resolve
        yield socket, "gethostbyaddr", self._resolve_backwards
        yield socket, "getnameinfo", self._getnameinfo
        # asyncio resolves in a thread of its own; asked here, the stack still shows the request
        yield asyncio.BaseEventLoop, "getaddrinfo", self._loop_getaddrinfo
        # the loop of Windows connects without Python's socket.connect
        yield proactor_events.BaseProactorEventLoop, "sock_connect", self._loop_sock_connect
        if importlib.util.find_spec("uvloop") is not None:  # a loop with sockets of its own
            yield from self._uvloop_places()

    def _uvloop_places(self) -> Iterator[tuple[Any, str, _Wrap]]:
        import uvloop

        yield uvloop.Loop, "create_connection", self._loop_create_connection
        yield uvloop.Loop, "create_datagram_endpoint", self._loop_create_datagram_endpoint
        yield uvloop.Loop, "sock_connect", self._loop_sock_connect
        yield uvloop.Loop, "getaddrinfo", self._loop_getaddrinfo

    def _connect(self, original: Any) -> Callable[..., Any]:
        def connect(sock: socket.socket, address: Any) -> Any:
            if not getattr(self._inside, "socketpair", False):
                self._ask.reach(sock.family, address)
            return original(sock, address)

        return connect

    def _sendto(self, original: Any) -> Callable[..., Any]:
        def sendto(sock: socket.socket, data: Any, *rest: Any) -> Any:
            if rest:
                self._ask.reach(sock.family, rest[-1])
            return original(sock, data, *rest)

        return sendto

    def _sendmsg(self, original: Any) -> Callable[..., Any]:
        def sendmsg(sock: socket.socket, *rest: Any) -> Any:
            if len(rest) > 3 and rest[3] is not None:
                self._ask.reach(sock.family, rest[3])
            return original(sock, *rest)

        return sendmsg

    def _socketpair(self, original: Any) -> Callable[..., Any]:
        """Windows makes a pair by connecting to itself, for every event loop."""

        def socketpair(*args: Any, **options: Any) -> Any:
            self._inside.socketpair = True
            try:
                return original(*args, **options)
            finally:
                self._inside.socketpair = False

        return socketpair

    def _resolve(self, original: Any) -> Callable[..., Any]:
        def resolve(*args: Any, **options: Any) -> Any:
            self._ask.look_up(_argument(0, "host", args, options), _argument(1, "port", args, options))
            return original(*args, **options)

        return resolve

    def _resolve_backwards(self, original: Any) -> Callable[..., Any]:
        def gethostbyaddr(host: Any) -> Any:
            self._ask.look_up(host, backwards=True)
            return original(host)

        return gethostbyaddr

    def _getnameinfo(self, original: Any) -> Callable[..., Any]:
        def getnameinfo(address: Any, flags: int) -> Any:
            if not flags & socket.NI_NUMERICHOST:
                self._ask.look_up(address[0], address[1], backwards=True)
            return original(address, flags)

        return getnameinfo

    def _loop_getaddrinfo(self, original: Any) -> Callable[..., Any]:
        def getaddrinfo(loop: Any, host: Any, port: Any, **options: Any) -> Any:
            self._ask.look_up(host, port)
            return original(loop, host, port, **options)

        return getaddrinfo

    def _loop_sock_connect(self, original: Any) -> Callable[..., Any]:
        def sock_connect(loop: Any, sock: socket.socket, address: Any) -> Any:
            self._ask.reach(sock.family, address)
            return original(loop, sock, address)

        return sock_connect

    def _loop_create_connection(self, original: Any) -> Callable[..., Any]:
        def create_connection(loop: Any, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
            if host is not None:
                self._ask.reach(socket.AF_INET, (host, port))
            return original(loop, factory, host, port, **options)

        return create_connection

    def _loop_create_datagram_endpoint(self, original: Any) -> Callable[..., Any]:
        def create_datagram_endpoint(loop: Any, factory: Any, *args: Any, **options: Any) -> Any:
            remote = _argument(1, "remote_addr", args, options)
            if remote is not None:
                self._ask.reach(socket.AF_INET, remote)
            return original(loop, factory, *args, **options)

        return create_datagram_endpoint


def _argument(position: int, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return args[position] if len(args) > position else options.get(name)


_LOCAL_FAMILIES = tuple(
    family for name in ("AF_UNIX", "AF_NETLINK") if (family := getattr(socket, name, None)) is not None
)
_SHOWN = 5


class NetworkShutError(RecordingError, OSError):
    """An attempt to reach a host while the network is shut; to clients it looks like any other failed connection."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to reach a host."""

    host: str
    port: int | None = None
    request: str = ""
    """The HTTP request behind it, without its query, where the client's own stack shows it."""

    def __str__(self) -> str:
        place = self.host if self.port is None else f"{self.host}:{self.port}"
        return f"{place} ({self.request})" if self.request else place


class Offline:
    """A context that shuts the network for the whole process, every thread included; contexts may be nested.

    An attempt raises ``NetworkShutError`` where it happens, and, because clients swallow and retry errors, the context
    raises again when it is left.

    Args:
        command: the command that mends a missing recording, for the message.
        allow_hosts: loopback hosts that stay open, such as ``localhost`` or ``127.0.0.1:8000``.

    Raises:
        SuiteError: an allowed host is no loopback host.
        RecordingError: on leaving the context after an attempt; it lists every host and request.
    """

    def __init__(self, command: str, allow_hosts: Iterable[str] = ()) -> None:
        self.command = command
        self.attempts: list[Attempt] = []
        self.open_hosts = OpenHosts.of(allow_hosts)

    def __enter__(self) -> Offline:
        self.attempts.clear()
        _WALL.enter(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        _WALL.leave(self)
        if self.attempts and not isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise RecordingError(self.sentence()) from error

    def sentence(self) -> str:
        """What was tried, and the command that mends it."""
        places = list(dict.fromkeys(map(str, self.attempts)))
        more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
        return (
            f"the network is shut in this mode, and the test tried to reach {', '.join(places[:_SHOWN])}{more}; "
            f"record what it asks: {self.command} (of a client that is not llm_client: under @pytest.mark.llm_replay)"
        )

    def refuse(self, attempt: Attempt) -> NetworkShutError:
        """Remember an attempt; the error to raise for it."""
        self.attempts.append(attempt)
        return NetworkShutError(
            f"the network is shut in this mode: {attempt} was not reached; record the request: {self.command}"
        )


class _Wall:
    """All guards now entered, in this process; sockets are patched exactly while there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guards: tuple[Offline, ...] = ()
        self._patches = Patches(self)

    def enter(self, guard: Offline) -> None:
        with self._lock:
            if not self._guards:
                self._patches.install()
            self._guards = (*self._guards, guard)

    def leave(self, guard: Offline) -> None:
        with self._lock:
            position = max(index for index, entered in enumerate(self._guards) if entered is guard)
            self._guards = self._guards[:position] + self._guards[position + 1 :]
            if not self._guards:
                self._patches.remove()

    def reach(self, family: int, address: Any) -> None:
        """A socket is about to connect or send; every guard must agree."""
        if family in _LOCAL_FAMILIES:
            return
        internet = isinstance(address, tuple) and len(address) >= 2
        host, port = (_text(address[0]), address[1]) if internet else (repr(address), None)
        for guard in reversed(self._guards):
            if not guard.open_hosts.allows(host, port):
                raise guard.refuse(Attempt(host, port, _request_in_sight()))

    def look_up(self, host: Any, port: Any = None, *, backwards: bool = False) -> None:
        """A name is about to be resolved; names of this machine, and numbers forwards, ask nobody."""
        name = _text(host or "")
        number = ip_number(name)
        asks_nobody = number is not None and (number.is_loopback or not backwards)
        if not self._guards or asks_nobody or host_name(name) in (HERE, socket.gethostname().lower()):
            return
        raise self._guards[-1].refuse(Attempt(name, port if isinstance(port, int) else None, _request_in_sight()))


_WALL = _Wall()


def _text(host: Any) -> str:
    return host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else str(host)


def _request_in_sight() -> str:
    """``METHOD URL`` of the HTTP request that a frame further up works for, without query, user and password."""
    frame = sys._getframe(1)  # noqa: SLF001  # only the stack knows for whom a socket works
    while frame is not None:
        for name in {"request", "req"} & {*frame.f_code.co_varnames}:
            value = frame.f_locals.get(name)
            method, url = getattr(value, "method", None), getattr(value, "url", None)
            if isinstance(method, str) and url is not None:
                parts = urlsplit(str(url))
                return f"{method} {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
