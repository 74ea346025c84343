"""Whatever client the code under test uses: recorded once, played with the network shut, thread by thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import itertools
import json
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

import aiohttp
import httpcore
import httpcore2
import httplib2
import httpx
import httpx2
import openai
import pytest
import requests
import urllib3
from support.llm_server import LLMServer
from support.replaying import COMMAND, chat, replay_of

from pytest_llmtune._util.aio import outside
from pytest_llmtune.capture.client import client
from pytest_llmtune.capture.matching import Matching
from pytest_llmtune.capture.netguard import Offline, OpenHosts
from pytest_llmtune.capture.patches import recorded
from pytest_llmtune.errors import RecordingError, StaleRecordingError
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llmtune" / "test_app.cassette.json"


@pytest.fixture
def server() -> Iterator[LLMServer]:
    """Every answer is another one; compressed where the client takes that."""
    number = itertools.count(1)
    with LLMServer(answer=lambda _: f"answer {next(number)} 한글", gzip=True) as running:
        yield running


def content(reply: Any) -> str:
    return str(reply["choices"][0]["message"]["content"])


def words(stream: str) -> str:
    """What a model says in an event stream."""
    events = [json.loads(line[5:]) for line in stream.split("\n") if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events)


def by_urllib(url: str, question: str) -> str:
    request = urllib.request.Request(url, json.dumps(chat(question)).encode(), {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
        return content(json.load(response))


def by_urllib3(url: str, question: str) -> str:
    with urllib3.PoolManager() as pool:
        return content(pool.request("POST", url, json=chat(question)).json())


def by_requests(url: str, question: str) -> str:
    return content(requests.post(url, json=chat(question), timeout=5).json())


def by_httplib2(url: str, question: str) -> str:
    http = httplib2.Http(timeout=5)
    _, body = http.request(url, "POST", json.dumps(chat(question)), {"content-type": "application/json"})
    http.close()
    return content(json.loads(body))


def by_httpx(url: str, question: str) -> str:
    return content(httpx.post(url, json=chat(question)).json())


def by_httpx2(url: str, question: str) -> str:
    return content(httpx2.post(url, json=chat(question)).json())


def by_httpx_stream(url: str, question: str) -> str:
    with httpx.stream("POST", url, json=chat(question, stream=True)) as response:
        return words("".join(response.iter_text()))


def by_openai(url: str, question: str) -> str:
    with openai.OpenAI(base_url=url.removesuffix("/chat/completions"), api_key="any") as asking:
        return str(asking.chat.completions.create(**chat(question)).choices[0].message.content)


def by_openai_stream(url: str, question: str) -> str:
    with openai.OpenAI(base_url=url.removesuffix("/chat/completions"), api_key="any") as asking:
        stream = asking.chat.completions.create(**chat(question), stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def by_responses(url: str, question: str) -> str:
    with openai.OpenAI(base_url=url.removesuffix("/chat/completions"), api_key="any") as asking:
        return asking.responses.create(model="small", input=question).output_text


def by_responses_stream(url: str, question: str) -> str:
    with openai.OpenAI(base_url=url.removesuffix("/chat/completions"), api_key="any") as asking:
        events = asking.responses.create(model="small", input=question, stream=True)
        return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def async_httpx(url: str, question: str) -> str:
    async with httpx.AsyncClient() as asking:
        return content((await asking.post(url, json=chat(question))).json())


async def async_aiohttp(url: str, question: str) -> str:
    async with aiohttp.ClientSession() as session, session.post(url, json=chat(question)) as response:
        return content(await response.json())


async def async_aiohttp_stream(url: str, question: str) -> str:
    async with aiohttp.ClientSession() as session, session.post(url, json=chat(question, stream=True)) as response:
        return words("".join([line.decode() async for line in response.content]))


async def async_openai(url: str, question: str) -> str:
    async with openai.AsyncOpenAI(base_url=url.removesuffix("/chat/completions"), api_key="any") as asking:
        return str((await asking.chat.completions.create(**chat(question))).choices[0].message.content)


async def async_openai_stream(url: str, question: str) -> str:
    async with openai.AsyncOpenAI(base_url=url.removesuffix("/chat/completions"), api_key="any") as asking:
        stream = await asking.chat.completions.create(**chat(question), stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def run(job: Any) -> Callable[[str, str], str]:
    def synchronous(url: str, question: str) -> str:
        return str(asyncio.run(job(url, question)))

    return synchronous


SYNCHRONOUS: dict[str, Callable[[str, str], str]] = {
    "urllib": by_urllib,
    "urllib3": by_urllib3,
    "requests": by_requests,
    "httplib2": by_httplib2,
    "httpx": by_httpx,
    "httpx2": by_httpx2,
    "openai": by_openai,
}
CLIENTS = SYNCHRONOUS | {
    "httpx stream": by_httpx_stream,
    "openai stream": by_openai_stream,
    "responses": by_responses,
    "responses stream": by_responses_stream,
    "httpx async": run(async_httpx),
    "aiohttp": run(async_aiohttp),
    "aiohttp stream": run(async_aiohttp_stream),
    "openai async": run(async_openai),
    "openai async stream": run(async_openai_stream),
}


def url_of(server: LLMServer) -> str:
    return f"{server.base_url}/chat/completions"


@pytest.mark.parametrize("ask", CLIENTS.values(), ids=CLIENTS.keys())
def test_every_client_records_and_replays(path: Path, server: LLMServer, ask: Callable[[str, str], str]) -> None:
    """Asked three times, one question twice: recorded decoded, and played in the same order, with no socket opened."""
    questions = ["a", "b", "a"]
    with recorded(replay_of(path, Mode.RECORD_ALL)) as replay:
        first = [ask(url_of(server), question) for question in questions]
    assert len(set(first)) == 3
    assert all("answer" in said for said in first)
    assert (server.count, replay.meter.calls) == (3, 3)
    assert "한글" in path.read_text(encoding="utf-8")
    with Offline(COMMAND), recorded(replay_of(path)) as replay:
        assert [ask(url_of(server), question) for question in questions] == first
    assert (server.count, replay.meter.calls, replay.unused) == (3, 3, ())


@pytest.mark.parametrize("ask", CLIENTS.values(), ids=CLIENTS.keys())
def test_no_client_leaves_without_a_recording(path: Path, ask: Callable[[str, str], str]) -> None:
    """Nothing recorded: refused at once, with no retry and no attempt at a socket, and the test fails."""
    with pytest.raises(StaleRecordingError, match="no recording"), Offline(COMMAND) as guard:  # noqa: SIM117
        with recorded(replay_of(path)) as replay:
            ask("http://api.example.com/v1/chat/completions", "q")
    assert guard.attempts == []
    assert len(replay.missing) == 1


@pytest.mark.parametrize("ask", SYNCHRONOUS.values(), ids=SYNCHRONOUS.keys())
def test_threads_do_not_escape(path: Path, server: LLMServer, ask: Callable[[str, str], str]) -> None:
    """Eight threads record together: every request is in the file, and each plays its own answer again."""
    questions = [f"q{i}" for i in range(24)]

    def together() -> list[str]:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda question: ask(url_of(server), question), questions))

    with recorded(replay_of(path, Mode.RECORD_ALL)) as replay:
        first = together()
    assert (server.count, replay.meter.calls) == (24, 24)
    with Offline(COMMAND), recorded(replay_of(path)):
        assert together() == first


def test_clients_can_be_mixed(path: Path, server: LLMServer) -> None:
    """What one client recorded, another replays: a request is a request."""
    with recorded(replay_of(path, Mode.RECORD_ALL)):
        by_requests(url_of(server), "q")
        by_openai(url_of(server), "q")
    with recorded(replay_of(path)):
        said = [by_httpx(url_of(server), "q"), run(async_aiohttp)(url_of(server), "q")]
    assert said == ["answer 1 한글", "answer 2 한글"]


def test_two_recordings_in_two_threads_do_not_mix(tmp_path: Path, server: LLMServer) -> None:
    """Two suites record at once through one library: each file holds its own questions, and each replays alone."""
    barrier = threading.Barrier(2)

    def suite(name: str, mode: Mode) -> list[str]:
        with recorded(replay_of(tmp_path / f"{name}.cassette.json", mode)):
            barrier.wait(5)
            return [by_requests(url_of(server), f"{name}{i}") for i in range(10)]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = list(pool.map(suite, ("a", "b"), [Mode.RECORD_ALL] * 2))
        again = list(pool.map(suite, ("a", "b"), [Mode.REPLAY] * 2))
    assert again == first
    assert server.count == 20
    for name in ("a", "b"):
        data = json.loads((tmp_path / f"{name}.cassette.json").read_text(encoding="utf-8"))
        asked = [json.loads(item["request"]["body"])["messages"][0]["content"] for item in data["interactions"]]
        assert asked == [f"{name}{i}" for i in range(10)]


def test_a_thread_of_nobody_is_refused(tmp_path: Path, server: LLMServer) -> None:
    """With two open recordings, a thread without a context fails with advice on how to copy one; with a context it works."""
    outer, inner = (replay_of(tmp_path / f"{name}.cassette.json", Mode.RECORD_ALL) for name in ("outer", "inner"))
    errors: list[Exception] = []

    def ask() -> None:
        try:
            by_requests(url_of(server), "q")
        except RecordingError as error:
            errors.append(error)

    with pytest.raises(RecordingError, match="belongs to none of them"), recorded(outer), recorded(inner):
        for target in (ask, functools.partial(contextvars.copy_context().run, ask)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert ["belongs to none of them" in str(error) for error in errors] == [True]
    assert (outer.meter.calls, inner.meter.calls) == (0, 1)


def test_connections_kept_open_belong_to_the_test_that_uses_them(path: Path, server: LLMServer) -> None:
    """A session used before, during and after a test: only what the test asks is in its recording."""
    with requests.Session() as session:

        def ask(question: str) -> str:
            return content(session.post(url_of(server), json=chat(question), timeout=5).json())

        ask("before")
        with recorded(replay_of(path, Mode.RECORD_ALL)):
            ask("during")
        ask("after")
        assert server.count == 3
        with Offline(COMMAND), recorded(replay_of(path)):
            assert ask("during") == "answer 2 한글"
        assert ask("later") == "answer 4 한글"
    assert "before" not in path.read_text(encoding="utf-8")
    assert "after" not in path.read_text(encoding="utf-8")


def test_nothing_is_patched_afterwards(path: Path) -> None:
    """Every library is as it was, also after an error."""
    import http.client

    places: list[tuple[Any, str]] = [
        (http.client.HTTPConnection, "connect"),
        (http.client.HTTPConnection, "putrequest"),
        (urllib3.connection.HTTPSConnection, "connect"),
        (httplib2.HTTPConnectionWithTimeout, "connect"),
        (httpcore.ConnectionPool, "handle_request"),
        (httpcore2.AsyncConnectionPool, "handle_async_request"),
        (httpx.HTTPTransport, "handle_request"),
        (aiohttp.ClientSession, "_request"),
    ]
    before = [getattr(owner, name) for owner, name in places]
    with pytest.raises(ZeroDivisionError), recorded(replay_of(path)):
        assert all(getattr(owner, name) is not was for (owner, name), was in zip(places, before, strict=True))
        raise ZeroDivisionError
    assert [getattr(owner, name) for owner, name in places] == before


def test_hosts_left_open_are_left_alone(path: Path, server: LLMServer) -> None:
    """A test server of the user's own is neither recorded nor played, in any mode."""
    hosts = OpenHosts.of([f"127.0.0.1:{server.port}"])
    for mode in (Mode.RECORD_ALL, Mode.REPLAY):
        with recorded(replay_of(path, mode, open_hosts=hosts)) as replay:
            for ask in (by_requests, by_httpx, run(async_aiohttp)):
                ask(url_of(server), "q")
        assert replay.meter.calls == 0
    assert server.count == 6
    assert not path.exists()


def test_outside_goes_straight_to_the_network(path: Path, server: LLMServer) -> None:
    """The evaluator's own requests, in a test that records, are none of the test's."""
    with recorded(replay_of(path, Mode.RECORD_ALL)) as replay, outside():
        by_requests(url_of(server), "q")
        by_openai(url_of(server), "q")
    assert (server.count, replay.meter.calls) == (2, 0)


def test_the_fixture_client_within_a_marked_test_counts_once(path: Path, server: LLMServer) -> None:
    """``llm_client`` in a test marked ``llm_replay``: one recording, one line, one call."""
    with (
        recorded(replay_of(path, Mode.RECORD_ALL)) as replay,
        client(replay, base_url=server.base_url, api_key="any") as c,
    ):
        c.chat.completions.create(**chat("q"))
    assert (server.count, replay.meter.calls) == (1, 1)
    assert path.read_text(encoding="utf-8").count('"request":') == 1


def test_a_body_sent_in_chunks_is_one_body(path: Path, server: LLMServer) -> None:
    """A generator's parts are put together before they are compared."""
    url = server.base_url + "/models"

    def send(*parts: bytes) -> int:
        return requests.get(url, data=iter(parts), timeout=5).status_code

    with recorded(replay_of(path, Mode.RECORD_ALL)):
        assert send(b'{"a":', b" 1.0}") == 200
    with recorded(replay_of(path)):
        assert send(b'{"a": 1', b"}") == 200


def test_both_ways_of_httpx_give_the_same_response(path: Path, server: LLMServer) -> None:
    """At its transport, and, where a body can be read only once, at httpcore's pool; recorded, played, and mixed."""
    body = json.dumps(chat("q")).encode()
    kind = {"content-type": "application/json", "content-length": str(len(body))}

    def told(response: httpx.Response) -> tuple[object, ...]:
        headers = sorted(
            (name, value) for name, value in response.headers.raw if name not in (b"date", b"content-length")
        )
        return (
            response.status_code,
            response.reason_phrase,
            response.http_version,
            headers,
            b"".join(response.iter_raw()),
        )

    def ask(*, whole: bool) -> tuple[object, ...]:
        content = body if whole else iter([body[:9], body[9:]])
        with httpx.stream("POST", url_of(server), content=content, headers=kind) as response:
            return told(response)

    async def asked(*, whole: bool) -> tuple[object, ...]:
        async def parts() -> AsyncIterator[bytes]:
            yield body

        async with httpx.AsyncClient() as client:
            response = await client.post(url_of(server), content=body if whole else parts(), headers=kind)
        return response.status_code, response.content

    for mode in (Mode.RECORD_ALL, Mode.REPLAY):
        with recorded(replay_of(path, mode)):
            short, long = [ask(whole=whole) for whole in (True, False)]
            later = [asyncio.run(asked(whole=whole)) for whole in (True, False)]
        assert short[:-1] == long[:-1]
        assert [status for status, _ in later] == [200, 200]
        assert len({short[-1], long[-1], *(content for _, content in later)}) == 4  # each its own answer
    assert server.count == 4


def test_what_is_no_text_is_matched_by_its_fingerprint(path: Path, server: LLMServer) -> None:
    """A form with a file has a new boundary each time, and bytes that JSON cannot hold: it is found again."""
    url = server.base_url + "/models"

    def upload(data: bytes) -> int:
        return requests.get(url, files={"file": ("x.bin", data)}, timeout=5).status_code

    with recorded(replay_of(path, Mode.RECORD_ALL)):
        assert upload(b"\xff\x00\xfe") == 200
    with recorded(replay_of(path)):
        assert upload(b"\xff\x00\xfe") == 200
    with pytest.raises(StaleRecordingError), recorded(replay_of(path)):
        upload(b"\xff\x00\xff")


def test_a_request_without_a_body_is_told_by_its_query(path: Path, server: LLMServer) -> None:
    """Another search is another request; its key, which is not recorded, may be another one."""
    url = server.base_url + "/models"
    with recorded(replay_of(path, Mode.RECORD_ALL)):
        requests.get(url, params={"q": "pears", "api_key": "sk-secret-of-the-recording"}, timeout=5)
    assert "secret-of" not in path.read_text(encoding="utf-8")
    with recorded(replay_of(path)):
        requests.get(url, params={"api_key": "sk-secret-of-another-day", "q": "pears"}, timeout=5)
    with pytest.raises(StaleRecordingError, match="plums"), recorded(replay_of(path)):
        requests.get(url, params={"q": "plums", "api_key": "sk-secret-of-the-recording"}, timeout=5)
    with recorded(replay_of(path, matching=Matching.on(["method", "path"]))):
        requests.get(url, params={"q": "plums"}, timeout=5)


def test_a_query_beside_a_body_matters_where_the_user_says_so(path: Path, server: LLMServer) -> None:
    """By default path and body decide; ``match_on`` may take the query in."""
    url, body = server.base_url + "/models", {"name": "x"}
    with recorded(replay_of(path, Mode.RECORD_ALL)):
        requests.get(url, json=body, params={"version": "1"}, timeout=5)
    with recorded(replay_of(path)):
        requests.get(url, json=body, params={"version": "2"}, timeout=5)
    with pytest.raises(StaleRecordingError), recorded(replay_of(path, matching=Matching.on(["path", "query"]))):
        requests.get(url, json=body, params={"version": "2"}, timeout=5)


def test_an_error_of_the_server_reaches_the_client(path: Path, server: LLMServer) -> None:
    """A 404 is passed on, recorded and replayed; it is no call of a model."""

    def statuses() -> list[int]:
        answers = [requests.get(server.base_url + "/nothing", timeout=5), httpx.get(server.base_url + "/nothing")]
        return [answer.status_code for answer in answers]

    with recorded(replay_of(path, Mode.RECORD_ALL)) as replay:
        assert statuses() == [404, 404]
    assert replay.meter.calls == 0
    with Offline(COMMAND), recorded(replay_of(path)) as replay:
        assert statuses() == [404, 404]
    assert (replay.meter.calls, replay.unused) == (0, ())


def test_a_server_that_is_not_there_fails_the_recording_run(path: Path) -> None:
    """Recording against a closed port: each library's own error, no call, and the run says why it cannot be recorded."""
    url = "http://127.0.0.1:9/v1/chat/completions"
    with pytest.raises(RecordingError, match=r"POST /v1/chat/completions did not come \(ClientConnectorError\)"):  # noqa: SIM117
        with recorded(replay_of(path, Mode.RECORD_ALL)) as replay:
            with pytest.raises(requests.ConnectionError):
                by_requests(url, "q")
            with pytest.raises(httpx.ConnectError):
                by_httpx(url, "q")
            with pytest.raises(aiohttp.ClientConnectionError):
                asyncio.run(async_aiohttp(url, "q"))
    assert (replay.meter.calls, path.exists()) == (0, False)


def test_a_library_imported_within_the_test_is_patched_too(pytester: pytest.Pytester) -> None:
    """Nothing is imported for the sake of a patch, and nothing escapes for being imported late."""
    pytester.makepyfile(
        """
        import sys
        from pathlib import Path
        from pytest_llmtune.capture.patches import recorded
        from pytest_llmtune.redaction.redactor import Redactor
        from pytest_llmtune.capture.session import Replay
        from pytest_llmtune.errors import StaleRecordingError
        from pytest_llmtune.settings import Mode

        LIBRARIES = ("requests", "urllib3", "httplib2", "httpx", "httpcore", "aiohttp", "vcr", "tornado")

        def test_it():
            assert [name for name in LIBRARIES if name in sys.modules] == []
            try:
                with recorded(Replay(Path("none.cassette.json"), Mode.REPLAY, "COMMAND", Redactor())) as replay:
                    assert [name for name in LIBRARIES if name in sys.modules] == []
                    import httplib2, httpx, requests
                    for ask in (requests.get, httpx.get, httplib2.Http().request):
                        try:
                            ask("http://192.0.2.1/v1/models")
                        except BaseException as error:
                            assert "has no recording" in str(error), ask
            except StaleRecordingError:
                pass
            assert len(replay.missing) == 3
        """
    )
    plugins = ("llmtune", "recording", "html", "metadata", "cacheprovider", "randomly", "xdist", "cov")
    options = [part for name in plugins for part in ("-p", f"no:{name}")]
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=1)


def test_works_beside_the_mark_of_pytest_recording(pytester: pytest.Pytester, server: LLMServer) -> None:
    """pytest-recording's ``vcr`` mark records and replays as ever while our context is open around other tests."""
    pytester.makepyfile(
        f"""
        import pytest, requests
        from pathlib import Path
        from pytest_llmtune.capture.patches import recorded
        from pytest_llmtune.redaction.redactor import Redactor
        from pytest_llmtune.capture.session import Replay
        from pytest_llmtune.settings import Mode

        def ask(question):
            body = {{"model": "m", "messages": [{{"role": "user", "content": question}}]}}
            return requests.post("{url_of(server)}", json=body).json()["choices"][0]["message"]["content"]

        @pytest.mark.vcr
        def test_theirs():
            assert ask("theirs") == "answer 1 한글"

        def test_ours(mode):
            with recorded(Replay(Path("ours.cassette.json"), mode, "", Redactor())):
                assert ask("ours") == "answer 2 한글"

        @pytest.mark.vcr
        def test_theirs_again():
            assert ask("again") == "answer 3 한글"

        @pytest.fixture
        def mode():
            return Mode.REPLAY if Path("ours.cassette.json").exists() else Mode.RECORD_ALL
        """
    )
    pytester.makeini("[pytest]\n")
    options = ("-p", "no:llmtune", "-p", "no:cacheprovider")
    pytester.runpytest_subprocess(*options, "--record-mode=once").assert_outcomes(passed=3)
    assert server.count == 3
    pytester.runpytest_subprocess(*options, "--block-network").assert_outcomes(passed=3)
    assert server.count == 3
    cassettes = sorted(file.name for file in pytester.path.rglob("*.yaml"))
    assert cassettes == ["test_theirs.yaml", "test_theirs_again.yaml"]


def test_recording_error_of_a_broken_file_is_reported_before_anything_is_patched(path: Path) -> None:
    """A broken recording patches nothing."""
    path.parent.mkdir()
    path.write_text("{", encoding="utf-8")
    before = httpcore.ConnectionPool.handle_request
    with pytest.raises(RecordingError, match="is corrupt"), recorded(replay_of(path)):
        pytest.fail("the test must not run")
    assert httpcore.ConnectionPool.handle_request is before
