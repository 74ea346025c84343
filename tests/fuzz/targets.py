"""What is fuzzed: every reader of files and of responses. Each takes any bytes and raises nothing but our own errors.

`.ci/fuzz` runs them under atheris (coverage-guided); `test_corpus.py` runs the inputs that it found, without atheris.
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util import yaml
from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.data.readers import FORMATS
from pytest_llmtune.data.where import compile_condition
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.grading import resolve
from pytest_llmtune.guard import results_file
from pytest_llmtune.guard.lockfile import Lock
from pytest_llmtune.recording import Recording
from pytest_llmtune.redaction.keys import KeySources
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.suite.prompts import fill, format_fields
from pytest_llmtune.suite.yaml import declared_suites
from pytest_llmtune.types import Exchange
from pytest_llmtune.wire import billing, body, response, tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["SEEDS", "TARGETS"]


@cache
def _directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="llmtune-fuzz-"))


def _file(name: str, data: bytes) -> Path:
    path = _directory() / name
    path.write_bytes(data)
    return path


def _lock(data: bytes) -> None:
    lock = Lock.read(_file("a.lock.yaml", data))
    lock.text()


def _recording(data: bytes) -> None:
    recording = Recording.load(_file("a.cassette.json", data))
    for interaction in recording.interactions:
        try:
            exchange = interaction.exchange()
        except ValueError:  # MalformedError
            continue
        _asked(exchange)


def _asked(exchange: Exchange) -> None:
    count = response.answers_in(exchange)
    if count:
        tokens.completion_of([exchange], min(count, 5))
    tokens.proven(exchange)
    tokens.suspicious(exchange)


def _suite(data: bytes) -> None:
    declared_suites(_file("a.llmtune.yaml", data), root=_directory(), allow_code=())


def _plain_yaml(data: bytes) -> None:
    try:
        yaml.load(data.decode("utf-8", "replace"))
    except ValueError:
        return


def _rows(kind: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        for _ in FORMATS[kind](data, f"a.{kind}", None):
            pass

    return read


def _response(data: bytes) -> None:
    try:
        text = body.decoded(data).decode()
    except ValueError:  # binary
        text = data.decode("utf-8", "replace")
    response.facts_of(text)
    asked = '{"model": "m", "messages": [], "n": 2, "max_tokens": 5}'
    billing.read_bill("POST", "http://h/v1/chat/completions", asked, text)
    whole = response.parse_object(text)
    if whole is not None:
        _asked(Exchange("POST", "http://h/v1/chat/completions", {"model": "m", "messages": [], "n": 2}, whole))
    _redactor().clean_body(text, "text/event-stream")
    _redactor().clean_body(text, "application/json")


@cache
def _redactor() -> Redactor:
    return Redactor.from_environment(environ={"MY_KEY": "correct-horse-battery"})


def _redaction(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    planted = f"{text}correct-horse-battery{text}"
    assert "correct-horse-battery" not in _redactor().clean_text(planted)
    try:
        _redactor().clean_uri(text)
    except ValueError:  # no URL
        return


def _results(data: bytes) -> None:
    results_file.loads(data.decode("utf-8", "replace"))


def _condition(data: bytes) -> None:
    condition, _ = compile_condition(data.decode("utf-8", "replace"))
    condition({"a": 1, "b": "x", "c": None, "d": [1]})


def _template(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    if format_fields(text) <= {"a", "b"}:
        fill(text, {"a": "x", "b": 1})


def _dotenv(data: bytes) -> None:
    _file(".env", data)
    KeySources.of(_directory(), {}).keys_in("OPENAI_API_KEY")
    _file(".env", b"")


def _endpoints(data: bytes) -> None:
    endpoints_of(str(_file("endpoints.yaml", data)), root=_directory(), environ={})


@cache
def _graders() -> tuple[tuple[Any, Mapping[str, str]], ...]:
    return (
        (resolve({"math": {"symbolic": False}}), {"answer": "1/2"}),
        (resolve("numeric"), {"answer": "3"}),
        (resolve("choice"), {"answer": "B"}),
        (resolve("json"), {"answer": '{"a": 1}'}),
        (resolve("contains"), {"answer": "a"}),
    )


def _answers(data: bytes) -> None:
    text = data.decode("utf-8", "replace")[:2_000]
    for grader, row in _graders():
        grader.answers([text], row)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "answers": _answers,
    "condition": _condition,
    "csv": _rows("csv"),
    "dotenv": _dotenv,
    "endpoints": _endpoints,
    "json": _rows("json"),
    "jsonl": _rows("jsonl"),
    "lock": _lock,
    "parquet": _rows("parquet"),
    "plain_yaml": _plain_yaml,
    "recording": _recording,
    "redaction": _redaction,
    "response": _response,
    "results": _results,
    "suite": _suite,
    "template": _template,
    "tsv": _rows("tsv"),
    "yaml": _rows("yaml"),
}

_CHAT = {
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "1"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}
_LINE = {
    "request": {"method": "POST", "uri": "http://h/v1/chat/completions", "body": '{"model":"m","n":2}', "headers": {}},
    "response": {"status": {"code": 200, "message": "OK"}, "headers": {}, "body": {"string": json.dumps(_CHAT)}},
    "llmtune": {"answers": 1, "latency": 0.1},
}
SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "answers": (rb"so \boxed{\frac{1}{2}}", b"The answer is (B).", b'```json\n{"a": 1}\n```', b"#### 1,234.5 kg"),
    "condition": (b'a >= 1 and b in ["x", "y"] or not row["c"] is None',),
    "csv": (b'q,answer\n"a, b",1\n',),
    "dotenv": (b"export OPENAI_API_KEY='sk-1' # mine\nX=1\n",),
    "endpoints": (b"- {base_url: 'http://localhost:1/v1', api_key: k, models: [m], rpm: 5}\n",),
    "json": (b'{"data": [{"q": "1", "answer": "1"}]}',),
    "jsonl": (b'{"q": "1", "answer": 1}\n{"q": "2", "answer": null}\n',),
    "lock": (b'version: 1\nsuite: a\nconfig: {model: m}\nmetrics: {s: {value: 1.0}}\nprices: {m: {input: 1}}\nfingerprints: {a: b}\n'
             b'examples:\n- {"id": "1", "index": 0, "status": "ok", "metrics": {"s": 1.0}, "responses": 1}\n',),
    "parquet": (b"PAR1PAR1",),
    "plain_yaml": (b"a: [1, 2.5, true, null, {b: 'c'}]\n",),
    "recording": (f'{{"version": 1, "interactions": [\n{json.dumps(_LINE)}\n]}}\n'.encode(),),
    "redaction": (b"http://u:p@h/x?api_key=1 Bearer abcdefghijklmnopqrst",),
    "response": (
        json.dumps(_CHAT).encode(),
        b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
        b'data: {"usage": {"prompt_tokens": 1}, "choices": []}\n\ndata: [DONE]\n',
        b'event: message_start\ndata: {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1}}}\n\n',
    ),
    "results": (b'{"format": "pytest-llmtune results", "version": 1, "suites": []}',),
    "suite": (b"name: a\ndataset: rows.jsonl\nprompt: '{q}'\nmodel: [m]\ntemperature: {uniform: [0, 1]}\ngrader: {regex: {pattern: a}}\n",),
    "template": (b"What is {a} and {{b}}, {b:>5}?",),
    "tsv": (b'q\tanswer\na "b\t1\n',),
    "yaml": (b"- {q: 1, answer: 2}\n",),
}  # fmt: skip


def run(name: str, data: bytes) -> None:
    """One input of one target; what is raised beside our own errors is a finding."""
    try:
        TARGETS[name](data)
    except LLMTuneError:
        return
