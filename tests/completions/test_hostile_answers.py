"""What a server may answer beside errors: without end, elsewhere, cut, with figures that nobody counts by."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.live import PRICES, Live, request
from support.llm_server import Fault, LLMServer, tokens

from pytest_llmtune.completions.http_client import BoundedClient
from pytest_llmtune.errors import CompletionError, EndpointError
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.wire.tokens import completion_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmtune.types import Completion

TEXT = "The answer is 42, as everybody knows."


def http(data: bytes, *headers: str, version: str = "1.1", length: bool = True) -> bytes:
    """A response as it goes over the wire."""
    lines = [f"HTTP/{version} 200 OK", "content-type: application/json", *headers]
    lines += [f"content-length: {len(data)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode() + data


def raw(make: Callable[[bytes], bytes]) -> Fault:
    return Fault("raw", data=make)


def changed(server: LLMServer, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Let the server answer with what ``change`` makes of a proper reply."""
    whole = server.completion
    server.completion = lambda body, answers: change(whole(body, answers))  # type: ignore[method-assign]


def asked(live: Live, change: Callable[[dict[str, Any]], dict[str, Any]], n: int = 1, **options: Any) -> Completion:
    with LLMServer(answer=TEXT) as server:
        changed(server, change)
        [completion] = live.run(live.source(server, **options), request(n=n))
    return completion


# bodies


@pytest.mark.parametrize(
    "make",
    [
        lambda data: http(gzip.compress(data)[:-12], "content-encoding: gzip"),
        lambda data: http(data, "content-encoding: gzip"),
        lambda _: http(b"\x00" * 40, "content-encoding: gzip"),
        lambda data: http(data[:60], version="1.0", length=False),
        lambda data: http(data[:60], version="1.1", length=False),
        lambda data: http(data.replace(b'"created": 1', b'"created": NaN')),
        lambda data: http(data.replace(b'"created": 1', b'"created": Infinity')),
        lambda data: http(data.replace(b'"created": 1', b'"created": ' + b"9" * 5000)),
        lambda data: http(data + b"}"),
        lambda _: http(b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        lambda _: http(b"[1]"),
        lambda _: http(b""),
        lambda _: http(b"<!doctype html><title>Sign in</title>", "x-proxy: yes"),
        lambda _: http(b'{"choices": [{"message": null}]}'),
        lambda _: http(b'{"choices": {"0": {}}}'),
        lambda _: b"\x16\x03\x01 no HTTP\r\n\r\n",
        lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n{}",
        lambda _: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    ],
    ids=[
        "gzip cut",
        "gzip that is none",
        "gzip of zeros",
        "HTTP/1.0 cut",
        "HTTP/1.1 cut",
        "NaN",
        "Infinity",
        "a huge number",
        "a brace too many",
        "deep",
        "a list",
        "nothing",
        "a proxy's page",
        "no message",
        "choices by number",
        "no HTTP",
        "negative length",
        "broken chunks",
    ],
)
def test_a_broken_answer_is_asked_for_again(live: Live, make: Callable[[bytes], bytes]) -> None:
    """It counts as uncertain spend, and never as an answer."""
    with LLMServer(answer="42", faults=[raw(make)]) as server:
        source = live.source(server)
        [completion] = live.run(source, request())
    assert [choice.text for choice in completion.choices] == ["42"]
    assert sum(source.account.retried.values()) == 1
    assert source.ledger.uncertain > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda data: http(data, version="1.0", length=False),
        lambda data: http(gzip.compress(data), "content-encoding: gzip"),
        lambda data: http(b"\xef\xbb\xbf" + data, "content-type: application/json; charset=utf-8-sig"),
        lambda data: http(b"\n \n" + data + b"\n"),
    ],
    ids=["HTTP/1.0 until the end", "gzip that nobody asked for", "byte order mark", "white space"],
)
def test_an_unusual_answer_is_an_answer(live: Live, make: Callable[[bytes], bytes]) -> None:
    """Whole is whole, however it came."""
    with LLMServer(answer="42", faults=[raw(make)]) as server:
        source = live.source(server)
        [completion] = live.run(source, request())
    assert [choice.text for choice in completion.choices] == ["42"]
    assert server.count == 1


@pytest.mark.parametrize("bomb", [False, True], ids=["without end", "a gzip bomb"])
def test_an_answer_has_a_largest_size(live: Live, monkeypatch: pytest.MonkeyPatch, bomb: bool) -> None:
    """A body that never ends is left at the limit, and so is one that is small only while it is compressed."""
    monkeypatch.setattr(BoundedClient, "most", 3 * 1024 * 1024)
    packed = http(gzip.compress(b" " * 300_000_000, 1), "content-encoding: gzip") if bomb else b""
    fault = raw(lambda _: packed) if bomb else Fault("flood")
    with LLMServer(fault=lambda _: fault) as server:
        source = live.source(server, attempts=2)
        tracemalloc.start()
        [error] = live.results(source, request())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "the answer is larger than 3 MiB" in str(error)
    assert type(error) is CompletionError
    assert peak < 60_000_000
    assert source.account.retried == {"broken response": 1}


# redirects


@pytest.mark.parametrize("kind", ["openai", "azure"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_leads_elsewhere(live: Live, kind: str, status: int) -> None:
    """Neither prompts nor keys go to a server that nobody named; it is said once, with its address."""
    with LLMServer() as other, LLMServer() as server:
        location = f"http://127.0.0.1:{other.port}/v1/chat/completions?key=SECRET"
        server.fault = lambda _: Fault("status", status, {"location": location})
        listed = [{"kind": kind, "base_url": server.root_url if kind == "azure" else server.base_url, "api_key": "k"}]
        results = live.results(live.source(listed), *(request(number) for number in range(5)))
    assert other.count == 0
    assert server.count == 1
    assert {type(result) for result in results} == {EndpointError}
    assert f"HTTP {status}: it redirects to http://127.0.0.1:{other.port}/v1/chat/completions;" in str(results[0])
    assert "SECRET" not in str(results[0])


def test_a_redirect_within_the_server_is_followed(live: Live) -> None:
    """The same host, port and method: a path with a slash more."""
    with LLMServer("42", faults=[Fault("status", 307, {"location": "/v1/other/chat/completions"})]) as server:
        [completion] = live.run(live.source(server), request())
    assert completion.choices[0].text == "42"
    assert server.paths == ["/v1/chat/completions", "/v1/other/chat/completions"]
    assert len(set(server.keys)) == 1


@pytest.mark.parametrize(
    ("status", "location"), [(307, "/v1/chat/completions"), (302, "/login"), (307, "http://[bad"), (304, "")]
)
def test_a_redirect_that_leads_nowhere_fails_once(live: Live, status: int, location: str) -> None:
    """A loop, a page to sign in, an address that is none."""
    with LLMServer(fault=lambda _: Fault("status", status, {"location": location} if location else {})) as server:
        results = live.results(live.source(server), *(request(number) for number in range(3)))
    assert {type(result) for result in results} == {EndpointError}
    assert server.count <= 5
    assert "redirect" in str(results[0]) or f"HTTP {status}" in str(results[0])


# figures


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "many",
        {},
        {"prompt_tokens": "9", "completion_tokens": "10"},
        {"prompt_tokens": 9, "completion_tokens": "10"},
        {"prompt_tokens": 9, "completion_tokens": -10},
        {"prompt_tokens": -9, "completion_tokens": 10},
        {"prompt_tokens": 9, "completion_tokens": 10**30},
        {"prompt_tokens": 10**400, "completion_tokens": 10},
        {"prompt_tokens": 9, "completion_tokens": True},
        {"prompt_tokens": 9, "completion_tokens": 0},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 9, "completion_tokens": 0.5},
    ],
    ids=repr,
)
@pytest.mark.parametrize("n", [1, 3])
def test_a_usage_that_is_none_is_estimated_and_reported(live: Live, usage: Any, n: int) -> None:
    """No text is free, and no run costs a fortune, because a server counts wrongly: rather too much is billed."""
    with LLMServer(answer=TEXT) as server:
        changed(server, lambda reply: reply | {"usage": usage})
        source = live.source(server)
        [completion] = live.run(source, request(n=n))
    true = n * tokens(TEXT)
    assert true <= completion.usage.completion_tokens <= 2 * true
    assert completion.usage.prompt_tokens >= 9
    assert completion.usage.estimated
    assert source.ledger.spent == completion.paid >= Decimal(10 * true) / 1_000_000
    assert any("reports no usable usage; tokens are estimated" in line for line in source.account.lines())


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 9, "completion_tokens": 10.0},
        {"input_tokens": 9, "output_tokens": 10},
        {"prompt_tokens": 9, "completion_tokens": 10, "prompt_tokens_details": "none"},
        {"prompt_tokens": 9, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": -4}},
    ],
    ids=repr,
)
def test_a_usage_in_other_words_is_believed(live: Live, usage: dict[str, Any]) -> None:
    """Whole numbers as floats, the Responses API's names, details that say nothing."""
    completion = asked(live, lambda reply: reply | {"usage": usage})
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (9, 10)
    assert not completion.usage.estimated


def test_no_more_is_cached_than_there_is(live: Live) -> None:
    """A thousand cached tokens of a prompt of nine do not make a request pay us."""
    prices = PriceBook({"m": {"input": 10, "output": 10, "cached_input": 1}})
    usage = {"prompt_tokens": 9, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 1000}}
    completion = asked(live, lambda reply: reply | {"usage": usage}, prices=prices)
    assert completion.paid == Decimal(9 * 1 + 10 * 10) / 1_000_000


# choices


def test_more_answers_than_asked_for_are_kept_and_not_counted_twice(live: Live) -> None:
    """Two were asked for and five came: two are taken, five are paid for and in the cache."""
    with LLMServer(answer=["a", "b"]) as server:
        changed(server, lambda reply: reply | {"choices": (reply["choices"] * 3)[:5]})
        source = live.source(server)
        [completion] = live.run(source, request(n=2))
        [more] = live.run(live.source(server), request(n=5))
    assert [choice.text for choice in completion.choices] == ["a", "b"]
    assert len(more.choices) == 5
    assert server.count == 1


def test_fewer_answers_than_asked_for_are_completed(live: Live) -> None:
    """One of four comes each time: four requests, four answers, and a note of it."""
    with LLMServer(answer="a") as server:
        changed(server, lambda reply: reply | {"choices": reply["choices"][:1]})
        source = live.source(server)
        [completion] = live.run(source, request(n=4))
    assert len(completion.choices) == 4
    assert server.count == 4
    assert any("gives at most 1 answers per request" in note for note in source.account.notes)


@pytest.mark.parametrize("index", [0, None, "x", -1, 1e300, [], {}], ids=repr)
def test_indexes_do_not_matter(live: Live, index: Any) -> None:
    """Doubled, missing or nonsense: answers are counted by their places."""
    with LLMServer(answer=["a", "b", "c"]) as server:
        changed(server, lambda reply: reply | {"choices": [one | {"index": index} for one in reply["choices"]]})
        source = live.source(server)
        [completion] = live.run(source, request(n=3))
    assert [choice.text for choice in completion.choices] == ["a", "b", "c"]
    assert source.account.answered == 1


@pytest.mark.parametrize("content", [None, "", [], {}, 7, [{"type": "text", "text": "42"}], "\ud800 lone"], ids=repr)
def test_any_content_is_an_answer(live: Live, content: Any) -> None:
    """Null, empty, a list of parts, half of a character: it is kept, replayed and read as text."""
    with LLMServer() as server:
        message = {"role": "assistant", "content": content}
        changed(server, lambda reply: reply | {"choices": [one | {"message": message} for one in reply["choices"]]})
        source = live.source(server)
        [completion] = live.run(source, request())
        [again] = live.run(live.source(server), request())
    assert isinstance(completion.choices[0].text, str)
    assert again.choices == completion.choices
    assert server.count == 1


def test_a_filtered_answer_is_nothing_to_judge(live: Live) -> None:
    """Half an answer that a filter stopped counts as wrong, even where it happens to be right."""

    def stop(reply: dict[str, Any]) -> dict[str, Any]:
        first, *others = reply["choices"]
        return reply | {"choices": [first | {"finish_reason": "content_filter"}, *others]}

    with LLMServer(answer="42") as server:
        changed(server, stop)
        source = live.source(server)
        [completion] = live.run(source, request(n=2))
    assert [choice.judged for choice in completion.choices] == ["", "42"]
    assert completion.choices[0].text == "42"
    assert "stopped by a content filter: 0 prompts, 1 answers" in source.account.lines()


def test_a_list_of_models_has_its_time_and_its_size(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says the model is gone and then never lists the others holds nobody up."""
    monkeypatch.setattr("pytest_llmtune.completions.requester._COURTESY", 0.3)
    with LLMServer(models=["x" * 5000]) as server:
        [error] = live.results(live.source(server), request())
    assert len(str(error)) < 600
    stalled = LLMServer(fault=lambda _: Fault.http(404, "no such model", "model_not_found"))
    with stalled as server:
        monkeypatch.setattr(server, "models", _Slow(server))
        start = time.monotonic()
        [error] = live.results(live.source(server), request())
        assert time.monotonic() - start < 3
    assert "no such model" in str(error)


class _Slow(list):  # type: ignore[type-arg]
    """Models that nobody lists before the server ends."""

    def __init__(self, server: LLMServer) -> None:
        super().__init__(["m"])
        self.server = server

    def __iter__(self) -> Any:
        self.server.wait(20)
        return super().__iter__()


def test_figures_of_a_stranger_s_recording_are_read_alike() -> None:
    """What a recording says of its usage is believed no more than what a server says."""
    from pytest_llmtune.types import Exchange

    body = {"model": "m", "messages": [{"role": "user", "content": "q"}], "n": 1}
    choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}
    usage = json.loads('{"prompt_tokens": 5, "completion_tokens": 1e999}')
    found = completion_of([Exchange("POST", "u", body, {"choices": [choice], "usage": usage})], 1)
    assert found.usage.completion_tokens >= tokens(TEXT)
    assert PRICES.price("m").cost(found.usage) > 0
