"""Prices: a user's own first, then genai-prices' table without any request, and never a silent zero."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.money.prices import Price, PriceBook, parse_price
from pytest_llmtune.types import Usage

TOKENS = st.integers(0, 10**7)
PRICE = Price(Decimal(2), Decimal(8), Decimal("0.5"))


def test_tokens_cost_their_price() -> None:
    """USD per 1M tokens: prompt, cached part of the prompt, and completion."""
    assert PRICE.cost(Usage(1_000_000, 0)) == 2
    assert PRICE.cost(Usage(1_000_000, 500_000, 400_000)) == Decimal("1.2") + Decimal("0.2") + 4
    assert Price(Decimal(2), Decimal(8)).cost(Usage(1_000_000, 0, 400_000)) == 2


def test_own_prices_win() -> None:
    """A suite's price replaces the listed one, as text, number or float, exactly."""
    book = PriceBook({"gpt-4o-mini": {"input": "0.3", "output": 0.1}, "mine": {"input": 0, "output": 0}})
    assert book.price("gpt-4o-mini") == Price(Decimal("0.3"), Decimal("0.1"))
    assert book.price("mine").cost(Usage(99, 99)) == 0


def test_listed_prices_need_no_network() -> None:
    """A known model has its list price, at the provider of the address or by its name alone."""
    listed = PriceBook().price("gpt-4o-mini")
    assert listed == Price(Decimal("0.15"), Decimal("0.6"), Decimal("0.075"))
    assert PriceBook(base_urls=("https://api.openai.com/v1",)).price("gpt-4o-mini") == listed
    assert PriceBook(base_urls=("http://127.0.0.1:8090/v1",)).price("gpt-4o-mini") == listed


def test_the_provider_at_the_address_decides() -> None:
    """The same open model costs differently at different providers."""
    model = "llama-3.3-70b-versatile"
    groq = "https://api.groq.com/openai/v1"
    assert PriceBook(base_urls=(groq,)).price(model).output == Decimal("0.79")
    book, model = PriceBook(), "openai/gpt-oss-20b"
    elsewhere = "https://openrouter.ai/api/v1"
    prices = [book.price(model, address) for address in (None, groq, elsewhere)]
    assert len(set(prices)) == 3
    assert book.price(model, "http://127.0.0.1:8090/v1") == book.price(model) == prices[0]
    assert PriceBook(base_urls=(groq,)).price(model) == prices[1]
    assert PriceBook({model: {"input": 1, "output": 2}}).price(model, groq).output == 2  # own prices win


GATEWAY = "https://llm.example.com/v1/chat/completions"


def test_another_name_of_a_model_has_its_price() -> None:
    """What a gateway calls it is priced as the model, listed or the user's own; what answers goes before it."""
    own = {"fast": {"model": "gpt-4o-mini"}, "ours": {"model": "mine"}, "mine": {"input": 1, "output": 2}}
    book = PriceBook(own | {"lost": {"model": "nobody"}})
    listed = PriceBook().price("gpt-4o-mini")
    assert book.price("fast") == book.price_at(GATEWAY, ["fast"]) == listed
    assert book.price("ours") == Price(Decimal(1), Decimal(2))
    assert book.price_at(GATEWAY, ["gpt-4o-2024-08-06", "fast"]) == PriceBook().price("gpt-4o")
    assert book.price_at(GATEWAY, ["something-internal", "fast"]) == listed
    assert (book.has_own(["mine"]), book.has_own(["fast"])) == (True, False)  # read as the listed model's answers are
    with pytest.raises(SuiteError, match="'lost' stands for the model 'nobody', whose price is unknown"):
        book.price("lost")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai/gpt-4o-mini", "gpt-4o-mini"),  # OpenRouter's names, and LiteLLM's
        ("openrouter/openai/gpt-4o-mini", "gpt-4o-mini"),
        ("azure/gpt-4o-mini", "gpt-4o-mini"),
        ("gemini/gemini-2.0-flash", "gemini-2.0-flash"),
        ("vertex_ai/gemini-2.0-flash", "gemini-2.0-flash"),
        ("google/gemini-2.0-flash-001", "gemini-2.0-flash"),
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"),
        ("bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0", "claude-3-5-sonnet-20240620"),
        ("xai/grok-3-mini", "grok-3-mini"),
    ],
)
def test_names_of_gateways_have_their_models_price(name: str, model: str) -> None:
    """With the provider in front of the model, at an address that nobody knows."""
    found, listed = PriceBook().price_at(GATEWAY, [name]), PriceBook().price(model)
    assert (found.input, found.output) == (listed.input, listed.output)


def test_an_unknown_model_is_an_error_that_says_how_to_price_it() -> None:
    """The message names the model and gives both ways to say its price."""
    with pytest.raises(SuiteError) as caught:
        PriceBook({"other": {"input": 1, "output": 1}}).price("smollm2-135m-instruct")
    message = str(caught.value)
    assert "the price of model 'smollm2-135m-instruct' is unknown" in message
    assert 'prices={"smollm2-135m-instruct": {"input": 0.15, "output": 0.60}}' in message
    assert "llmtune_prices = smollm2-135m-instruct input=0.15 output=0.60" in message
    assert "llmtune_prices = smollm2-135m-instruct model=gpt-4o-mini" in message
    assert "other" in message


def test_all_models_are_checked_before_the_first_request() -> None:
    """One check serves the whole space."""
    with pytest.raises(SuiteError, match="nope"):
        PriceBook().check(["gpt-4o", "nope"])


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        ({"input": 1}, "is {'input': 1}"),
        ({"input": 1, "output": 2, "ouput": 3}, "ouput"),
        ({"input": -1, "output": 2}, "input price of 'm' is -1"),
        ({"input": "1,5", "output": 2}, "input price of 'm' is '1,5'"),
        ({"input": 1, "output": "nan"}, "output price"),
        ({"input": 1, "output": float("inf")}, "output price"),
        ({"input": True, "output": 2}, "input price"),
        ({"input": 1, "output": None}, "output price"),
        ("0.15", "is '0.15'"),
        (None, "is None"),
    ],
)
def test_unusable_prices_are_named(raw: object, what: str) -> None:
    """What, where and the valid form."""
    with pytest.raises(SuiteError, match=what) as caught:
        parse_price("m", raw, "suite.yaml")
    assert str(caught.value).startswith("suite.yaml: ")
    assert "USD per 1M tokens" in str(caught.value)


def test_a_price_survives_the_lock_file() -> None:
    """Written as text and read again it is the same number."""
    assert parse_price("m", PRICE.to_plain()) == PRICE
    assert PRICE.to_plain() == {"input": "2", "output": "8", "cached_input": "0.5"}


def test_long_prompts_reach_a_dearer_tier() -> None:
    """Gemini 2.5 Pro doubles its price for the whole prompt past 200,000 tokens; the worst case knows it."""
    price = PriceBook().price("gemini-2.5-pro")
    assert price.cost(Usage(200_000, 0)) == Decimal("0.25")
    assert price.cost(Usage(200_001, 0)) == Decimal("0.5000025")
    assert price.worst(1000, 0) == Decimal("0.00125")
    assert price.worst(300_000, 1000) == price.cost(Usage(300_000, 1000))


@given(TOKENS, TOKENS, st.floats(0, 1))
def test_the_worst_case_is_never_exceeded(prompt: int, completion: int, cached: float) -> None:
    """Whatever part of the prompt is cached, at flat, tiered and odd prices."""
    usage = Usage(prompt, completion, int(prompt * cached))
    odd = Price(Decimal(1), Decimal(2), Decimal(3))
    for price in (PRICE, odd, PriceBook().price("gemini-2.5-pro")):
        assert 0 <= price.cost(usage) <= price.worst(prompt, completion)
