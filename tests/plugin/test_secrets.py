"""Keys planted in every place, against a server that says back all it is told: no file, report or terminal shows one."""

from __future__ import annotations

import json
import sqlite3
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
import vcr.serializers.yamlserializer  # noqa: F401  # imported here once, so that no inner run imports it again

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLANTED = {
    "OPENAI_API_KEY": "correct-horse-battery-staple-1",
    "SERVICE_TOKEN": "horse/battery+staple=2",
    "DB_PASSWORD": 'staple"quoted\\3\n한글',
    "OPENAI_ORG_ID": "org-staple0123456789abcdef",
}
IN_DOTENV = "dotenv-staple-5"
IN_KEY_FILE = "keyfile-staple-6"
BY_HOOK = "staple-of-the-hook"
BY_PATTERN = "STAPLE-777"
SECRET = b"staple"  # a part of every one of them

TESTS = """
import concurrent.futures, os, requests, pytest, contextvars

URL = {url!r}
BODY = {{"model": "small", "messages": [{{"role": "user", "content": "1 plus 1"}}]}}

def ask(client, question):
    messages = [{{"role": "user", "content": question}}]
    return client.chat.completions.create(model="small", messages=messages, user=os.environ["SERVICE_TOKEN"])

def test_client(llm_client):
    said = ask(llm_client, "client " + os.environ["DB_PASSWORD"] + " {by_pattern} {by_hook}").choices[0].message.content
    assert "2" in said

@pytest.mark.llm_replay
@pytest.mark.parametrize("number", [1, 2])
def test_threads(number):
    def send(i):
        headers = {{
            "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Cookie": "s=" + os.environ["SERVICE_TOKEN"],
            "OpenAI-Organization": os.environ["OPENAI_ORG_ID"], "x-api-key": "header-staple-8",
        }}
        query = {{"api_key": "query-staple-9", "number": f"{{number}}.{{i}}"}}
        body = BODY | {{"seed": 100 * number + i, "password": "body-staple-10"}}
        return requests.post(URL + "/chat/completions", params=query, headers=headers, json=body).json()
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(contextvars.copy_context().run, send, i) for i in range(8)]
        assert [job.result()["seed"] for job in jobs] == [100 * number + i for i in range(8)]

@pytest.mark.vcr
def test_of_pytest_recording():
    assert requests.post(URL + "/chat/completions", json=BODY | {{"seed": 7}}).json()["seed"] == 7
"""

SUITE = """
name: {name}
dataset: data.jsonl
prompt: "{name} {{question}}"
model: small
temperature: [0, 1]
n: 2
max_tokens: 50
grader: contains
prices: {{small: {{input: 1, output: 1}}}}
tune_size: 4
num_samples: 2
min_success_vote: 0.5
"""

CONFTEST = f"""
def pytest_llmtune_redact(text):
    return text.replace({BY_HOOK!r}, "[HOOK]")
"""


class _Echo(BaseHTTPRequestHandler):
    """Answers right, and says back its headers, its path and its body in every place of the response."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        told = self.rfile.read(int(self.headers["content-length"])).decode()
        body = json.loads(told)
        if body["model"] == "gone":
            self.answer(404, {"error": {"message": f"no model here for {self.headers}", "code": "model_not_found"}})
            return
        del self.headers["cookie"]  # what a server says of its own cookie is its own secret
        everything = f"2 {told} {self.headers} {self.path}"
        choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": everything}}
        usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
        echo = {
            "seed": body.get("seed"),
            "heard": told,
            "api_key": "answer-staple-11",
            self.headers["authorization"]: 1,
        }
        choices = [{**choice, "index": index} for index in range(body.get("n") or 1)]
        self.answer(200, {"object": "chat.completion", "model": "small", "choices": choices, "usage": usage} | echo)

    def answer(self, status: int, reply: dict[str, Any]) -> None:
        data = json.dumps(reply).encode()
        self.send_response(status)
        for name, value in {
            "set-cookie": "s=cookie-staple-12",
            "openai-organization": PLANTED["OPENAI_ORG_ID"],
        }.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture
def project(pytester: pytest.Pytester, url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two suites, with keys from the environment and from a key file, and the tests of an app, in threads."""
    path = pytester.path
    rows = [{"question": f"{a} plus 1", "answer": "2"} for a in range(8)]
    (path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("one", "two"):
        text = SUITE.format(name=name)
        if name == "two":
            text += f"endpoints: [{{base_url: '{url}', api_key_file: key_openai.txt}}]\n"
        (path / f"{name}.llmtune.yaml").write_text(text)
    (path / "key_openai.txt").write_text(IN_KEY_FILE)
    (path / ".env").write_text(f"EXTRA_API_KEY={IN_DOTENV}\n")
    (path / "conftest.py").write_text(CONFTEST)
    tests = TESTS.format(url=url, by_pattern=BY_PATTERN, by_hook=BY_HOOK + " " + IN_DOTENV)
    (path / "test_app.py").write_text(tests, encoding="utf-8")
    pytester.makeini("[pytest]\nllmtune_redact = STAPLE-\\d+\n")
    for name, value in {**PLANTED, "OPENAI_BASE_URL": url, "GITHUB_ACTIONS": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path / "out" / "summary.md"))
    (path / "out").mkdir()
    return path


def content(path: Path) -> bytes:
    """What a file holds, a cache's compressed values included."""
    data = path.read_bytes()
    if data.startswith(b"SQLite"):
        with sqlite3.connect(path) as database:
            rows = database.execute("SELECT name FROM sqlite_master WHERE name = 'Cache'").fetchall()
            values = database.execute("SELECT value FROM Cache").fetchall() if rows else []
        database.close()
        data += b"".join(zlib.decompress(value) for (value,) in values)
    return data


def leaks(project: Path) -> list[str]:
    """The files below a project that hold a planted key, but for those that hold it by right."""
    sources = {"test_app.py", "conftest.py", ".env", "key_openai.txt", "test_of_pytest_recording.yaml", "tox.ini"}
    files = [
        path for path in project.rglob("*") if path.is_file() and path.suffix != ".pyc" and path.name not in sources
    ]
    return sorted(path.name for path in files if SECRET in content(path).lower())


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["", "xdist"])
def test_no_planted_key_is_kept_or_shown(project: Path, pytester: pytest.Pytester, workers: list[str]) -> None:
    """After tuning, re-recording and replay of two suites, with threads, pytest-recording and every report."""
    reports = ["--llm-json=out/r.json", "--llm-report=out/r.html", "--junitxml=out/j.xml", "-vv", "-rA", *workers]
    for mode in (["--llm-tune", "--record-mode=once"], ["--llm-record=all"], []):
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *mode, *reports)
        result.assert_outcomes(passed=6)
        assert SECRET.decode() not in (result.stdout.str() + result.stderr.str()).lower()
        assert leaks(project) == []
    recorded = "".join(path.read_text(encoding="utf-8") for path in (project / "llmtune").glob("*.json"))
    assert recorded.count("[REDACTED]") > 50
    assert "[HOOK]" in recorded


def test_failures_show_no_key(project: Path, pytester: pytest.Pytester) -> None:
    """A server's error that says back its headers, and a failing test's traceback of our own code."""
    for name in ("one", "two"):
        path = project / f"{name}.llmtune.yaml"
        path.write_text(path.read_text().replace("model: small", "model: gone").replace("{small:", "{gone:"))
    result = pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "--llm-tune", "-l", "-vv", "--tb=long", "-k", "one or two"
    )
    result.assert_outcomes(failed=2, deselected=4)
    result.stdout.fnmatch_lines(["*gone*"])
    assert SECRET.decode() not in (result.stdout.str() + result.stderr.str()).lower()
    assert leaks(project) == []


def test_what_a_guarded_test_prints_shows_no_key(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output, logs, tracebacks and locals of a test that uses us, in the terminal, JUnit's XML and log files; not of others."""
    monkeypatch.setenv("OPENAI_API_KEY", PLANTED["OPENAI_API_KEY"])
    pytester.makepyfile(
        """
        import logging, os, pytest

        @pytest.mark.llm_replay
        def test_guarded():
            mine = os.environ["OPENAI_API_KEY"]
            print("printed", mine)
            logging.warning("logged %s", mine)
            try:
                {}[f"first {mine}"]
            except KeyError:
                raise AssertionError(f"raised {mine}")

        def test_other():
            print("other", os.environ["OPENAI_API_KEY"])
            raise AssertionError("no")
        """
    )
    logs = ["-l", "--log-file=log.txt", "--log-cli-level=INFO", "-o", "junit_logging=all"]
    found = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--junitxml=junit.xml", *logs)
    found.assert_outcomes(failed=2)
    told = found.stdout.str()
    for text in (told, (pytester.path / "junit.xml").read_text(encoding="utf-8")):
        for name in ("printed", "logged", "raised", "first"):
            assert f"{name} [REDACTED]" in text
        assert text.count(PLANTED["OPENAI_API_KEY"]) == text.count(f"other {PLANTED['OPENAI_API_KEY']}") == 1
    assert "mine       = '[REDACTED]'" in told
    assert (pytester.path / "log.txt").read_text().count("logged [REDACTED]") == 1


@pytest.mark.parametrize(
    "option",
    ["max-spend", "choose", "engine", "record", "shard", "max-age", "merge", "migrate", "timeout", "report=x.txt"],
)
def test_an_option_that_is_a_key_by_mistake_shows_none(
    option: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the message of what is wrong with it."""
    monkeypatch.setenv("MY_API_KEY", PLANTED["OPENAI_API_KEY"])
    name, _, ending = option.partition("=")
    found = pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", f"--llm-{name}={PLANTED['OPENAI_API_KEY']}{ending and '.txt'}"
    )
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    text = found.stdout.str() + found.stderr.str()
    assert "[REDACTED]" in text or "holds a key" in text
    assert "staple" not in text


def test_passwords_of_an_engine_are_in_no_report(project: Path, pytester: pytest.Pytester) -> None:
    """In its address, which the message of what went wrong names."""
    pytest.importorskip("ray")
    reports = ["--llm-json=out/r.json", "--llm-report=out/r.html", "--junitxml=out/j.xml"]
    found = pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "-k", "one", "--llm-engine=ray://u:pw-staple-13@localhost", *reports
    )
    assert found.ret != 0
    assert "ray://[REDACTED]@localhost" in found.stdout.str()
    assert leaks(project) == []
