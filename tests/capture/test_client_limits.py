"""What a client's call may cost is reserved before it is sent, and settled by its answer."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from pytest_llmtune.capture.matching import ClientRequest
from pytest_llmtune.capture.meter import Hold, Limits, Meter
from pytest_llmtune.capture.tariff import Tariff
from pytest_llmtune.errors import BudgetExhaustedError, SuiteError
from pytest_llmtune.money.ledger import Ledger, NotNowError
from pytest_llmtune.money.prices import PriceBook

PRICES = PriceBook({"m": {"input": 0, "output": 1_000_000}})
"""A dollar for each completion token."""


def asked(**more: Any) -> ClientRequest:
    return sent(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]} | more))


def sent(body: str) -> ClientRequest:
    return ClientRequest.of("POST", "http://127.0.0.1:1/v1/x", body)


def reserved(body: ClientRequest, limit: int | None = 100_000) -> tuple[Ledger, Meter, Hold]:
    """The run's ledger, the test's meter, and what it holds for the call."""
    ledger = Ledger(None if limit is None else Decimal(limit), name="--llm-max-spend")
    meter = Meter(prices=PRICES, ledger=ledger)
    hold = meter.enter(body)
    meter.reserve(hold)
    return ledger, meter, hold


@pytest.mark.parametrize(
    ("body", "worst"),
    [
        (asked(max_tokens=5), 5),
        (asked(max_completion_tokens=7, n=3), 21),
        (asked(max_output_tokens=9), 9),
        (asked(), 16_384),
        (asked(max_tokens=5, n=-100), 5),
        (asked(max_tokens=5, n="many"), 5),
        (asked(max_output_tokens=-9), 16_384),
    ],
)
def test_the_worst_case_is_reserved(body: ClientRequest, worst: int) -> None:
    """By the request's own limits, of chat completions and responses; nonsense makes nothing cheaper."""
    ledger, _, hold = reserved(body)
    assert hold.reservation is not None
    assert (ledger.reserved, ledger.spent) == (worst, 0)


@pytest.mark.parametrize(
    ("status", "text", "spent", "uncertain"),
    [
        (200, json.dumps({"model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 2}}), 2, 0),
        (200, json.dumps({"model": "m"}), 5, 5),
        (429, "{}", 0, 0),
        (500, "", 0, 0),
    ],
)
def test_the_answer_settles_it(status: int, text: str, spent: int, uncertain: int) -> None:
    """By its usage; without one the worst case counts, and a refusal is free."""
    ledger, meter, hold = reserved(asked(max_tokens=5))
    assert hold.reservation is not None
    meter.answered(hold, status, text)
    assert (ledger.spent, ledger.uncertain, ledger.reserved) == (spent, uncertain, 0)


def test_a_call_that_broke_off_may_have_been_billed() -> None:
    """Nobody can tell: the worst case counts."""
    ledger, meter, hold = reserved(asked(max_tokens=5))
    assert hold.reservation is not None
    meter.lost(hold)
    assert (ledger.spent, ledger.uncertain, ledger.reserved) == (5, 5, 0)


def test_an_answer_without_a_price_counts_in_full() -> None:
    """The gateway answers for a model that nobody priced: an error, and the worst case counts."""
    ledger, meter, hold = reserved(sent('{"model": "m", "messages": [], "max_tokens": 5}'))
    hold.request = sent('{"model": "unheard-of", "messages": []}')
    with pytest.raises(SuiteError, match="the price of model 'unheard-of' is unknown"):
        meter.answered(hold, 200, json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}))
    assert (ledger.spent, ledger.uncertain, ledger.reserved) == (5, 5, 0)


def test_a_call_that_was_not_sent_costs_nothing() -> None:
    """Its reservation is given back, and the call counts neither as answered nor as in flight."""
    ledger, meter, hold = reserved(asked(max_tokens=5))
    meter.release(hold)
    meter.lost(hold)
    assert (ledger.spent, ledger.reserved, meter.calls) == (0, 0, 0)


def test_what_needs_no_reservation() -> None:
    """Without a limit nothing is reserved, nor for requests that ask no model."""
    for body, limit in (asked(), None), (sent('{"url": "x"}'), 1), (sent("no JSON"), 1):
        assert reserved(body, limit)[2].reservation is None


def test_what_is_refused() -> None:
    """A call that may pass the limit, and one whose price nobody knows."""
    with pytest.raises(BudgetExhaustedError, match="--llm-max-spend"):
        reserved(asked(max_tokens=5), 4)
    with pytest.raises(SuiteError, match="the price of model 'unheard-of' is unknown"):
        reserved(asked(model="unheard-of"))


PRICED = PriceBook({"m": {"input": 1, "output": 1}})
"""A dollar for a million tokens."""


@pytest.mark.parametrize(
    "more",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1", "version": "2"}},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
        {"contents": [{"parts": [{"fileData": {"fileUri": "gs://b/video.mp4"}}]}]},
        {"modalities": ["text", "audio"], "audio": {"voice": "alloy"}},
        {"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}},
    ],
)
def test_a_prompt_that_is_elsewhere_is_not_bounded_by_its_request(more: dict[str, Any]) -> None:
    """An earlier response's, or a file's, may be of any length; of sounds and images a token has another price."""
    request = asked(max_tokens=10, **more)
    ledger = Ledger(Decimal(5), name="--llm-max-spend")
    meter = Meter(Limits.of(max_cost=2), PRICED, ledger)
    meter.reserve(hold := meter.enter(request))
    assert (hold.amount, hold.bounded, ledger.reserved) == (2, False, 5)
    with pytest.raises(NotNowError):  # one at a time
        meter.reserve(meter.enter(request), may_wait=True)
    words = asked(max_tokens=10, note=json.dumps(more))
    meter = Meter(Limits.of(max_cost=2), PRICED)
    meter.reserve(hold := meter.enter(words))
    assert hold.bounded
    assert hold.amount < Decimal("0.001")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"detail": "high", "url": "https://h/a.png"}},
        {"type": "input_image", "image_url": "https://h/a.png"},
        {"type": "image", "source": {"type": "url", "url": "https://h/a.png"}},
    ],
)
def test_an_image_by_url_has_no_bytes_that_bound_it(part: dict[str, Any]) -> None:
    """It counts as one of usual size, and the call as one that may pass the limit by its own bill."""
    meter = Meter(Limits.of(max_cost=2), PRICED)
    meter.reserve(hold := meter.enter(asked(max_tokens=10, messages=[{"role": "user", "content": [part]}])))
    assert not hold.bounded
    assert hold.amount > Decimal("0.004")


def test_a_call_without_a_bound_costs_no_less_than_its_request_says() -> None:
    """What a task's run reserves for it, where it does not reserve all that is left."""
    plain, on = (Tariff(PRICED).bound(asked(max_tokens=10_000, **more)) for more in ({}, {"previous_response_id": "r"}))
    assert plain is not None
    assert on is not None
    assert (plain.sure, on.sure, on.usd) == (True, False, None)
    assert plain.usd is not None
    assert on.least > plain.usd > Decimal("0.01")
