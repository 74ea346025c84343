"""Under a limit of USD the first call of a model goes alone, and what a server bills beyond the request is learned."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from support.llm_server import Fault, LLMServer
from support.replaying import chat, replay_of

from pytest_llmtune.capture.client import async_client, client
from pytest_llmtune.capture.matching import Asked
from pytest_llmtune.capture.meter import ClientSpend, Limits, Meter
from pytest_llmtune.capture.patches import recorded
from pytest_llmtune.errors import BudgetExhaustedError, RecordingError, SuiteError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from pathlib import Path

PRICES = PriceBook({"small": {"input": "1", "output": "10"}})
HIDDEN = 40
"""Times the reasoning that the server bills, and no request allows."""


class Server(LLMServer):
    """Notes what it bills, and the most that it ever had in flight before its first answer."""

    def __init__(self, hidden: int = 0, **options: Any) -> None:
        super().__init__(answer="12345678", latency=0.05, **options)
        self.hidden, self.bills = hidden, list[Decimal]()

    def usage_of(self, body: Any, answers: Any) -> Any:
        usage = super().usage_of(body, answers)
        usage["total_tokens"] += self.hidden
        out = usage["total_tokens"] - usage["prompt_tokens"]
        self.bills.append((Decimal(usage["prompt_tokens"]) + 10 * out) / 10**6)
        return usage


def ask(server: Server, replay: Any, how: str, count: int = 20) -> None:
    """So many calls at once, of tasks or threads, by the fixture's client or any other."""

    async def tasks() -> None:
        async with async_client(replay, base_url=server.base_url, api_key="any") as asking:
            made = (asking.chat.completions.create(**chat(f"{i}", max_tokens=20)) for i in range(count))
            await asyncio.gather(*made, return_exceptions=True)

    async def httpx_tasks() -> None:
        async with httpx2.AsyncClient(base_url=server.base_url, trust_env=False, timeout=30) as asking:
            made = (asking.post("/chat/completions", json=chat(f"{i}", max_tokens=20)) for i in range(count))
            await asyncio.gather(*made, return_exceptions=True)

    with suppress(BudgetExhaustedError):
        if how == "tasks":
            with replay:
                asyncio.run(tasks())
        elif how == "httpx":
            with recorded(replay):
                asyncio.run(httpx_tasks())
        else:
            with (
                replay,
                client(replay, base_url=server.base_url, api_key="any") as asking,
                ThreadPoolExecutor(count) as pool,
            ):
                create = asking.chat.completions.create
                wait([pool.submit(create, **chat(f"{i}", max_tokens=20)) for i in range(count)])


@pytest.mark.parametrize("how", ["tasks", "threads", "httpx"])
@pytest.mark.parametrize("limit", ["max_cost", "--llm-max-spend"])
@pytest.mark.parametrize("hidden", [0, HIDDEN])
def test_no_limit_is_passed_by_calls_at_once(tmp_path: Path, how: str, limit: str, hidden: int) -> None:
    """Of twenty calls, whatever is billed for each, no more are sent than fit; an honest server's all fit."""
    most = Decimal("0.01") if not hidden else Decimal("0.003")  # what is asked would fit ten times
    meter = Meter(Limits.of(max_cost=most if limit == "max_cost" else None), PRICES)
    ledger = Ledger(most if limit != "max_cost" else None, name=limit)
    with Server(hidden) as server:
        replay = replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=meter, spend=ClientSpend(ledger, PRICES))
        ask(server, replay, how)
    assert sum(server.bills) == meter.cost <= most
    if limit != "max_cost":
        assert ledger.billed == sum(server.bills)
    assert (len(server.bills) == 20) == (not hidden)
    assert len(server.bills) > 1


@pytest.mark.parametrize("how", ["tasks", "threads"])
def test_a_first_bill_over_the_limit_is_the_only_one(tmp_path: Path, how: str) -> None:
    """The overrun is its own, and is told with what the server does."""
    meter = Meter(Limits.of(max_cost="0.0006"), PRICES)
    with Server(HIDDEN * 5) as server:
        replay = replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=meter)
        ask(server, replay, how)
    assert len(server.bills) == 1
    with pytest.raises(
        BudgetExhaustedError, match=r"more than max_cost=0\.0006; small has billed \d\.\d times what its"
    ):
        meter.check()


def test_after_a_refusal_the_next_call_goes_ahead(tmp_path: Path) -> None:
    """Nobody waits for ever: an error, an answer that breaks off."""
    meter = Meter(Limits.of(max_cost=1), PRICES)
    with Server(faults=[Fault.http(400, "no"), Fault("reset")]) as server:
        ask(server, replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=meter), "tasks")
    assert meter.calls == 19  # the one that broke off was made once more


def test_without_a_limit_nobody_waits(tmp_path: Path) -> None:
    """And neither does a replay."""
    asked = Asked.of("POST", "https://h/v1/chat/completions", b'{"model": "small", "messages": []}')
    limited = Meter(Limits.of(max_cost=1), PRICES)
    for mode, meter in ((Mode.LIVE, Meter()), (Mode.REPLAY, limited)):
        with suppress(Exception), replay_of(tmp_path / "a.cassette.json", mode, meter=meter) as replay:
            assert replay.ahead(asked) is None
            assert replay.ahead(Asked.of("POST", asked.uri, asked.body)) is None


def test_an_answer_that_was_cut_may_have_been_billed(tmp_path: Path) -> None:
    """A stream of Anthropic's says its prompt first: what the cut one would have billed nobody knows, so all of it counts."""
    book, ledger = PriceBook(), Ledger(Decimal(1))
    meter = Meter(Limits.of(max_cost=1), book)
    start = '{"type": "message_start", "message": {"model": "claude-sonnet-4-5", "usage": {"input_tokens": 10, "output_tokens": 1}}}'
    body = b'{"model": "claude-sonnet-4-5", "max_tokens": 1000, "stream": true, "messages": [{"role": "user", "content": "x"}]}'
    asked = Asked.of("POST", "https://api.anthropic.com/v1/messages", body)
    with (
        suppress(RecordingError),
        replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=meter, spend=ClientSpend(ledger, book)) as replay,
    ):
        call = replay.ask(asked)
        text = f"event: message_start\ndata: {start}\n\n".encode()
        replay.answer(call, 200, "OK", {"content-type": "text/event-stream"}, text)
    assert ledger.spent == ledger.uncertain > Decimal("0.015")
    assert ledger.billed == 0


DEPLOYMENT = "https://r.openai.azure.com/openai/deployments/mine/chat/completions"


def test_a_deployment_is_priced_by_the_model_that_answers() -> None:
    """The request names a deployment; once one was answered, others are expected to cost what their model costs."""
    book = PriceBook()
    meter, spend = Meter(Limits.of(max_cost=1), book), ClientSpend(Ledger(Decimal(1)), book)
    asked = Asked.of("POST", DEPLOYMENT, b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 10}')
    answer = '{"model": "gpt-4o-mini-2024-07-18", "choices": [{"message": {"content": "y"}}], "usage": %s}'
    answer %= '{"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}'
    hold, reservation = meter.enter(asked), spend.reserve(asked)
    meter.reserve(hold)
    assert reservation is not None
    assert (hold.amount, reservation.amount) == (1, 1)  # all that is left: nobody knows the model yet
    meter.answered(hold, 200, answer)
    spend.answered(reservation, asked, 200, answer)
    assert meter.cost == spend.ledger.spent == Decimal("0.00021")
    holds = [meter.enter(asked) for _ in range(20)]
    for hold in holds:
        meter.reserve(hold)
        assert spend.reserve(asked) is not None
    assert 0 < holds[0].amount < Decimal("0.0001")


def test_an_unknown_model_is_not_sent_under_a_limit() -> None:
    """Elsewhere than at Azure a name is the model's own."""
    asked = Asked.of("POST", "https://h/v1/chat/completions", b'{"model": "mine", "messages": []}')
    meter = Meter(Limits.of(max_cost=1), PriceBook())
    with pytest.raises(SuiteError, match="the price of model 'mine' is unknown"):
        meter.reserve(meter.enter(asked))
