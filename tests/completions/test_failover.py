"""Several endpoints and several keys: order, turns, names, limits, and what happens when one is of no use."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.live import PRICES, request
from support.llm_server import Fault, LLMServer, prompt_tokens, refused_url

from pytest_llmtune.errors import EndpointError
from pytest_llmtune.money.prices import PriceBook

if TYPE_CHECKING:
    from support.live import Live

    from pytest_llmtune.types import Completion


def at(server: LLMServer, **fields: Any) -> dict[str, Any]:
    return {"base_url": server.base_url, "api_key": "k", **fields}


def answer_of(completion: Completion) -> str:
    return completion.choices[0].text


def test_the_first_endpoint_answers_while_it_can(live: Live) -> None:
    """The second one is only there for failures."""
    with LLMServer("first") as first, LLMServer("second") as second:
        completions = live.run(live.source([at(first), at(second)]), *(request(n) for n in range(5)))
    assert {answer_of(completion) for completion in completions} == {"first"}
    assert second.count == 0


@pytest.mark.parametrize(
    "fault", [Fault.http(500), Fault.http(401), Fault.http(404), Fault("reset"), Fault.busy(retry_after="60")]
)
def test_the_second_endpoint_takes_over(live: Live, fault: Fault) -> None:
    """Down, wrong key, no such model or too busy: the next in order answers at once, without waiting."""
    with LLMServer(fault=lambda _: fault) as first, LLMServer("second") as second:
        start = time.monotonic()
        completions = live.run(live.source([at(first), at(second)]), *(request(n) for n in range(5)))
        assert time.monotonic() - start < 3
    assert {answer_of(completion) for completion in completions} == {"second"}
    if fault.status in (401, 404, 429):
        assert first.count == 1 + (fault.status == 404)  # a 404 may be one row's: a canary asks once more


def test_a_busy_endpoint_is_not_waited_for_while_the_next_one_stumbles(live: Live) -> None:
    """The first rests for an hour, the second fails twice: it is tried again, and nobody waits for the first."""
    with (
        LLMServer("first", fault=lambda _: Fault.busy(retry_after="3600")) as first,
        LLMServer("second", faults=[Fault.http(500), Fault("reset")]) as second,
    ):
        start = time.monotonic()
        [completion] = live.run(live.source([at(first), at(second)]), request())
        assert time.monotonic() - start < 3
    assert answer_of(completion) == "second"
    assert (first.count, second.count) == (1, 3)


def test_busy_endpoints_take_over_from_each_other(live: Live) -> None:
    """Both say 429 again and again, each for a while: all is answered, by both."""
    with LLMServer("first") as first, LLMServer("second") as second:
        first.fault = lambda _: Fault.busy(retry_after_ms="40") if first.count % 3 == 1 else None
        second.fault = lambda _: Fault.busy(retry_after_ms="60") if second.count % 3 == 1 else None
        source = live.source([at(first), at(second)], concurrency=8)
        completions = live.run(source, *(request(number) for number in range(60)))
    assert {answer_of(completion) for completion in completions} == {"first", "second"}
    assert len(first.answered) + len(second.answered) == 60
    assert not source.account.given_up


def test_an_endpoint_that_redirects_elsewhere_is_passed_over(live: Live) -> None:
    """It is of no use, and the next one answers."""
    elsewhere = Fault("status", 308, {"location": "https://elsewhere.example/v1"})
    with LLMServer(fault=lambda _: elsewhere) as first, LLMServer("second") as second:
        completions = live.run(live.source([at(first), at(second)]), *(request(number) for number in range(4)))
    assert {answer_of(completion) for completion in completions} == {"second"}
    assert first.count == 1


def test_a_dead_host_fails_over(live: Live) -> None:
    """Nothing listens at the first address."""
    with LLMServer("second") as second:
        [completion] = live.run(live.source([{"base_url": refused_url(), "api_key": "k"}, at(second)]), request())
    assert answer_of(completion) == "second"


def test_a_rested_endpoint_is_the_first_again(live: Live) -> None:
    """A rate limit passes: the order of the list holds again."""
    with LLMServer("first", faults=[Fault.busy(retry_after_ms="150")]) as first, LLMServer("second") as second:
        source = live.source([at(first), at(second)])

        async def work() -> list[str]:
            said = [answer_of(await source.complete(request("early")))]
            async with asyncio.timeout(20):
                while said[-1] != "first":
                    said.append(answer_of(await source.complete(request(f"number {len(said)}"))))
            await source.aclose()
            return said

        said = asyncio.run(work())
        assert said[0] == "second"
        assert set(said[:-1]) == {"second"}
        assert first.count == 2


def test_no_endpoint_is_left(live: Live) -> None:
    """The error says of each endpoint why it cannot be asked."""
    with LLMServer(api_key="other") as first, LLMServer(models=["x", "y"]) as second:
        source = live.source([at(first, name="ours"), at(second, name="theirs")])
        [error] = live.results(source, request())
    assert isinstance(error, EndpointError)
    assert "ours: key refused (endpoints[0].api_key): HTTP 401" in str(error)
    assert "theirs: HTTP 404: The model `m` does not exist" in str(error)
    assert "it has: x, y" in str(error)


def test_models_go_where_they_are_served(live: Live) -> None:
    """A list of models filters; a mapping gives the server's own name; the exchange keeps the suite's."""
    with LLMServer("small") as small, LLMServer("large") as large:
        source = live.source([at(small, models=["m"]), at(large, models={"dear": "dear-2026-01-01"})])
        cheap, dear, nowhere = live.results(source, request(), request(model="dear"), request(model="other"))
    assert (answer_of(cheap), answer_of(dear)) == ("small", "large")
    assert large.requests[0]["model"] == "dear-2026-01-01"
    assert dear.exchanges[0].request["model"] == "dear"
    assert dear.served_model == "dear-2026-01-01"
    assert isinstance(nowhere, EndpointError)
    assert "no endpoint serves the model 'other'; the endpoints list: dear, m" in str(nowhere)


def test_a_model_gone_at_one_endpoint_is_still_asked_at_the_other(live: Live) -> None:
    """Closed for one model only: another model still goes to the first endpoint."""
    with LLMServer("first", models=["dear"]) as first, LLMServer("second") as second:
        source = live.source([at(first), at(second)])
        gone, there = live.run(source, request(), request(model="dear"))
    assert (answer_of(gone), answer_of(there)) == ("second", "first")


def test_each_endpoint_charges_its_own_price(live: Live) -> None:
    """What is paid is what the endpoint that answered charges, also after a failover."""
    prompt = prompt_tokens(request().body["messages"])
    with LLMServer(fault=lambda _: Fault.http(500)) as first, LLMServer("") as second:
        own = {"m": {"input": 7, "output": 0}}
        source = live.source([at(first), at(second, prices=own)], prices=PRICES)
        [completion] = live.run(source, request())
    assert completion.paid == Decimal(7 * prompt) / 1_000_000
    assert isinstance(source.prices, PriceBook)


def test_each_endpoint_has_its_own_limit_of_n(live: Live) -> None:
    """A configured limit needs no refusal, and a failover to a stricter server is split by that server's limit."""
    with LLMServer(fault=lambda _: Fault.http(401)) as first, LLMServer("a", max_n=3) as second:
        [completion] = live.run(live.source([at(first, max_n=6), at(second, max_n=3)]), request(n=7))
    assert len(completion.choices) == 7
    assert [body["n"] for body in first.requests] == [6]
    assert all(body["n"] <= 3 for body in second.requests)
    assert sum(body["n"] for body in second.requests) == 7


def test_keys_take_turns(live: Live) -> None:
    """Several keys of one endpoint are used evenly."""
    with LLMServer(latency=0.01) as server:
        source = live.source([at(server, api_key=["k1", "k2", "k3"])], concurrency=6)
        live.run(source, *(request(n) for n in range(30)))
    counts = Counter(server.keys)
    assert set(counts) == {"k1", "k2", "k3"}
    assert max(counts.values()) - min(counts.values()) <= 3


def test_a_revoked_key_leaves_the_others(live: Live) -> None:
    """One refusal, then the other key does all the work."""
    with LLMServer(api_key=["good"]) as server:
        completions = live.run(live.source([at(server, api_key=["bad", "good"])]), *(request(n) for n in range(10)))
    assert len(completions) == 10
    assert Counter(server.keys)["bad"] == 1


def test_a_wrong_key_is_found_out_once_for_all_models(live: Live) -> None:
    """Requests of three models wait for the one that finds out; the next endpoint then answers them all."""
    with LLMServer(api_key="other", latency=0.05) as first, LLMServer("second") as second:
        asked = [request(number, model=model) for number in range(4) for model in ("m", "dear", "dear-2")]
        own = PriceBook(
            {"m": {"input": 1, "output": 1}, "dear": {"input": 1, "output": 1}, "dear-2": {"input": 1, "output": 1}}
        )
        completions = live.run(live.source([at(first), at(second)], prices=own), *asked)
    assert {answer_of(completion) for completion in completions} == {"second"}
    assert first.count == 1


def test_a_busy_key_rests_while_the_other_works(live: Live) -> None:
    """Rate limits are a key's, not the endpoint's."""
    with LLMServer() as server:
        server.fault = lambda _: Fault.busy(retry_after="30") if server.keys[-1] == "k1" else None
        source = live.source([at(server, api_key=["k1", "k2"])], concurrency=1)
        live.run(source, *(request(n) for n in range(6)))
    assert Counter(server.keys) == {"k1": 1, "k2": 6}


def test_requests_a_minute_are_spread(live: Live) -> None:
    """At 600 a minute, ten requests take the better part of a second, evenly."""
    with LLMServer() as server:
        start = time.monotonic()
        live.run(live.source([at(server, requests_per_minute=600)]), *(request(n) for n in range(10)))
        assert 0.85 < time.monotonic() - start < 3


def test_tokens_a_minute_are_spread(live: Live) -> None:
    """A request counts with its prompt and all it may answer."""
    with LLMServer() as server:
        source = live.source([at(server, tokens_per_minute=30_000)])
        start = time.monotonic()
        live.run(source, *(request(n, max_tokens=50) for n in range(8)))
        assert time.monotonic() - start > 7 * 50 / 500


def test_an_endpoint_s_concurrency_binds(live: Live) -> None:
    """Fewer in flight than the run allows."""
    with LLMServer(latency=0.02) as server:
        live.run(live.source([at(server, concurrency=2)], concurrency=16), *(request(n) for n in range(12)))
    assert server.peak == 2


def test_azure_is_asked_at_its_deployment(live: Live) -> None:
    """Address, version and header as Azure wants them; the exchange has the true address."""
    with LLMServer("azure", faults=[Fault.http(500)]) as server:
        listed = {
            "kind": "azure",
            "base_url": server.root_url,
            "api_key": "azure-key",
            "models": {"m": "my deployment"},
        }
        source = live.source([listed])
        [completion] = live.run(source, request())
    assert answer_of(completion) == "azure"
    assert server.keys == ["azure-key"] * 2
    assert source.account.sent == 2
    assert set(server.paths) == {"/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21"}
    assert completion.exchanges[0].uri == server.root_url + server.paths[0]
