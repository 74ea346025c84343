"""The live source: n answers of a real client over real HTTP, cached at once, counted honestly, within a budget."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
import time
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from support.live import PRICES, Live, request
from support.llm_server import Answer, LLMServer, prompt_tokens, tokens

from pytest_llmtune.completions.billing import Billing
from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.completions.routing import EndpointPool
from pytest_llmtune.completions.source import ReplaySource
from pytest_llmtune.completions.stats import RequestStats
from pytest_llmtune.errors import BudgetExhaustedError, CacheError, StaleRecordingError, SuiteError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.recording import Recording
from pytest_llmtune.types import Usage
from pytest_llmtune.wire.tokens import completion_of, probe_body, prompt_bound

if TYPE_CHECKING:
    from pathlib import Path

NUMBERED = iter(range(10**6))


def numbered(body: dict[str, object]) -> list[str]:
    """Every answer of every server is another one."""
    return [f"answer {next(NUMBERED)}" for _ in range(int(str(body["n"])))]


def texts(completion: object) -> list[str]:
    return [choice.text for choice in completion.choices]  # type: ignore[attr-defined]


def test_gives_n_answers_and_what_they_cost(live: Live) -> None:
    """Texts, reasons, tokens, dollars, latency and the exchange itself."""
    with LLMServer(answer=["42", Answer("It is 42.", "tool_calls")], latency=0.02) as server:
        [completion] = live.run(live.source(server), request(n=3))
    assert [(choice.text, choice.finish_reason) for choice in completion.choices] == [
        ("42", "stop"),
        ("It is 42.", "tool_calls"),
        ("42", "stop"),
    ]
    prompt, written = prompt_tokens(request().body["messages"]), 2 * tokens("42") + tokens("It is 42.")
    assert completion.usage == Usage(prompt, written)
    assert completion.paid == Decimal(prompt + 10 * written) / 1_000_000
    assert completion.served_model == "m"
    assert 0.02 <= completion.latency < 2
    [exchange] = completion.exchanges
    assert exchange.request == {**request().body, "n": 3} == server.requests[0]
    assert exchange.uri == f"{server.base_url}/chat/completions"
    assert exchange.headers == {"content-type": "application/json"}


def test_unknown_parameters_reach_the_server(live: Live) -> None:
    """Whatever a suite sends is sent, also what the openai client has no name for."""
    with LLMServer() as server:
        live.run(live.source(server), request(top_k=5, chat_template_kwargs={"enable_thinking": False}))
    assert server.requests[0]["top_k"] == 5
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_many_requests_are_in_flight(live: Live) -> None:
    """Ten at once, and never more."""

    def until_ten_are_there(_: dict[str, object]) -> float:
        if server.count > 1:  # the first request goes alone
            server.until(lambda: server.peak >= 10)
        return 0.0

    with LLMServer(latency=until_ten_are_there) as server:
        live.run(live.source(server, concurrency=10), request("first"), *(request(number) for number in range(19)))
    assert server.peak == 10


def test_connections_are_kept(live: Live) -> None:
    """A hundred and fifty requests at once and the next ones share 19 pools of 8: a single pool would keep but 100."""

    def until_more_are_there_than_a_pool_keeps(_: dict[str, object]) -> float:
        if server.count > 1:
            server.until(lambda: server.peak > 100)
        return 0.0

    with LLMServer(latency=until_more_are_there_than_a_pool_keeps) as server:
        source = live.source(server, concurrency=150)

        async def waves() -> None:
            for wave in (range(1), range(1, 151), range(151, 301)):
                await asyncio.gather(*(source.complete(request(number)) for number in wave))
            await source.aclose()

        asyncio.run(waves())
    assert 100 < server.peak <= 150
    assert server.opened <= 19 * 8


def test_compressed_answers_are_read(live: Live) -> None:
    """A server that compresses is no different."""
    with LLMServer(answer="x" * 70, gzip=True) as server:
        [completion] = live.run(live.source(server), request())
    assert texts(completion) == ["x" * 70]


# n


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("Invalid 'n': integer above maximum value. Expected a value <= {max_n}, but got {n} instead.", 1),
        ("Field 'n': Value must be between 1 <= value <= {max_n}, but got {n}", 1),
        ("'n' : number must be at most {max_n}", 1),
        ("n is too large", 2),  # 20 is refused, 10 too, 5 is tried
    ],
)
def test_a_refusal_of_n_is_split_and_remembered(live: Live, words: str, refused: int) -> None:
    """The limit is read from the refusal, else halved; later requests know it."""
    account = RequestStats()
    with LLMServer(answer=numbered, max_n=8, n_message=words) as server:
        source = live.source(server, account=account, concurrency=1)
        first, second = live.run(source, request("a", 20), request("b", 20))
    assert len(set(texts(first) + texts(second))) == 40
    sizes = [body["n"] for body in server.requests]
    limit = 8 if refused == 1 else 5
    assert sizes[: refused + 1] == [*[20, 10, 5][:refused], limit]
    assert max(sizes[refused:]) == limit
    assert f"gives at most {limit} answers per request for m" in account.notes[-1]
    assert first.usage.prompt_tokens == -(-20 // limit) * prompt_tokens(request("a").body["messages"])


def test_a_server_that_ignores_n_is_asked_again(live: Live) -> None:
    """One choice instead of five: the others are asked for one by one, and the next request knows."""
    with LLMServer(answer=numbered, ignore_n=True) as server:
        source = live.source(server, concurrency=1)
        [first, second] = live.run(source, request("a", 5), request("b", 3))
    assert len(set(texts(first))) == 5
    assert len(set(texts(second))) == 3
    assert [body["n"] for body in server.requests] == [5, *[1] * 7]


def test_a_greedy_limit_does_not_bind_sampling(live: Live) -> None:
    """vLLM takes n > 1 only where it samples: what is learned at temperature 0 holds there."""
    words = "n must be 1 when using greedy sampling, got {n}."

    with LLMServer() as server:
        server.n_message = words
        source = live.source(server, concurrency=1)

        async def work() -> None:
            server.max_n = 1
            await source.complete(request("a", 4, temperature=0))
            server.max_n = None
            await source.complete(request("b", 4, temperature=0))
            await source.complete(request("c", 4, temperature=1))
            await source.aclose()

        asyncio.run(work())
    assert [body["n"] for body in server.requests] == [4, *[1] * 8, 4]


# the cache


def test_asked_again_it_costs_nothing(live: Live) -> None:
    """Every answer is in the cache before it is counted; another source, another n, and the same answers come back."""
    with LLMServer(answer=numbered) as server:
        [first] = live.run(live.source(server), request(n=5))
        account = RequestStats()
        [again, fewer] = live.run(live.source(server, account=account), request(n=5), request(n=2))
    assert server.count == 1
    assert texts(again) == texts(first)
    assert texts(fewer) == texts(first)[:2]
    assert (again.paid, fewer.paid, account.sent, account.cached) == (0, 0, 0, 7)
    assert again.usage == first.usage


def test_only_what_is_missing_is_asked(live: Live) -> None:
    """Samples are shared between values of n."""
    with LLMServer(answer=numbered) as server:
        source = live.source(server)

        async def work() -> list[list[str]]:
            found = [texts(await source.complete(request(n=n))) for n in (3, 8, 5, 9)]
            await source.aclose()
            return found

        three, eight, five, nine = asyncio.run(work())
    assert [body["n"] for body in server.requests] == [3, 5, 1]
    assert (three, eight, five) == (nine[:3], nine[:8], nine[:5])
    assert len(set(nine)) == 9


def test_equal_requests_at_once_are_paid_once(live: Live) -> None:
    """Ten equal requests in flight wait for the first one's answers."""
    with LLMServer(answer=numbered, latency=0.05) as server:
        completions = live.run(live.source(server), *[request(n=4)] * 10)
    assert server.count == 1
    assert len({tuple(texts(completion)) for completion in completions}) == 1
    assert sorted(completion.paid > 0 for completion in completions) == [False] * 9 + [True]


def test_equal_rows_get_samples_of_their_own(live: Live, tmp_path: Path) -> None:
    """Draws of one request never share a sample: in any order of arrival, from the cache, and from a recording."""
    asked = [replace(request(n=3), sample_index=sample_index) for sample_index in (2, 0, 1)]
    with LLMServer(answer=numbered) as server:
        third, first, second = live.run(live.source(server), *asked)
        again = live.run(live.source(server), *reversed(asked))
    assert len(set(texts(first) + texts(second) + texts(third))) == 9
    assert [texts(completion) for completion in again] == [texts(second), texts(first), texts(third)]
    assert sum(body["n"] for body in server.requests) == 9
    path = tmp_path / "r.cassette.json"
    Recording.write(path, live.cache().get(request().key))
    recording = Recording.load(path)
    assert [texts(recording.lookup(one)) for one in asked] == [texts(third), texts(first), texts(second)]


def test_without_a_cache_every_request_is_a_fresh_one(live: Live) -> None:
    """Today's model is asked: nothing is shared, nothing is kept."""
    with LLMServer(answer=numbered) as server:
        first, second = live.run(live.source(server, cache=None), request(n=2), request(n=2))
    assert server.count == 2
    assert not set(texts(first)) & set(texts(second))


def test_seeds_do_not_share_samples(live: Live) -> None:
    """A new seed asks anew."""
    with LLMServer(answer=numbered) as server:
        [first] = live.run(live.source(server), request())
        [second] = live.run(live.source(server, cache=live.cache(seed=2)), request())
    assert texts(first) != texts(second)


def test_an_answer_that_cannot_be_stored_stops_the_run(live: Live) -> None:
    """It is paid for and counted, and CacheError tells that nothing more should be."""
    (live.directory / "cache").write_text("a file in the way")
    ledger = Ledger()
    with LLMServer() as server:
        [error] = live.results(live.source(server, ledger=ledger), request())
    assert isinstance(error, CacheError)
    assert server.count == 0  # found out before anything was sent


# honest counts


@pytest.mark.parametrize("answer", ["Yes, it is 42, as everybody knows who has read the book.", "no"])
def test_an_undercounting_server_is_noticed(live: Live, answer: str) -> None:
    """llama.cpp counts one of n choices: all are counted here, and a replay counts the same."""
    account, ledger = RequestStats(), Ledger()
    with LLMServer(answer=answer, usage="one_choice") as server:
        source = live.source(server, account=account, ledger=ledger)
        completions = live.run(source, *(request(number, 4) for number in range(5)))
    assert [completion.usage.completion_tokens for completion in completions] == [4 * tokens(answer)] * 5
    assert not any(completion.usage.estimated for completion in completions)
    assert "127.0.0.1" in account.notes[0]
    assert "tokens of one choice only" in account.notes[0]
    replayed = [completion_of(completion.exchanges, 4).usage for completion in completions]
    assert replayed == [completion.usage for completion in completions]
    assert ledger.spent == sum(completion.paid for completion in completions)


@pytest.mark.parametrize("answer", ["It is 42.", "no", "Yes, it is 42, as everybody knows who has read the book."])
def test_a_recording_counts_as_the_live_run_did(live: Live, tmp_path: Path, answer: str) -> None:
    """Where the server's stopwatch, which no recording keeps, was the only proof that one choice of n was counted."""
    n = max(2, tokens(answer))  # as many tokens reported as there are choices: what a server says that counts all
    with LLMServer(answer=answer, usage="llama.cpp") as server:
        [completion] = live.run(live.source(server), request(1, n))
    Recording.write(tmp_path / "s.cassette.json", completion.exchanges)
    replayed = Recording.load(tmp_path / "s.cassette.json").lookup(request(1, n))
    assert replayed is not None
    assert replayed.usage == completion.usage
    assert replayed.usage.completion_tokens == n * tokens(answer)


def test_a_doubtful_server_is_asked_once(live: Live) -> None:
    """Different long answers prove nothing: one tiny probe does, and it is paid for within the reservation."""
    words = ["Yes, it is 42, as everybody knows.", "Certainly forty-two; there is no doubt.", "42", "The answer: 42!"]
    account, ledger = RequestStats(), Ledger(Decimal("0.01"))
    with LLMServer(answer=words, usage="one_choice") as server:
        source = live.source(server, account=account, ledger=ledger)
        completions = live.run(source, *(request(number, 4) for number in range(6)))
    probes = [body for body in server.requests if body["messages"][0]["content"] == "Hi"]
    assert probes == [{"model": "m", "messages": [{"role": "user", "content": "Hi"}], "n": 2, "max_tokens": 1}]
    assert account.sent == server.count == 7
    true = sum(map(tokens, words))
    for completion in completions:
        assert true <= completion.usage.completion_tokens <= 1.35 * true
        assert completion.usage.estimated
    probe_cost = Decimal(prompt_tokens([{"content": "Hi"}]) + 10 * 1) / 1_000_000
    assert ledger.spent == sum(completion.paid for completion in completions)
    assert ledger.spent >= probe_cost


def test_one_who_gives_up_waiting_for_the_probe_cancels_no_other(live: Live) -> None:
    """While the probe is under way a waiting request is cancelled: the others are counted all the same."""
    words = ["Yes, it is 42, as everybody knows.", "Certainly forty-two; there is no doubt."]
    all_wait, cancelled = asyncio.Event(), threading.Event()
    # sent: 5 requests and the probe; none of the 5 is in flight any more: all were answered
    account = RequestStats(listen=lambda now: all_wait.set() if (now.sent, now.in_flight) == (6, 0) else None)

    def until_one_gave_up(body: dict[str, object]) -> float:
        return 0.0 if body["n"] == 4 or cancelled.wait(20) else 1.0

    with LLMServer(words, usage="one_choice", latency=until_one_gave_up) as server:
        source = live.source(server, account=account)

        async def work() -> list[object]:
            jobs = [asyncio.create_task(source.complete(request(number, 4))) for number in range(5)]
            await asyncio.wait_for(all_wait.wait(), 20)
            jobs[3].cancel()
            await asyncio.wait(jobs[3:4])
            cancelled.set()
            found = await asyncio.gather(*jobs, return_exceptions=True)
            await source.aclose()
            return [getattr(one, "usage", one) for one in found]

        usages = asyncio.run(work())
    assert isinstance(usages.pop(3), asyncio.CancelledError)
    assert {usage.completion_tokens >= 2 * sum(map(tokens, words)) for usage in usages} == {True}
    assert len(source.cache.get(request(3).key)) == 1  # it was paid for


def test_an_honest_server_is_believed_after_the_probe(live: Live) -> None:
    """Text that is dense in bytes is no undercount where the server counts two tokens for two choices."""
    with LLMServer(answer="ok") as server:
        server.completion, plain = (
            (  # a tokenizer that needs 20 bytes a token
                lambda body, answers: (
                    plain(body, answers)
                    | {"usage": {"prompt_tokens": 9, "completion_tokens": sum(-(-len(a.text) // 20) for a in answers)}}
                )
            ),
            server.completion,
        )
        server.answer = "=" * 60
        [completion] = live.run(live.source(server), request(n=2))
    assert server.count == 2
    assert completion.usage == Usage(9, 6)
    assert completion_of(completion.exchanges, 2).usage == Usage(9, 6)


def test_missing_usage_is_estimated(live: Live) -> None:
    """No usage: the cost is on the high side, and says that it is an estimate."""
    with LLMServer(answer="It is 42.", usage="none") as server:
        [completion] = live.run(live.source(server), request(n=2))
    assert completion.usage.estimated
    assert 2 * tokens("It is 42.") <= completion.usage.completion_tokens <= 8
    assert completion.paid > 0


# dollars


def test_an_unpriced_model_is_an_error_before_the_first_request(live: Live) -> None:
    """Nothing is sent."""
    with LLMServer() as server:
        [error] = live.results(live.source(server), request(model="nobody-knows"))
    assert isinstance(error, SuiteError)
    assert "nobody-knows" in str(error)
    assert server.count == 0


@pytest.mark.parametrize("concurrency", [1, 7, 64])
def test_the_budget_holds_at_any_concurrency(live: Live, concurrency: int) -> None:
    """What the server really billed stays within the budget, and most of it is used."""
    budget = Decimal("0.01")
    with LLMServer(answer="a" * 60, latency=0.002, fault_rate={"429": 0.1, "503": 0.05}) as server:
        source = live.source(server, ledger=Ledger(budget), concurrency=concurrency)
        results = live.results(source, *(request(number, 3) for number in range(60)))
        prompts = sum(prompt_tokens(body["messages"]) for body in server.answered)
        billed = Decimal(prompts + 10 * server.billed) / 1_000_000
    kinds = {type(result).__name__ for result in results}
    assert kinds == {"Completion", "BudgetExhaustedError"}
    assert billed == source.ledger.spent <= budget
    assert billed >= budget * Decimal("0.9")
    assert source.ledger.reserved == 0


def test_a_known_prompt_is_reserved_exactly(live: Live) -> None:
    """The first request reserves a token for each byte; the same prompt at another temperature what it billed."""
    question = "x" * 4000
    body = request(question).body
    assert prompt_bound(body) > 4000
    assert prompt_tokens(body["messages"]) == 1007
    with LLMServer(answer="ok") as server:
        source = live.source(server, ledger=Ledger(Decimal("0.0055")))

        async def work() -> None:
            await source.complete(request(question, temperature=0.1))  # reserves 0.0044, costs 0.001
            for temperature in (0.2, 0.3, 0.4):
                await source.complete(request(question, temperature=temperature))
            with pytest.raises(BudgetExhaustedError):
                await source.complete(request("y" * 4000))
            await source.aclose()

        asyncio.run(work())
    assert server.count == 4


def test_the_reservation_covers_the_probe(live: Live) -> None:
    """Asking a server how it counts is reserved together with the request that may raise the question."""
    channel = EndpointPool.of(
        endpoints_of(base_url="http://127.0.0.1:9/v1", root=live.directory, environ={}), 1, 1.0
    ).channels[0]
    billing, price = Billing(PRICES, RequestStats(), 1.0), PRICES.price("m")
    one, two = ({**request().body, "n": n} for n in (1, 2))
    assert billing.worst(channel, one, 1) == price.worst(prompt_bound(one), 20)
    probe = price.worst(prompt_bound(probe_body(two)), 2)
    assert billing.worst(channel, two, 2) == price.worst(prompt_bound(two), 40) + probe


def test_pools_of_connections_share_their_certificates(live: Live) -> None:
    """Twenty requests at once go through several clients of one lane; reading certificates for each takes longer than a request."""
    channel = EndpointPool.of(
        endpoints_of(base_url="https://127.0.0.1:9/v1", root=live.directory, environ={}), 20, 1.0
    ).channels[0]

    def contexts() -> int:
        gc.collect()
        return sum(issubclass(type(found), ssl.SSLContext) for found in gc.get_objects())  # looks into no lazy proxy

    clients = [channel.client()]  # with what its libraries make when they are imported
    before = contexts()
    clients += [channel.client() for _ in range(19)]
    assert len(set(map(id, clients))) == 3
    assert contexts() == before
    asyncio.run(channel.aclose())


def test_no_max_tokens_reserves_an_assumed_length(live: Live) -> None:
    """Without a limit of the answer the reservation assumes 16,384 tokens."""
    body = {name: value for name, value in request().body.items() if name != "max_tokens"}
    with LLMServer() as server:
        [error] = live.results(live.source(server, ledger=Ledger(Decimal("0.16"))), replace(request(), body=body))
    assert isinstance(error, BudgetExhaustedError)
    assert "up to $0.16" in str(error)


def test_prices_of_the_endpoint_win(live: Live) -> None:
    """What this server charges is what is paid."""
    with LLMServer(answer="ok") as server:
        own = [{"base_url": server.base_url, "prices": {"m": {"input": 1000, "output": 0}}}]
        [completion] = live.run(live.source(own, prices=PriceBook()), request())
    assert completion.paid == Decimal(prompt_tokens(request().body["messages"])) / 1000


# life of a source


def test_serves_one_asyncio_run_after_the_other(live: Live) -> None:
    """Closed, it can be used again in another event loop; ledger, cache and account go on."""
    with LLMServer(answer=numbered) as server:
        source = live.source(server)
        [first] = live.run(source, request("a"))
        assert source.cache._store is None
        [second, again] = live.run(source, request("b"), request("a"))
    assert texts(again) == texts(first) != texts(second)
    assert source.account.answered == 2
    assert source.ledger.spent == first.paid + second.paid


def test_cancelled_soon_and_accounted(live: Live) -> None:
    """Ctrl-C waits two seconds for what is in flight and no longer; what does not arrive counts as perhaps billed."""
    with LLMServer(latency=30) as server:
        source = live.source(server, timeout=60.0)

        async def work() -> float:
            job = asyncio.gather(*(source.complete(request(number)) for number in range(20)), return_exceptions=True)
            await asyncio.to_thread(server.until, lambda: server.in_flight > 0)
            start = time.monotonic()
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
            await source.aclose()
            return time.monotonic() - start

        assert asyncio.run(work()) < 10  # the answers would take 30
    assert source.ledger.reserved == 0
    assert source.ledger.uncertain == source.account.uncertain > 0


def test_the_account_is_readable(live: Live) -> None:
    """What was sent, answered and cached, in lines for people; nothing where nothing happened."""
    assert RequestStats().lines() == ()
    with LLMServer(faults=[None, *[_fault(503)] * 2]) as server:
        source = live.source(server, concurrency=1)
        live.run(source, request("a", 3), request("b", 3))
    assert source.account.lines() == ("requests: 4 sent, 2 answered with 6 samples", "retried: 2 x server error")


def _fault(status: int) -> object:
    from support.llm_server import Fault

    return Fault.http(status)


# replay


def test_a_replay_gives_what_was_recorded(live: Live, tmp_path: Path) -> None:
    """Written with the exchanges of a live run, the recording answers the same, for nothing, with the server gone."""
    path = tmp_path / "suite.cassette.json"
    with LLMServer(answer=numbered, max_n=4) as server:
        completions = live.run(live.source(server), *(request(number, 6) for number in range(3)))
    Recording.write(path, [exchange for completion in completions for exchange in completion.exchanges])
    source = ReplaySource(Recording.load(path))
    replayed = [asyncio.run(source.complete(request(number, 6))) for number in range(3)]
    assert [texts(completion) for completion in replayed] == [texts(completion) for completion in completions]
    assert [completion.usage for completion in replayed] == [completion.usage for completion in completions]
    assert {completion.paid for completion in replayed} == {0}
    with pytest.raises(StaleRecordingError, match=r"in .*suite.cassette.json of 7 answers of 'm'.*--llm-record"):
        asyncio.run(source.complete(request(0, 7)))
    asyncio.run(source.aclose())


def test_the_price_book_of_the_tests_is_what_they_assume() -> None:
    """A prompt token costs a millionth of a dollar, a completion token ten."""
    assert PRICES.price("m").cost(Usage(1, 1)) == Decimal("0.000011")
