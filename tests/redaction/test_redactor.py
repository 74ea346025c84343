"""Secrets planted in every place of a request and its response: none reaches a file, and matching still works."""

from __future__ import annotations

import base64
import html
import json
import re
import string
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from support.exchanges import body_of, exchange
from support.provider_bodies import event_stream

from pytest_llmtune._util.jsonhash import build
from pytest_llmtune.capture.matching import ClientRequest
from pytest_llmtune.capture.patches import recorded
from pytest_llmtune.capture.session import Replay
from pytest_llmtune.errors import RecordingError, SuiteError
from pytest_llmtune.recording import Recording
from pytest_llmtune.recording.format import Interaction, redacted
from pytest_llmtune.recording.writer import write
from pytest_llmtune.redaction import patterns
from pytest_llmtune.redaction.patterns import secrets_of
from pytest_llmtune.redaction.redactor import PLACEHOLDER, Redactor
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "correct-horse/battery+staple"  # no service's form, and not the same in a URL
AWKWARD = 'pass"word\\with\nlines and 한글'
CHAT = "https://api.example.com/v1/chat/completions"
JSON = {"content-type": "application/json"}
STREAM = {"content-type": "text/event-stream"}
AWS = {"content-type": "application/vnd.amazon.eventstream"}
redactor = Redactor.from_environment(environ={"MY_API_KEY": SECRET, "DB_PASSWORD": AWKWARD})


def interaction(body: Any = None, response: Any = None, **fields: Any) -> Interaction:
    text = response if isinstance(response, str) else json.dumps(response or {})
    given = {"request_headers": JSON, "headers": JSON, "uri": CHAT} | fields
    return Interaction(
        method="POST", body=body if isinstance(body, str) else json.dumps(body or {}), status=200, text=text, **given
    )


def event(**delta: Any) -> str:
    choice = {"index": 0, "delta": delta, "logprobs": {"content": [{"token": "x", "bytes": [120]}]}}
    return "data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]})


places = {
    "prompt": interaction({"messages": [{"content": f"my key is {SECRET}!"}]}),
    "name of a field": interaction({"metadata": {SECRET: "x"}}),
    "inside JSON inside the body": interaction({"arguments": json.dumps({"key": AWKWARD})}),
    "inside JSON twice inside": interaction({"arguments": json.dumps([json.dumps([AWKWARD])])}),
    "answer": interaction({}, {"choices": [{"message": {"content": f"you said {SECRET}"}}]}),
    "deep in the answer": interaction({}, {"a": [{"b": [[SECRET]]}]}),
    "answer that is no JSON": interaction({}, f"<html>{SECRET}</html>", headers={"content-type": "text/html"}),
    "answer that only says it is JSON": interaction({}, f"{{ {SECRET}"),
    "form": interaction(f"grant=x&note={quote(SECRET, safe='')}", request_headers={"content-type": "text/plain"}),
    "URL's path": interaction(uri=f"https://h/{quote(SECRET, safe='')}/v1"),
    "URL's query": interaction(uri=f"{CHAT}?note={quote(SECRET, safe='')}"),
    "URL's password": interaction(uri=f"https://user:{quote(SECRET, safe='')}@h/v1"),
    "reason": interaction(reason=f"OK {SECRET}"),
    "kept header of the request": interaction(request_headers={"Content-Type": f"text/x; a={SECRET}"}),
    "kept header of the response": interaction(headers={"Location": f"/x?y={SECRET}"}),
    "dropped headers": interaction(
        request_headers={"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET, "Cookie": SECRET},
        headers={"Set-Cookie": SECRET, "OpenAI-Organization": SECRET},
    ),
    "one event": interaction({}, f"{event(content=SECRET)}\n\ndata: [DONE]\n\n", headers=STREAM),
    "spelled over events": interaction(
        {}, "\n\n".join(event(content=letter) for letter in f"so: {SECRET}!") + "\n\ndata: [DONE]\n\n", headers=STREAM
    ),
    "arguments spelled over events": interaction(
        {},
        "\n\n".join(
            event(tool_calls=[{"index": 0, "function": {"arguments": part}}]) for part in (SECRET[:5], SECRET[5:], "x")
        ),
        headers=STREAM,
    ),
    "comment of a stream": interaction({}, f": {SECRET}\n\n{event(content='x')}\n\n", headers=STREAM),
    "stream of AWS": interaction("", "", data=event_stream({"delta": {"text": SECRET}}), headers=AWS),
    "spelled over a stream of AWS": interaction(
        "", "", data=event_stream(*({"delta": {"text": part}} for part in (SECRET[:15], SECRET[15:]))), headers=AWS
    ),
    "bytes that are no text": interaction("", "", data=b"\xff\x00" + SECRET.encode() + b"\xff", headers={}),
    "lines of JSON": interaction("", "".join(f"{json.dumps({'a': SECRET})}\n" for _ in range(2)), headers={}),
    "spelled over lines of JSON": interaction(
        "", "\n".join(json.dumps({"message": {"content": letter}}) for letter in f"so: {SECRET}!"), headers={}
    ),
    "spelled over an array": interaction("", json.dumps([{"text": letter} for letter in f"so: {SECRET}!"])),
    "spelled over events that end in CR": interaction(
        "", "\r\r".join(event(content=letter) for letter in f"so: {SECRET}!"), headers=STREAM
    ),
    "spelled over events after a byte order mark": interaction(
        "", "\ufeff" + "\n\n".join(event(content=part) for part in (SECRET[:5], SECRET[5:])), headers=STREAM
    ),
    "spelled over events of several lines": interaction(
        "",
        "\n\n".join(event(content=part).replace(', "', ',\ndata: "') for part in (SECRET[:15], SECRET[15:])),
        headers=STREAM,
    ),
    "stream that is not said to be one": interaction({}, f"{event(content='a')}\n\n{event(content=SECRET)}\n\n"),
}


@pytest.mark.parametrize("planted", places.values(), ids=places.keys())
def test_value_of_an_environment_variable_is_found_in_every_place(planted: Interaction, tmp_path: Path) -> None:
    """In every part of an exchange and every encoding, the written file does not contain the value."""
    path = tmp_path / "x.cassette.json"
    write(path, [planted], redactor)
    text = path.read_text(encoding="utf-8")
    body = json.loads(text)["interactions"][0]["response"]["body"]
    data = base64.b64decode(body.get("base64_string", ""))
    for secret in (SECRET, AWKWARD, quote(SECRET, safe=""), "battery", "한글", "lines and"):
        assert secret not in text
        assert secret.encode() not in data
        assert json.dumps(secret, ensure_ascii=False)[1:-1] not in text
    assert json.loads(text)["interactions"][0]["response"]["status"]["code"] == 200


def test_a_stream_keeps_its_words_around_what_is_removed() -> None:
    """What is spelled over events goes, a placeholder stands once, the rest stays in its events."""
    words = ["it is ", SECRET[:4], SECRET[4:9], SECRET[9:] + ".", " Bye"]
    text = "\n\n".join(event(content=word) for word in words) + "\n\ndata: [DONE]\n\n"
    clean = redacted(redactor, interaction({}, text, headers=STREAM)).text
    deltas = [json.loads(line[5:])["choices"][0] for line in clean.split("\n") if line.startswith("data: {")]
    assert [choice["delta"]["content"] for choice in deltas] == ["it is ", PLACEHOLDER, "", ".", " Bye"]
    assert clean.endswith("\n\ndata: [DONE]\n\n")
    assert [choice["logprobs"] for choice in deltas] == [None] * 5


def test_token_probabilities_spell_nothing_out() -> None:
    """Where an answer was redacted, its log probabilities go too: token by token they would say it again."""
    tokens = [{"token": letter, "bytes": [ord(letter)]} for letter in SECRET]
    choice = {"message": {"content": SECRET}, "logprobs": {"content": tokens}}
    clean = json.loads(redacted(redactor, interaction({}, {"choices": [choice]})).text)["choices"][0]
    assert clean == {"message": {"content": PLACEHOLDER}, "logprobs": None}
    innocent = interaction({}, {"choices": [{"message": {"content": "x"}, "logprobs": {"content": tokens[:1]}}]})
    assert redacted(redactor, innocent).text == innocent.text


class _Leaky(BaseHTTPRequestHandler):
    """Says back everything it is told, in every place of a response."""

    def do_POST(self) -> None:
        told = self.rfile.read(int(self.headers["content-length"])).decode()
        echo = {"heard": told, "headers": str(self.headers), "path": self.path, "choices": [1], "api_key": "hunter2-x"}
        data = json.dumps(echo).encode()
        self.send_response(200, f"OK {SECRET}")
        headers = {"set-cookie": f"s={SECRET}", "openai-organization": "org-abcdefghijklmnopqrstuvwx", "x-key": SECRET}
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def leaky() -> Iterator[str]:
    """The URL of a server that says back everything it is told."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Leaky) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/{quote(SECRET, safe='')}/chat"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("library", [requests, httpx], ids=["requests", "httpx"])
def test_nothing_secret_of_a_real_exchange_is_kept(leaky: str, library: Any, tmp_path: Path) -> None:
    """Against a server that echoes headers, query and body: no planted secret in the file, and it replays."""
    path = tmp_path / "x.cassette.json"
    headers = {
        "Authorization": f"Bearer {SECRET}",
        "x-api-key": "another-secret-1",
        "api-key": "another-secret-2",
        "Cookie": "session=another-secret-3; id=cookie-secret; theme=dark",
        "X-Auth": "header-secret",
        "OpenAI-Organization": "org-abcdefghijklmnopqrstuvwx",
        "OpenAI-Project": "proj_abcdefghijklmnopqrstuvwx",
    }
    environ = {
        "MY_API_KEY": SECRET,
        "A_KEY": "another-secret-1",
        "B_TOKEN": "another-secret-2",
        "C_SECRET": "another-secret-3",
    }
    asking = {
        "params": {"api_key": "query-secret", "access_token": "query-secret", "q": "kept"},
        "json": {
            "messages": [{"content": f"hi {SECRET}"}],
            "password": "body-secret",
            "mcp_servers": [{"authorization_token": "token-secret"}],
            "note": "sk-" + "a1B2" * 8,
        },
        "headers": headers,
    }
    clean = Redactor.from_environment(environ=environ)
    with recorded(Replay(path, Mode.RECORD_ALL, "", clean)):
        library.post(leaky, **asking)
    text = path.read_text(encoding="utf-8")
    for secret in (
        "correct-horse",
        "another-secret",
        "query-secret",
        "body-secret",
        "token-secret",
        "cookie-secret",
        "header-secret",
        "hunter2",
        "sk-a1",
        "org-a",
        "proj_a",
    ):
        assert secret not in text
    assert "q=kept" in text
    with recorded(Replay(path, Mode.REPLAY, "", clean)):
        assert library.post(leaky, **asking).json()["choices"] == [1]


@pytest.mark.parametrize("library", [requests, httpx], ids=["requests", "httpx"])
def test_nothing_secret_of_a_real_form_is_kept(leaky: str, library: Any, tmp_path: Path) -> None:
    """Of either kind: its secret fields, and what the server says back of them."""
    path = tmp_path / "x.cassette.json"
    asking: list[dict[str, Any]] = [
        {"data": {"client_secret": "form-secret-1", "q": "kept"}},
        {"data": {"api_key": "form-secret-2", "q": "kept"}, "files": {"file": ("a.txt", b"some text")}},
    ]
    with recorded(Replay(path, Mode.RECORD_ALL, "", redactor)):
        for form in asking:
            library.post(leaky, **form)
    text = path.read_text(encoding="utf-8")
    assert "form-secret" not in text
    assert text.count("kept") >= 2
    assert "some text" in text
    with recorded(Replay(path, Mode.REPLAY, "", redactor)):
        for form in asking:
            assert library.post(leaky, **form).json()["choices"] == [1]


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-" + "aB3_" * 10,
        "sk-ant-api03-" + "aB3-" * 10,
        "org-" + "aB3d" * 6,
        "proj_" + "aB3d" * 6,
        "AIza" + "aB3_" * 9,
        "AKIA" + "AB12" * 4,
        "ghp_" + "aB3d" * 9,
        "github_pat_" + "aB3_" * 12,
        "hf_" + "aBcd" * 9,
        "xoxb-" + "123-aB" * 4,
        "Bearer " + "aB3." * 8,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_keys_of_well_known_services_are_found_by_their_form(key: str) -> None:
    """A key that stands in no environment variable is known by its form."""
    clean = Redactor.from_environment(environ={})
    assert clean.clean_text(f"it is '{key}'.") == f"it is '{PLACEHOLDER}'."
    assert redacted(clean, interaction({"q": f"x {key}"})).body == json.dumps(
        {"q": f"x {PLACEHOLDER}"}, separators=(",", ":")
    )


@pytest.mark.parametrize(
    "text",
    ["task-oriented-programming-language", "the hf_ prefix", "sk-short", "max_tokens", "AKIA", "risk-" + "a" * 30],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    """What only looks a little like a key stays."""
    assert Redactor.from_environment(environ={}).clean_text(text) == text


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("OPENAI_API_KEY", True),
        ("openai_api_key", True),
        ("APIKEY", True),
        ("SERVICE_TOKEN", True),
        ("DB_PASSWORD", True),
        ("PGPASSWD", True),
        ("APP_SECRET", True),
        ("SECRET_KEY_BASE", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("AWS_ACCESS_KEY_ID", True),
        ("GOOGLE_CREDENTIALS", True),
        ("GITHUB_PAT", True),
        ("OPENAI_ORG_ID", True),
        ("OPENAI_PROJECT_ID", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("KEYBOARD_LAYOUT", False),
        ("SSL_KEY_FILE", False),
        ("HF_TOKEN_PATH", False),
        ("HOME", False),
        ("LANG", False),
    ],
)
def test_names_of_variables_that_hold_secrets(name: str, secret: bool) -> None:
    """The name decides whether a variable's value is a secret."""
    assert (secrets_of({name: "12345678"}) == {name: "12345678"}) is secret


def test_short_values_are_no_secrets() -> None:
    """A value of less than eight characters would be found in innocent text."""
    assert secrets_of({"A_KEY": "1234567", "B_KEY": " \n", "C_KEY": " 12345678\n"}) == {"C_KEY": "12345678"}


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("api_key=abc", "api_key=REDACTED"),
        ("API-Key=abc&q=1", "API-Key=REDACTED&q=1"),
        ("key=abc", "key=REDACTED"),
        ("access_token=abc&max_tokens=5", "access_token=REDACTED&max_tokens=5"),
        ("subscription-key=abc", "subscription-key=REDACTED"),
        ("X-Amz-Signature=abc&X-Amz-Credential=x%2Fy", "X-Amz-Signature=REDACTED&X-Amz-Credential=REDACTED"),
        ("client_secret=a&password=b&sig=c", "client_secret=REDACTED&password=REDACTED&sig=REDACTED"),
        ("api%5Fkey=abc", "api%5Fkey=REDACTED"),
        ("api-version=2024-10-21&monkey=1&keys=2", "api-version=2024-10-21&monkey=1&keys=2"),
        ("key=&flag", "key=&flag"),
        ("a=b=c&&", "a=b=c&&"),
    ],
)
def test_key_like_parameters_lose_their_values(query: str, kept: str) -> None:
    """Names decide, in any case and spelling; other parameters keep their order and spelling."""
    assert redactor.clean_uri(f"{CHAT}?{query}") == f"{CHAT}?{kept}"
    assert redactor.clean_body(query, "application/x-www-form-urlencoded") == kept


def test_key_like_fields_lose_their_values() -> None:
    """A body's api_key is a secret whatever it looks like; the definition of a field of that name is none."""
    body = {
        "api_key": "abc",
        "Authorization": "x",
        "extra": {"password": "p"},
        "api-key": "",
        "max_tokens": 5,
        "token": "a",
    }
    schema = {"properties": {"password": {"type": "string"}}}
    assert redactor.clean_json(body | schema) == {
        "api_key": PLACEHOLDER,
        "Authorization": PLACEHOLDER,
        "extra": {"password": PLACEHOLDER},
        "api-key": "",
        "max_tokens": 5,
        "token": "a",
        **schema,
    }


@pytest.mark.parametrize(
    "name",
    [
        "authorization_token",  # of a server of tools, at Anthropic
        "accessToken",
        "refreshToken",
        "auth_token",
        "bearerToken",
        "clientSecret",
        "webhook_secret",
        "privateKey",
        "secret_key",
        "openai_api_key",
        "aws_secret_access_key",
        "aws_session_token",
        "Ocp-Apim-Subscription-Key",
        "db_password",
        "sshPassphrase",
        "vertex_credentials",
        "cf-aig-authorization",
    ],
)
def test_names_of_fields_that_hold_secrets(name: str) -> None:
    """Also in JSON within JSON, in a list, in a form of either kind, in a line of several; and where a server repeats the value."""
    value = "abcdefgh12345"
    form = f'--boundary\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n--boundary--\r\n'
    bodies = [
        (json.dumps({"tools": [{name: value}]}), "application/json"),
        (json.dumps({"arguments": json.dumps({name: value})}), "application/json"),
        (json.dumps({name: [value]}), "application/json"),
        (json.dumps([{name: value}]), "application/json"),
        (json.dumps({name: value}) + "\n{}", "application/x-ndjson"),
        (f"a=b&{name}={value}", "application/x-www-form-urlencoded"),
        (form, "multipart/form-data; boundary=boundary"),
    ]
    for body, content_type in bodies:
        echo = json.dumps({"heard": value})
        clean = redacted(redactor, interaction(body, echo, request_headers={"content-type": content_type}))
        assert value not in clean.body + clean.text, content_type
        assert clean.body != body
        assert value not in redactor.clean_request(CHAT, body, content_type)[1]


@pytest.mark.parametrize(
    "name",
    ["max_tokens", "token", "eos_token", "next_page_token", "valid_token", "keys", "keyword", "monkey", "secretary"],
)
def test_names_of_fields_that_hold_none(name: str) -> None:
    """Words of models and of pages."""
    assert redactor.clean_json({name: "abcdefgh12345"}) == {name: "abcdefgh12345"}


def test_patterns_of_the_user_are_found_in_bytes() -> None:
    """And bytes without a secret stay as they are; so do those of a stream of events."""
    own = Redactor.from_environment([r"ACME-\d+"], hooks=[str.upper], environ={})
    assert own.clean_data(b"\xff ACME-123 \xff") == b"\xff [REDACTED] \xff"
    assert own.clean_data(b"\xff abc \xff") == b"\xff abc \xff"
    events = event_stream({"p": "abcd", "delta": {"text": "X"}})
    assert redactor.clean_data(events) == events
    assert own.clean_data(b"") == b""


def test_secrets_of_headers_with_odd_names() -> None:
    """Each cookie, the password of a login, both of a header that is sent twice."""
    login = base64.b64encode(b"ann:open-sesame").decode()
    headers = [
        ("Cookie", "theme=dark; session=cookie-secret; last=cookie-secret-2"),
        ("Authorization", f"Basic {login}"),
        ("X-Auth", "auth-secret"),
        ("X-Functions-Key", "key-secret-1"),
        ("X-Functions-Key", "key-secret-2"),
        ("Helicone-Auth", "Bearer helicone-secret"),
        ("Idempotency-Key", "no-secret"),
    ]
    found = set(ClientRequest.of("POST", CHAT, "{}", headers).secrets.values())
    assert found == {
        *("dark", "cookie-secret", "cookie-secret-2", login, "open-sesame", "auth-secret"),
        *("key-secret-1", "key-secret-2", "helicone-secret"),
    }


def test_patterns_of_the_user_are_removed_everywhere() -> None:
    """``llmtune_redact``: in requests, responses and URLs, inside words, several times."""
    own = Redactor.from_environment([r"\b\d{3}-\d{4}\b", "ACME"], environ={})
    clean = redacted(
        own, interaction({"q": "call 555-1234 or 555-9876"}, {"a": "the ACMEcorp"}, uri="https://acme.ACME/555-1234")
    )
    assert clean.uri == "https://acme.REDACTED/REDACTED"
    assert json.loads(clean.body) == {"q": f"call {PLACEHOLDER} or {PLACEHOLDER}"}
    assert json.loads(clean.text) == {"a": f"the {PLACEHOLDER}corp"}


def test_patterns_do_not_touch_numbers_and_shape() -> None:
    """A pattern for digits changes no token count."""
    own = Redactor.from_environment([r"\d+"], environ={})
    assert own.clean_json({"usage": {"prompt_tokens": 12}, "text": "12"}) == {
        "usage": {"prompt_tokens": 12},
        "text": PLACEHOLDER,
    }


def test_hooks_of_the_user_come_last() -> None:
    """A function from text to text sees every text, after everything else."""
    own = Redactor.from_environment(["b"], hooks=[lambda text: text.replace("alice", "someone")], environ={})
    assert own.clean_json({"alice": ["alice and b"]}) == {"someone": [f"someone and {PLACEHOLDER}"]}
    assert own.clean_uri("https://h/alice") == "https://h/someone"


@pytest.mark.parametrize(
    ("pattern", "said"), [("(", "is not a valid regular expression"), (".*", "matches the empty string")]
)
def test_useless_patterns_are_refused(pattern: str, said: str) -> None:
    """The message names the setting and the pattern."""
    with pytest.raises(SuiteError, match=f"llmtune_redact: .* {said}"):
        Redactor.from_environment([pattern], environ={})


def test_further_secrets_can_be_named() -> None:
    """A key that was given on the command line, in no variable, is removed too."""
    assert Redactor().knowing({"the key": "a-key-of-mine"}).clean_text("a-key-of-mine!") == (f"{PLACEHOLDER}!")


def test_looking_up_redacts_too(tmp_path: Path) -> None:
    """A prompt that was redacted when it was recorded is found again by the prompt itself."""
    path = tmp_path / "x.cassette.json"
    own = Redactor.from_environment([r"\d{3}-\d{4}"], environ={"A_TOKEN": SECRET})
    Recording.write(path, [exchange(f"call 555-1234 with {SECRET}", "a")], own)
    assert "555-1234" not in path.read_text(encoding="utf-8")
    request = build(body_of(f"call 555-1234 with {SECRET}"), 1)
    assert Recording.load(path, own).lookup(request) is not None
    assert Recording.load(path).lookup(request) is None
    assert Recording.load(path, own).lookup(build(body_of("something else"), 1)) is None


def test_what_is_left_stops_the_writing(tmp_path: Path) -> None:
    """The last look at the whole text: a hook that brings a secret back writes nothing, and says no secret."""
    path = tmp_path / "x.cassette.json"
    Recording.write(path, [exchange("before", "a")])
    before = path.read_bytes()
    careless = Redactor.from_environment(hooks=[lambda text: f"{text}{SECRET}"], environ={"MY_KEY": SECRET})
    with pytest.raises(RecordingError, match="the value of MY_KEY is still in it; name it in the ini key") as caught:
        Recording.write(path, [exchange("q", "a")], careless)
    assert SECRET not in str(caught.value)
    assert path.read_bytes() == before
    with pytest.raises(RecordingError, match=r"a text that looks like a key \(sk-\.\.\.\) is still in it"):
        Recording.write(path, [exchange("q", "a")], replace(careless, hooks=(lambda text: text + " sk-" + "a1B2" * 8,)))


@given(st.text(alphabet=string.ascii_letters + string.digits + '"\\/\n +%&=한?#', min_size=8, max_size=20), st.data())
def test_any_secret_is_removed_from_any_text(secret: str, data: st.DataObject) -> None:
    """For any value of a variable: no text of a body holds it, however it is wrapped, and cleaning again is idle."""
    found = secrets_of({"MY_KEY": secret})
    own = Redactor.from_environment(environ={"MY_KEY": secret})
    value = found.get("MY_KEY")
    if value is None or value in "Bearer [REDACTED] choices message content":
        return
    before, after = data.draw(st.text(max_size=5)), data.draw(st.text(max_size=5))
    planted = interaction(
        {"x": f"{before}{value}{after}", "y": json.dumps([value])}, {"choices": [{"message": {"content": value}}]}
    )
    clean = redacted(own, planted)
    assert value not in json.loads(clean.body)["x"].replace(PLACEHOLDER, "\x00")
    assert json.dumps([value], ensure_ascii=False)[2:-2] not in json.loads(clean.body)["y"].replace(PLACEHOLDER, "\x00")
    assert json.loads(clean.text)["choices"][0]["message"]["content"] == PLACEHOLDER
    assert redacted(own, clean) == clean


RANDOM = "q7Zr2mXw9KpLt4Vb"


@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        ("OPENAI_KEY2", RANDOM, [RANDOM]),
        ("SESSION_COOKIE", f"sid={RANDOM}", [f"sid={RANDOM}"]),
        ("NPM_AUTH", RANDOM, [RANDOM]),
        (
            "SLACK_WEBHOOK",
            f"https://hooks.slack.com/services/T0/B0/{RANDOM}",
            [f"https://hooks.slack.com/services/T0/B0/{RANDOM}"],
        ),
        ("DATABASE_URL", "postgres://app:s3cret%2Fpass@db:5432/x", ["app:s3cret%2Fpass", "s3cret/pass"]),
        ("HTTPS_PROXY", f"http://me:{RANDOM}@proxy:8080", [f"me:{RANDOM}", RANDOM]),
        ("WHATEVER", "see glpat-" + "a1B2c3D4" * 3, ["glpat-" + "a1B2c3D4" * 3]),
        ("MY_KEYS", f"{RANDOM},{RANDOM[::-1]}", [RANDOM, RANDOM[::-1]]),
        ("AUTH_MODE", "kerberos-with-a-long-name", []),
        ("SESSION_MANAGER", "local", []),
        ("SSH_AUTH_SOCK", "/run/ssh-q7Zr2mXw9KpL/agent.1", []),
        ("EDITOR_URL", "https://example.com/path?q=1", []),
    ],
)
def test_variables_are_secret_by_name_or_by_value(name: str, value: str, hidden: list[str]) -> None:
    """Whatever the variable is called: a password in a URL, a key of a well-known form; and names that are common for keys."""
    own = Redactor.from_environment(environ={name: value})
    for text in hidden:
        assert text not in own.clean_text(f"before {text} after")
    if not hidden:
        assert own.clean_text(f"before {value} after") == f"before {value} after"


FORMS = [
    "glpat-" + "a1B2c3D4e5" * 2,
    "sk_live_" + "a1B2c3D4" * 3,
    "rk_test_" + "a1B2c3D4" * 3,
    "gho_" + "a1B2c3D4e5F6" * 3,
    "ghs_" + "a1B2c3D4e5F6" * 3,
    "npm_" + "a1B2c3D4e5F6" * 3,
    "gsk_" + "a1B2c3D4e5F6" * 3,
    "xapp-1-A1-" + "a1B2c3D4e5F6" * 3,
    "SG." + "a1B2c3D4e5F" * 2 + "." + "a1B2c3D4e5F" * 3 + "a1B2c3D4e5",
    "ASIA" + "A1B2C3D4" * 2,
    "AC" + "a1b2c3d4" * 4,
    "123456789:AA" + "a1B2c3D4e5F" * 3,
    "pypi-AgEIcHlwaS5vcmc" + "a1B2c3D4" * 10,
    "https://hooks.slack.com/services/T0A1/B0A1/" + "a1B2c3D4" * 3,
    "sntrys_" + "a1B2c3D4" * 6,
    "pk-lf-12345678-9abc-4def-8123-456789abcdef",
    "sk-lf-12345678-9abc-4def-8123-456789abcdef",
    "glsa_" + "a1B2c3D4" * 4 + "_0123abcd",
    "dckr_pat_" + "a1B2_" * 5 + "ab",
    "figd_" + "a1B2c3D4" * 5,
    "tskey-api-" + "a1B2c3D4" * 3,
    "lin_api_" + "a1B2c3D4" * 5,
    "Basic dXNlcjpwYXNzd29yZDEy",
]


@pytest.mark.parametrize("key", FORMS)
def test_forms_of_keys_that_a_server_says_back(key: str) -> None:
    """Known by their form alone, in a text, in JSON, in an address, and cut in two by a stream."""
    own = Redactor.from_environment(environ={})
    assert own.clean_text(f"the key is {key}, keep it") == "the key is [REDACTED], keep it"
    assert key not in own.clean_body(
        json.dumps({"choices": [{"message": {"content": f"{key}\n"}}]}), "application/json"
    )
    pieces = [key[:5], key[5:11], key[11:]]
    events = "".join(
        f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': piece}}]})}\n\n"
        for piece in ("It is ", *pieces)
    )
    clean = own.clean_body(f"{events}data: [DONE]\n\n", "text/event-stream")
    said = "".join(
        json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
        for line in clean.splitlines()
        if line.startswith("data: {")
    )
    assert said == "It is [REDACTED]"


@pytest.mark.parametrize("text", ["postgres://user:hunter2@db/x", "git clone https://me:a-token@host/r.git"])
def test_passwords_in_addresses(text: str) -> None:
    """User and password of any URL in a text; the rest of it stays."""
    clean = Redactor.from_environment(environ={}).clean_text(text)
    assert "hunter2" not in clean
    assert "a-token" not in clean
    assert "://[REDACTED]@" in clean
    assert Redactor.from_environment(environ={}).clean_text(clean) == clean


@given(
    st.binary(max_size=9),
    st.text(alphabet=string.ascii_letters + string.digits, min_size=8, max_size=40),
    st.binary(max_size=9),
)
def test_a_known_key_in_base64(before: bytes, key: str, after: bytes) -> None:
    """Wherever it stands in what was encoded, as in ``Authorization: Basic``: what is left does not give it back."""
    own = Redactor.from_environment(environ={"MY_KEY": key})
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        coded = encode(before + key.encode() + after).decode()
        clean = own.clean_text(coded)
        assert PLACEHOLDER in clean
        assert len(clean.replace(PLACEHOLDER, "")) <= len(coded) - len(key) * 4 // 3 + 4


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: json.dumps(text).replace("/", r"\/"),
        lambda text: re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quote(text, safe="")),
        lambda text: quote(quote(text, safe=""), safe=""),
        lambda text: text.encode().hex(),
        lambda text: text.encode().hex().upper(),
        lambda text: text.encode().hex(":"),
        lambda text: text.encode().hex(" ").upper(),
        lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
        repr,
        html.escape,
        lambda text: html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        lambda text: re.sub("[<>&'+]", lambda match: f"\\u{ord(match[0]):04X}", json.dumps(text)).replace(
            '\\"', r"\u0022"
        ),
        lambda text: re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False)),
    ],
    ids=[
        *("PHP's JSON", "lower case in a URL", "a URL in a URL", "hex", "HEX", "hex with colons", "a hex dump"),
        *("escaped bytes", "repr", "HTML", "Jinja's HTML", ".NET's JSON", "Go's JSON"),
    ],
)
def test_a_known_key_as_others_write_it(spell: Callable[[str], str]) -> None:
    """Libraries escape more than they need, in their own ways."""
    key = "x/\"y+z\\9-known<key>&'한"
    redactor = Redactor.from_environment(environ={"MY_API_KEY": key})
    said = redactor.clean_text(f"before {spell(key)} after")
    assert PLACEHOLDER in said
    parts = ("known", b"known".hex(), b"known".hex(":"), b"known".hex(" "), r"\x6b\x6e\x6f\x77\x6e")
    assert not any(part in said.lower() for part in parts)


BASE64_KEY = "ab/c>>?d~~y2-known-key/9"  # its base64 has a plus and a slash


@pytest.mark.parametrize("offset", range(3))
@pytest.mark.parametrize("outer", range(3))
def test_a_known_key_in_base64_of_base64(offset: int, outer: int) -> None:
    """As a Kubernetes secret of a Docker login holds it, at any offset of either."""
    own = Redactor.from_environment(environ={"MY_API_KEY": BASE64_KEY})
    inner = base64.b64encode(b"u" * offset + BASE64_KEY.encode() + b":me").decode()
    coded = base64.b64encode(b"." * outer + inner.encode() + b"!!").decode()
    clean = own.clean_text(f"auth {coded} end")
    assert PLACEHOLDER in clean
    assert len(clean) < len(coded) - 20


@pytest.mark.parametrize(
    "write",
    [
        lambda text: quote(text, safe=""),
        lambda text: re.sub("%..", lambda match: match[0].lower(), quote(text, safe="")),
        lambda text: json.dumps(text).replace("/", r"\/"),
        lambda text: json.dumps(text).replace("+", r"\u002B"),
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: quote(quote(text, safe=""), safe=""),
    ],
    ids=["URL", "lower case in a URL", "PHP's JSON", ".NET's JSON", "for URLs", "a URL in a URL"],
)
@pytest.mark.parametrize("login", ["", "user:", "me:", "x"])
def test_base64_of_a_known_key_as_others_write_it(write: Callable[[str], str], login: str) -> None:
    """A basic login, say, in a redirect's address or in a message of an error; also cut in pieces by a stream."""
    own = Redactor.from_environment(environ={"MY_API_KEY": BASE64_KEY})
    coded = base64.b64encode(f"{login}{BASE64_KEY}".encode()).decode()
    said = write(coded)
    assert len(own.clean_text(f"before {said} after").replace(PLACEHOLDER, "")) < len("before  after") + 16
    cut = [said[:7], said[7:20], said[20:]]
    text = "\n\n".join(event(content=piece) for piece in cut) + "\n\ndata: [DONE]\n\n"
    clean = own.clean_body(text, "text/event-stream")
    assert PLACEHOLDER in clean
    assert cut[1] not in clean


def test_a_known_key_in_base64_of_utf_16() -> None:
    """As PowerShell takes an encoded command."""
    own = Redactor.from_environment(environ={"MY_API_KEY": BASE64_KEY})
    coded = base64.b64encode(f"$k='{BASE64_KEY}'".encode("utf-16-le")).decode()
    assert len(own.clean_text(coded)) < 30


def test_a_key_of_a_known_form_in_base64() -> None:
    """A variable that is secret by its value alone: its base64 is as secret."""
    key = "sk_live_" + "a1B2c3D4" * 3
    assert base64.b64encode(key.encode()).decode() not in Redactor.from_environment(
        environ={"BILLING": key}
    ).clean_text(f"Basic {base64.b64encode(key.encode()).decode()}")


def test_the_rules_that_we_took_have_their_source() -> None:
    """Data of projects that keep them, with version and licence; `.ci/secret_patterns` writes them anew."""
    first, second = json.loads((Path(patterns.__file__).with_name("known_forms.json")).read_text("utf-8"))
    assert (first["source"], first["license"]) == ("https://github.com/Yelp/detect-secrets", "Apache-2.0")
    assert (second["source"], second["license"]) == ("https://github.com/betterleaks/betterleaks", "MIT")
    assert second["notice"][0] == "MIT License"
    assert len(first["rules"]) > 15
    assert len(second["rules"]) > 150
    for rule in first["rules"] + second["rules"]:
        assert rule["hints"]
        assert all(len(hint) > 1 for hint in rule["hints"])
        assert re.compile(rule["pattern"]).search("") is None


def test_no_field_of_a_body_looks_like_the_beginning_of_a_key() -> None:
    """Each body would be searched for every form."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 0}}
    message = {"role": "assistant", "content": "It is 5.", "refusal": None, "annotations": []}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "choices": [choice],
        "usage": usage,
    }
    assert not patterns.may_hold_known_forms(json.dumps(body))


def test_hostile_texts_take_no_time() -> None:
    """Each rule is linear: a megabyte of its own beginnings is searched in seconds."""
    own = Redactor.from_environment(environ={})
    urls, rest = ("://", "://a:", "-----BEGIN PRIVATE KEY-----"), ("a" * 32, "Basic ", "-us", "xoxb-1-")
    for piece in (*urls, *rest, "sk-", "eyJ", "eyJaaaaaaaaaaa.", "glcbt-", "1:AA"):
        started = time.process_time()
        own.clean_text(piece * (300_000 // len(piece)))
        assert time.process_time() - started < 5, piece
    for hints, pattern, flags in patterns._forms():
        for hint in hints:
            text = (hint + "a1") * (100_000 // len(hint))
            started = time.process_time()
            assert sum(1 for _ in re.compile(pattern, flags).finditer(text)) < 100_000
            assert time.process_time() - started < 2, pattern
