"""Where Python's sockets meet the network: each of these places asks first, while the patches are installed."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import socket
import threading
from asyncio import proactor_events
from collections.abc import Callable, Iterator
from typing import Any, Protocol

__all__ = ["Patches", "Questions"]


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
