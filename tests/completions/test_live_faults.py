"""Every way a server can fail, on a real connection: survived, accounted for, or given up with one clear error."""

from __future__ import annotations

import asyncio
import time
import traceback
from decimal import Decimal
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
from support.live import Live, request
from support.llm_server import Fault, LLMServer, prompt_tokens, refused_url

from pytest_llmtune.errors import CompletionError, EndpointError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.recording import Recording

if TYPE_CHECKING:
    from pathlib import Path

SURVIVED = {
    "429": Fault.busy(),
    "408": Fault.http(408),
    "409": Fault.http(409),
    "500": Fault.http(500),
    "502": Fault.http(502),
    "503": Fault.http(503),
    "529": Fault.http(529),
    "reset": Fault("reset"),
    "reset in mid-body": Fault("reset_mid_body"),
    "truncated JSON": Fault("truncated"),
    "no JSON": Fault("not_json"),
    "empty choices": Fault("empty_choices"),
}


@pytest.mark.parametrize("fault", SURVIVED.values(), ids=SURVIVED.keys())
def test_a_passing_fault_is_survived(live: Live, fault: Fault) -> None:
    """The request is sent again, answered once, and the account tells of one retry."""
    with LLMServer(answer="42", faults=[fault]) as server:
        source = live.source(server)
        [completion] = live.run(source, request())
    assert [choice.text for choice in completion.choices] == ["42"]
    assert server.count == 2
    assert sum(source.account.retried.values()) == 1
    assert not source.account.given_up
    assert len(source.cache.get(request().key)) == 1
    assert source.ledger.spent - source.ledger.uncertain == completion.paid


@pytest.mark.parametrize("kind", ["408", "502", "reset in mid-body", "truncated JSON", "no JSON", "empty choices"])
def test_what_may_have_been_billed_is_counted_as_spent(live: Live, kind: str) -> None:
    """The provider may have done the work: the worst case stays in the ledger, as uncertain."""
    with LLMServer(answer="42", faults=[SURVIVED[kind]]) as server:
        source = live.source(server)
        live.run(source, request())
    assert source.ledger.uncertain == source.account.uncertain > 10 * 20 / Decimal(1_000_000)
    assert "may have cost up to $0.000" in "".join(source.account.lines())


@pytest.mark.parametrize("kind", ["429", "500", "503", "529"])
def test_a_refusal_before_any_work_costs_nothing(live: Live, kind: str) -> None:
    """A rate limit and an overloaded server bill nothing."""
    with LLMServer(answer="42", faults=[SURVIVED[kind]] * 3) as server:
        source = live.source(server)
        live.run(source, request())
    assert source.ledger.uncertain == 0


def test_a_stalled_answer_times_out_and_is_asked_again(live: Live) -> None:
    """The time for one HTTP request is the suite's timeout; the stalled one may have been billed."""
    with LLMServer(answer="42", faults=[Fault("stall")]) as server:
        source = live.source(server, timeout=0.2)
        start = time.monotonic()
        [completion] = live.run(source, request())
        assert time.monotonic() - start < 2
    assert completion.choices[0].text == "42"
    assert source.account.retried == {"timeout": 1}
    assert source.ledger.uncertain > 0


def test_an_answer_that_trickles_times_out(live: Live) -> None:
    """The timeout is for the whole answer, not for each byte of it."""
    with LLMServer(faults=[Fault("drip")]) as server:
        start = time.monotonic()
        [error] = live.results(live.source(server, timeout=0.3, attempts=1), request())
        assert time.monotonic() - start < 2
    assert "no answer in time" in str(error)


def test_nobody_listens(live: Live) -> None:
    """A refused connection is tried again, costs nothing, and is then given up with the reason."""
    source = live.source(refused_url(), attempts=3)
    [error] = live.results(source, request())
    assert type(error) is CompletionError
    assert "m: given up after" in str(error)
    assert "3 faults; the last: " in str(error)
    assert source.account.retried == {"no connection": 2}
    assert source.account.given_up == {"no connection": 1}
    assert source.ledger.spent == 0


# waiting


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"retry_after": "1"}, 1.0),
        ({"retry_after_ms": "300"}, 0.3),
        ({"retry_after": "60", "retry_after_ms": "300"}, 0.3),
        ({"retry_after": "nonsense"}, 0.0),
        ({"retry_after": formatdate(time.time() - 5, usegmt=True)}, 0.0),
    ],
    ids=["seconds", "milliseconds", "both", "nonsense", "a date in the past"],
)
def test_the_server_says_when_to_come_back(live: Live, headers: dict[str, str], least: float) -> None:
    """Retry-After is honoured in every form."""
    with LLMServer(faults=[Fault.busy(**headers)]) as server:
        start = time.monotonic()
        live.run(live.source(server), request())
        assert least <= time.monotonic() - start < least + 0.8


def test_an_overloaded_server_says_when_to_come_back(live: Live) -> None:
    """Retry-After counts with status 503 too, and holds for all requests."""
    with LLMServer(faults=[Fault("status", 503, {"retry-after-ms": "300"})]) as server:
        start = time.monotonic()
        live.run(live.source(server), *(request(number) for number in range(4)))
        assert 0.3 <= time.monotonic() - start < 1.5
    assert server.count == 5


def test_nobody_waits_longer_than_patience_lasts(live: Live) -> None:
    """A Retry-After past the deadline of the request is given up at once."""
    with LLMServer(faults=[Fault.busy(retry_after="3600")]) as server:
        start = time.monotonic()
        results = live.results(live.source(server, patience=5.0), *(request(number) for number in range(5)))
        assert time.monotonic() - start < 1
    assert server.count == 1
    assert all("HTTP 429: Rate limit reached" in str(result) for result in results)


def test_nobody_begins_to_wait_for_longer_than_patience_lasts(live: Live) -> None:
    """A request that comes while the only endpoint rests for an hour is given up at once too."""
    with LLMServer(faults=[Fault.busy(retry_after="3600")]) as server:
        source = live.source(server, patience=5.0)

        async def work() -> list[str]:
            found = []
            for number in range(2):
                with pytest.raises(CompletionError) as caught:
                    await asyncio.wait_for(source.complete(request(number)), 2)
                found.append(str(caught.value))
            await source.aclose()
            return found

        first, second = asyncio.run(work())
    assert "HTTP 429: Rate limit reached" in first
    assert "HTTP 429: Rate limit reached" in second
    assert server.count == 1


@pytest.mark.parametrize("headers", [{"retry_after": "0"}, {"retry_after": "-3"}, {"retry_after_ms": "1"}], ids=str)
def test_a_server_that_says_at_once_again_and_again_is_not_stormed(live: Live, headers: dict[str, str]) -> None:
    """Waits of next to nothing are kept to three times; then they are ours."""
    with LLMServer(fault=lambda _: Fault.busy(**headers)) as server:
        results = live.results(live.source(server, patience=1.0, pause=0.1), *(request(n) for n in range(8)))
    assert {type(result) for result in results} == {CompletionError}
    assert server.count < 30


@pytest.mark.parametrize("retry_after", ["3600", formatdate(time.time() + 3600, usegmt=True)], ids=["seconds", "date"])
def test_an_hour_of_waiting_does_not_outlast_the_run(live: Live, retry_after: str) -> None:
    """The deadline of the run is kept where the server wants an hour, with all the patience in the world."""
    with LLMServer(fault=lambda _: Fault.busy(retry_after=retry_after)) as server:
        start = time.monotonic()
        results = live.results(live.source(server, patience=9000.0, deadline=1.0), *(request(n) for n in range(40)))
        assert time.monotonic() - start < 3
    assert server.count == 1
    assert "Rate limit reached; the time of the run is up" in str(results[0])


def test_a_limit_a_minute_does_not_outlast_the_run(live: Live) -> None:
    """Two requests a minute and a deadline of a second: one is asked, the others are given up at once."""
    with LLMServer() as server:
        listed = [{"base_url": server.base_url, "requests_per_minute": 2}]
        source = live.source(listed, deadline=1.0)
        start = time.monotonic()
        results = live.results(source, *(request(number) for number in range(20)))
        assert time.monotonic() - start < 3
    assert [type(result).__name__ for result in results].count("Completion") == 1
    assert server.count == 1
    assert "the time of the run is up (--llm-deadline" in str(results[-1])
    assert source.account.given_up == {"deadline": 19}


def test_a_silent_server_is_waited_for_together(live: Live) -> None:
    """No answer at all: the requests wait side by side, and not each for the one before it."""
    with LLMServer(fault=lambda _: Fault("stall")) as server:
        start = time.monotonic()
        results = live.results(
            live.source(server, timeout=0.4, attempts=2, concurrency=16), *(request(number) for number in range(16))
        )
        assert time.monotonic() - start < 5
    assert {type(result) for result in results} == {CompletionError}
    assert server.peak > 8


def test_rate_limits_do_not_use_up_the_attempts(live: Live) -> None:
    """Twenty refusals in a row are waited out where there is time."""
    with LLMServer(faults=[Fault.busy(retry_after_ms="2")] * 20) as server:
        source = live.source(server, attempts=2)
        live.run(source, request())
    assert source.account.retried == {"rate limit (429)": 20}


def test_faults_are_retried_a_limited_number_of_times(live: Live) -> None:
    """After the last attempt the example is unknown; the next one is not affected."""
    broken = Fault.http(500, "database is down")
    with LLMServer(fault=lambda body: broken if body["messages"][0]["content"] == "a" else None) as server:
        source = live.source(server, attempts=4, concurrency=1)
        error, completion = live.results(source, request("a"), request("7"))
    assert type(error) is CompletionError
    assert "HTTP 500: database is down" in str(error)
    assert completion.choices[0].text == "ok"
    assert server.count == 5
    assert source.account.lines() == (
        "requests: 5 sent, 1 answered with 1 samples",
        "retried: 3 x server error",
        "given up: 1 x server error",
    )


def test_the_run_has_a_deadline(live: Live) -> None:
    """When the time is up, what is in flight is given up, and nothing more is sent."""
    with LLMServer(latency=0.25) as server:
        source = live.source(server, deadline=0.6, concurrency=1)
        start = time.monotonic()
        results = live.results(source, *(request(number) for number in range(9)))
        assert time.monotonic() - start < 2
    kinds = [type(result).__name__ for result in results]
    assert kinds[0] == "Completion"
    assert kinds[-1] == "CompletionError"
    assert "the time of the run is up" in str(results[-1])
    assert server.count <= 4


def test_answers_before_the_failure_are_kept(live: Live) -> None:
    """A request that is given up half way has its answers in the cache: asked again, only the rest is paid for."""
    with LLMServer(max_n=2, faults=[None, Fault.http(500)]) as server:
        source = live.source([{"base_url": server.base_url, "max_n": 2}], attempts=1, concurrency=1)
        [error] = live.results(source, request(n=4))
        [completion] = live.run(live.source(server), request(n=4))
    assert isinstance(error, CompletionError)
    assert [body["n"] for body in server.answered] == [2, 2]
    assert len(completion.choices) == 4


def test_concurrency_adapts_to_what_the_server_takes(live: Live) -> None:
    """A server that takes four at once gets eighty requests through it, with few refusals."""
    with LLMServer(latency=0.02) as server:
        server.fault = lambda _: Fault.busy(retry_after_ms="10") if server.in_flight > 4 else None
        source = live.source(server, concurrency=32)
        completions = live.run(source, *(request(number) for number in range(80)))
    assert len(completions) == 80
    assert len(server.answered) == 80
    assert source.account.retried["rate limit (429)"] < 160


def test_a_storm_of_faults_loses_and_doubles_nothing(live: Live) -> None:
    """A third of all requests fails in some way: every answer arrives, and each is paid for once."""
    rates = {
        "429": 0.1,
        "503": 0.05,
        "500": 0.05,
        "reset": 0.04,
        "reset_mid_body": 0.04,
        "truncated": 0.03,
        "not_json": 0.03,
    }
    with LLMServer(answer=lambda body: body["messages"][0]["content"], fault_rate=rates) as server:
        source = live.source(server, concurrency=32)
        completions = live.run(source, *(request(f"question {number}", 2) for number in range(150)))
    assert [[c.text for c in done.choices] for done in completions] == [[f"question {n}"] * 2 for n in range(150)]
    assert len(server.answered) == source.account.answered == 150
    assert source.account.sent == server.count
    assert sum(source.account.retried.values()) == server.count - 150 > 20
    assert source.ledger.spent - source.ledger.uncertain == sum(done.paid for done in completions)


# content filters


def test_a_filtered_answer_is_an_answer(live: Live) -> None:
    """The finish reason says so; it is paid for like any other."""
    with LLMServer(faults=[Fault("content_filter")]) as server:
        [completion] = live.run(live.source(server), request(n=2))
    assert [(choice.text, choice.finish_reason) for choice in completion.choices] == [("", "content_filter")] * 2
    assert server.count == 1


def test_a_filtered_prompt_is_n_refusals(live: Live, tmp_path: Path) -> None:
    """Azure's status 400 is no failure of the request: it is cached, recorded, replayed, and reported as refused."""
    with LLMServer(faults=[Fault.azure_filter()]) as server:
        source = live.source(server)
        [completion] = live.run(source, request(n=3))
        live.run(live.source(server), request(n=3))
    assert server.count == 1
    assert [(choice.text, choice.finish_reason) for choice in completion.choices] == [("", "content_filter")] * 3
    assert source.account.refused == 1
    assert completion.usage.estimated
    assert completion.usage.prompt_tokens >= prompt_tokens(request().body["messages"]) - 2
    Recording.write(tmp_path / "r.json", completion.exchanges)
    replayed = Recording.load(tmp_path / "r.json").lookup(request(n=3))
    assert replayed is not None
    assert (replayed.choices, replayed.usage) == (completion.choices, completion.usage)


# what no retry can mend


def test_a_bad_request_fails_at_once(live: Live) -> None:
    """One example's prompt is too long: it is unknown, the others go on."""
    with LLMServer(faults=[Fault.http(400, "maximum context length is 8192 tokens")]) as server:
        source = live.source(server, concurrency=1)
        error, completion = live.results(source, request("long"), request("short"))
    assert type(error) is CompletionError
    assert str(error).endswith("HTTP 400: maximum context length is 8192 tokens")
    assert completion.choices
    assert server.count == 2


def test_a_wrong_key_fails_once(live: Live) -> None:
    """Twenty requests, one refusal; the message names where the key came from, and never the key."""
    with LLMServer(api_key="right") as server:
        results = live.results(live.source(server), *(request(number) for number in range(20)))
    assert {type(result) for result in results} == {EndpointError}
    assert server.count == 1
    message = str(results[0])
    assert "key refused (OPENAI_API_KEY): HTTP 401: Incorrect API key provided" in message
    assert "cdef" not in message
    assert "sk-" not in message


def test_a_gone_model_fails_once_with_the_models_there_are(live: Live) -> None:
    """Twenty requests, one refusal, and the list of models."""
    with LLMServer(models=["small", "large"]) as server:
        results = live.results(live.source(server), *(request(number) for number in range(20)))
    assert {type(result) for result in results} == {EndpointError}
    assert server.count == 1
    assert "The model `m` does not exist" in str(results[0])
    assert "it has: small, large" in str(results[0])


def test_an_empty_account_fails_once(live: Live) -> None:
    """No quota is no rate limit: waiting does not help."""
    with LLMServer(fault=lambda _: Fault.http(429, "You exceeded your current quota", "insufficient_quota")) as server:
        results = live.results(live.source(server), *(request(number) for number in range(5)))
    assert {type(result) for result in results} == {EndpointError}
    assert server.count == 2  # one such reply may be a mistake of the server's
    assert "no quota left (OPENAI_API_KEY)" in str(results[0])


def test_a_router_s_error_with_status_200_is_an_error(live: Live) -> None:
    """Some routers answer 200 with an error inside."""
    with LLMServer(answer="ok") as server:
        whole = server.completion
        replies = iter([{"error": {"code": 502, "message": "upstream died"}}])
        server.completion = lambda body, answers: next(replies, None) or whole(body, answers)
        source = live.source(server)
        live.run(source, request())
    assert source.account.retried == {"server error": 1}


# secrets


def everything_shown(error: BaseException) -> str:
    """What ``pytest --showlocals`` could show of an error: all frames with their locals, causes and contexts too."""
    seen: set[int] = set()
    parts: list[str] = []

    def walk(one: BaseException | None) -> None:
        if one is None or id(one) in seen:
            return
        seen.add(id(one))
        parts.append("".join(traceback.format_exception(one)))
        for frame, _ in traceback.walk_tb(one.__traceback__):
            parts.extend(f"{name}={value!r}" for name, value in frame.f_locals.items())
        walk(one.__cause__)
        walk(one.__context__)

    walk(error)
    return "\n".join(parts)


@pytest.mark.parametrize(
    "options",
    [{"api_key": "right"}, {"models": ["other"]}, {"fault_rate": {"reset": 1.0}}, {"fault_rate": {"400": 1.0}}],
    ids=["wrong key", "no model", "reset", "bad request"],
)
@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_no_error_shows_the_key(live: Live, options: dict[str, Any], kind: str) -> None:
    """Neither the message nor any local of any frame of its traceback holds the key."""
    key = "sk-live-SECRET-0123456789"
    with LLMServer(**options) as server:
        listed = [{"kind": kind, "base_url": server.root_url if kind == "azure" else server.base_url, "api_key": key}]
        source = live.source(listed, attempts=2)
        [error] = live.results(source, request())
        assert server.keys[0] == key
    assert isinstance(error, CompletionError)
    shown = everything_shown(error) + repr(source) + repr(source.endpoints)
    assert "SECRET" not in shown
    assert "Secret(endpoints[0].api_key)" in shown


def test_an_error_inside_the_client_shows_no_key_either(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the client raises, its frames, which hold the key, do not get out."""
    import openai

    def build(self: Any, options: Any, **_: Any) -> None:
        headers = {"authorization": f"Bearer {self.api_key}"}
        raise RuntimeError(f"no request from {len(headers)} headers and {options.url}")

    monkeypatch.setattr(openai.AsyncOpenAI, "_build_request", build)
    source = live.source("http://127.0.0.1:9/v1", environ={"OPENAI_API_KEY": "sk-live-SECRET-0123456789"})
    [error] = live.results(source, request())
    assert "RuntimeError: no request from 1 headers" in str(error)
    assert "SECRET" not in everything_shown(error)


def test_a_budget_keeps_uncertain_spend(live: Live) -> None:
    """Broken answers eat up the budget, rather than let it be passed unseen."""
    with LLMServer(fault_rate={"reset_mid_body": 1.0}) as server:
        source = live.source(server, ledger=Ledger(Decimal("0.002")), attempts=99)
        [error] = live.results(source, request())
    assert type(error).__name__ == "BudgetExhaustedError"
    assert 0 < source.ledger.uncertain <= Decimal("0.002")
    assert server.count < 10
