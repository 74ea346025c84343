"""What a call bills, in the shape of whichever provider; an answer that cannot be read is never free."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import data_snapshot
from hypothesis import given
from hypothesis import strategies as st
from support.provider_bodies import ASK, CASES, CHAT, Case, chat, chunks, plain, sse

from pytest_llmtune.capture.matching import ClientRequest
from pytest_llmtune.capture.meter import Limits, Meter
from pytest_llmtune.errors import BudgetExhaustedError, SuiteError
from pytest_llmtune.money.prices import Price, PriceBook
from pytest_llmtune.types import Exchange, Usage
from pytest_llmtune.wire.billing import asks_a_model, model_asked, read_bill
from pytest_llmtune.wire.response import tier_of, usage_of
from pytest_llmtune.wire.tokens import completion_of

HOST = "http://127.0.0.1:8080"
ASK_ONE = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
PER = {"audio_hours": 3600, "web_searches_kcount": 1000}


def asked(case: Case) -> ClientRequest:
    body = case.request if f"/{case.model}" in case.path else {**case.request, "model": case.model}
    return ClientRequest.of("POST", HOST + case.path, json.dumps(body))


def expected(case: Case) -> Decimal:
    """USD by genai-prices' rates, multiplied here."""
    table = data_snapshot.get_snapshot()
    model = {"azure chat": "gpt-4o-2024-08-06", "openrouter chat": "gpt-4o-mini"}.get(case.name, case.model)
    _, info = table.find_provider_model(model, None, case.provider, None)
    rates = vars(info.get_prices(datetime.now(UTC).replace(hour=12)))

    def rate(name: str) -> Decimal:
        found = rates[name]
        return found if isinstance(found, Decimal) else found.base

    return sum(
        (rate(name) * Decimal(str(count)) / PER.get(name, 10**6) for name, count in case.billed.items()), Decimal(0)
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_provider_is_metered_at_what_it_bills(case: Case) -> None:
    """Tokens and dollars of a call whose address says nothing, by the shape of its answer and the model's name."""
    meter = Meter(Limits.of(max_cost=10), PriceBook())
    meter.answered(meter.enter(asked(case)), 200, case.answer)
    assert meter.cost == expected(case) > 0
    usage = sum(meter.usage.values(), Usage(0, 0))
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.cache_write_tokens) == case.tokens


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_limit_just_below_the_bill_is_passed(case: Case) -> None:
    """And the bill itself is within its limit."""
    for limit, passes in ((expected(case), True), (expected(case) - Decimal("1e-12"), False)):
        meter = Meter(Limits.of(max_cost=limit), PriceBook())
        meter.answered(meter.enter(asked(case)), 200, case.answer)
        if passes:
            meter.check()
        else:
            with pytest.raises(BudgetExhaustedError, match="1 call costs"):
                meter.check()


UNREADABLE = {
    "no JSON": "<html>",
    "nothing": "",
    "no usage": json.dumps({"id": "x", "choices": [{"message": {"content": "hello"}}]}),
    "a stream without usage": chunks("gpt-4o-mini", {}),
    "zeros": chat("gpt-4o-mini", plain(0, 0)),
    "no completion for a text": chat("gpt-4o-mini", plain(10, 0)),
    "negative": chat("gpt-4o-mini", plain(-5, 10)),
    "absurd": chat("gpt-4o-mini", plain(10**15, 10)),
    "text": chat("gpt-4o-mini", {"prompt_tokens": "10", "completion_tokens": "3"}),
    "fractions": chat("gpt-4o-mini", {"prompt_tokens": 10.5, "completion_tokens": 3}),
    "a list": "[1, 2]",
    "no output for a tool call": chat("gpt-4o-mini", plain(10, 0), tools=True),
    "an event that is no JSON": chunks("gpt-4o-mini", plain(10, 3)) + 'data: {"usage": {"completion_tokens": 99\n\n',
}


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_cannot_be_judged(answer: str) -> None:
    """The limit is not met by default: the message names the model and the route."""
    meter = Meter(Limits.of(max_cost=10), PriceBook())
    meter.answered(
        meter.enter(ClientRequest.of("POST", HOST + CHAT, json.dumps({**ASK, "model": "gpt-4o-mini"}))), 200, answer
    )
    with pytest.raises(SuiteError, match=r"max_cost=10 cannot be judged: .*gpt-4o-mini at /v1/chat/completions"):
        meter.check()
    with pytest.raises(SuiteError, match="cannot be judged"):  # nor is anything more sent
        meter.enter(ClientRequest.of("POST", HOST + CHAT, "{}"))


COUNT = re.compile(r'"\w*(?:[tT]okens?|[tT]okenCount|_count|seconds)"\s*:\s*(-?\d+(?:\.\d+)?)')


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case.answer, str)], ids=lambda case: case.name)
@pytest.mark.parametrize("damage", ["-5", '"12"', '"many"', "true", "[]", "1e300", "NaN", "99999999999999999999"])
def test_a_damaged_count_makes_no_call_cheaper(case: Case, damage: str) -> None:
    """Whichever count of a usage is none, the call cannot be judged: the others would be too little."""
    assert isinstance(case.answer, str)
    for count in COUNT.finditer(case.answer):
        meter = Meter(Limits.of(max_cost=1000), PriceBook())
        answer = case.answer[: count.start(1)] + damage + case.answer[count.end(1) :]
        meter.answered(meter.enter(asked(case)), 200, answer)
        with pytest.raises(SuiteError, match="cannot be judged"):
            meter.check()


@pytest.mark.parametrize(
    ("path", "request_body"),
    [
        ("/v1beta/models/gemini-2.5-flash:generateContent", {"contents": []}),
        ("/model/amazon.nova-lite-v1:0/converse", ASK),
        ("/v1/messages", {**ASK, "model": "claude-sonnet-4-5"}),
        ("/v2/chat", {**ASK, "model": "command-a-03-2025"}),
        ("/api/chat", {**ASK, "model": "llama3.2"}),
        ("/v1/images/generations", {"model": "dall-e-3", "prompt": "a cat"}),
        ("/v1/audio/speech", {"model": "gpt-4o-mini-tts", "input": "hello"}),
        ("/generate", {"inputs": "Hi"}),
        ("/v1/batches", {"input_file_id": "file-1", "endpoint": "/v1/chat/completions"}),
        ("/v1/threads/t/runs", {"assistant_id": "a"}),
        ("/some/new/api", {"messages": []}),
    ],
)
def test_no_provider_is_free(path: str, request_body: dict[str, Any]) -> None:
    """An answer that says nothing fails the limit, whoever gave it."""
    meter = Meter(Limits.of(max_cost=10), PriceBook())
    meter.answered(meter.enter(ClientRequest.of("POST", HOST + path, json.dumps(request_body))), 200, '{"ok": true}')
    with pytest.raises(SuiteError, match="cannot be judged"):
        meter.check()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models", ""),
        ("GET", "/v1/responses/resp_1", ""),
        ("POST", "/v1/messages/count_tokens", '{"model": "claude-sonnet-4-5", "messages": []}'),
        ("POST", "/v1/models/gemini-2.5-flash:countTokens", '{"contents": []}'),
        ("POST", "/v1/moderations", '{"model": "omni-moderation-latest", "input": "x"}'),
        ("POST", "/v1/files", "--boundary"),
        ("POST", "/hooks/chat", '{"text": "done"}'),
        ("DELETE", "/v1/files/f", ""),
    ],
)
def test_what_nobody_bills_costs_nothing(method: str, path: str, body: str) -> None:
    """Lists, counts, files, and calls that ask no model."""
    assert not asks_a_model(method, HOST + path, body)
    meter = Meter(Limits.of(max_cost=0), PriceBook())
    meter.answered(meter.enter(ClientRequest.of(method, HOST + path, body)), 200, '{"object": "list", "data": []}')
    meter.check()
    assert meter.cost == 0


def test_a_line_separator_in_a_text_is_no_end_of_line() -> None:
    """U+2028 is written as it is in the JSON of many servers; the event with the usage may hold it too."""
    event = {"model": "gpt-4o-mini", "choices": [{"delta": {"content": "a\u2028b\x85"}}], "usage": plain(10, 3)}
    stream = f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\ndata: [DONE]\r\n\r\n"
    bill = read_bill("POST", HOST + CHAT, json.dumps({**ASK, "model": "gpt-4o-mini"}), stream)
    assert bill is not None
    assert bill.usage is not None
    assert (bill.usage.prompt_tokens, bill.usage.completion_tokens) == (10, 3)


def test_an_error_is_free() -> None:
    """And no call: whether recorded or live, a refused request was not served."""
    meter = Meter(Limits.of(max_cost=0, max_calls=1), PriceBook())
    meter.answered(
        meter.enter(ClientRequest.of("POST", HOST + CHAT, json.dumps({**ASK, "model": "gpt-4o-mini"}))), 429, "{}"
    )
    meter.check()
    assert meter.calls == 0


def test_own_prices_need_no_table() -> None:
    """A model of one's own, cache writes included, in any provider's shape."""
    own = PriceBook({"mine": {"input": 1, "output": 10, "cached_input": "0.1", "cache_write": 2}})
    usage = {
        "input_tokens": 20,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 5000,
        "output_tokens": 70,
    }
    answer = json.dumps({"type": "message", "model": "mine", "content": [], "usage": usage})
    meter = Meter(Limits.of(max_cost=10), own)
    meter.answered(
        meter.enter(ClientRequest.of("POST", HOST + "/v1/messages", json.dumps({**ASK, "model": "mine"}))), 200, answer
    )
    assert meter.cost == (Decimal(20) + 2 * 300 + Decimal("0.1") * 5000 + 10 * 70) / 10**6


def test_a_model_that_costs_nothing_needs_no_usage() -> None:
    """As Ollama's, which leaves out the tokens of a prompt that it has cached."""
    free = PriceBook({"llama3.2": {"input": 0, "output": 0}})
    meter = Meter(Limits.of(max_cost=0), free)
    meter.answered(
        meter.enter(ClientRequest.of("POST", HOST + "/api/chat", json.dumps({**ASK, "model": "llama3.2"}))), 200, "{}"
    )
    assert meter.cost == 0
    counted = Meter(Limits.of(max_cost=1), PriceBook({"llama3.2": {"input": 1, "output": 10}}))
    lines = [{"message": {"content": "hi"}, "done": False}, {"done": True, "prompt_eval_count": 26, "eval_count": 298}]
    answer = "".join(json.dumps({"model": "llama3.2", **line}) + "\n" for line in lines)
    body = json.dumps({**ASK, "model": "llama3.2"})
    counted.answered(counted.enter(ClientRequest.of("POST", HOST + "/api/chat", body)), 200, answer)
    assert counted.cost == Decimal(26 + 10 * 298) / 10**6


def test_a_service_tier_has_its_own_price() -> None:
    """As served: OpenAI's priority costs more, and its flex less, than the default."""
    costs = {}
    for tier in ("default", "priority", "flex"):
        meter = Meter(Limits.of(), PriceBook())
        body = json.dumps({**ASK, "model": "gpt-5-mini"})
        meter.answered(
            meter.enter(ClientRequest.of("POST", HOST + CHAT, body)),
            200,
            chat("gpt-5-mini", plain(800, 40), service_tier=tier),
        )
        costs[tier] = meter.cost
    assert costs["flex"] < costs["default"] < costs["priority"]


def metered(path: str, model: str, answer: str, prices: PriceBook | None = None, **request: Any) -> Decimal:
    """USD of one answered call."""
    meter = Meter(Limits.of(max_cost=10), prices or PriceBook())
    body = {**ASK, "model": model, **request}
    meter.answered(meter.enter(ClientRequest.of("POST", HOST + path, json.dumps(body))), 200, answer)
    return meter.cost


GEMINI_USAGE = {"promptTokenCount": 900, "candidatesTokenCount": 50, "totalTokenCount": 950}
CONVERSE = {"output": {}, "stopReason": "end_turn", "usage": {"inputTokens": 9, "outputTokens": 5, "totalTokens": 14}}
CLAUDE_USAGE = {"input_tokens": 20, "output_tokens": 70}


@pytest.mark.parametrize(
    ("path", "model", "answer"),
    [
        (CHAT, "o3-pro", json.loads(chat("o3-pro", plain(800, 40), service_tier="priority"))),
        (CHAT, "gpt-5-mini", json.loads(chat("gpt-5-mini", plain(800, 40), service_tier="turbo"))),
        ("/v1/messages", "claude-opus-4-6", {"type": "message", "usage": {**CLAUDE_USAGE, "speed": "fast"}}),
        ("/v1/messages", "claude-opus-4-6", {"type": "message", "usage": {**CLAUDE_USAGE, "inference_geo": "us"}}),
        (
            "/v1beta/models/gemini-2.5-pro:generateContent",
            "gemini-2.5-pro",
            {"usageMetadata": {**GEMINI_USAGE, "trafficType": "ON_DEMAND_PRIORITY"}},
        ),
        (
            "/v1beta/models/gemini-2.5-pro:generateContent",
            "gemini-2.5-pro",
            {"usageMetadata": {**GEMINI_USAGE, "serviceTier": "priority"}},
        ),
        ("/model/eu.amazon.nova-pro-v1:0/converse", "", {**CONVERSE, "serviceTier": {"type": "priority"}}),
    ],
)
def test_a_service_tier_without_a_price_is_an_error(path: str, model: str, answer: dict[str, Any]) -> None:
    """Whatever a provider calls it: it may cost several times as much; one's own price is the price of every tier."""
    with pytest.raises(SuiteError, match=r"has no price for the model's service tier '(priority|turbo|fast|us)'"):
        metered(path, model, json.dumps(answer))
    named = model or "eu.amazon.nova-pro-v1:0"
    assert metered(path, model, json.dumps(answer), PriceBook({named: {"input": 1, "output": 1}})) > 0
    if path.endswith("/messages"):
        usual = {**answer, "usage": {**CLAUDE_USAGE, "speed": "standard", "inference_geo": "global"}}
        assert metered(path, model, json.dumps(usual)) > 0


def test_a_call_to_a_tier_without_a_price_is_not_sent() -> None:
    """Nor is one at its own price reserved at less; what is faster or slower of a voice is no tier."""
    for tier, served in (("priority", "gpt-5-mini"), ("default", "gpt-5-mini"), ("priority", "o3-pro")):
        meter = Meter(Limits.of(max_cost=10), PriceBook())
        body = json.dumps({**ASK, "model": served, "max_tokens": 100, "service_tier": tier})
        hold = meter.enter(ClientRequest.of("POST", HOST + CHAT, body))
        if served == "o3-pro":
            with pytest.raises(SuiteError, match="service tier 'priority'"):
                meter.reserve(hold)
            continue
        meter.reserve(hold)
        meter.answered(hold, 200, chat(served, plain(10, 100), service_tier=tier))
        assert not meter.growth
    assert tier_of({"model": "tts-1", "speed": 1.25}) == ""


def test_answers_in_different_tiers_are_priced_at_the_dearer() -> None:
    """As where a server has no capacity left in the cheap one."""
    flex, usual, priority = (Usage(10, 1, tier=tier) for tier in ("flex", "", "priority"))
    assert [(one + other).tier for one in (flex, usual, priority) for other in (flex, usual, priority)] == [
        *("flex", "", "priority"),
        *("", "", "priority"),
        *("priority", "priority", "priority"),
    ]
    assert (Usage(0, 0) + flex).tier == (flex + Usage(0, 0)).tier == "flex"


def test_a_suite_pays_the_tier_that_serves_it() -> None:
    """Its response names the tier next to the usage."""
    exchange = Exchange("POST", "", ASK, json.loads(chat("gpt-5-mini", plain(800, 40), service_tier="priority")))
    price = PriceBook().price("gpt-5-mini")
    assert price.cost(completion_of([exchange], 1).usage) == price.at_tier("priority").cost(Usage(800, 40))
    batch = price.times(Decimal("0.5"))
    assert batch.cost(Usage(800, 40, tier="batch")) == batch.cost(Usage(800, 40))  # not half of the half


def test_no_count_of_a_stream_falls() -> None:
    """Servers of Anthropic's API repeat the prompt as 0 in the last event; a cached part is as large as said last."""
    start = {"input_tokens": 25_000, "cache_read_input_tokens": 100, "output_tokens": 1}
    claude = [
        {"type": "message_start", "message": {"type": "message", "model": "claude-sonnet-4-5", "usage": start}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hello"}},
        {"type": "message_delta", "usage": {"input_tokens": 0, "cache_read_input_tokens": 100, "output_tokens": 15}},
        {"type": "message_stop"},
    ]
    price = PriceBook().price("claude-sonnet-4-5")
    assert metered("/v1/messages", "claude-sonnet-4-5", sse(*claude)) == price.cost(Usage(25_100, 15, 100))
    parts = [plain(1000, 40, prompt_tokens_details={"cached_tokens": count}) for count in (900, 0)]
    parts[1] |= plain(10, 1)
    text = "".join(f"data: {chat('gpt-5-mini', usage)}\n\n" for usage in parts)
    assert metered(CHAT, "gpt-5-mini", text) == PriceBook().price("gpt-5-mini").cost(Usage(1000, 40))


def test_hidden_tokens_of_a_total_that_is_a_float() -> None:
    """JSON has one kind of numbers."""
    path = "/v1beta/models/gemini-2.5-flash:generateContent"
    usages = [{**GEMINI_USAGE, "totalTokenCount": total} for total in (1900, 1900.0)]
    costs = [metered(path, "gemini-2.5-flash", json.dumps({"usageMetadata": usage})) for usage in usages]
    assert costs == [PriceBook().price("gemini-2.5-flash").cost(Usage(900, 1000))] * 2


def test_tokens_of_sounds_and_images_are_not_priced_as_text() -> None:
    """Where only text has a listed price; models that make nothing else have the price of their output."""
    image = chat("google/gemini-2.5-flash-image", plain(10, 1290, completion_tokens_details={"image_tokens": 1290}))
    with pytest.raises(SuiteError, match="no price for the model's output image tokens"):
        PriceBook().price("gpt-5-mini").cost(Usage(10, 1290, units=(("output_image_tokens", 1290),)))
    assert metered(CHAT, "gemini-2.5-flash-image", image.replace("google/", "")) > Decimal(30 * 1290) / 10**6
    for model, kind in (("gpt-4o-audio-preview", "input_audio"), ("gpt-4o-audio-preview", "output_audio")):
        with pytest.raises(SuiteError, match=f"no price for the model's {kind.replace('_', ' ')} tokens"):
            PriceBook().price(model).cost(Usage(100, 100, units=((f"{kind}_tokens", 50),)))
    for model, kind in (
        ("gemini-2.5-pro", "input_audio"),
        ("gpt-image-1", "output_image"),
        ("gemini-2.5-pro-tts", "output_audio"),
    ):
        assert PriceBook().price(model).cost(Usage(100, 100, units=((f"{kind}_tokens", 50),))) > 0


@pytest.mark.parametrize(
    "repeat",
    [
        lambda text: text[:-1] + ', "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}',
        lambda text: text.replace('"completion_tokens": 40', '"completion_tokens": 40, "completion_tokens": 1'),
        lambda text: (
            "data: " + text.replace('"prompt_tokens": 800', '"prompt_tokens": 800, "prompt_tokens": 1') + "\n\n"
        ),
    ],
)
def test_a_count_that_is_given_twice_is_none(repeat: Any) -> None:
    """Which of them is billed is not known; other names may repeat."""
    answer = repeat(chat("gpt-5-mini", plain(800, 40)))
    with pytest.raises(SuiteError, match="no usage that can be read"):
        metered(CHAT, "gpt-5-mini", answer)
    assert metered(CHAT, "gpt-5-mini", chat("gpt-5-mini", plain(800, 40))[:-1] + ', "id": "y"}') > 0


def test_units_of_cohere_that_are_not_read_are_not_free() -> None:
    """As the tokens of images, next to those of texts."""
    units = {"input_tokens": 5, "image_tokens": 30_000, "images": 2}
    for billed, known in ((units, False), ({**units, "image_tokens": 0, "images": 0}, True)):
        answer = json.dumps({"embeddings": {"float": [[1]]}, "meta": {"billed_units": billed}})
        bill = read_bill("POST", HOST + "/v2/embed", '{"model": "embed-v4.0"}', answer)
        assert bill is not None
        assert (bill.usage is not None) is known


def test_searches_are_billed_by_the_call() -> None:
    """Those that OpenAI's Responses API made itself."""
    answer = {"object": "response", "model": "gpt-5-mini", "usage": {"input_tokens": 10, "output_tokens": 5}}
    bills = [
        read_bill("POST", HOST + "/v1/responses", '{"model": "gpt-5-mini"}', json.dumps(answer | {"output": output}))
        for output in ([], [{"type": "web_search_call"}, {"type": "web_search_call"}])
    ]
    price = PriceBook().price("gpt-5-mini")
    costs = [price.cost(bill.usage) for bill in bills if bill is not None and bill.usage is not None]
    assert costs[1] - costs[0] == 2 * Decimal(10) / 1000


def test_a_part_without_a_price_is_an_error() -> None:
    """Answered tokens of a model that is listed with its input only, seconds of one that is billed by tokens."""
    embedding = PriceBook().price_at(HOST, ["text-embedding-3-small"])
    assert embedding.cost(Usage(10, 0)) > 0
    with pytest.raises(SuiteError, match="no price for the model's output tokens"):
        embedding.cost(Usage(10, 1))
    with pytest.raises(SuiteError, match="input_audio_seconds"):
        PriceBook().price("gpt-4o-mini").cost(Usage(0, 0, units=(("input_audio_seconds", 9),)))
    with pytest.raises(SuiteError, match="input_characters have none"):
        Price(Decimal(1), Decimal(1)).cost(Usage(0, 0, units=(("input_characters", 9),)))
    with pytest.raises(SuiteError, match="unknown"):  # a suite needs answers, in tokens
        PriceBook().price("text-embedding-3-small")


def test_parts_that_contradict_their_total_cost_the_most_that_they_may() -> None:
    """More audio tokens than tokens: all count as audio, and searches are billed as well; never less than a consistent bill."""
    price = PriceBook().price("gemini-2.5-flash")
    consistent = price.cost(Usage(10, 0, units=(("input_audio_tokens", 5),)))
    damaged = Usage(10, 0, units=(("input_audio_tokens", 50),))
    assert price.cost(damaged) == Decimal(50) * Decimal(1) / 1_000_000 > consistent
    searched = price.cost(Usage(10, 0, units=(("web_searches", 2.0),))) - price.cost(Usage(10, 0))
    both = Usage(10, 0, units=(*damaged.units, ("web_searches", 2.0)))
    assert price.cost(both) - price.cost(damaged) == searched > 0
    with pytest.raises(SuiteError, match="no price for the model's output tokens; give your own price"):
        PriceBook().price_at(HOST, ["text-embedding-3-small"]).cost(Usage(10, 0, units=(("output_audio_tokens", 5),)))


def test_our_own_reading_agrees_with_genai_prices() -> None:
    """Suites read chat completions without it: each extractor of that shape finds the same tokens in the same body."""
    table, seen = data_snapshot.get_snapshot(), 0
    for provider in table.providers:
        for extractor in provider.extractors or ():
            paths = [mapping.path for mapping in extractor.mappings]
            if extractor.root != "usage" or "completion_tokens" not in paths or "cache_read_input_tokens" in paths:
                continue
            usage: dict[str, Any] = {"prompt_tokens": 900, "completion_tokens": 400}
            for number, mapping in enumerate(extractor.mappings, 1):
                holder, *rest = [mapping.path] if isinstance(mapping.path, str) else list(mapping.path)
                if rest and all(isinstance(part, str) for part in rest):
                    usage.setdefault(holder, {})[rest[0]] = 10 * number
                elif not rest and holder not in usage and holder != "cached_prompt_text_tokens":
                    usage[holder] = 10 * number
            _, found = provider.extract_usage({"model": "m", "usage": usage}, api_flavor=extractor.api_flavor)
            values = vars(found)
            usage["total_tokens"] = values["input_tokens"] + values["output_tokens"]
            if "citation_tokens" in usage:
                usage["total_tokens"] = 1300  # Perplexity's leaves these out
            own = usage_of(usage)
            assert own is not None
            assert own.prompt_tokens == values["input_tokens"]
            assert own.completion_tokens == values["output_tokens"], provider.id
            if "cache_read_tokens" in values and "cached_prompt_text_tokens" not in paths:
                assert own.cached_tokens == values["cache_read_tokens"], provider.id
            seen += 1
    assert seen > 30


@given(
    st.integers(1, 10**6), st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1),
    st.sampled_from(["gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-pro", "gpt-5-mini", "gpt-4o-audio-preview", "gemini-2.5-flash", "sonar"]),
)  # fmt: skip
def test_our_arithmetic_is_genai_prices(
    prompt: int, completion: int, cached: float, written: float, model: str
) -> None:
    """To the digit, tiers, cached parts and requests included."""
    from genai_prices.types import Usage as Listed

    price = PriceBook().price(model)
    usage = Usage(prompt, completion, int(prompt * cached), cache_write_tokens=int(prompt * (1 - cached) * written))
    assert price.listed is not None
    listed = Listed(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    assert price.cost(usage) == price.listed.calc_price(listed)["total_price"]
    assert price.cost(usage) <= price.worst(prompt, completion)


def test_the_model_of_a_form() -> None:
    """A file that is sent to be transcribed names its model in a part of the form."""
    form = '--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1 \r\n--x--'
    assert model_asked(f"{HOST}/v1/audio/transcriptions", form) == "whisper-1"
    assert asks_a_model("POST", f"{HOST}/v1/anything", form)


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": {"content": [{"type": "text", "text": "Hi"}]}}]},
        {"choices": [{"message": {"content": "", "tool_calls": [{"id": "1"}]}}]},
        {"content": [{"type": "tool_use"}]},
    ],
)
def test_an_answer_with_words_and_without_tokens_is_not_free(answer: dict[str, Any]) -> None:
    """Zero for a text is a server that does not count."""
    text = json.dumps(answer | {"model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 0}})
    bill = read_bill("POST", f"{HOST}/v1/chat/completions", ASK_ONE, text)
    assert bill is not None
    assert bill.usage is None


@pytest.mark.parametrize("count", [1.5, -1, 10**10, "7", True, {}])
def test_a_count_that_is_none_makes_no_bill(count: object) -> None:
    """Fractions, negative and absurd numbers, texts: what is read of the others may be too little."""
    usage = {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 10}
    text = json.dumps({"model": "m", "choices": [{"message": {"content": "Hi"}}], "usage": usage})
    bill = read_bill("POST", f"{HOST}/v1/chat/completions", ASK_ONE, text)
    assert bill is not None
    assert bill.usage is None


def test_a_stream_with_an_event_that_cannot_be_read_makes_no_bill() -> None:
    """The event may have been that with the usage."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    event = f"data: {json.dumps({'model': 'm', 'choices': [{'delta': {'content': 'Hi'}}], 'usage': usage})}\n\n"
    whole, torn = (
        read_bill("POST", f"{HOST}/v1/chat/completions", ASK_ONE, event + end) for end in ("", 'data: {"u\n\n')
    )
    assert whole is not None
    assert torn is not None
    assert whole.usage == Usage(5, 2, requests=1)
    assert torn.usage is None


def test_titan_counts_its_results() -> None:
    """The tokens of each result are added."""
    answer = {"inputTextTokenCount": 4, "results": [{"tokenCount": 3, "outputText": "a"}, {"tokenCount": 2}, 7]}
    bill = read_bill("POST", f"{HOST}/model/amazon.titan-text-lite-v1/invoke", '{"inputText": "q"}', json.dumps(answer))
    assert bill is not None
    assert bill.usage is not None
    assert (bill.usage.prompt_tokens, bill.usage.completion_tokens) == (4, 5)
