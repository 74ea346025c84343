"""The shut network: every way out of Python is closed, loopback only by name, and everything is given back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import socket
import threading
from contextlib import closing, suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import httpx2
import openai
import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.capture.netguard import NetworkShutError, Offline, OpenHosts, _matches
from pytest_llmtune.errors import RecordingError, SuiteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMAND = "pytest tests/test_x.py::test_y --llm-record=missing"
AWAY = "192.0.2.1"  # TEST-NET-1: no such host, whoever asks
NAME = "api.invalid"  # no name server knows it
PLACES = (
    *((socket.socket, name) for name in ("connect", "connect_ex", "sendto", "sendmsg")),
    *((socket, n) for n in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo")),
    (socket, "socketpair"),
    (asyncio.BaseEventLoop, "getaddrinfo"),
)


@pytest.fixture
def listener() -> Iterator[int]:
    """The port of a TCP listener on loopback that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def connect(address: tuple[str, int]) -> None:
    with socket.socket() as sock:
        sock.settimeout(2)
        sock.connect(address)


def test_connect_is_refused_with_host_port_and_command() -> None:
    """A TCP connection raises where it happens, and the guard raises again when it is left."""
    with pytest.raises(RecordingError, match=r"192\.0\.2\.1:443") as left, Offline(COMMAND):
        connect((AWAY, 443))
    assert isinstance(left.value.__cause__, NetworkShutError)
    assert COMMAND in str(left.value)
    assert COMMAND in str(left.value.__cause__)


def test_swallowed_attempt_still_fails() -> None:
    """A client that catches the error and goes on does not hide the attempt."""
    with pytest.raises(RecordingError, match=r"192\.0\.2\.1:443"), Offline(COMMAND), suppress(OSError):
        connect((AWAY, 443))


def test_error_looks_like_a_failed_connection() -> None:
    """Clients see an OSError, and people a RecordingError."""
    assert issubclass(NetworkShutError, OSError)
    assert issubclass(NetworkShutError, RecordingError)


def using(use: Callable[[socket.socket], object], family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> Any:
    """A way that closes its socket: one left open would warn whenever it is collected, in another test."""

    def way() -> None:
        with socket.socket(family, kind) as sock:
            use(sock)

    return way


V6, UDP = socket.AF_INET6, socket.SOCK_DGRAM
ways_out = {
    "connect_ex": using(lambda sock: sock.connect_ex((AWAY, 80))),
    "create_connection": lambda: socket.create_connection((AWAY, 80)),
    "udp sendto": using(lambda sock: sock.sendto(b"x", (AWAY, 53)), kind=UDP),
    "udp sendto with flags": using(lambda sock: sock.sendto(b"x", 0, (AWAY, 53)), kind=UDP),
    "udp sendmsg": using(lambda sock: sock.sendmsg([b"x"], [], 0, (AWAY, 53)), kind=UDP),
    "getaddrinfo": lambda: socket.getaddrinfo("example.invalid", 80),
    "getaddrinfo by keyword": lambda: socket.getaddrinfo(host="example.invalid", port=80),
    "getaddrinfo of bytes": lambda: socket.getaddrinfo(b"example.invalid", 80),
    "gethostbyname": lambda: socket.gethostbyname("example.invalid"),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex("example.invalid"),
    "gethostbyaddr": lambda: socket.gethostbyaddr(AWAY),
    "getnameinfo": lambda: socket.getnameinfo((AWAY, 80), 0),
    "ipv6": using(lambda sock: sock.connect(("2001:db8::1", 80, 0, 0)), V6),
    "loopback": using(lambda sock: sock.connect(("127.0.0.1", 9))),
    "loopback in ipv6": using(lambda sock: sock.connect(("::1", 9)), V6),
    "mapped loopback": using(lambda sock: sock.connect(("::ffff:127.0.0.1", 9)), V6),
    "any address": using(lambda sock: sock.connect(("0.0.0.0", 9))),
    "urllib3": lambda: urllib3.PoolManager().request("GET", f"http://{AWAY}/", retries=False),
    "requests": lambda: requests.get(f"https://{AWAY}/", timeout=2),
    "httpx": lambda: httpx.get(f"http://{AWAY}/"),
    "httpx2": lambda: httpx2.get("https://example.invalid/"),
    "openai": lambda: list(openai.OpenAI(api_key="k", base_url=f"http://{AWAY}/v1", max_retries=0).models.list()),
}


@pytest.mark.parametrize("way", ways_out.values(), ids=ways_out.keys())
def test_every_way_out_is_closed(way: object) -> None:
    """Each of Python's and the usual clients' ways to a host is refused at once and remembered once at least."""
    assert callable(way)
    guard = Offline(COMMAND)
    with pytest.raises(RecordingError, match="the network is blocked"), guard:
        way()
    assert guard.attempts
    gc.collect()  # a socket left open would warn now


async def _open_connection() -> None:
    await asyncio.open_connection(AWAY, 80)


async def _resolve() -> None:
    await asyncio.get_running_loop().getaddrinfo("example.invalid", 80)


async def _sock_connect() -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (AWAY, 80))


async def _datagram() -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(AWAY, 53))


async def _aiohttp() -> None:
    async with aiohttp.ClientSession() as session, session.get(f"http://{AWAY}/"):
        pass


async def _openai() -> None:
    async with openai.AsyncOpenAI(api_key="k", base_url=f"http://{AWAY}/v1", max_retries=0) as client:
        await client.models.list()


@pytest.mark.parametrize("job", [_open_connection, _resolve, _sock_connect, _datagram, _aiohttp, _openai])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_every_way_out_of_an_event_loop_is_closed(job: object, loop: str) -> None:
    """Under asyncio's own loop and under uvloop, whose sockets are not Python's."""
    assert callable(job)
    factory = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with pytest.raises(RecordingError, match="the network is blocked"), Offline(COMMAND):  # noqa: SIM117
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(job())


@pytest.mark.parametrize(
    ("call", "method"),
    [
        (lambda: requests.post(f"http://u:p@{NAME}/v1/x?api_key=abc", timeout=2), "POST"),
        (lambda: httpx.get(f"http://u:p@{NAME}/v1/x?api_key=abc"), "GET"),
        (lambda: httpx2.put(f"http://u:p@{NAME}/v1/x?api_key=abc"), "PUT"),
        (lambda: asyncio.run(_get_async(f"http://u:p@{NAME}/v1/x?api_key=abc")), "GET"),
    ],
    ids=["requests", "httpx", "httpx2", "httpx async"],
)
def test_message_names_the_request_without_its_secrets(call: object, method: str) -> None:
    """Where the client's stack shows it, the message holds method and URL; never the query, user or password."""
    assert callable(call)
    with pytest.raises(RecordingError) as left, Offline(COMMAND):
        call()
    assert f"{method} http://{NAME}/v1/x" in str(left.value)
    assert "abc" not in str(left.value)
    assert "u:p" not in str(left.value)


async def _get_async(url: str) -> None:
    async with httpx.AsyncClient() as client:
        await client.get(url)


def test_allowed_loopback_host_is_reached(listener: int) -> None:
    """The user's own test server stays reachable, by any usual name of this machine."""
    with Offline(COMMAND, allow_hosts=["localhost"]) as guard:
        connect(("127.0.0.1", listener))
        connect(("localhost", listener))
    assert guard.attempts == []


def test_allowed_port_opens_no_other(listener: int) -> None:
    """``localhost:PORT`` opens that port and no other."""
    with Offline(COMMAND, allow_hosts=[f"127.0.0.1:{listener}"]):
        connect(("127.0.0.1", listener))
    with (
        pytest.raises(RecordingError, match=r"127\.0\.0\.1:9"),
        Offline(COMMAND, allow_hosts=[f"localhost:{listener}"]),
    ):
        connect(("127.0.0.1", 9))


@pytest.mark.parametrize("host", ["", "localhost:http", "[::1]:x", "http://redis", "a b"])
def test_what_names_no_host_cannot_be_allowed(host: str) -> None:
    """It is refused with the valid forms."""
    with pytest.raises(SuiteError, match=r"llmtune_allow_hosts names .*, which is no host; valid: .* redis:6379"):
        Offline(COMMAND, allow_hosts=[host])


@pytest.mark.parametrize("host", ["*", "*.*", "?*:80"])
def test_every_host_cannot_be_allowed(host: str) -> None:
    """The network would not be shut at all."""
    with pytest.raises(SuiteError, match="which is every host"):
        Offline(COMMAND, allow_hosts=[host])


@pytest.mark.parametrize("host", ["api.openai.com", "api.anthropic.com:443", "*.openai.com", "me.openai.azure.com"])
def test_providers_of_models_cannot_be_allowed(host: str) -> None:
    """Their calls are recorded, and not just let out."""
    with pytest.raises(SuiteError, match=r"the host of a model provider; .* @pytest.mark.llm_replay"):
        Offline(COMMAND, allow_hosts=[host])


@pytest.mark.parametrize(
    ("entry", "reached", "refused"),
    [
        ("localhost", ("127.0.0.1", 5432), ("10.0.0.1", 5432)),
        ("LOCALHOST.", ("::1", 80), ("127.0.0.2", 80)),
        ("127.0.0.2:80", ("127.0.0.2", 80), ("127.0.0.2", 81)),
        ("[::1]:8000", ("localhost", 8000), ("localhost", 8001)),
        ("redis:6379", ("redis", 6379), ("redis", 6380)),
        ("*.internal", ("db.internal", 1), ("internal.example.com", 1)),
        ("172.17.*:5432", ("172.17.0.3", 5432), ("172.18.0.3", 5432)),
    ],
)
def test_names_ports_and_patterns_are_understood(
    entry: str, reached: tuple[str, int], refused: tuple[str, int]
) -> None:
    """What an entry opens, and what it does not."""
    hosts = Offline(COMMAND, allow_hosts=[entry]).open_hosts
    assert (hosts.allows(*reached), hosts.allows(*refused)) == (True, False)


def test_a_service_is_reached_by_its_name(listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a CI container the database has a name: it is looked up, and the address found is the service's."""
    real = socket.getaddrinfo

    def name_server(_: str, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", name_server)
    with Offline(COMMAND, allow_hosts=[f"redis:{listener}"]) as guard:
        connect_by_name("redis", listener)
    assert guard.attempts == []
    with pytest.raises(RecordingError, match="other-name"), Offline(COMMAND, allow_hosts=[f"redis:{listener}"]):
        connect_by_name("other-name", listener)


def connect_by_name(host: str, port: int) -> None:
    socket.create_connection((host, port), timeout=2).close()


def test_an_endpoint_of_models_is_never_just_a_host(listener: int) -> None:
    """Allowing ``localhost`` for a database lets no call out to a model on ``localhost`` that the run knows."""
    hosts = OpenHosts.of(["localhost", f"127.0.0.1:{listener}"], endpoints=[("127.0.0.1", listener)])
    with pytest.raises(RecordingError, match=f"127.0.0.1:{listener}"), Offline(COMMAND, hosts):
        connect(("127.0.0.1", listener))


def test_the_refusal_names_what_opens_a_service() -> None:
    """For a service of the user's own there is another way than recording."""
    with pytest.raises(RecordingError, match="llmtune_allow_hosts"), Offline(COMMAND):
        connect((AWAY, 80))


@given(st.ip_addresses(), st.integers(1, 65535))
def test_no_address_but_loopback_is_allowed(address: object, port: int) -> None:
    """For any address: with localhost allowed, only this machine's own addresses are open."""
    plain = getattr(address, "ipv4_mapped", None) or address
    here = str(plain) in {"127.0.0.1", "::1", "0.0.0.0", "::"}
    assert OpenHosts.of(["localhost"]).allows(str(address), port) is here


def test_other_threads_are_shut_too() -> None:
    """A thread that the test starts cannot leave either, and its attempt fails the test."""
    with pytest.raises(RecordingError, match=AWAY), Offline(COMMAND):  # noqa: SIM117
        with concurrent.futures.ThreadPoolExecutor() as pool:
            assert isinstance(pool.submit(connect, (AWAY, 80)).exception(), NetworkShutError)


def test_unix_sockets_and_pairs_stay_open(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Sockets that stay inside the machine by nature are not asked."""
    path = str(tmp_path_factory.mktemp("s") / "s")
    with closing(socket.socket(socket.AF_UNIX)) as server, closing(socket.socket(socket.AF_UNIX)) as client:
        server.bind(path)
        server.listen()
        with Offline(COMMAND) as guard:
            client.connect(path)
            left, right = socket.socketpair()
            left.close()
            right.close()
    assert guard.attempts == []


def test_a_pair_made_over_loopback_stays_open(monkeypatch: pytest.MonkeyPatch, listener: int) -> None:
    """Windows makes socket pairs by connecting to itself: that is no attempt."""
    with closing(socket.socket()) as sock:
        monkeypatch.setattr(socket, "socketpair", lambda: sock.connect(("127.0.0.1", listener)))
        with Offline(COMMAND) as guard:
            socket.socketpair()
    assert guard.attempts == []


def test_numbers_and_own_names_may_be_looked_up() -> None:
    """Looking up what asks no name server is no attempt; an HTTP server of the test's own does it."""
    with Offline(COMMAND) as guard:
        socket.getaddrinfo("127.0.0.1", 80)
        socket.getaddrinfo(AWAY, 80)
        socket.getaddrinfo(None, 0)
        socket.getaddrinfo("localhost", 80)
        socket.gethostbyaddr("127.0.0.1")
        socket.getnameinfo((AWAY, 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    assert guard.attempts == []


def test_everything_is_given_back() -> None:
    """After the outermost guard every place is what it was, also after an error."""
    before = [(vars(owner).get(name), getattr(owner, name)) for owner, name in PLACES]
    with pytest.raises(ZeroDivisionError), Offline(COMMAND), Offline(COMMAND):
        assert all(getattr(owner, name) is not was for (owner, name), (_, was) in zip(PLACES, before, strict=True))
        raise ZeroDivisionError
    assert before == [(vars(owner).get(name), getattr(owner, name)) for owner, name in PLACES]


def test_inner_guard_opens_nothing_that_the_outer_shuts(listener: int) -> None:
    """Every guard must agree; the one that refuses remembers."""
    inner = Offline(COMMAND, allow_hosts=["localhost"])
    with pytest.raises(RecordingError), Offline(COMMAND) as outer, inner:
        connect(("127.0.0.1", listener))
    assert (len(outer.attempts), len(inner.attempts)) == (1, 0)


def test_outer_guard_still_shuts_after_the_inner_is_left() -> None:
    """Leaving an inner guard opens nothing."""
    with pytest.raises(RecordingError), Offline(COMMAND):
        with Offline(COMMAND):
            pass
        connect((AWAY, 80))


def test_guard_can_be_entered_again() -> None:
    """One guard object serves one test after another; attempts of the first are not those of the second."""
    guard = Offline(COMMAND)
    with pytest.raises(RecordingError), guard:
        connect((AWAY, 80))
    with guard:
        pass
    assert guard.attempts == []


def test_guards_of_two_threads_do_not_open_each_other() -> None:
    """Guards overlap in any order; the network is blocked as long as one is entered."""
    first, second = Offline(COMMAND), Offline(COMMAND)
    entered, left = threading.Event(), threading.Event()

    def other() -> None:
        with second:
            entered.set()
            left.wait(5)

    thread = threading.Thread(target=other)
    with first:
        thread.start()
        entered.wait(5)
    with pytest.raises(NetworkShutError):
        connect((AWAY, 80))
    second.attempts.clear()
    left.set()
    thread.join()
    assert "connect" not in vars(socket.socket)


def test_what_others_patched_meanwhile_is_theirs(monkeypatch: pytest.MonkeyPatch, listener: int) -> None:
    """A tool that patches sockets inside the guard keeps its patch, and ours is inert beneath it."""
    with Offline(COMMAND) as guard:
        beneath = socket.socket.connect
        monkeypatch.setattr(socket.socket, "connect", theirs := functools.partialmethod(beneath))
    assert vars(socket.socket)["connect"] is theirs
    connect(("127.0.0.1", listener))
    assert guard.attempts == []
    del socket.socket.connect
    monkeypatch.undo()
    del socket.socket.connect  # monkeypatch gave back ours, which was there when it patched


def test_long_lists_of_attempts_are_cut() -> None:
    """A test that tries many hosts gets a message one can read; a host tried twice is named once."""
    with pytest.raises(RecordingError) as left, Offline(COMMAND):
        for last in [*range(1, 9), 1]:
            with pytest.raises(NetworkShutError):
                connect((f"192.0.2.{last}", 80))
    assert "and 3 more" in str(left.value)
    assert str(left.value).count("192.0.2.1:80") == 1


def test_interrupt_is_not_replaced() -> None:
    """Ctrl-C stays Ctrl-C."""
    with pytest.raises(KeyboardInterrupt), Offline(COMMAND):
        with pytest.raises(NetworkShutError):
            connect((AWAY, 80))
        raise KeyboardInterrupt


@given(st.text("a*?[]!.-", max_size=8), st.text("a.-b[", max_size=8))
def test_hosts_fit_patterns_as_file_names_do(pattern: str, host: str) -> None:
    assert _matches(host, pattern) == fnmatchcase(host, pattern)
