"""Calls, tokens and dollars of client code, held against the limits of its marker."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.llm_server import LLMServer
from support.replaying import chat, replay_of

from pytest_llmtune.capture.client import async_client, client
from pytest_llmtune.capture.matching import ClientRequest
from pytest_llmtune.capture.meter import Limits, Meter
from pytest_llmtune.errors import BudgetExhaustedError, SuiteError
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.settings import Mode
from pytest_llmtune.types import Usage
from pytest_llmtune.wire.response import Facts, facts_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_llmtune.capture.session import Replay

PRICES = PriceBook({"small": {"input": "1", "output": "10", "cached_input": "0.5"}})
# "12345678" as question: 3 + 4 + 2 prompt tokens; the answer "12345678" 2 tokens
EACH = Decimal(9 * 1 + 2 * 10) / 10**6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test_app.cassette.json"


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(answer="12345678") as running:
        yield running


def meter(**limits: Any) -> Meter:
    return Meter(Limits.of(**limits), PRICES)


def calls(path: Path, server: LLMServer, mode: Mode, count: int, using: Meter, **parameters: Any) -> None:
    with (
        replay_of(path, mode, meter=using) as replay,
        client(replay, base_url=server.base_url, api_key="any") as asking,
    ):
        for _ in range(count):
            said = asking.chat.completions.create(**chat("12345678", **parameters))
            if parameters.get("stream"):
                list(said)


@pytest.mark.parametrize("mode", [Mode.RECORD_ALL, Mode.REPLAY, Mode.LIVE])
def test_what_is_asked_is_counted(path: Path, server: LLMServer, mode: Mode) -> None:
    """Calls, tokens by model and dollars are the same when recorded, replayed and live."""
    calls(path, server, Mode.RECORD_ALL, 3, meter())
    counted = meter()
    calls(path, server, mode, 3, counted)
    assert (counted.calls, counted.usage) == (3, {"small": Usage(27, 6)})
    assert counted.cost == 3 * EACH


@pytest.mark.parametrize("mode", [Mode.RECORD_ALL, Mode.REPLAY])
def test_the_call_past_max_calls_is_not_made(path: Path, server: LLMServer, mode: Mode) -> None:
    """The third call of two is refused before it is sent, recorded or not."""
    calls(path, server, Mode.RECORD_ALL, 3, meter())
    with pytest.raises(BudgetExhaustedError, match="call 3 passes max_calls=2"):
        calls(path, server, mode, 3, meter(max_calls=2))
    assert server.count == (5 if mode is Mode.RECORD_ALL else 3)


def test_cost_past_max_cost_fails(path: Path, server: LLMServer) -> None:
    """Both numbers are in the message; a call after the limit was passed is not made."""
    calls(path, server, Mode.RECORD_ALL, 3, meter())
    with pytest.raises(BudgetExhaustedError, match=r"2 calls cost 0\.000058 USD, more than max_cost=0\.00005"):
        calls(path, server, Mode.REPLAY, 2, meter(max_cost="0.00005"))
    with pytest.raises(BudgetExhaustedError, match="2 calls cost"):
        calls(path, server, Mode.REPLAY, 3, meter(max_cost=0.00005))


def test_a_call_that_would_pass_max_cost_is_not_sent(path: Path, server: LLMServer) -> None:
    """One that does not limit its answer is expected to cost what its model cost before; nothing passes the limit."""
    counted = meter(max_cost="0.00005")
    with pytest.raises(
        BudgetExhaustedError, match=r"call 2 may cost up to \$0\.000029, and \$0\.000021 of max_cost=0\.00005"
    ):
        calls(path, server, Mode.RECORD_ALL, 3, counted)
    assert (server.count, counted.cost) == (1, EACH)


def test_a_dear_call_is_not_sent(path: Path, server: LLMServer) -> None:
    """By what its request allows: n answers of max_tokens each."""
    with pytest.raises(
        BudgetExhaustedError, match=r"call 1 may cost up to \$8\.00.*it was not sent: give a smaller max_tokens"
    ):
        calls(path, server, Mode.RECORD_ALL, 1, meter(max_cost="0.001"), n=50, max_tokens=16000)
    assert server.count == 0


@pytest.mark.parametrize(
    ("limits", "most", "sent"),
    [
        ({"max_calls": 3}, None, 3),
        ({"max_cost": "0.00005"}, None, 1),  # the first one takes all that is left
        ({"max_cost": "0.0005"}, 20, 5),  # worst: the prompt's bytes and 20 tokens; settled: a tenth of that
        ({"max_cost": "0.001"}, 20, 20),  # three fit at once, the others once those are settled
        ({"max_cost": "0.01", "max_calls": 20}, 20, 20),
    ],
)
@pytest.mark.parametrize("how", ["tasks", "threads"])
def test_limits_hold_for_calls_at_once(
    path: Path, limits: dict[str, Any], most: int | None, sent: int, how: str
) -> None:
    """Of twenty calls in flight together as many are sent as fit, whether tasks or threads make them."""
    counted, parameters = meter(**limits), {} if most is None else {"max_tokens": most}

    async def many(replay: Replay) -> None:
        async with async_client(replay, base_url=server.base_url, api_key="any") as asking:
            made = (asking.chat.completions.create(**chat(f"1234567{i}", **parameters)) for i in range(20))
            await asyncio.gather(*made, return_exceptions=True)

    with (
        LLMServer(answer="12345678", latency=0.05) as server,
        suppress(BudgetExhaustedError),
        replay_of(path, Mode.RECORD_ALL, meter=counted) as replay,
    ):
        if how == "tasks":
            asyncio.run(many(replay))
        else:
            with client(replay, base_url=server.base_url, api_key="any") as asking, ThreadPoolExecutor(20) as pool:
                made = [
                    pool.submit(asking.chat.completions.create, **chat(f"1234567{i}", **parameters)) for i in range(20)
                ]
                wait(made)
    assert (server.count, counted.calls) == (sent, sent)


def test_limits_that_are_met_exactly_pass(path: Path, server: LLMServer) -> None:
    """At most is at most."""
    counted = meter(max_calls=2, max_cost=2 * EACH)
    calls(path, server, Mode.RECORD_ALL, 2, counted)
    assert (counted.calls, counted.cost) == (2, 2 * EACH)


def test_too_dear_a_test_is_recorded_all_the_same(path: Path, server: LLMServer) -> None:
    """What was paid for is kept: the replay fails the same way, for nothing."""
    for mode in (Mode.RECORD_ALL, Mode.REPLAY):
        with pytest.raises(BudgetExhaustedError, match="1 call costs 0"):
            calls(path, server, mode, 1, meter(max_cost="0.00001"))
    assert server.count == 1


def test_an_unknown_price_is_an_error_only_where_cost_is_asked_for(path: Path, server: LLMServer) -> None:
    """Nothing is sent that cannot be priced; without ``max_cost`` the price does not matter."""
    calls(path, server, Mode.RECORD_ALL, 1, meter(max_calls=5), model="a-model-of-our-own")
    with pytest.raises(SuiteError, match="a-model-of-our-own"):
        calls(path, server, Mode.RECORD_ALL, 1, meter(max_cost=1), model="a-model-of-our-own")
    assert server.count == 1
    with pytest.raises(SuiteError, match="the price of small is not known"):
        calls(path, server, Mode.RECORD_ALL, 1, Meter(Limits.of(max_cost=1)))


def test_a_stream_without_usage_cannot_be_judged(path: Path, server: LLMServer) -> None:
    """Never a silent 0: the message says what to ask for, and with that it is judged."""
    with pytest.raises(SuiteError, match="include_usage"):
        calls(path, server, Mode.RECORD_ALL, 1, meter(max_cost=1), stream=True)
    counted = meter(max_cost=1)
    calls(path, server, Mode.RECORD_ALL, 1, counted, stream=True, stream_options={"include_usage": True})
    assert counted.cost == EACH
    calls(path, server, Mode.RECORD_ALL, 1, meter(max_calls=1), stream=True)


def test_cached_tokens_have_their_price(path: Path) -> None:
    """The part of the prompt that was cached is billed at its own price."""
    counted = meter()
    with LLMServer(answer="12345678", cached_tokens=4) as server:
        calls(path, server, Mode.RECORD_ALL, 1, counted)
    assert counted.cost == (Decimal(5) + Decimal("0.5") * 4 + 20) / 10**6


def test_the_responses_api_is_counted(path: Path, server: LLMServer) -> None:
    """Its usage has other names."""
    counted = meter()
    with (
        replay_of(path, Mode.RECORD_ALL, meter=counted) as replay,
        client(replay, base_url=server.base_url, api_key="any") as asking,
    ):
        asking.responses.create(model="small", input="12345678")
        list(asking.responses.create(model="small", input="12345678", stream=True))
    assert counted.usage == {"small": Usage(18, 4)}


@pytest.mark.parametrize("streamed", [False, True])
def test_every_choice_is_counted_where_the_server_counts_one(path: Path, streamed: bool) -> None:
    """llama.cpp reports the tokens of one choice of n: recorded, replayed and live, all of them are paid for."""
    more = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    with LLMServer(answer=["12345678" * 4, "12345678" * 4], usage="llama.cpp") as server:
        for mode in (Mode.RECORD_ALL, Mode.REPLAY, Mode.LIVE):
            counted = meter(max_cost=Decimal(9 + 10 * 16) / 10**6)
            calls(path, server, mode, 1, counted, n=2, **more)
            assert counted.usage["small"].completion_tokens == 16
        with pytest.raises(BudgetExhaustedError, match=r"1 call costs 0\.000169 USD, more than max_cost=0\.000168"):
            calls(path, server, Mode.REPLAY, 1, meter(max_cost=Decimal("0.000168")), n=2, **more)


def test_other_requests_are_no_calls(path: Path, server: LLMServer) -> None:
    """A list of models is no completion: it is recorded, does not count, and costs nothing."""
    counted = meter(max_cost=0)
    with (
        replay_of(path, Mode.RECORD_ALL, meter=counted) as replay,
        client(replay, base_url=server.base_url, api_key="any") as asking,
    ):
        assert [model.id for model in asking.models.list()] == ["any"]
    assert (counted.calls, counted.cost, path.exists()) == (0, 0, True)


@pytest.mark.parametrize("value", [-1, "1 USD", "nan", float("inf"), True, [1], ""])
def test_useless_max_cost_is_refused(value: Any) -> None:
    """The message names the key, the value and what is valid."""
    with pytest.raises(SuiteError, match=r"llm_replay: max_cost is .*; valid: an amount of USD from 0"):
        Limits.of(max_cost=value)


@pytest.mark.parametrize("value", [-1, 1.5, "3", True])
def test_useless_max_calls_is_refused(value: Any) -> None:
    """The message names the key, the value and what is valid."""
    with pytest.raises(SuiteError, match=r"llm_replay: max_calls is .*; valid: a whole number of calls from 0"):
        Limits.of(max_calls=value)


def test_max_cost_is_exact() -> None:
    """A float is taken as it is written: 0.1 is a tenth."""
    assert Limits.of(max_cost=0.1).max_cost == Decimal("0.1")


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", Facts()),
        ("not JSON", Facts()),
        ("[1]", Facts()),
        ('{"usage": {"prompt_tokens": -1}}', Facts()),
        ('{"usage": {"prompt_tokens": true}}', Facts()),
        ('{"usage": {"prompt_tokens": "9"}}', Facts()),
        ('{"usage": 3, "model": null}', Facts()),
        ('{"model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3}}', Facts("m", Usage(3, 0))),
        ('{"choices": [{"index": 1, "finish_reason": "b"}, {"finish_reason": "a"}]}', Facts("", None, ("a", "b"))),
        ('{"object": "response", "status": "completed", "model": "m"}', Facts("m", None, ("completed",))),
        ('{"choices": [3, null, {"finish_reason": null}]}', Facts()),
        ('data: {"model": "m"}\n\ndata: {"usage": {"input_tokens": 2, "output_tokens": 1}}\n', Facts("m", Usage(2, 1))),
        ('data: {"response": {"model": "m", "usage": {"input_tokens": 2}}}', Facts("m", Usage(2, 0))),
        ("data: {", Facts()),
    ],
)
def test_facts_of_a_response(text: str, facts: Facts) -> None:
    """Only what a response really says; nonsense says nothing."""
    assert facts_of(text) == facts


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["usage", "choices", "prompt_tokens", "index", "finish_reason", "model", "response", "object"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(json_values, st.booleans())
def test_no_response_breaks_the_meter(value: Any, streamed: bool) -> None:
    """Whatever JSON a server sends, it is counted, or said to be unreadable: never free."""
    import json

    text = ("data: " if streamed else "") + json.dumps(value)
    counted = meter()
    counted.answered(
        counted.enter(ClientRequest.of("POST", "http://h/v1/chat/completions", '{"model": "small"}')), 200, text
    )
    assert counted.calls == 1
    with suppress(SuiteError):  # it cannot be judged
        assert counted.cost > 0
