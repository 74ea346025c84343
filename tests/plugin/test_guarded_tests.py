"""What a guarded test is: from its first fixture to its last finaliser, each time it runs, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
import requests
from support.llm_server import LLMServer
from support.providers import Providers

import pytest_llmtune.capture.patches  # noqa: F401  # once, so that no inner run imports it again
from pytest_llmtune.plugin import session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ASK = """
import httpx, os, pytest, requests, threading, unittest

def ask(question, by=requests):
    body = {"model": "small", "messages": [{"role": "user", "content": question}]}
    reply = by.post(URL + "/chat/completions", json=body)
    return reply.json()["choices"][0]["message"]["content"] if reply.status_code == 200 else reply.text

guarded = pytest.mark.llm_replay
"""


class App:
    """A project whose tests talk to a real server on loopback."""

    def __init__(self, pytester: pytest.Pytester, server: LLMServer) -> None:
        self.pytester, self.server = pytester, server

    def write(self, tests: str, name: str = "test_app.py") -> None:
        text = ASK.replace("URL", repr(self.server.base_url)) + tests
        (self.pytester.path / name).write_text(text, encoding="utf-8")

    def run(self, *args: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *args)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.pytester.path.rglob("*.cassette.json"))

    def questions(self, name: str) -> list[str]:
        path: Path = next(self.pytester.path.rglob(f"{name}.cassette.json"))
        lines = json.loads(path.read_text(encoding="utf-8"))["interactions"]
        return [json.loads(line["request"]["body"])["messages"][0]["content"] for line in lines]


@pytest.fixture
def app(pytester: pytest.Pytester) -> Iterator[App]:
    with LLMServer(answer=lambda body: f"you said: {body['messages'][0]['content']}") as server:
        yield App(pytester, server)


@pytest.fixture
def providers() -> Iterator[Providers]:
    with Providers() as running:
        yield running


EVERYWHERE = """
@pytest.fixture
def answer():
    yield ask("set up")
    ask("tear down")

class TestIt:
    def setup_method(self):
        ask("setup_method")

    def teardown_method(self):
        ask("teardown_method")

    @guarded
    def test_it(self, answer, request):
        request.addfinalizer(lambda: ask("finaliser"))
        assert ask("test") == "you said: test"
"""


def test_calls_of_fixtures_belong_to_the_test(app: App) -> None:
    """Six calls from the first fixture to the last finaliser: recorded, replayed, and shut out where there is none."""
    app.write(EVERYWHERE)
    result = app.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert app.server.count == 0
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    assert app.server.count == 6
    (name,) = app.files
    everything = ["finaliser", "set up", "setup_method", "tear down", "teardown_method", "test"]
    assert app.questions(name.removesuffix(".cassette.json")) == everything
    app.run().assert_outcomes(passed=1)
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    assert app.server.count == 6


@pytest.mark.parametrize(
    ("where", "outcome"),
    [("setup", {"errors": 1}), ("call", {"failed": 1}), ("teardown", {"passed": 1, "errors": 1})],
)
def test_each_phase_tells_what_it_lacks(app: App, where: str, outcome: dict[str, int]) -> None:
    """Also where the code swallows the error."""
    app.write(
        f"""
def quietly(where):
    try:
        where == {where!r} and ask("q")
    except Exception:
        pass

@pytest.fixture
def around():
    quietly("setup")
    yield
    quietly("teardown")

@guarded
def test_it(around):
    quietly("call")
"""
    )
    result = app.run()
    result.assert_outcomes(**outcome)
    result.stdout.fnmatch_lines(["*has no recording*", "*pytest test_app.py::test_it --llm-record=missing*"])
    assert app.server.count == 0


def test_limits_hold_for_fixtures_too(app: App) -> None:
    """``max_calls=0`` refuses the call of a fixture."""
    app.write(
        """
@pytest.fixture
def answer():
    return ask("q")

@pytest.mark.llm_replay(max_calls=0)
def test_it(answer):
    assert answer
"""
    )
    for mode in (["--llm-record=missing"], []):
        result = app.run(*mode)
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*call 1 passes max_calls=0*"])
    assert app.server.count == 0


WIDE = """
@pytest.fixture(scope="module")
def corpus():
    yield ask("corpus up")
    ask("corpus down")

@pytest.fixture(scope="class", params=["a", "b"])
def each(request):
    return ask(f"each {request.param}")

def setup_module():
    ask("setup_module")

class TestIt:
    @classmethod
    def setup_class(cls):
        ask("setup_class")

    @pytest.fixture(scope="class")
    @classmethod
    def of_class(cls):
        return ask("of class")

    @guarded
    def test_one(self, corpus, each, world, of_class):
        assert (corpus, each[-1] in "ab", world) == ("you said: corpus up", True, "you said: world")
        ask("one")

class TestUnit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        ask("setUpClass")

    @guarded
    def test_it(self):
        ask("unit")

@pytest.fixture(scope="module")
def asked_for():
    return ask("asked for")

@guarded
def test_two(corpus, request):
    assert request.getfixturevalue("asked_for") == "you said: asked for"
    ask("two")
"""


def test_fixtures_of_wider_scope_have_recordings_of_their_own(app: App) -> None:
    """By name: whichever test is the first to use them, and whether one of the tests is run alone."""
    app.write(WIDE)
    app.write(
        """
@pytest.fixture(scope="session")
def world():
    return ask("world")
""",
        "conftest.py",
    )
    assert app.run().ret == pytest.ExitCode.TESTS_FAILED
    assert app.server.count == 0
    app.run("--llm-record=missing").assert_outcomes(passed=4)
    count = app.server.count
    assert app.questions("session.fixture.world") == ["world"]
    assert app.questions("test_app.fixture.corpus") == ["corpus down", "corpus up"]
    assert app.questions("test_app.fixture.setup_module") == ["setup_module"]
    assert app.questions("test_app.fixture.asked_for") == ["asked for"]
    assert app.questions("test_app.TestIt.fixture.setup_class*") == ["setup_class"]
    assert app.questions("test_app.TestIt.fixture.of_class*") == ["of class"]
    assert app.questions("test_app.TestUnit.fixture.setUpClass*") == ["setUpClass"]
    assert app.questions("test_app.test_two") == ["two"]
    assert len(app.files) == 13
    app.run().assert_outcomes(passed=4)
    app.run("-k", "two").assert_outcomes(passed=1)
    app.run("-n", "2").assert_outcomes(passed=4)
    app.run("--llm-record=missing", "-k", "two").assert_outcomes(passed=1)
    assert app.server.count == count


def test_a_fixture_without_its_recording_fails_every_test_that_uses_it(app: App) -> None:
    """And is set up once."""
    app.write(
        """
@pytest.fixture(scope="session")
def world():
    print("set up")
    return ask("world")

@guarded
def test_one(world):
    pass

@guarded
def test_two(world):
    pass
"""
    )
    result = app.run("-s")
    result.assert_outcomes(errors=2)
    assert result.stdout.str().count("set up") == 1
    result.stdout.fnmatch_lines(["*has no recording in *session.fixture.world.cassette.json*"])


def test_prune_keeps_the_recordings_of_fixtures(app: App) -> None:
    """Which fixtures there are is not known before they are set up."""
    app.write(WIDE.replace(", world", "").replace(', "you said: world"', ""))
    app.run("--llm-record=missing").assert_outcomes(passed=4)
    before = app.files
    app.run("--llm-prune")
    assert app.files == before


def test_tests_that_are_not_guarded_are_left_alone(app: App) -> None:
    """Beside a guarded test, an unmarked one reaches what it wants; with ``llmtune_block_network = all`` it does not."""
    app.write("@guarded\ndef test_one():\n    pass\n\ndef test_two():\n    assert ask('q') == 'you said: q'\n")
    app.run().assert_outcomes(passed=2)
    assert app.server.count == 1
    app.pytester.makeini("[pytest]\nllmtune_block_network = all\n")
    result = app.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*the network is blocked*llmtune_allow_hosts*"])
    app.run("--llm-record=missing").assert_outcomes(passed=2)
    assert app.server.count == 2


def test_a_recording_is_rewound_where_the_test_runs_once_more(app: App) -> None:
    """As pytest-rerunfailures and flaky run it: setup, call and teardown, all over again."""
    app.pytester.makeconftest(
        """
import pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for run in range(3):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if not any(report.failed for report in reports):
            break
        item._initrequest()
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""
    )
    app.write(
        """
runs = []

@pytest.mark.llm_replay(max_calls=1)
def test_it():
    runs.append(ask("q"))
    assert len(runs) > 2, "of its own"
"""
    )
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    count = app.server.count
    app.run().assert_outcomes(passed=1)
    assert app.server.count == count


def test_marks_of_module_class_and_function_add_up(app: App) -> None:
    """The module's ``max_cost`` holds beside the function's ``max_calls``; of one key the nearest is in force."""
    app.pytester.makeini("[pytest]\nllmtune_prices = small input=1000 output=1000\n")
    app.write(
        """
pytestmark = pytest.mark.llm_replay(max_cost=0.001, max_calls=1)

@pytest.mark.llm_replay(max_calls=5)
def test_dear():
    ask("q")

class TestIt:
    pytestmark = pytest.mark.llm_replay(max_cost=10)

    def test_many(self):
        ask("q")
        ask("q")
"""
    )
    result = app.run("--llm-record=missing")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*more than max_cost=0.001*", "*call 2 passes max_calls=1*"])


IN_PROCESS = '''
import asyncio, json, subprocess, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

async def application(scope, receive, send):
    assert not os.environ.get("BREAK"), "the application is broken"
    answer = await asyncio.to_thread(ask, "of the app")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer.encode()})

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        answer = (b"broken" if os.environ.get("BREAK") else ask("of the app").encode())
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, *_):
        pass

@guarded(max_calls=1)
def test_asgi():
    async def job():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://app") as client:
            return (await client.get("/ask")).text
    assert asyncio.run(job()) == "you said: of the app"

@guarded(max_calls=1)
def test_server_of_this_process():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/ask"
            body = {"model": "small", "messages": []}  # such as an API of models takes
            said = httpx.get(url).text if os.environ.get("ONCE") else requests.post(url, json=body).text
        finally:
            server.shutdown()
    assert said == "you said: of the app"

CHILD = """
import os, http.server as h
class Handler(h.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if os.environ.get("BREAK") else 204)
        self.end_headers()
server = h.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""

@guarded(max_calls=0)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which process listens")
def test_server_of_a_child_process():
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        try:
            assert requests.get(f"http://127.0.0.1:{int(child.stdout.readline())}/status").status_code == 204
        finally:
            child.kill()

@guarded(max_calls=0)
def test_mock_transport():
    mock = httpx.MockTransport(lambda request: httpx.Response(200, json={"choices": [], "usage": {}}))
    with httpx.Client(transport=mock) as client:
        assert client.post("https://api.openai.com/v1/chat/completions", json={}).status_code == 200

@guarded(max_calls=0)
def test_mock_of_a_pool(monkeypatch):
    import httpcore
    answer = lambda pool, request: httpcore.Response(200, content=b"mocked")
    monkeypatch.setattr(httpcore.ConnectionPool, "handle_request", answer)
    assert httpx.post("https://api.openai.com/v1/chat/completions", json={}).text == "mocked"

@guarded(max_calls=0)
def test_mock_of_one_pool():
    import httpcore
    with httpx.Client() as client:
        client._transport._pool.handle_request = lambda request: httpcore.Response(200, content=b"mocked")
        assert client.post("https://api.openai.com/v1/chat/completions", json={}).text == "mocked"

@guarded(max_calls=0)
def test_mock_of_a_transport(monkeypatch):
    answer = lambda transport, request: httpx.Response(200, content=b"mocked")
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    assert httpx.post("https://api.openai.com/v1/chat/completions", json={}).text == "mocked"

@guarded(max_calls=0)
def test_mock_of_an_adapter(monkeypatch):
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", lambda *_, **__: requests.models.Response())
    assert requests.post("https://api.openai.com/v1/chat/completions").status_code is None
'''


def test_traffic_within_the_process_is_run_and_not_replayed(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application under test is what is tested: broken, its tests fail; mocks of the test's own win."""
    app.write(IN_PROCESS)
    app.run("--llm-record=missing").assert_outcomes(passed=8)
    assert app.files == ["test_app.test_asgi.cassette.json", "test_app.test_server_of_this_process.cassette.json"]
    assert all(app.questions(name.removesuffix(".cassette.json")) == ["of the app"] for name in app.files)
    app.run().assert_outcomes(passed=8)
    monkeypatch.setenv("ONCE", "1")  # by httpx instead of requests
    app.run().assert_outcomes(passed=8)
    assert app.server.count == 2
    monkeypatch.setenv("BREAK", "1")
    app.run().assert_outcomes(passed=5, failed=3)


def test_a_server_of_the_process_that_looks_like_a_model_is_reported(app: App) -> None:
    """It may be a stand-in of the test's, which is recorded, or the app under test, which should be run."""
    app.write("@guarded\ndef test_it():\n    ask('q')\n")
    told = f"note: answers of 127.0.0.1:{app.server.port}, a server of the test process itself, were recorded*test_it*"
    app.run("--llm-record=missing").stdout.fnmatch_lines([told])
    app.run().stdout.no_fnmatch_line("*of the test process itself*")
    app.pytester.makeini(f"[pytest]\nllmtune_allow_hosts = 127.0.0.1:{app.server.port}\n")
    app.run("--llm-record=all").stdout.no_fnmatch_line("*of the test process itself*")
    assert app.files == []


def test_plugins_report_where_they_want(app: App) -> None:
    """What another plugin sends of a report, between the phases of a test, is neither recorded nor refused."""
    app.pytester.makeconftest(
        f"""
import requests

def pytest_runtest_logreport(report):
    assert requests.get("{app.server.base_url}/models").status_code == 200
"""
    )
    app.write("@guarded\ndef test_it():\n    assert ask('q')\n")
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    assert app.questions("test_app.test_it") == ["q"]
    app.run().assert_outcomes(passed=1)


def test_threads_of_a_fixture_are_guarded_between_the_phases(app: App) -> None:
    """A worker that a fixture starts asks whenever it likes: its calls are the test's."""
    app.write(
        """
@pytest.fixture
def worker():
    results, jobs = [], threading.Event()

    def work():
        jobs.wait(5)
        results.append(ask("of the worker"))

    thread = threading.Thread(target=work)
    thread.start()
    yield jobs, results
    jobs.set()
    thread.join()
    assert results == ["you said: of the worker"]

@guarded
def test_it(worker):
    assert not worker[1]
"""
    )
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    app.run().assert_outcomes(passed=1)
    assert app.server.count == 1


def test_other_requests_are_recorded_and_not_counted(app: App) -> None:
    """A tool that asks another service is played too; it uses up no call."""
    app.write(
        """
@pytest.mark.llm_replay(max_calls=1)
def test_it():
    assert requests.get(URL + "/models").status_code == 200
    assert httpx.get(URL + "/models").status_code == 200
    ask("q")
""".replace("URL", repr(app.server.base_url))
    )
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    app.run().assert_outcomes(passed=1)
    assert app.server.count == 1


@pytest.mark.parametrize(
    ("line", "recorded", "replayed"), [("pass", 1, 1), ("record", 1, 0), ("refuse", 0, 0), ("", 1, 1)]
)
def test_hosts_are_passed_recorded_or_refused(app: App, line: str, recorded: int, replayed: int) -> None:
    """As ``llmtune_ignore_hosts`` says: one that is passed is refused in plain pytest, and fails nothing by itself."""
    hits: list[str] = []

    def answer(body: object) -> str:
        hits.append(str(body))
        return "ok"

    with LLMServer(answer=answer) as other:
        app.pytester.makeini(f"[pytest]\nllmtune_ignore_hosts = 127.0.0.1:{other.port}/data {line}\n")
        app.write(
            f"""
@guarded
def test_it():
    try:
        print("the status is", requests.get("http://127.0.0.1:{other.port}/data/list.json").status_code)
    except Exception as error:
        print("a library does without:", type(error).__name__)
    assert ask("q")
"""
        )
        first, second = app.run("--llm-record=missing", "-s"), app.run("-s")
    if line == "refuse":
        first.assert_outcomes(failed=1)
        first.stdout.fnmatch_lines(["*GET /data/list.json to 127.0.0.1 is refused by llmtune_ignore_hosts*"])
        return
    first.assert_outcomes(passed=1)
    first.stdout.fnmatch_lines(["*the status is 404*"])
    second.assert_outcomes(passed=1)
    second.stdout.fnmatch_lines(["*a library does without*" if replayed else "*the status is 404*"])


def test_a_wrong_line_of_ignore_hosts_is_a_usage_error(app: App) -> None:
    """With the valid forms."""
    app.pytester.makeini("[pytest]\nllmtune_ignore_hosts = example.com skip\n")
    app.write("@guarded\ndef test_it():\n    pass\n")
    result = app.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "valid: HOST[:PORT][/PATH] [pass|record|refuse]" in result.stderr.str() + result.stdout.str()


assert httpx.get
assert requests.get


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_a_recording_that_cannot_be_read_is_one_error(app: App, workers: tuple[str, ...]) -> None:
    """Other plugins' setups have begun when ours refuses: nothing else goes wrong."""
    app.write("@guarded\ndef test_it():\n    ask('q')\n\n@pytest.mark.llm_replay(bad=1)\ndef test_wrong():\n    pass\n")
    (app.pytester.path / "llmtune").mkdir()
    (app.pytester.path / "llmtune" / "test_app.test_it.cassette.json").write_text("{", encoding="utf-8")
    result = app.run(*workers)
    result.assert_outcomes(errors=2)
    for said in ("*the recording is corrupt*", "*llm_replay got bad; its keys are*"):
        result.stdout.fnmatch_lines([said])
    assert "KeyError" not in result.stdout.str()


OLD = """
@guarded
def test_old():
    ask("old")

@guarded
def test_new():
    ask("new")
"""


@pytest.fixture
def aged(app: App) -> App:
    """One of two recordings is of 2020."""
    app.write(OLD)
    app.run("--llm-record=missing").assert_outcomes(passed=2)
    path = next(app.pytester.path.rglob("*test_old.cassette.json"))
    text = path.read_text(encoding="utf-8")
    today = json.loads(text)["interactions"][0]["llmtune"]["recorded"]
    path.write_text(text.replace(today, "2020-01-31"), encoding="utf-8")
    return app


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_the_oldest_answer_is_reported(aged: App, workers: tuple[str, ...]) -> None:
    """With its day and its file; with ``llmtune_max_age`` also how many are too old."""
    result = aged.run(*workers)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["*oldest recorded answer: 2020-01-31 (* days), llmtune?test_app.test_old.cassette.json"]
    )
    result.stdout.no_fnmatch_line("*older than*")
    aged.pytester.makeini("[pytest]\nllmtune_max_age = 90d\n")
    result = aged.run(*workers)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*1 recording is older than 90 days; record again: pytest --llm-record=all*"])


def test_too_old_an_answer_fails_where_the_user_says_so(aged: App) -> None:
    """And the command that the failure names makes it fresh."""
    aged.pytester.makeini("[pytest]\nllmtune_max_age = 90d:fail\n")
    result = aged.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*recorded on 2020-01-31*more than llmtune_max_age=90d; record again: pytest *test_old *"]
    )
    aged.run("test_app.py::test_old", "--llm-record=all").assert_outcomes(passed=1)
    aged.run().assert_outcomes(passed=2)
    path = next(aged.pytester.path.rglob("*test_old.cassette.json"))
    text = path.read_text(encoding="utf-8")
    today = json.loads(text)["interactions"][0]["llmtune"]["recorded"]
    path.write_text(text.replace(today, "some day"), encoding="utf-8")
    result = aged.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*test_app.test_old.cassette.json does not say when it was recorded*"])


@pytest.mark.parametrize("text", ["soon", "0d", "90d:maybe", "-1"])
def test_a_wrong_age_is_a_usage_error(app: App, text: str) -> None:
    """With the valid forms."""
    app.pytester.makeini(f"[pytest]\nllmtune_max_age = {text}\n")
    app.write("@guarded\ndef test_it():\n    pass\n")
    result = app.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "valid: a number of days such as 90d, or 90d:fail" in result.stderr.str() + result.stdout.str()


def test_a_recording_run_without_a_call_says_so(app: App) -> None:
    """A library's own cache may have answered; in plain pytest there is nothing to say."""
    app.write(
        """
@guarded
def test_cached():
    pass

@guarded
def test_asks():
    ask("q")

@guarded
def test_refused():
    assert requests.post(URL + "/responses/none", json={}).status_code == 404
""".replace("URL", repr(app.server.base_url))
    )
    result = app.run("--llm-record=missing")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["note: no call of a model was made* in test_app.py::test_cached: *cache*"])
    result.stdout.no_fnmatch_line("*no call of a model*test_asks*")
    result.stdout.no_fnmatch_line("*no call of a model*test_refused*")  # its error is recorded
    app.run().stdout.no_fnmatch_line("*no call of a model*")


def test_what_leaves_beside_the_recording_fails_the_recording_run(app: App) -> None:
    """A client with its own sockets is reported when recording, not at every replay."""
    app.write(
        """
@guarded
def test_it():
    import socket
    socket.create_connection(("127.0.0.1", PORT), 2).close()
    ask("q")
""".replace("PORT", str(app.server.port))
    )
    result = app.run("--llm-record=missing")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [f"*the test reached 127.0.0.1:{app.server.port} over a connection that cannot be recorded*"]
    )
    app.pytester.makeini(f"[pytest]\nllmtune_allow_hosts = 127.0.0.1:{app.server.port}\n")
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    app.run().assert_outcomes(passed=1)


def test_a_websocket_fails_the_recording_run_and_is_refused_in_plain_pytest(app: App, providers: Providers) -> None:
    """As the Realtime API: it cannot be recorded, also where the client swallows the error."""
    app.write(
        """
import aiohttp, asyncio

async def talk():
    async with aiohttp.ClientSession() as session, session.ws_connect(URL + "/realtime") as socket:
        await socket.send_str("q")

@guarded
def test_it():
    try:
        asyncio.run(talk())
    except (OSError, aiohttp.ClientError):
        pass
""".replace("URL", repr(f"{providers.url}/v1"))
    )
    result = app.run("--llm-record=missing")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*the test reached 127.0.0.1:*/v1/realtime) over a connection that cannot be recorded*"]
    )
    assert providers.requests == ["/v1/realtime"]
    result = app.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the network is blocked in this mode, and the test tried to reach 127.0.0.1:*"])
    assert providers.requests == ["/v1/realtime"]
    assert app.files == []


def test_the_folder_of_recordings_is_looked_through_once(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each test: with thousands of files that took longer than the tests."""
    looked: list[str] = []
    monkeypatch.setattr(session, "refuse_links", lambda paths, _: looked.extend(path.name for path in paths))
    app.write("".join(f"@guarded\ndef test_{number}():\n    pass\n" for number in range(5)))
    app.run().assert_outcomes(passed=5)
    assert looked == ["llmtune"]
