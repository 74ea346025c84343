"""What a request is reserved with, and what it is charged: never less than a provider may bill."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.live import PRICES, Live, request
from support.llm_server import Fault, LLMServer, prompt_tokens, tokens

from pytest_llmtune.completions.billing import Billing, worst_case
from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.completions.routing import EndpointPool, KeyChannel
from pytest_llmtune.completions.stats import RequestStats
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.settings import Settings
from pytest_llmtune.types import Exchange
from pytest_llmtune.wire.tokens import ASSUMED_ANSWER, probe_body, prompt_bound
from pytest_llmtune.workflow.services import SuiteServices

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ["Yes, it is 42, as everybody knows.", "Certainly forty-two; there is no doubt."]
"""Long answers of unequal length: a server that counts one of them is doubted, and not proven wrong."""


def asked(content: Any, **parameters: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **parameters}


def image(address: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address}}


@pytest.fixture
def channel(tmp_path: Path) -> KeyChannel:
    return EndpointPool.of(endpoints_of(base_url="http://127.0.0.1:9/v1", root=tmp_path, environ={}), 1, 1.0).channels[
        0
    ]


def billing(**options: Any) -> Billing:
    return Billing(PRICES, RequestStats(), 1.0, **options)


def test_each_endpoint_is_paid_at_its_provider_s_price(tmp_path: Path) -> None:
    """The same open model costs differently at different providers; a suite's own address says which it is priced by."""
    model, own, environ = "openai/gpt-oss-20b", PriceBook(), {"OPENAI_API_KEY": "sk-test-0123456789abcdef"}
    paid = []
    for address in ("https://api.groq.com/openai/v1", "https://openrouter.ai/api/v1"):
        pool = EndpointPool.of(endpoints_of(base_url=address, root=tmp_path, environ=environ), 1, 1.0)
        paid.append(Billing(own, RequestStats(), 1.0).price(pool.channels[0], {"model": model}))
        suite: Any = SimpleNamespace(task=None, prices={}, base_url=address)
        services = SuiteServices(suite, Settings(), Redactor(), print, print)
        assert services.prices.price(model) == paid[-1] != own.price(model)
    assert paid[0] != paid[1]


# the bound of a prompt


def test_no_tokenizer_makes_more_tokens_than_a_prompt_is_reserved_with() -> None:
    """A token for each byte, also where a character has four, and something for what a chat template adds."""
    for text in ("", "x" * 1000, "\U0001f600" * 1000, "\ud800 lone"):
        bound = prompt_bound(asked(text))
        assert bound >= len(text.encode("utf-8", "surrogatepass")) + 16
    one, two = asked(""), {"model": "m", "messages": [{"role": "user", "content": ""}] * 2}
    assert prompt_bound(two) - prompt_bound(one) >= 16 + len('{"role":"user","content":""}')
    assert prompt_bound({"model": "m", "prompt": "x" * 100}) > 100


@pytest.mark.parametrize("images", [1, 2, 5])
def test_an_image_given_by_its_address_is_reserved_with_its_tokens(images: int) -> None:
    """The address is short; the image has up to some thousand tokens. Text beside it counts by its bytes alone."""
    text = {"type": "text", "text": "What is this?"}
    plain = prompt_bound(asked([text]))
    parts = [image("https://example.org/a.png") for _ in range(images)]
    bound = prompt_bound(asked([text, *parts]))
    assert images * 4096 <= bound - plain <= images * (4096 + 100)
    assert prompt_bound(asked([text, text])) - plain < 100
    assert prompt_bound(asked((text, *parts))) == bound
    assert prompt_bound({"model": "m", "messages": ["odd", *asked([text, *parts])["messages"]]}) > images * 4096


def test_an_image_costs_dollars_before_it_is_sent() -> None:
    """At 1 USD per 1M tokens an image is reserved with 0.004 USD more than the words around it."""
    price = PRICES.price("m")
    with_image, without = asked([image("https://example.org/a.png")], max_tokens=1), asked([], max_tokens=1)
    assert worst_case(price, with_image, 1) - worst_case(price, without, 1) >= Decimal("0.004096")


# the worst case of a request


def test_the_worst_case_of_one_answer_is_its_prompt_and_its_longest_answer() -> None:
    price, body = PRICES.price("m"), asked("x", max_tokens=20)
    assert worst_case(price, body, 1) == price.worst(prompt_bound(body), 20)
    assert worst_case(price, body, 1, prompt=7) == (7 + 10 * 20) / Decimal(1_000_000)
    assert worst_case(price, body, 1, prompt=0) == worst_case(price, body, 1)  # a prompt of no tokens is not known


@pytest.mark.parametrize("n", [2, 5])
def test_several_answers_are_reserved_with_the_probe_that_may_be_needed(n: int) -> None:
    price, body = PRICES.price("m"), asked("x", max_tokens=20)
    probe = price.worst(prompt_bound(probe_body(body)), 2)
    assert probe > Decimal(20) / 1_000_000
    assert worst_case(price, body, n) == price.worst(prompt_bound(body), 20 * n) + probe
    assert worst_case(price, body, n, prompt=7) == price.worst(7, 20 * n) + probe


def test_an_answer_without_a_limit_is_reserved_as_a_long_one() -> None:
    """16,384 tokens; max_completion_tokens is a limit as max_tokens is."""
    price = PRICES.price("m")
    assert ASSUMED_ANSWER == 16_384
    assert worst_case(price, asked("x"), 1, prompt=1) == price.worst(1, 16_384)
    assert worst_case(price, asked("x", max_completion_tokens=9), 1, prompt=1) == price.worst(1, 9)


def test_a_prompt_that_was_billed_before_is_reserved_with_what_it_had(channel: KeyChannel) -> None:
    """Whatever else differs between the requests; another prompt, model or tool is another prompt."""
    known, body = billing(), asked("x" * 400, max_tokens=20)
    before = known.worst(channel, body, 1)
    usage = {"prompt_tokens": 107, "completion_tokens": 1}
    answer = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], "usage": usage}
    known.cost(channel, Exchange("POST", "", body, answer))
    assert known.worst(channel, body, 1) == PRICES.price("m").worst(107, 20) < before
    assert known.worst(channel, body | {"temperature": 0.5, "n": 3}, 1) == PRICES.price("m").worst(107, 20)
    for other in ({"tools": [{"type": "function"}]}, {"response_format": {"type": "json_object"}}):
        assert known.worst(channel, body | other, 1) == PRICES.price("m").worst(prompt_bound(body | other), 20)
    assert known.worst(channel, asked("y" * 400, max_tokens=20), 1) == before
    dear = PRICES.price("dear")
    assert known.worst(channel, body | {"model": "dear"}, 1) == dear.worst(prompt_bound(body | {"model": "dear"}), 20)


@pytest.mark.parametrize(
    ("status", "usage"),
    [
        (200, None),
        (200, {}),
        (200, {"prompt_tokens": 0, "completion_tokens": 1}),
        (400, {"prompt_tokens": 1, "completion_tokens": 1}),
    ],
)
def test_a_prompt_that_no_server_counted_is_not_known(
    channel: KeyChannel, status: int, usage: dict[str, int] | None
) -> None:
    """An estimate is no count, nor is what comes with a refusal: the bound stays."""
    known, body = billing(), asked("x" * 400, max_tokens=20)
    before = known.worst(channel, body, 1)
    answer = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], "usage": usage}
    known.cost(channel, Exchange("POST", "", body, answer, status=status))
    assert known.worst(channel, body, 1) == before


def test_batches_cost_their_share(channel: KeyChannel) -> None:
    """Half the price, for what is reserved and for what is charged."""
    body = asked("x", max_tokens=20)
    whole, half = billing(), billing(share=Decimal("0.5"))
    assert half.worst(channel, body, 3) * 2 == whole.worst(channel, body, 3)
    assert (half.price(channel, {"model": "m"}).input, half.price(channel, {"model": "m"}).output) == (
        Decimal("0.5"),
        5,
    )
    assert whole.price(channel, {"model": "m"}) == PRICES.price("m")


def test_tokens_a_minute_count_a_third_of_the_bytes_and_the_longest_answers(channel: KeyChannel) -> None:
    """Limits of the endpoint are no budget: an estimate near the truth, exact where the prompt was billed before."""
    known, body = billing(), asked("x" * 400, max_tokens=20)
    assert known.tokens(body, 3) == prompt_bound(body) // 3 + 3 * 20
    assert known.tokens(asked("x"), 2) == prompt_bound(asked("x")) // 3 + 2 * 1024
    usage = {"prompt_tokens": 107, "completion_tokens": 1}
    answer = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], "usage": usage}
    known.cost(channel, Exchange("POST", "", body, answer))
    assert known.tokens(body, 3) == 107 + 3 * 20
    embedding = {"model": "m", "input": "x" * 400}
    assert known.tokens(embedding, 1) == prompt_bound(embedding) // 3  # nothing is written


# what is charged


def test_an_answer_without_usage_is_charged_by_its_text_and_noted_once(live: Live) -> None:
    account = RequestStats()
    with LLMServer(answer="It is 42.", usage="none") as server:
        live.run(live.source(server, account=account), request("a"), request("b"))
    [note] = account.notes
    assert note.endswith("reports no usable usage; tokens are estimated from the texts")
    assert account.paid > 0


@pytest.mark.parametrize(
    ("status", "usage", "noted"),
    [
        (200, None, True),
        (200, {"prompt_tokens": 5, "completion_tokens": 0}, True),
        (200, {"prompt_tokens": 5, "completion_tokens": 2}, False),
        (400, None, False),
    ],
)
def test_only_an_answer_whose_tokens_nobody_counted_is_noted(
    channel: KeyChannel, status: int, usage: dict[str, int] | None, noted: bool
) -> None:
    """A count of nothing is no count; a prompt that a content filter refused has no answer to count."""
    known = billing()
    answer = {"choices": [{"message": {"content": "It is 42."}, "finish_reason": "stop"}], "usage": usage}
    known.cost(channel, Exchange("POST", "", asked("x"), answer if status == 200 else {"error": {}}, status=status))
    assert len(known.account.notes) == noted


@pytest.mark.parametrize(
    "fault", [Fault.http(500), Fault.http(400), Fault("reset"), Fault.azure_filter(), Fault("no_usage")]
)
def test_a_probe_that_failed_is_charged_as_if_it_had_been_answered(live: Live, fault: Fault) -> None:
    """A provider may have billed it: its worst case is spent, in the ledger as in the account."""
    account, ledger = RequestStats(), Ledger()

    def only_the_probe(body: dict[str, Any]) -> Fault | None:
        return fault if body["messages"][0]["content"] == "Hi" else None

    with LLMServer(WORDS, usage="one_choice", fault=only_the_probe) as server:
        [completion] = live.run(live.source(server, account=account, ledger=ledger), request(1, 4))
    probe = probe_body(request().body)
    answers = Decimal(prompt_tokens(request(1).body["messages"]) + 10 * completion.usage.completion_tokens) / 1_000_000
    worst = PRICES.price("m").worst(prompt_bound(probe), 2)
    if fault.kind == "no_usage":  # it was answered, and is charged by its text
        assert answers < ledger.spent <= answers + worst
    else:
        assert ledger.spent == answers + worst
    assert ledger.spent == completion.paid == account.paid
    assert server.count == account.sent == 2
    assert not any("one choice only" in note for note in account.notes)


def test_a_probe_that_tells_is_charged_what_it_cost(live: Live) -> None:
    ledger = Ledger()
    with LLMServer(WORDS, usage="one_choice") as server:
        [completion] = live.run(live.source(server, ledger=ledger), request(1, 4))
    probe = Decimal(prompt_tokens([{"content": "Hi"}]) + 2 * 10) / 1_000_000  # both choices of one token
    answers = Decimal(prompt_tokens(request(1).body["messages"]) + 10 * completion.usage.completion_tokens) / 1_000_000
    assert ledger.spent == answers + probe
    assert completion.usage.completion_tokens >= 2 * sum(map(tokens, WORDS))


def test_a_server_proven_to_count_one_choice_is_not_probed(live: Live) -> None:
    """Four choices cannot have had two tokens: nothing is asked, nothing more is charged."""
    account = RequestStats()
    with LLMServer("It is 42", usage="one_choice") as server:
        completions = live.run(live.source(server, account=account), *(request(number, 4) for number in range(3)))
    assert account.sent == server.count == 3
    assert [completion.usage.completion_tokens for completion in completions] == [4 * tokens("It is 42")] * 3
    assert len([note for note in account.notes if "one choice only" in note]) == 1


def test_facts_about_a_server_are_passed_on() -> None:
    """Only what is known by now; what one knows oneself is not overwritten."""

    async def work() -> None:
        first, second = billing(), billing()
        first.recall({(0, "m"): True, (1, "m"): None})
        assert first.counting_modes == {(0, "m"): True, (1, "m"): None}
        second.recall({(0, "m"): False})
        second.recall(first.counting_modes)
        assert second.counting_modes == {(0, "m"): False, (1, "m"): None}
        second._counting[2, "m"] = asyncio.get_running_loop().create_future()
        assert second.counting_modes == {(0, "m"): False, (1, "m"): None}

    asyncio.run(work())
