"""Under a limit of USD the first call of a model goes alone, and what a server bills beyond the request is learned."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx2
import pytest
import requests
from support.llm_server import Fault, LLMServer
from support.replaying import chat, replay_of

from pytest_llmtune.capture import flow, session
from pytest_llmtune.capture.call import CallRefusedError
from pytest_llmtune.capture.client import async_client, client
from pytest_llmtune.capture.matching import ClientRequest
from pytest_llmtune.capture.meter import Limits, Meter
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


async def openai_tasks(server: Server, replay: Any, bodies: list[Any]) -> None:
    async with async_client(replay, base_url=server.base_url, api_key="any") as asking:
        await asyncio.gather(*(asking.chat.completions.create(**body) for body in bodies), return_exceptions=True)


async def httpx_tasks(server: Server, _: Any, bodies: list[Any]) -> None:
    async with httpx2.AsyncClient(base_url=server.base_url, trust_env=False, timeout=30) as asking:
        await asyncio.gather(*(asking.post("/chat/completions", json=body) for body in bodies), return_exceptions=True)


async def aiohttp_tasks(server: Server, _: Any, bodies: list[Any]) -> None:
    async def one(session: aiohttp.ClientSession, body: Any) -> None:
        async with session.post(f"{server.base_url}/chat/completions", json=body) as response:
            assert response.status == 200 or "llmtune_refused" in await response.text()

    async with aiohttp.ClientSession() as session:
        done = await asyncio.gather(*(one(session, body) for body in bodies), return_exceptions=True)
    assert not [error for error in done if isinstance(error, AssertionError)]


async def tornado_tasks(server: Server, _: Any, bodies: list[Any]) -> None:
    tornado = pytest.importorskip("tornado.httpclient", reason="the client of Tornado is not installed")
    asking = tornado.AsyncHTTPClient(force_instance=True, max_clients=30)
    url = f"{server.base_url}/chat/completions"
    sent = (asking.fetch(url, method="POST", body=json.dumps(body)) for body in bodies)
    await asyncio.gather(*sent, return_exceptions=True)


def openai_threads(server: Server, replay: Any, bodies: list[Any]) -> None:
    with client(replay, base_url=server.base_url, api_key="any") as asking, ThreadPoolExecutor(len(bodies)) as pool:
        wait([pool.submit(asking.chat.completions.create, **body) for body in bodies])


def requests_threads(server: Server, _: Any, bodies: list[Any]) -> None:
    url = f"{server.base_url}/chat/completions"
    with ThreadPoolExecutor(len(bodies)) as pool:
        wait([pool.submit(requests.post, url, json=body, timeout=30) for body in bodies])


WAYS: dict[str, Any] = {
    "tasks": openai_tasks,
    "httpx": httpx_tasks,
    "aiohttp": aiohttp_tasks,
    "tornado": tornado_tasks,
    "threads": openai_threads,
    "requests": requests_threads,
}


def ask(server: Server, replay: Any, how: str, count: int = 20) -> None:
    """So many calls at once, of tasks or threads, by the fixture's client or any other."""
    bodies = [chat(f"{number:02}", max_tokens=20) for number in range(count)]
    way = WAYS[how]
    with suppress(BudgetExhaustedError), recorded(replay):
        asyncio.run(way(server, replay, bodies)) if inspect.iscoroutinefunction(way) else way(server, replay, bodies)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("limit", ["max_cost", "--llm-max-spend"])
@pytest.mark.parametrize("hidden", [0, HIDDEN])
def test_no_limit_is_passed_by_calls_at_once(tmp_path: Path, how: str, limit: str, hidden: int) -> None:
    """Of twenty calls, whatever is billed for each, no more are sent than fit; an honest server's all fit."""
    most = Decimal("0.01") if not hidden else Decimal("0.003")  # what is asked would fit ten times
    ledger = Ledger(most if limit != "max_cost" else None, name=limit)
    meter = Meter(Limits.of(max_cost=most if limit == "max_cost" else None), PRICES, ledger)
    with Server(hidden) as server:
        replay = replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=meter)
        ask(server, replay, how)
    assert sum(server.bills) == meter.cost <= most
    if limit != "max_cost":
        assert ledger.billed == sum(server.bills)
    assert (len(server.bills) == 20) == (not hidden)
    assert len(server.bills) > 1


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("limit", ["max_cost", "--llm-max-spend"])
def test_what_fits_once_calls_are_settled_waits_for_that(tmp_path: Path, how: str, limit: str) -> None:
    """A limit for two worst cases pays for all ten calls of an honest server, which cost a tenth of that."""
    most = Decimal("0.0008")
    ledger = Ledger(most if limit != "max_cost" else None, name=limit)
    meter = Meter(Limits.of(max_cost=most if limit == "max_cost" else None), PRICES, ledger)
    with Server() as server:
        server.latency = 0.01
        replay = replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=meter)
        ask(server, replay, how, 10)
        assert server.peak < 6  # a server counts a call a moment longer than its client
    assert len(server.bills) == meter.calls == 10
    assert sum(server.bills) == meter.cost <= most


def test_calls_that_wait_can_be_cancelled(tmp_path: Path) -> None:
    """What was not sent costs nothing, and who waits behind it goes on."""
    meter = Meter(Limits.of(max_cost="0.0008"), PRICES)

    async def go() -> None:
        async with async_client(
            replay,
            base_url=server.base_url,
            api_key="any",
        ) as asking:
            made = [
                asyncio.create_task(asking.chat.completions.create(**chat(f"{i}", max_tokens=20))) for i in range(9)
            ]
            await asyncio.get_running_loop().run_in_executor(None, arrived.wait)
            for task in made[1:8]:
                task.cancel()
            await asyncio.gather(*made, return_exceptions=True)

    def latency(_: Any) -> float:
        arrived.set()
        return 0.05

    arrived = threading.Event()
    with Server() as server, replay_of(tmp_path / "a.cassette.json", Mode.RECORD_ALL, meter=meter) as replay:
        server.latency = latency
        asyncio.run(go())
    assert len(server.bills) == meter.calls == 2
    assert sum(server.bills) == meter.cost


def test_waiting_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a call that never ends is bounded; then calls that fit the remaining budget are sent, others refused."""
    monkeypatch.setattr(session, "_LONGEST_WAIT", 0.0)
    monkeypatch.setattr(flow, "_RECHECK", 0.01)
    meter = Meter(Limits.of(max_cost="0.0009"), PRICES)
    body = json.dumps(chat("q", max_tokens=20)).encode()
    asked = [ClientRequest.of("POST", f"https://h/v1/chat/completions?{number}", body) for number in range(3)]
    with suppress(BudgetExhaustedError), replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=meter) as replay:
        calls = [replay.begin(each, waits=True) for each in asked]
        assert [call.ready is not None and call.ready.done() for call in calls] == [True, False, False]
        assert flow.wait(replay, calls[1]).interaction is None
        with pytest.raises(CallRefusedError, match=r"call 3 may cost up to \$0.000\d+, and .* 2 calls in flight"):
            flow.wait(replay, calls[2])
        for call in calls[:2]:
            replay.drop(call)


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
    asked = ClientRequest.of("POST", "https://h/v1/chat/completions", b'{"model": "small", "messages": []}')
    limited = Meter(Limits.of(max_cost=1), PRICES)
    with replay_of(tmp_path / "a.cassette.json", Mode.LIVE) as replay:
        calls = [replay.begin(asked, waits=True) for _ in range(2)]
        assert [call.ready for call in calls] == [None, None]
    replay = replay_of(tmp_path / "a.cassette.json", Mode.REPLAY, meter=limited)
    with pytest.raises(CallRefusedError, match="has no recording"):
        replay.begin(asked, waits=True)


def test_an_answer_that_was_cut_may_have_been_billed(tmp_path: Path) -> None:
    """A stream of Anthropic's says its prompt first: what the cut one would have billed nobody knows, so all of it counts."""
    book, ledger = PriceBook(), Ledger(Decimal(1))
    meter = Meter(Limits.of(max_cost=1), book, ledger)
    start = '{"type": "message_start", "message": {"model": "claude-sonnet-4-5", "usage": {"input_tokens": 10, "output_tokens": 1}}}'
    body = b'{"model": "claude-sonnet-4-5", "max_tokens": 1000, "stream": true, "messages": [{"role": "user", "content": "x"}]}'
    asked = ClientRequest.of("POST", "https://api.anthropic.com/v1/messages", body)
    with (
        suppress(RecordingError),
        replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=meter) as replay,
    ):
        call = replay.begin(asked)
        text = f"event: message_start\ndata: {start}\n\n".encode()
        replay.answer(call, 200, "OK", {"content-type": "text/event-stream"}, text)
    assert ledger.spent == ledger.uncertain > Decimal("0.015")
    assert ledger.billed == 0


def test_an_error_is_free_whatever_it_calls_itself(tmp_path: Path) -> None:
    """Of a binary stream the error is a text."""
    ledger = Ledger(Decimal(1))
    body = b'{"model": "small", "max_tokens": 10, "messages": []}'
    with replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=Meter(prices=PRICES, ledger=ledger)) as replay:
        call = replay.begin(ClientRequest.of("POST", "https://h/model/small/converse-stream", body))
        replay.answer(call, 500, "", {"content-type": "application/vnd.amazon.eventstream"}, b'{"message": "no"}')
    assert (ledger.spent, ledger.reserved) == (0, 0)


DEPLOYMENT = "https://r.openai.azure.com/openai/deployments/mine/chat/completions"


def test_a_deployment_is_priced_by_the_model_that_answers() -> None:
    """The request names a deployment; once one was answered, others are expected to cost what their model costs."""
    ledger = Ledger(Decimal(1))
    meter = Meter(Limits.of(max_cost=1), PriceBook(), ledger)
    asked = ClientRequest.of("POST", DEPLOYMENT, b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 10}')
    answer = '{"model": "gpt-4o-mini-2024-07-18", "choices": [{"message": {"content": "y"}}], "usage": %s}'
    answer %= '{"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}'
    hold = meter.enter(asked)
    meter.reserve(hold)
    assert hold.reservation is not None
    assert (hold.amount, hold.reservation.amount) == (1, 1)  # all that is left: nobody knows the model yet
    meter.answered(hold, 200, answer)
    assert meter.cost == ledger.spent == Decimal("0.00021")
    holds = [meter.enter(asked) for _ in range(20)]
    for hold in holds:
        meter.reserve(hold)
        assert hold.reservation is not None
    assert 0 < holds[0].amount < Decimal("0.0001")


def test_an_unknown_model_is_not_sent_under_a_limit() -> None:
    """Elsewhere than at Azure a name is the model's own."""
    asked = ClientRequest.of("POST", "https://h/v1/chat/completions", b'{"model": "mine", "messages": []}')
    meter = Meter(Limits.of(max_cost=1), PriceBook())
    with pytest.raises(SuiteError, match="the price of model 'mine' is unknown"):
        meter.reserve(meter.enter(asked))


class Gateway(LLMServer):
    """Answers in the name of the model behind an alias."""

    def completion(self, body: Any, answers: Any) -> Any:
        return super().completion(body, answers) | {"model": "gpt-4o-mini-2024-07-18"}


def test_a_gateways_name_is_priced_by_what_it_stands_for_and_replayed_by_what_answered(tmp_path: Path) -> None:
    """Nothing unpriced is sent; a replay, which costs nothing, needs no line: the answer names the model."""
    path, body = tmp_path / "a.cassette.json", chat("q", max_tokens=20) | {"model": "fast"}

    def call(mode: Mode, book: PriceBook, ledger: Ledger) -> Meter:
        meter = Meter(Limits.of(max_cost="0.001"), book, ledger)
        with (
            replay_of(path, mode, meter=meter) as replay,
            client(replay, base_url=server.base_url, api_key="any") as asking,
        ):
            asking.chat.completions.create(**body)
        return meter

    ledger = Ledger(Decimal("0.001"))
    with Gateway(answer="12345678") as server:
        with pytest.raises(SuiteError, match=r"llmtune_prices = fast model=gpt-4o-mini$"):
            call(Mode.RECORD_ALL, PriceBook(of_suite=False), ledger)
        assert server.count == 0
        paid = call(Mode.RECORD_ALL, PriceBook({"fast": {"model": "gpt-4o-mini"}}), ledger).cost
        assert call(Mode.REPLAY, PriceBook(), ledger).cost == paid == ledger.billed > 0
        assert server.count == 1
