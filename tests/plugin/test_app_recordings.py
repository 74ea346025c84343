"""Tests of a user's own application: ``llm_client``, ``llm_replay`` and the shut network, through real pytest runs."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import flaml  # noqa: F401
import httpx  # noqa: F401  # imported here once, so that no inner run imports it again
import openai  # noqa: F401
import pytest
import requests  # noqa: F401
import vcr.patch  # noqa: F401
from support.llm_server import LLMServer

import pytest_llmtune.capture.patches  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = """
import pytest, requests, httpx, openai

def ask(client, question, **more):
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="small", messages=messages, **more).choices[0].message.content

def app(url, question):
    body = {"model": "small", "messages": [{"role": "user", "content": question}]}
    return requests.post(url + "/chat/completions", json=body).json()["choices"][0]["message"]["content"]
"""


class App:
    """A project whose tests talk to a real server on loopback."""

    def __init__(self, pytester: pytest.Pytester, server: LLMServer) -> None:
        self.pytester, self.server = pytester, server

    def write(self, tests: str) -> None:
        text = APP + tests.replace("URL", repr(self.server.base_url))
        (self.pytester.path / "test_app.py").write_text(text, encoding="utf-8")

    def run(self, *args: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *args)

    @property
    def files(self) -> list[Path]:
        return sorted((self.pytester.path / "llmtune").glob("*"))


@pytest.fixture
def app(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """The project, with a server that says what it was asked, and a key in the environment."""
    with LLMServer(answer=lambda body: f"you said: {body['messages'][-1]['content']}") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "a-secret-of-mine-0123456789")
        yield App(pytester, server)


BOTH = """
def test_fixture(llm_client):
    assert ask(llm_client, "one") == "you said: one"

@pytest.mark.llm_replay
def test_marker():
    assert app(URL, "two") == "you said: two"

@pytest.mark.asyncio_free
def test_async(async_llm_client):
    import asyncio
    async def job():
        messages = [{"role": "user", "content": "three"}]
        return (await async_llm_client.chat.completions.create(model="small", messages=messages)).choices[0]
    assert asyncio.run(job()).message.content == "you said: three"
""".replace("@pytest.mark.asyncio_free\n", "")


def test_a_damaged_recording_is_an_error_with_a_command_for_this_test(app: App) -> None:
    """Which records what is lost, and nothing of other tests."""
    app.write(BOTH)
    app.run("--llm-record=missing").assert_outcomes(passed=3)
    damaged = app.files[1]
    damaged.write_bytes(damaged.read_bytes()[:300])
    result = app.run()
    result.assert_outcomes(passed=2, errors=1)
    command = "pytest --llm-record=missing test_app.py::test_fixture"
    assert f"or record what is lost: {command}" in result.stdout.str()
    app.run(*command.split()[1:]).assert_outcomes(passed=1)
    app.run().assert_outcomes(passed=3)
    assert app.server.count == 4


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["", "xdist"])
def test_recorded_once_and_replayed_with_no_server(
    app: App, monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    """Each test has a recording of its own; the replay sends nothing and needs neither key nor URL."""
    app.write(BOTH)
    app.run("--llm-record=missing", *workers).assert_outcomes(passed=3)
    assert app.server.count == 3
    names = [path.name for path in app.files]
    assert names == [f"test_app.test_{name}.cassette.json" for name in ("async", "fixture", "marker")]
    assert not any(b"a-secret-of-mine" in path.read_bytes() for path in app.files)
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    app.run(*workers).assert_outcomes(passed=3)
    assert app.server.count == 3


def test_a_changed_question_fails_with_the_difference_and_the_command(app: App) -> None:
    """The command that the failure names makes the test green, and drops what is stale."""
    app.write('def test_it(llm_client):\n    ask(llm_client, "What is the capital of France?")\n')
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    app.write('def test_it(llm_client):\n    ask(llm_client, "What is the capital of Spain?")\n')
    result = app.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*1 call of the test has no recording in*",
            '*-messages?0?.content: "What is the capital of France?"*',
            '*+messages?0?.content: "What is the capital of Spain?"*',
            "*pytest test_app.py::test_it --llm-record=missing*",
        ]
    )
    app.run("test_app.py::test_it", "--llm-record=missing").assert_outcomes(passed=1)
    app.run().assert_outcomes(passed=1)
    (path,) = app.files
    assert "France" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("mark", ["", "@pytest.mark.llm_replay\n"])
def test_a_swallowed_error_does_not_hide_a_missing_recording(app: App, mark: str) -> None:
    """Code that falls back on any error passes by itself; the test fails all the same, and at once."""
    app.write(
        f"""
{mark}def test_it(llm_client):
    try:
        ask(llm_client, "q")
    except Exception:
        return
"""
    )
    result = app.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*has no recording*"])


@pytest.mark.parametrize(
    "way",
    [
        "requests.get('http://192.0.2.1/v1/x')",
        "httpx.get('http://192.0.2.1/v1/x')",
        "openai.OpenAI(api_key='k', base_url='http://192.0.2.1/v1', max_retries=0).models.list()",
        "__import__('socket').create_connection(('192.0.2.1', 80))",
        "__import__('threading').Thread(target=lambda: __import__('socket').create_connection(('192.0.2.1', 80))).run()",
    ],
)
def test_the_network_is_shut_beside_the_recorded_client(app: App, way: str) -> None:
    """A client that is not recorded cannot connect: the failure names the host and a command."""
    app.write(
        f"""
def test_it(llm_client):
    try:
        {way}
    except Exception:
        pass
"""
    )
    result = app.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*192.0.2.1*: pytest test_app.py::test_it --llm-record=missing*"])


def test_services_are_reached_where_the_user_allows_them(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service of the app's own stays reachable with ``llmtune_allow_hosts``, and only then."""
    app.write('def test_it(llm_client):\n    assert app(URL, "q") == "you said: q"\n')
    monkeypatch.delenv("OPENAI_BASE_URL")
    result = app.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*llmtune_allow_hosts*"])
    app.pytester.makeini(f"[pytest]\nllmtune_allow_hosts = 127.0.0.1:{app.server.port}\n")
    app.run().assert_outcomes(passed=1)
    app.pytester.makeini("[pytest]\nllmtune_allow_hosts = api.openai.com\n")
    result = app.run()
    assert result.ret != 0
    assert "the host of a model provider" in result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("mark", ["", "@pytest.mark.llm_replay\n"])
@pytest.mark.parametrize("allowed", ["localhost", "127.0.0.1:PORT"])
def test_the_endpoint_of_a_run_is_never_just_a_host(app: App, allowed: str, mark: str) -> None:
    """With ``localhost`` open for a database, a call of the model that the run knows does not go out."""
    app.write(f'{mark}def test_it(llm_client):\n    assert app(URL, "q") == "you said: q"\n')
    app.pytester.makeini(f"[pytest]\nllmtune_allow_hosts = {allowed.replace('PORT', str(app.server.port))}\n")
    app.run().assert_outcomes(failed=1)
    assert app.server.count == 0


def test_tests_that_use_nothing_of_ours_keep_their_network(app: App) -> None:
    """The guard is for tests that record or replay; others are left alone."""
    app.write('def test_it():\n    assert app(URL, "q") == "you said: q"\n')
    app.run().assert_outcomes(passed=1)


def test_limits_of_the_marker_gate_the_test(app: App) -> None:
    """The same failure when recorded and when replayed; both numbers are told."""
    app.pytester.makeini("[pytest]\nllmtune_prices = small input=1000 output=1000\n")
    app.write(
        """
@pytest.mark.llm_replay(max_cost=0.001)
def test_cost(llm_client):
    ask(llm_client, "q")

@pytest.mark.llm_replay(max_calls=1)
def test_calls():
    app(URL, "q")
    app(URL, "q")
"""
    )
    for mode in (["--llm-record=all"], []):
        result = app.run(*mode)
        result.assert_outcomes(failed=2)
        result.stdout.fnmatch_lines(["*1 call costs * USD, more than max_cost=0.001*", "*call 2 passes max_calls=1*"])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("max_costs=1", "max_costs"),
        ("max_cost=-1", "max_cost is -1; valid: an amount of USD from 0"),
        ("max_calls='x'", "max_calls is 'x'; valid: a whole number of calls from 0"),
        ("match_on=['bdoy']", "match_on has ['bdoy']; valid: method, path, body"),
        ("1", "llm_replay"),
    ],
)
def test_a_wrong_marker_is_a_usage_error_before_any_test_runs(app: App, keys: str, said: str) -> None:
    """At collection, with the valid values, never INTERNALERROR."""
    app.write(f"@pytest.mark.llm_replay({keys})\ndef test_it():\n    raise SystemExit('ran')\n")
    result = app.run()
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in text
    assert "INTERNALERROR" not in text
    assert "ran" not in text.replace("ran in", "")


def test_redactions_of_the_ini_file_reach_no_recording(app: App) -> None:
    """``llmtune_redact``: removed from request and answer, and still found again."""
    app.pytester.makeini("[pytest]\nllmtune_redact =\n    \\d{3}-\\d{4}\n    Alice\\w*\n")
    app.write('def test_it(llm_client):\n    assert ask(llm_client, "Call Alice at 555-1234", n=1)\n')
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    text = app.files[0].read_text(encoding="utf-8")
    assert "555-1234" not in text
    assert "Alice" not in text
    app.run().assert_outcomes(passed=1)
    assert app.server.count == 1


def test_a_useless_redaction_is_a_usage_error(app: App) -> None:
    """It is told before anything is recorded."""
    app.pytester.makeini("[pytest]\nllmtune_redact = (\n")
    app.write('def test_it(llm_client):\n    ask(llm_client, "q")\n')
    result = app.run("--llm-record=missing")
    text = result.stdout.str() + result.stderr.str()
    assert "llmtune_redact: '(' is not a valid regular expression" in text
    assert "INTERNALERROR" not in text
    assert app.server.count == 0


@pytest.mark.parametrize("inside", ["llmtune.check()", "__import__('asyncio').run(within(llmtune))"])
def test_a_suite_within_a_marked_test_keeps_its_own_recording(app: App, inside: str) -> None:
    """A test may judge a suite and record its app at once, in an event loop too: neither is in the other's file."""
    app.write(
        f"""
async def within(llmtune):
    llmtune.check()

@pytest.mark.llm_replay(max_calls=1)
@pytest.mark.llmtune(
    dataset=[{{"q": str(i), "answer": str(i)}} for i in range(4)], prompt="{{q}}", model="small", temperature=0, n=1,
    max_tokens=50, grader="contains", prices={{"small": {{"input": 1, "output": 1}}}}, tune_size=2, num_samples=1,
)
def test_both(llmtune):
    {inside}
    assert app(URL, "app") == "you said: app"
"""
    )
    app.run("--llm-tune").assert_outcomes(passed=1)
    app.run("--llm-record=all").assert_outcomes(passed=1)
    app.run().assert_outcomes(passed=1)
    questions = {path.name: path.read_text(encoding="utf-8").count('"request":') for path in app.files}
    assert questions.pop("both.lock.yaml") == 0
    assert questions == {"both.cassette.json": 2, "test_app.test_both.cassette.json": 1}


def test_a_fixture_may_ask_before_the_test(app: App) -> None:
    """Calls in the setup belong to the test, recorded and replayed."""
    app.write(
        """
@pytest.fixture
def summary(llm_client):
    return ask(llm_client, "early")

def test_it(summary, llm_client):
    assert [summary, ask(llm_client, "late")] == ["you said: early", "you said: late"]
"""
    )
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    app.run().assert_outcomes(passed=1)
    assert app.server.count == 2


def test_a_broken_recording_is_one_clear_failure(app: App) -> None:
    """Its line is named; no traceback of ours is shown."""
    app.write('def test_it(llm_client):\n    ask(llm_client, "q")\n')
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    (path,) = app.files
    path.write_text(path.read_text(encoding="utf-8").replace('"request"', "<<<<<<< HEAD\n", 1), encoding="utf-8")
    result = app.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*test_app.test_it.cassette.json:*: the recording *; restore the file from git*"])
    assert "INTERNALERROR" not in result.stdout.str()


def test_parametrized_tests_have_recordings_of_their_own(app: App) -> None:
    """Each with a file name that every system takes."""
    app.write(
        """
@pytest.mark.parametrize("question", ["a/b", "c:d*", "한글", "x" * 300])
def test_it(llm_client, question):
    assert ask(llm_client, question)
"""
    )
    app.run("--llm-record=missing").assert_outcomes(passed=4)
    app.run().assert_outcomes(passed=4)
    assert app.server.count == 4
    assert len(app.files) == 4
    assert all(len(path.name.encode()) <= 255 and not set(path.name) & set('<>:"/\\|?*') for path in app.files)


def test_recordings_are_readable_json(app: App) -> None:
    """What a reviewer sees in a pull request: the question, the answer, the tokens."""
    app.write('def test_it(llm_client):\n    ask(llm_client, "안녕?")\n')
    app.run("--llm-record=missing").assert_outcomes(passed=1)
    (interaction,) = json.loads(app.files[0].read_text(encoding="utf-8"))["interactions"]
    assert json.loads(interaction["request"]["body"])["messages"][0]["content"] == "안녕?"
    assert json.loads(interaction["response"]["body"]["string"])["usage"]["prompt_tokens"] > 0
    assert interaction["llmtune"]["latency"] > 0
    assert os.linesep.encode() not in app.files[0].read_bytes().replace(b"\n", b"") or os.name != "nt"
