"""Calls of a task's own client go where a prompt's would: to the endpoint that serves the model, and to the next one."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.llm_server import Fault, LLMServer

from pytest_llmtune import Suite
from pytest_llmtune.capture import client
from pytest_llmtune.capture.tariff import Tariff
from pytest_llmtune.completions.endpoints import Endpoint
from pytest_llmtune.completions.source import LiveSource
from pytest_llmtune.errors import CompletionError, EndpointError, RecordingError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.prices import Price, PriceBook
from pytest_llmtune.money.spend_log import SpendLog
from pytest_llmtune.recording import Recording
from pytest_llmtune.redaction.keys import Secret
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.tasks.source import TaskSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_llmtune.types import Completion, ModelUsage

PRICES = {name: {"input": 1, "output": 2} for name in ("small", "big")}


def ask(client: Any, model: str, question: str) -> str:
    found = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}], max_tokens=9)
    return str(found.choices[0].message.content)


def two_models(question: str, client: Any) -> str:
    """Plans with the small one, answers with the big one."""
    return ask(client, "big", ask(client, "small", question) + question)


async def two_models_async(question: str, async_client: Any) -> str:
    said = question
    for model in ("small", "big"):
        create = async_client.chat.completions.create
        found = await create(model=model, messages=[{"role": "user", "content": said + question}], max_tokens=9)
        said = found.choices[0].message.content
    return str(said)


def embeds(question: str, client: Any) -> str:
    return str(client.embeddings.create(model="small", input=question).data)


def requests_of(task: Any) -> list[Any]:
    rows = [{"question": question, "answer": "x"} for question in "zab"]
    suite = Suite(name="t", dataset=rows, task=task, model="small", grader="exact", tune_size=1, shuffle=False)
    return [suite.space.first().request_for(row) for row in suite.load().test]


def config_of(task: Any) -> Any:
    return requests_of(task)[0]


def endpoint(server: LLMServer, models: dict[str, str] | None, key: str = "k-one", **more: Any) -> Endpoint:
    return Endpoint(server.base_url, tuple(Secret(each, "test") for each in key.split()), models=models, **more)


def ran(
    task: Any,
    *endpoints: Endpoint,
    recording: Recording | None = None,
    ledger: Ledger | None = None,
    usage: dict[str, ModelUsage] | None = None,
) -> Completion:
    """One run of a task, asked of endpoints, or played; ``usage`` gets what was paid by model."""
    live = LiveSource(endpoints, PriceBook(PRICES), ledger=ledger or Ledger()) if endpoints else None

    async def run() -> Completion:
        nobody: Any = live or _Nobody()
        source = TaskSource(nobody, Tariff(PriceBook(PRICES)), Redactor(), recording, live)
        try:
            return await source.complete(config_of(task))
        finally:
            if usage is not None and live is not None:
                usage.update(live.account.by_model)
            await source.aclose()

    return asyncio.run(run())


class _Nobody:
    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.fixture
def servers() -> Iterator[tuple[LLMServer, LLMServer]]:
    with LLMServer(answer="one") as first, LLMServer(answer="two") as second:
        yield first, second


@pytest.mark.parametrize("task", [two_models, two_models_async])
def test_each_call_goes_to_the_endpoint_that_serves_its_model(task: Any, servers: tuple[LLMServer, LLMServer]) -> None:
    """With its key and its name of the model; recorded under the suite's name, and replayed whatever the client's address."""
    first, second = servers
    completion = ran(task, endpoint(first, {"small": "tiny-v2"}, "k-one"), endpoint(second, {"big": "big"}, "k-two"))
    assert completion.texts == ("two",)
    assert [body["model"] for body in first.requests] == ["tiny-v2"]
    assert [body["model"] for body in second.requests] == ["big"]
    assert (first.keys, second.keys) == (["k-one"], ["k-two"])
    bodies = [json.loads(call.body)["model"] for call in completion.calls]
    assert (
        bodies,
        [call.uri.startswith(server.base_url) for call, server in zip(completion.calls, servers, strict=True)],
    ) == (
        ["small", "big"],
        [True, True],
    )
    played = ran(task, recording=Recording.of(Path("t.cassette.json"), completion.calls))
    assert (played.texts, played.cost) == (completion.texts, completion.cost)
    assert (first.count, second.count) == (1, 1)


def test_azure_is_asked_by_deployment_and_its_calls_are_replayed(servers: tuple[LLMServer, LLMServer]) -> None:
    """Its path names a deployment, which no other client would ask for."""
    azure = Endpoint(
        servers[0].root_url, (Secret("k", "test"),), "azure", models={"small": "mine", "big": "mine"}, api_version="v"
    )
    completion = ran(two_models, azure)
    assert {call.path for call in completion.calls} == {"/openai/deployments/mine/chat/completions"}
    assert ran(two_models, recording=Recording.of(Path("t"), completion.calls)).texts == completion.texts


def test_a_client_that_tries_again_is_answered_by_the_next_endpoint(servers: tuple[LLMServer, LLMServer]) -> None:
    """Its own retry goes to the next that serves the model; the fault is healed, and bills nothing."""
    first, second = servers
    first.fault = lambda _: Fault.http(503)
    ledger = Ledger(Decimal(1))
    completion = ran(two_models, endpoint(first, None), endpoint(second, None, "k-two"), ledger=ledger)
    assert completion.texts == ("two",)
    assert (first.count, second.count, len(completion.calls)) == (2, 2, 2)
    assert ledger.spent == completion.cost == completion.paid


def test_keys_of_an_endpoint_take_turns(servers: tuple[LLMServer, LLMServer]) -> None:
    ran(two_models, endpoint(servers[0], None, "k-one k-two"))
    assert sorted(servers[0].keys) == ["k-one", "k-two"]


def test_a_model_that_no_endpoint_serves_ends_the_run(servers: tuple[LLMServer, LLMServer]) -> None:
    """As for prompts: no other row can fare better. Nothing was sent for it."""
    with pytest.raises(EndpointError, match="no endpoint serves the model 'big'; the endpoints list: small"):
        ran(two_models, endpoint(servers[0], {"small": "small"}))
    assert servers[0].count == 1


def test_an_endpoint_with_a_price_of_its_own_is_paid_by_it(servers: tuple[LLMServer, LLMServer]) -> None:
    """The ledger knows what it bills; the suite's cost is at the suite's prices, as a replay's."""
    own = {name: Price(Decimal(10), Decimal(20)) for name in PRICES}
    ledger = Ledger(Decimal(1))
    usage: dict[str, ModelUsage] = {}
    completion = ran(two_models, endpoint(servers[0], None, prices=own), ledger=ledger, usage=usage)
    assert completion.cost is not None
    assert ledger.spent == 10 * completion.cost
    assert sum(each.cost or 0 for each in usage.values()) == ledger.spent


def test_a_call_is_on_disk_as_spent_before_its_run_ends(servers: tuple[LLMServer, LLMServer], tmp_path: Path) -> None:
    """A run that is killed has paid for it; and each is counted once."""
    ledger = Ledger(log=SpendLog(tmp_path))
    noted: list[list[Decimal]] = []

    def reads_log(question: str, client: Any) -> str:
        for _ in range(2):
            ask(client, "small", question)
            noted.append([Decimal(line) for file in tmp_path.iterdir() for line in file.read_text().split()])
        return question

    ran(reads_log, endpoint(servers[0], None), ledger=ledger)
    assert list(map(len, noted)) == [1, 2]
    assert sum(noted[-1]) == ledger.spent > 0
    assert ledger.log is not None
    ledger.log.close()


REFUSALS = {
    "xai": (400, {"error": "Incorrect API key provided: xa***. You can obtain one at https://console.x.ai."}, True),
    "gemini": (400, {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}, True),
    "gemini country": (400, {"error": {"message": "User location is not supported for the API use."}}, True),
    "anthropic": (
        400,
        {"type": "error", "error": {"message": "Your credit balance is too low to access the API."}},
        True,
    ),
    "openrouter": (402, {"error": {"message": "Insufficient credits"}}, True),
    "bedrock model": (400, {"message": "The provided model identifier is invalid."}, True),
    "gone": (410, {"error": {"message": "The model `old` has been retired"}}, True),
    "hugging face": (424, {"error": "Failed dependency"}, True),
    "too long": (400, {"error": {"message": "maximum context length is 8192 tokens", "param": "messages"}}, False),
    "parameter": (400, {"error": {"message": "temperature is not supported with this model", "param": "t"}}, False),
    "filter": (400, {"error": {"message": "filtered", "code": "content_filter"}}, False),
    "schema": (422, {"error": {"message": "response_format: invalid"}}, False),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_key_is_a_fault_of_the_endpoint_whatever_its_status(
    refusal: str, servers: tuple[LLMServer, LLMServer]
) -> None:
    """The row is unknown; what the request itself is refused for, the app may handle."""
    status, said, fault = REFUSALS[refusal]
    body = json.dumps(said).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    servers[0].fault = lambda _: Fault("raw", data=lambda _: head + body)

    def handles(question: str) -> str:
        data = {"model": "small", "messages": [{"role": "user", "content": question}]}
        return str(httpx.post(servers[0].base_url + "/chat/completions", json=data).status_code)

    if fault:
        with pytest.raises(CompletionError, match=f"was answered with status {status}"):
            ran(handles, endpoint(servers[0], None))
    else:
        assert ran(handles, endpoint(servers[0], None)).texts == (str(status),)


def test_a_route_that_fails_everywhere_is_unknown(servers: tuple[LLMServer, LLMServer]) -> None:
    """404 of a server without embeddings says something of the endpoint, and nothing of the app."""
    with pytest.raises(CompletionError, match="POST /v1/embeddings was answered with status 404"):
        ran(embeds, endpoint(servers[0], None))


@pytest.mark.parametrize("task", [two_models, two_models_async])
@pytest.mark.parametrize("limit", [{"requests_per_minute": 1.0}, {"tokens_per_minute": 50.0}])
def test_the_limits_per_minute_of_an_endpoint_hold_for_each_call(
    task: Any, limit: dict[str, float], servers: tuple[LLMServer, LLMServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second call waits its minute."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    clock = SimpleNamespace(sleep=waits.append, perf_counter=time.perf_counter)
    monkeypatch.setattr(client, "time", clock)
    monkeypatch.setattr(client, "asyncio", SimpleNamespace(sleep=sleep))
    ran(task, endpoint(servers[0], None, **limit))
    [wait] = waits
    assert wait > 40
    assert servers[0].count == 2


def five_in_threads(question: str, client: Any) -> str:
    with ThreadPoolExecutor(5) as pool:
        return " ".join(pool.map(lambda number: ask(client, "small", f"{question}{number}"), range(5)))


async def five_at_once(question: str, async_client: Any) -> str:
    async def one(number: int) -> str:
        messages = [{"role": "user", "content": f"{question}{number}"}]
        found = await async_client.chat.completions.create(model="small", messages=messages, max_tokens=9)
        return str(found.choices[0].message.content)

    return " ".join(await asyncio.gather(*map(one, range(5))))


@pytest.mark.parametrize("limit", [None, Decimal(1)])
@pytest.mark.parametrize("task", [five_in_threads, five_at_once])
def test_an_endpoint_has_no_more_requests_in_flight_than_it_allows(
    task: Any, limit: Decimal | None, servers: tuple[LLMServer, LLMServer]
) -> None:
    """Over the calls of several rows; the first of a model goes alone where USD are limited."""
    servers[0].latency = 0.02
    ledger = Ledger(limit)
    live = LiveSource((endpoint(servers[0], None, concurrency=2),), PriceBook(PRICES), ledger=ledger)

    async def runs() -> list[Completion]:
        source = TaskSource(live, Tariff(PriceBook(PRICES)), Redactor(), None, live)
        try:
            return await asyncio.gather(*(source.complete(request) for request in requests_of(task)))
        finally:
            await source.aclose()

    done = asyncio.run(runs())
    assert [each.texts for each in done] == [("one one one one one",)] * 2
    assert (servers[0].peak, servers[0].count) == (2, 10)
    assert (ledger.spent, ledger.reserved) == (sum(each.cost or 0 for each in done), 0)
    assert live.pool.channels[0].gate.inside == 0


def test_a_call_given_up_in_the_queue_was_not_sent(servers: tuple[LLMServer, LLMServer]) -> None:
    """The row is unknown, as our limit had it wait; nothing is lost, and the queue goes on."""
    servers[0].latency = 0.2
    ledger = Ledger(Decimal(1))

    async def impatient(question: str, async_client: Any) -> str:
        async def one(text: str) -> str:
            messages = [{"role": "user", "content": text}]
            found = await async_client.chat.completions.create(model="small", messages=messages, max_tokens=9)
            return str(found.choices[0].message.content)

        await one("first")
        slow, late = asyncio.create_task(one("slow")), asyncio.create_task(one("late"))
        await asyncio.to_thread(servers[0].until, lambda: servers[0].in_flight > 0)
        late.cancel()
        return await slow + await one("last")

    with pytest.raises(CompletionError, match="was given up while it waited for its turn"):
        ran(impatient, endpoint(servers[0], None, concurrency=1), ledger=ledger)
    assert (servers[0].count, ledger.reserved) == (3, 0)
    assert ledger.spent < Decimal("0.0001")


def by_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


class Worker(threading.Thread):
    """With a ``run`` of its own, as libraries have."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self.work = work

    def run(self) -> None:
        self.work()


def by_worker(work: Callable[[], None]) -> None:
    worker = Worker(work)
    worker.start()
    worker.join()


def by_timer(work: Callable[[], None]) -> None:
    timer = threading.Timer(0, work)
    timer.start()
    timer.join()


def by_loop(work: Callable[[], None]) -> None:
    """As synchronous code calls asynchronous code: a thread with a loop, whose coroutines use threads."""
    by_thread(lambda: asyncio.run(asyncio.to_thread(work)))


def by_later_pool(work: Callable[[], None]) -> None:
    """The first run starts it, all use it."""
    LATER or LATER.append(ThreadPoolExecutor(1))
    LATER[0].submit(work).result()


def by_own_pool(work: Callable[[], None]) -> None:
    with ThreadPool(1) as pool:
        pool.apply(work)
        pool.close()
        pool.join()


LATER: list[ThreadPoolExecutor] = []
SHARED: list[ThreadPool] = []
"""Its thread is started before any run."""
WAYS = {
    "thread": by_thread,
    "worker": by_worker,
    "timer": by_timer,
    "loop": by_loop,
    "later": by_later_pool,
    "own": by_own_pool,
    "apply": lambda work: SHARED[0].apply_async(func=work).get(),
    "map": lambda work: SHARED[0].map(lambda _: work(), [0]),
    "imap": lambda work: next(SHARED[0].imap(lambda _: work(), [0])),
}


@pytest.fixture
def pools() -> Iterator[None]:
    with ThreadPool(1) as pool:
        SHARED[:], LATER[:] = [pool], []
        yield
        for later in LATER:
            later.shutdown()
        pool.close()
        pool.join()


@pytest.mark.usefixtures("pools")
@pytest.mark.parametrize("way", WAYS)
def test_calls_of_threads_belong_to_the_run_that_started_them(way: str, servers: tuple[LLMServer, LLMServer]) -> None:
    """Also where several runs are in progress, and where a pool serves them all; nothing stays patched."""
    both, before = threading.Barrier(2, timeout=20), threading.Thread.start

    def threaded(question: str) -> str:
        def work() -> None:
            data = {"model": "small", "messages": [{"role": "user", "content": question}]}
            said.append(httpx.post(servers[0].base_url + "/chat/completions", json=data).text)

        said: list[str] = []
        both.wait()
        WAYS[way](work)
        return question if "one" in said[0] else "refused"

    live = LiveSource((endpoint(servers[0], None),), PriceBook(PRICES), ledger=Ledger())

    async def runs() -> list[Completion]:
        source = TaskSource(live, Tariff(PriceBook(PRICES)), Redactor(), None, live)
        try:
            return await asyncio.gather(*(source.complete(request) for request in requests_of(threaded)))
        finally:
            await source.aclose()

    for completion, question in zip(asyncio.run(runs()), "ab", strict=True):
        [call] = completion.calls
        assert completion.texts == (question,) == (json.loads(call.body)["messages"][0]["content"],)
    assert threading.Thread.start is before


class Own(BaseException):
    """Of a library that wants to pass handlers of Exception."""


RAISED = {
    "SystemExit: 3": SystemExit(3),
    "Own: mine": Own("mine"),
    "CancelledError": asyncio.CancelledError(),
    "Skipped: no": pytest.skip.Exception("no"),
    "ExceptionGroup: several (1 sub-exception)": ExceptionGroup("several", [ValueError("a")]),
    "ValueError: last": ValueError("first\nlast"),
}


@pytest.mark.parametrize("said", RAISED)
@pytest.mark.parametrize("is_async", [True, False])
def test_whatever_a_task_raises_is_a_wrong_answer(said: str, is_async: bool) -> None:
    """Not a skip, and not an interrupted run."""

    def raises(question: str) -> str:
        raise RAISED[said]

    async def raises_async(question: str) -> str:
        raise RAISED[said]

    [choice] = ran(raises_async if is_async else raises).choices
    assert choice.run is not None
    assert choice.run.error == said


async def slowly(question: str, **more: Any) -> str:
    await asyncio.sleep(0)
    return question


@functools.wraps(slowly)
def blocking(question: str, **more: Any) -> str:
    """A decorator that makes an asynchronous function a synchronous one."""
    return asyncio.run(slowly(question))


@functools.wraps(slowly)
def passed_on(question: str, **more: Any) -> Any:
    return slowly(question)


def pieces(question: str) -> Iterator[str]:
    yield question


@functools.wraps(pieces)
def joined(question: str) -> str:
    return "".join(pieces(question))


class Started:
    """Its instances can be called, and are awaited; the class itself is not."""

    def __init__(self, question: str = "") -> None:
        self.question = question

    async def __call__(self, question: str) -> str:
        return await slowly(question)


@pytest.mark.parametrize(
    "task",
    [slowly, blocking, passed_on, joined, Started(), functools.partial(slowly, more=1), functools.partial(Started())],
    ids=["async", "blocking", "passed_on", "joined", "object", "partial", "partial_object"],
)
def test_a_task_is_awaited_as_what_it_returns(task: Any) -> None:
    """Whatever it wraps."""
    assert ran(task).texts == ("a",)


def test_ctrl_c_in_a_task_ends_the_run() -> None:
    def interrupted(question: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(interrupted)


def test_a_call_after_the_end_of_its_run_is_no_call_of_the_next(servers: tuple[LLMServer, LLMServer]) -> None:
    """It is refused, and told by the next run, because its answer could not be recorded."""
    contexts: list[contextvars.Context] = []

    def ends_early(question: str) -> str:
        if contexts:
            with pytest.raises(BaseException, match="is sent after the task has returned"):
                contexts[0].run(httpx.post, servers[0].base_url + "/chat/completions", json={"model": "small"})
        contexts.append(contextvars.copy_context())
        return "done"

    async def runs() -> None:
        nobody: Any = _Nobody()
        source = TaskSource(nobody, Tariff(PriceBook(PRICES)), Redactor(), None, None)
        request = config_of(ends_early)
        for _ in range(2):
            assert (await source.complete(request)).texts == ("done",)
        with pytest.raises(RecordingError, match=r"row \d \[\w+\], run 1: POST .* wait for all calls before returning"):
            await source.complete(request)
        await source.aclose()

    asyncio.run(runs())
    assert not servers[0].count
