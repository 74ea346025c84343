"""An app's tests beside other plugins and mocks, the real ones; what is not installed is skipped.

``.ci/clients`` installs them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.llm_server import LLMServer

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "example_project"

ASK = """
import asyncio, httpx, pytest, requests

def ask(question, by=httpx):
    body = {"model": "small", "messages": [{"role": "user", "content": question}]}
    return by.post(URL + "/chat/completions", json=body).json()["choices"][0]["message"]["content"]

guarded = pytest.mark.llm_replay
"""


class App:
    """A project whose tests talk to a real server on loopback, run in a process of its own."""

    def __init__(self, pytester: pytest.Pytester, server: LLMServer) -> None:
        self.pytester, self.server = pytester, server

    def write(self, tests: str) -> None:
        source = (ASK + tests).replace("URL", repr(self.server.base_url)).replace("PORT", str(self.server.port))
        (self.pytester.path / "test_app.py").write_text(source, encoding="utf-8")

    def run(self, plugin: str, *options: str) -> pytest.RunResult:
        chosen = ("-p", plugin) if plugin else ()
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", *chosen, *options)

    def questions(self) -> dict[str, list[str]]:
        """Of each recording."""
        found = {}
        for path in self.pytester.path.rglob("*.cassette.json"):
            lines = json.loads(path.read_text(encoding="utf-8"))["interactions"]
            asked = [json.loads(line["request"]["body"])["messages"][0]["content"] for line in lines]
            found[path.name.removesuffix(".cassette.json")] = sorted(asked)
        return found


@pytest.fixture
def app(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_llmtune.plugin")
    with LLMServer(answer=lambda body: f"you said: {body['messages'][0]['content']}") as server:
        yield App(pytester, server)


def replayed(app: App, plugin: str, *options: str, **outcomes: int) -> pytest.RunResult:
    """Recorded, and then replayed with the same outcomes and no request more."""
    app.run(plugin, *options, "--llm-record=all").assert_outcomes(**outcomes)
    asked, written = app.server.count, app.questions()
    result = app.run(plugin, *options)
    result.assert_outcomes(**outcomes)
    assert (app.server.count, app.questions()) == (asked, written)
    return result


TRIES = """
tries = []

MARK
@guarded
def test_it():
    tries.append(1)
    assert (ask("one"), ask("two")) == ("you said: one", "you said: two")
    assert len(tries) == 2, "not yet"
"""


@pytest.mark.parametrize(
    ("library", "plugin", "mark", "options"),
    [
        ("pytest_rerunfailures", "pytest_rerunfailures", "", ("--reruns=2",)),
        ("flaky", "flaky.flaky_pytest_plugin", "from flaky import flaky\n@flaky(max_runs=3)", ()),
    ],
    ids=["pytest-rerunfailures", "flaky"],
)
def test_a_test_that_is_run_once_more(app: App, library: str, plugin: str, mark: str, options: tuple[str, ...]) -> None:
    """Its recording is rewound for each run."""
    pytest.importorskip(library)
    app.write(TRIES.replace("MARK", mark))
    reruns = {"reruns": 1} if library == "pytest_rerunfailures" else {}
    app.run(plugin, *options, "--llm-record=all").assert_outcomes(passed=1)
    assert app.questions() == {"test_app.test_it": ["one", "two"]}
    asked = app.server.count
    result = app.run(plugin, *options)
    result.assert_outcomes(passed=1)
    assert app.server.count == asked
    assert result.parseoutcomes().get("rerun", 0) == reruns.get("reruns", 0)


def test_repetitions_share_a_recording(app: App) -> None:
    pytest.importorskip("pytest_repeat")
    app.write("@pytest.mark.repeat(3)\n@guarded\ndef test_it():\n    assert ask('one') == 'you said: one'\n")
    replayed(app, "pytest_repeat", passed=3)
    assert app.questions() == {"test_app.test_it": ["one"]}


def test_a_suite_is_judged_once_however_often_it_is_repeated(app: App) -> None:
    pytest.importorskip("pytest_repeat")
    for name in ("cornershop", "data", "tests/llmtune"):
        shutil.copytree(EXAMPLE / name, app.pytester.path / name)
    for name in ("pyproject.toml", "tests/test_orders.py"):
        shutil.copy(EXAMPLE / name, app.pytester.path / name)
    result = app.run("pytest_repeat", "--count=2", "tests/test_orders.py", "--llm-json=result.json")
    result.assert_outcomes(passed=2)
    assert len(json.loads((app.pytester.path / "result.json").read_text(encoding="utf-8"))["suites"]) == 1


SOCKETS = """
@guarded
def test_it():
    assert ask("one") == ask("one", by=requests)

@guarded
def test_async():
    async def main():
        body = {"model": "small", "messages": [{"role": "user", "content": "two"}]}
        async with httpx.AsyncClient() as client:
            return (await client.post(URL + "/chat/completions", json=body)).status_code
    assert asyncio.run(main()) == 200
"""


def test_pytest_socket_may_shut_everything(app: App) -> None:
    """A replay needs no socket; an event loop makes a pair of its own, which ``--allow-unix-socket`` is for."""
    pytest.importorskip("pytest_socket")
    app.write(SOCKETS)
    app.run("", "--llm-record=all").assert_outcomes(passed=2)
    app.run("pytest_socket", "--disable-socket", "--allow-unix-socket").assert_outcomes(passed=2)
    app.run("pytest_socket", "--disable-socket", "-k", "test_it").assert_outcomes(passed=1, deselected=1)


RESPX = """
import respx

@guarded
@respx.mock
def test_it():
    answer = {"choices": [{"message": {"content": "mocked"}}]}
    respx.post("https://api.openai.com/v1/chat/completions").respond(json=answer)
    assert httpx.post("https://api.openai.com/v1/chat/completions", json={}).json() == answer
    assert ask("one", by=requests) == "you said: one"

@guarded
def test_around():
    assert ask("two") == "you said: two"
    with respx.mock:
        respx.post(URL + "/chat/completions").respond(json={"choices": [{"message": {"content": "mocked"}}]})
        assert ask("three") == "mocked"
    assert ask("four") == "you said: four"
"""


def test_respx_wins_over_the_recording(app: App) -> None:
    pytest.importorskip("respx")
    app.write(RESPX)
    replayed(app, "", passed=2)
    assert app.questions() == {"test_app.test_it": ["one"], "test_app.test_around": ["four", "two"]}


HTTPX_MOCK = """
@guarded
def test_it(httpx_mock):
    httpx_mock.add_response(json={"choices": [{"message": {"content": "mocked"}}]})
    assert ask("one") == "mocked"
    assert ask("two", by=requests) == "you said: two"
"""


def test_pytest_httpx_wins_over_the_recording(app: App) -> None:
    pytest.importorskip("pytest_httpx")
    app.write(HTTPX_MOCK)
    replayed(app, "pytest_httpx", passed=1)
    assert app.questions() == {"test_app.test_it": ["two"]}


BESIDE = {
    "curl_cffi": """
from curl_cffi import requests as curl

def reached():
    try:
        return curl.get("http://127.0.0.1:PORT/v1/models", timeout=2).status_code == 200
    except Exception:
        return False
""",
    "grpc": """
import grpc

def reached():
    channel = grpc.insecure_channel("127.0.0.1:PORT", options=[("grpc.enable_http_proxy", 0)])
    try:
        grpc.channel_ready_future(channel).result(timeout=2)
    except grpc.FutureTimeoutError:
        return False
    finally:
        channel.close()
    return True
""",
}
ISOLATES = "from pytest_llmtune.capture.isolation import isolate; isolate()"


@pytest.fixture
def grpc_port() -> Iterator[int]:
    grpc = pytest.importorskip("grpc")
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


@pytest.mark.parametrize("library", BESIDE)
def test_what_goes_beside_pythons_sockets_is_held_by_isolation(
    app: App, library: str, request: pytest.FixtureRequest
) -> None:
    """Libraries with network code of their own: ``llmtune_isolate`` holds them; without it they are not held."""
    pytest.importorskip(library)
    if subprocess.run([sys.executable, "-c", ISOLATES], capture_output=True, check=False).returncode:
        pytest.skip("this system refuses network namespaces")
    port = request.getfixturevalue("grpc_port") if library == "grpc" else app.server.port
    app.write(BESIDE[library].replace("PORT", str(port)) + "\n@guarded\ndef test_it():\n    assert not reached()\n")
    app.run("").assert_outcomes(failed=1)
    app.run("", "--llm-isolate").assert_outcomes(passed=1)
