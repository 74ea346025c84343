"""What a client's call may cost is reserved before it is sent, and settled by its answer."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from pytest_llmtune.capture.matching import ClientRequest
from pytest_llmtune.capture.meter import ClientSpend
from pytest_llmtune.errors import BudgetExhaustedError, SuiteError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.prices import PriceBook

PRICES = PriceBook({"m": {"input": 0, "output": 1_000_000}})
"""A dollar for each completion token."""


def asked(**more: Any) -> ClientRequest:
    return sent(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]} | more))


def sent(body: str) -> ClientRequest:
    return ClientRequest.of("POST", "http://127.0.0.1:1/v1/x", body)


def spend(limit: int | None = 100_000) -> ClientSpend:
    return ClientSpend(Ledger(None if limit is None else Decimal(limit), name="--llm-max-spend"), PRICES)


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
    one = spend()
    reservation = one.reserve(body)
    assert reservation is not None
    assert (one.ledger.reserved, one.ledger.spent) == (worst, 0)


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
    one, body = spend(), asked(max_tokens=5)
    reservation = one.reserve(body)
    assert reservation is not None
    one.answered(reservation, body, status, text)
    assert (one.ledger.spent, one.ledger.uncertain, one.ledger.reserved) == (spent, uncertain, 0)


def test_a_call_that_broke_off_may_have_been_billed() -> None:
    """Nobody can tell: the worst case counts."""
    one = spend()
    reservation = one.reserve(asked(max_tokens=5))
    assert reservation is not None
    one.lost(reservation)
    assert (one.ledger.spent, one.ledger.uncertain) == (5, 5)


def test_what_needs_no_reservation() -> None:
    """Without a limit nothing is reserved, nor for requests that ask no model."""
    assert spend(None).reserve(asked()) is None
    assert spend().reserve(sent('{"url": "x"}')) is None
    assert spend().reserve(sent("no JSON")) is None


def test_what_is_refused() -> None:
    """A call that may pass the limit, and one whose price nobody knows."""
    with pytest.raises(BudgetExhaustedError, match="--llm-max-spend"):
        spend(4).reserve(asked(max_tokens=5))
    with pytest.raises(SuiteError, match="the price of model 'unheard-of' is unknown"):
        spend().reserve(asked(model="unheard-of"))
