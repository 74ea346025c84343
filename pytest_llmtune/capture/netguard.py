"""Block the network while a guarded test runs."""

from __future__ import annotations

import functools
import ipaddress
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.aio import CURRENT
from pytest_llmtune.capture.late import when_imported
from pytest_llmtune.errors import RecordingError, SuiteError

if TYPE_CHECKING:
    from types import TracebackType

LOCALHOST = "localhost"
_NAMES = frozenset({"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104  # names of this machine
_PROVIDERS = (
    "api.openai.com",
    "*.openai.azure.com",
    "*.services.ai.azure.com",
    "*.cognitiveservices.azure.com",
    "*.inference.ai.azure.com",
    "api.anthropic.com",
    "generativelanguage.googleapis.com",
    "aiplatform.googleapis.com",
    "*-aiplatform.googleapis.com",
    "bedrock-runtime.*.amazonaws.com",
    "bedrock-runtime-fips.*.amazonaws.com",
    "api.cohere.com",
    "api.cohere.ai",
    "api.mistral.ai",
    "api.groq.com",
    "api.deepseek.com",
    "api.x.ai",
    "api.together.xyz",
    "api.together.ai",
    "api.fireworks.ai",
    "api.perplexity.ai",
    "api.cerebras.ai",
    "api.deepinfra.com",
    "api.voyageai.com",
    "api.jina.ai",
    "openrouter.ai",
    "router.huggingface.co",
    "api-inference.huggingface.co",
    "integrate.api.nvidia.com",
    "api.moonshot.ai",
    "api.moonshot.cn",
    "dashscope.aliyuncs.com",
    "dashscope-intl.aliyuncs.com",
    "open.bigmodel.cn",
    "api.ai21.com",
    "api.replicate.com",
    "ollama.com",
)
"""Hosts of model providers: a request to one of them is a model call, whatever its path."""


@dataclass(frozen=True, slots=True)
class HostPattern:
    """An entry of a list of hosts, such as ``redis:6379``, ``*.internal`` or ``[::1]:8000``."""

    host: str
    """A name, an address, or a pattern with ``*`` or ``?``; lower case."""
    port: int | None = None
    """None: every port."""

    @classmethod
    def of(cls, text: str) -> HostPattern:
        """Read an entry.

        Raises:
            ValueError: no host, or an invalid port.
        """
        host, port = text.strip(), ""
        if host.startswith("["):
            host, _, port = host[1:].partition("]")
            port = port.removeprefix(":")
        elif host.count(":") == 1:
            host, _, port = host.partition(":")
        if not host or any(sign in host for sign in "/@ ") or (port and not port.isdecimal()):
            raise ValueError("no host")
        return cls(host_name(host), int(port) if port else None)

    def matches(self, host: str, port: int | None) -> bool:
        """Whether it matches a host (its ``host_name``) and port."""
        return self.port in (None, port) and _matches(host, self.host)


@dataclass(frozen=True, slots=True)
class OpenHosts:
    """Hosts that stay reachable while the network is blocked, except for model endpoints among them."""

    entries: tuple[HostPattern, ...] = ()
    endpoints: frozenset[tuple[str, int]] = frozenset()
    """(host, port) of the run's model endpoints, which are recorded and replayed instead of reached."""

    @classmethod
    def of(cls, hosts: Iterable[str], endpoints: Iterable[tuple[str, int]] = ()) -> OpenHosts:
        """Read entries such as ``localhost``, ``redis:6379``, ``*.internal`` or ``[::1]:8000``.

        Raises:
            SuiteError: an entry is not a host, matches every host, or is the host of a model provider.
        """
        return cls(tuple(map(_entry, hosts)), frozenset((host_name(host), port) for host, port in endpoints))

    def allows(self, host: str, port: int | None) -> bool:
        """Whether a socket may reach the host."""
        name = host_name(host)
        return (name, port) not in self.endpoints and any(entry.matches(name, port) for entry in self.entries)

    def allows_all(self, names: Iterable[str], port: int | None) -> bool:
        """Whether a socket may reach a host with these names: one is allowed, and none is an endpoint."""
        known = tuple(map(host_name, names))
        endpoint = any((name, port) in self.endpoints for name in known)
        return not endpoint and any(self.allows(name, port) for name in known)

    def names_port(self, host: str, port: int | None) -> bool:
        """Whether an entry has exactly this host and port, which allows even requests that look like model calls."""
        name = host_name(host)
        return self.allows(host, port) and any(entry == HostPattern(name, port) for entry in self.entries)

    def allows_name(self, host: str) -> bool:
        """Whether a name may be resolved, for any port."""
        return any(entry.matches(host_name(host), entry.port) for entry in self.entries)


def _matches(host: str, pattern: str) -> bool:
    """As ``fnmatchcase``, which compiles every pattern, also one that is a name or an ending."""
    ending = pattern.removeprefix("*")
    if not _WILDCARDS.isdisjoint(ending):
        return fnmatchcase(host, pattern)
    return host == pattern or (ending != pattern and host.endswith(ending))


_WILDCARDS = frozenset("*?[")


@lru_cache(maxsize=1024)
def provider(host: str) -> bool:
    """Whether a host is that of a model provider."""
    name = host_name(host)
    return any(_matches(name, pattern) for pattern in _PROVIDERS)


def ip_number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an IP address, or None; an IPv4 address mapped into IPv6 is extracted."""
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(number, "ipv4_mapped", None) or number


@lru_cache(maxsize=1024)
def host_name(host: str) -> str:
    """A canonical host name: all usual names of this machine are ``localhost``."""
    number = ip_number(host)
    name = host.lower().rstrip(".") if number is None else str(number)
    return LOCALHOST if name in _NAMES else name


def _entry(text: str) -> HostPattern:
    try:
        entry = HostPattern.of(text)
    except ValueError:
        raise SuiteError(
            f"llmtune_allow_hosts names {text!r}, which is no host; valid: a name, an address or a pattern, each with "
            "or without :PORT, such as localhost, 127.0.0.1:8000, [::1]:8000, redis:6379, *.internal"
        ) from None
    if not entry.host.strip("*?."):
        raise SuiteError(f"llmtune_allow_hosts names {text!r}, which is every host; name the hosts of your services")
    if provider(entry.host) or any(fnmatchcase(known, entry.host) for known in _PROVIDERS):
        raise SuiteError(
            f"llmtune_allow_hosts names {text!r}, which is the host of a model provider; its calls are recorded and "
            "replayed: @pytest.mark.llm_replay"
        )
    return entry


_PASSING: ContextVar[bool] = ContextVar("llmtune_passing", default=False)
_IGNORING: ContextVar[bool] = ContextVar("llmtune_ignoring", default=False)

_LOCAL_FAMILIES = tuple(
    family for name in ("AF_UNIX", "AF_NETLINK") if (family := getattr(socket, name, None)) is not None
)
_SHOWN = 5


@contextmanager
def passing() -> Iterator[None]:
    """Allow the network in this context: for code outside tests, and for servers of this process."""
    token = _PASSING.set(True)
    try:
        yield
    finally:
        _PASSING.reset(token)


@contextmanager
def ignoring() -> Iterator[None]:
    """Refuse attempts in this context without failing the test, because libraries work without these hosts."""
    token = _IGNORING.set(True)
    try:
        yield
    finally:
        _IGNORING.reset(token)


class NetworkShutError(RecordingError, OSError):
    """An attempt to reach a host while the network is blocked; for clients, an ordinary failed connection."""


class Offline:
    """Context manager that blocks the network for the whole process, including all threads; may be nested.

    An attempt raises ``NetworkShutError`` immediately, and, because clients swallow and retry errors, the context raises
    again on exit.

    Args:
        command: the command that records what is missing, for the message.
        allow_hosts: hosts that stay reachable, such as ``localhost``, ``redis:6379`` or ``*.internal``.

    Raises:
        SuiteError: an entry of ``allow_hosts`` is not a host, matches every host, or is a model provider's.
        RecordingError: on exit after an attempt; lists every host and request.
    """

    shuts = True
    """Whether attempts are refused, and not only noted."""

    def __init__(self, command: str, allow_hosts: Iterable[str] | OpenHosts = ()) -> None:
        self.command = command
        self.attempts: list[str] = []
        """Hosts with their ports, and the requests that caused the attempts, where the stack shows them."""
        self.open_hosts = allow_hosts if isinstance(allow_hosts, OpenHosts) else OpenHosts.of(allow_hosts)
        self._reported = 0

    def __enter__(self) -> Offline:
        self.attempts.clear()
        self._reported = 0
        _ACTIVE.enter(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        _ACTIVE.leave(self)
        if not isinstance(error, (KeyboardInterrupt, SystemExit)):
            self.verify(error)

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Block the network in this context; ``verify`` reports attempts."""
        _ACTIVE.enter(self)
        try:
            yield
        finally:
            _ACTIVE.leave(self)

    def verify(self, error: BaseException | None = None) -> None:
        """Report attempts since the last call.

        Raises:
            RecordingError: there are any; lists every host and request.
        """
        new, self._reported = self.attempts[self._reported :], len(self.attempts)
        if new:
            raise RecordingError(self._message(new)) from error

    def _message(self, attempts: list[str]) -> str:
        distinct = list(dict.fromkeys(attempts))
        more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
        return (
            f"the network is blocked in this mode, and the test tried to reach {', '.join(distinct[:_SHOWN])}{more}: "
            f"for a model's endpoint, use one of Python's HTTP clients in a test marked @pytest.mark.llm_replay, or the fixture "
            f"llm_client, and record its calls: {self.command}; for a service of your own, name it in llmtune_allow_hosts"
        )

    def refuse(self, attempt: str) -> None:
        """Note an attempt, unless ignored.

        Raises:
            NetworkShutError: always.
        """
        if not _IGNORING.get():
            self.attempts.append(attempt)
        raise NetworkShutError(
            f"the network is blocked in this mode: {attempt} was not reached; record the request: {self.command}, "
            "or name a service of your own in llmtune_allow_hosts"
        )


class Watch(Offline):
    """While a test is recorded: the network is open, and connections that bypass the recording fail the test at its end."""

    shuts = False

    def _message(self, attempts: list[str]) -> str:
        hosts = ", ".join(list(dict.fromkeys(attempts))[:_SHOWN])
        return (
            f"the test reached {hosts} over a connection that cannot be recorded (a client with sockets of its own, a "
            "WebSocket, a database), and that plain pytest would refuse: name a service of your own in "
            "llmtune_allow_hosts; for a model, use a client that sends by httpx, requests, urllib3 or aiohttp"
        )

    def refuse(self, attempt: str) -> None:
        """Note an attempt, unless it is ours."""
        if CURRENT.get() != (None,):
            self.attempts.append(attempt)


_Wrap = Callable[[Any], Callable[..., Any]]


class _ActiveGuards:
    """All active guards of this process; socket and event loop functions are patched while there is one.

    Patches made by others in the meantime are kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guards: tuple[Offline, ...] = ()
        self._addresses: dict[str, set[str]] = {}
        """Addresses to the allowed names that were resolved to them."""
        self._thread = threading.local()
        self._late = ExitStack()
        self._installed: list[tuple[Any, str, Any, Any]] = []  # owner, name, ours, what the owner itself had (or None)
        self._wrappers: dict[tuple[Any, str], tuple[Any, Any]] = {}  # the original, and ours

    def enter(self, guard: Offline) -> None:
        with self._lock:
            if not self._guards:
                self._install()
            self._guards = (*self._guards, guard)

    def leave(self, guard: Offline) -> None:
        with self._lock:
            position = max(index for index, entered in enumerate(self._guards) if entered is guard)
            self._guards = self._guards[:position] + self._guards[position + 1 :]
            if not self._guards:
                self._remove()
                self._addresses.clear()

    def _install(self) -> None:
        """Patch all functions; those of libraries once they are imported."""
        self._patch(socket.socket, connect=self._connect, connect_ex=self._connect, sendto=self._sendto)
        if hasattr(socket.socket, "sendmsg"):
            self._patch(socket.socket, sendmsg=self._sendmsg)
        self._patch(socket, socketpair=self._socketpair, getnameinfo=self._getnameinfo)
        self._patch(socket, **dict.fromkeys(("getaddrinfo", "gethostbyname", "gethostbyname_ex"), self._resolve))
        self._patch(socket, gethostbyaddr=self._resolve_reverse)
        self._late.enter_context(
            when_imported(
                {
                    # it resolves in another thread; here the stack still shows the request
                    "asyncio.base_events": lambda module: self._patch(
                        module.BaseEventLoop, getaddrinfo=self._loop_getaddrinfo
                    ),
                    # the Windows event loop connects without socket.connect
                    "asyncio.proactor_events": lambda module: self._patch(
                        module.BaseProactorEventLoop, sock_connect=self._loop_sock_connect
                    ),
                    # an event loop with its own sockets
                    "uvloop": lambda module: self._patch(
                        module.Loop,
                        create_connection=self._loop_create_connection,
                        create_datagram_endpoint=self._loop_create_datagram_endpoint,
                        sock_connect=self._loop_sock_connect,
                        getaddrinfo=self._loop_getaddrinfo,
                    ),
                }
            )
        )

    def _patch(self, owner: Any, **wraps: _Wrap) -> None:
        for name, wrap in wraps.items():
            original = getattr(owner, name)
            wrapped, ours = self._wrappers.get((owner, name), (None, None))
            if wrapped is not original:
                ours = functools.wraps(original)(wrap(original))
                self._wrappers[owner, name] = original, ours
            self._installed.append((owner, name, ours, vars(owner).get(name)))
            setattr(owner, name, ours)

    def _remove(self) -> None:
        self._late.close()
        while self._installed:
            owner, name, ours, had = self._installed.pop()
            if vars(owner).get(name) is not ours:
                continue  # patched over by others, who will restore ours, which then checks nothing
            if had is None:
                delattr(owner, name)
            else:
                setattr(owner, name, had)

    def _check_connect(self, family: int, address: Any) -> None:
        """A socket is about to connect, or to send to an address; every guard must agree."""
        if family in _LOCAL_FAMILIES or _PASSING.get():
            return
        internet = isinstance(address, tuple) and len(address) >= 2
        host, port = (_text(address[0]), address[1]) if internet else (repr(address), None)
        names = (host, *self._addresses.get(host, ()))
        for guard in reversed(self._guards):
            if not guard.open_hosts.allows_all(names, port):
                guard.refuse(_attempt(host, port))

    def _check_lookup(self, host: Any, port: Any = None, *, reverse: bool = False) -> None:
        """A name is about to be resolved, or an address to a name if ``reverse``.

        Names of this machine and IP addresses need no lookup.
        """
        name = _text(host or "")
        number = ip_number(name)
        needs_no_lookup = number is not None and (number.is_loopback or not reverse)
        if not self._guards or _PASSING.get() or needs_no_lookup:
            return
        if host_name(name) in (LOCALHOST, socket.gethostname().lower()):
            return
        shut = [guard for guard in self._guards if guard.shuts]
        if not all(guard.open_hosts.allows_name(name) for guard in shut):
            shut[-1].refuse(_attempt(name, port if isinstance(port, int) else None))

    def _note_addresses(self, host: Any, found: Any) -> None:
        """A name was resolved, by ``getaddrinfo``, ``gethostbyname`` or ``gethostbyname_ex``; a socket will connect there."""
        if isinstance(found, str):
            addresses = [found]
        else:
            addresses = list(found[2]) if isinstance(found, tuple) else [str(item[4][0]) for item in found]
        for address in addresses:
            self._addresses.setdefault(address, set()).add(_text(host or ""))

    def _connect(self, original: Any) -> Callable[..., Any]:
        def connect(sock: socket.socket, address: Any) -> Any:
            if not getattr(self._thread, "in_socketpair", False):
                self._check_connect(sock.family, address)
            return original(sock, address)

        return connect

    def _sendto(self, original: Any) -> Callable[..., Any]:
        def sendto(sock: socket.socket, data: Any, *rest: Any) -> Any:
            if rest:
                self._check_connect(sock.family, rest[-1])
            return original(sock, data, *rest)

        return sendto

    def _sendmsg(self, original: Any) -> Callable[..., Any]:
        def sendmsg(sock: socket.socket, *rest: Any) -> Any:
            if len(rest) > 3 and rest[3] is not None:
                self._check_connect(sock.family, rest[3])
            return original(sock, *rest)

        return sendmsg

    def _socketpair(self, original: Any) -> Callable[..., Any]:
        """Windows creates a pair by connecting to itself, for every event loop."""

        def socketpair(*args: Any, **options: Any) -> Any:
            self._thread.in_socketpair = True
            try:
                return original(*args, **options)
            finally:
                self._thread.in_socketpair = False

        return socketpair

    def _resolve(self, original: Any) -> Callable[..., Any]:
        def resolve(*args: Any, **options: Any) -> Any:
            host = _argument(0, "host", args, options)
            self._check_lookup(host, _argument(1, "port", args, options))
            found = original(*args, **options)
            self._note_addresses(host, found)
            return found

        return resolve

    def _resolve_reverse(self, original: Any) -> Callable[..., Any]:
        def gethostbyaddr(host: Any) -> Any:
            self._check_lookup(host, reverse=True)
            return original(host)

        return gethostbyaddr

    def _getnameinfo(self, original: Any) -> Callable[..., Any]:
        def getnameinfo(address: Any, flags: int) -> Any:
            if not flags & socket.NI_NUMERICHOST:
                self._check_lookup(address[0], address[1], reverse=True)
            return original(address, flags)

        return getnameinfo

    def _loop_getaddrinfo(self, original: Any) -> Callable[..., Any]:
        async def getaddrinfo(loop: Any, host: Any, port: Any, **options: Any) -> Any:
            self._check_lookup(host, port)
            found = await original(loop, host, port, **options)
            self._note_addresses(host, found)
            return found

        return getaddrinfo

    def _loop_sock_connect(self, original: Any) -> Callable[..., Any]:
        def sock_connect(loop: Any, sock: socket.socket, address: Any) -> Any:
            self._check_connect(sock.family, address)
            return original(loop, sock, address)

        return sock_connect

    def _loop_create_connection(self, original: Any) -> Callable[..., Any]:
        def create_connection(loop: Any, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
            if host is not None:
                self._check_connect(socket.AF_INET, (host, port))
            return original(loop, factory, host, port, **options)

        return create_connection

    def _loop_create_datagram_endpoint(self, original: Any) -> Callable[..., Any]:
        def create_datagram_endpoint(loop: Any, factory: Any, *args: Any, **options: Any) -> Any:
            remote = _argument(1, "remote_addr", args, options)
            if remote is not None:
                self._check_connect(socket.AF_INET, remote)
            return original(loop, factory, *args, **options)

        return create_datagram_endpoint


def _argument(position: int, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return args[position] if len(args) > position else options.get(name)


_ACTIVE = _ActiveGuards()


def _text(host: Any) -> str:
    return host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else str(host)


def _attempt(host: str, port: int | None) -> str:
    """``HOST:PORT (METHOD URL)``, the latter without query, user and password, where a calling frame has an HTTP request."""
    address = host if port is None else f"{host}:{port}"
    frame = sys._getframe(1)  # noqa: SLF001  # only the stack shows which request uses a socket
    while frame is not None:
        for name in {"request", "req"} & {*frame.f_code.co_varnames}:
            value = frame.f_locals.get(name)
            method, url = getattr(value, "method", None), getattr(value, "url", None)
            if isinstance(method, str) and url is not None:
                parts = urlsplit(str(url))
                return f"{address} ({method} {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path})"
        frame = frame.f_back  # type: ignore[assignment]
    return address
