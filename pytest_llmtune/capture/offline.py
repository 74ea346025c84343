"""The shut network: while a guard is entered, sockets of this process reach only loopback hosts allowed by name."""

from __future__ import annotations

import socket
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_llmtune.capture.netguard import Patches
from pytest_llmtune.capture.open_hosts import HERE, OpenHosts, host_name, ip_number
from pytest_llmtune.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

__all__ = ["Attempt", "NetworkShutError", "Offline"]


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
