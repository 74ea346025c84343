"""Requests that a real cluster of two nodes asks: the same answers, the same dollars, and machines that are lost."""

from __future__ import annotations

import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.live import PRICES, Live, request
from support.llm_server import Fault, LLMServer

from pytest_llmtune.errors import BudgetExhaustedError, CompletionError, EndpointError, LLMTuneError
from pytest_llmtune.money.ledger import Ledger

if TYPE_CHECKING:
    from support.ray_cluster import RayCluster

    from pytest_llmtune.cluster import Engine

pytestmark = pytest.mark.filterwarnings(  # of the processes that ray.cluster_utils started, and a test killed
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
KEY = "sk-planted-in-the-order-0123456789abcdef"


def questions(count: int, n: int = 1) -> list[object]:
    return [request(number, n) for number in range(count)]


def test_the_same_answers_as_without_a_cluster(engine: Engine, live: Live) -> None:
    """Texts, usage, dollars and what is in the cache; requests run side by side on both nodes."""

    def many_at_once(_: object) -> float:
        if server.in_flight > 2:  # each node sends its first request alone
            server.until(lambda: server.peak > 8)
        return 0.05

    with LLMServer(answer=lambda body: body["messages"][0]["content"] * 3, max_n=2) as server:
        here = Live.run(live.source(server, cache=live.cache("here")), *questions(24, 3))
        asked = server.count
        server.peak, server.latency = 0, many_at_once
        ledger, cache = Ledger(), live.cache("there")
        source = live.source(server, cache=cache, ledger=ledger, remote=engine.requester)
        there = Live.run(source, *questions(24, 3))
        assert [each.choices for each in there] == [each.choices for each in here]
        assert [each.usage for each in there] == [each.usage for each in here]
        assert ledger.spent == sum(each.paid for each in there) == sum(each.paid for each in here) > 0
        assert ledger.reserved == 0
        assert source.account.samples == 72
        assert source.account.in_flight == 0
        assert any("gives at most 2 answers" in note for note in source.account.notes)
        assert server.peak > 8
        assert server.count - asked <= asked + 4  # each node may find out for itself that n = 3 is too many
        again = Live.run(live.source(server, cache=live.cache("there"), remote=engine.requester), *questions(24, 3))
        assert [each.choices for each in again] == [each.choices for each in here]
        assert sum(each.paid for each in again) == 0


@pytest.mark.slow
def test_both_nodes_ask(engine: Engine, live: Live) -> None:
    """Each has connections of its own: two at the least."""
    import ray

    nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    assert len(nodes) >= 2
    assert engine.width >= 2
    with LLMServer(latency=0.8) as server:
        Live.run(live.source(server, concurrency=engine.width, remote=engine.requester), *questions(4 * engine.width))
        assert server.peak == engine.width


@pytest.mark.slow
def test_no_cent_over_the_budget(engine: Engine, live: Live) -> None:
    """Each request costs at most what is reserved for it; all nodes reserve at one place."""
    with LLMServer(answer="word " * 40, latency=0.01) as server:
        ledger = Ledger(Decimal("0.004"), name="optimization_budget")
        source = live.source(server, ledger=ledger, concurrency=16, remote=engine.requester)
        found = Live.results(source, *questions(64))
    kept = [each for each in found if not isinstance(each, Exception)]
    assert kept
    assert {type(each) for each in found} - {type(kept[0])} == {BudgetExhaustedError}
    assert sum(each.paid for each in kept) == ledger.spent <= Decimal("0.004")
    assert server.billed == sum(each.usage.completion_tokens for each in kept)
    assert ledger.reserved == 0
    assert "optimization_budget" in str(next(each for each in found if isinstance(each, BudgetExhaustedError)))


@pytest.mark.slow
def test_a_node_is_lost(cluster: RayCluster, live: Live) -> None:
    """Its power is cut in the middle: everything is answered, and only what was in flight is paid twice."""
    from pytest_llmtune.cluster import Engine

    with cluster.one_more() as node, LLMServer(latency=2.5) as server:  # longer than a cut takes
        engine = Engine.connect(cluster.address)
        concurrency = 4 * engine.width

        def cut() -> None:
            server.until(lambda: server.count >= 2 * concurrency)
            cluster.kill(node)

        threading.Thread(target=cut, daemon=True).start()
        ledger = Ledger()
        source = live.source(server, ledger=ledger, concurrency=concurrency, remote=engine.requester)
        asked = questions(6 * concurrency)
        answers = Live.run(source, *asked)
    assert all(len(each.choices) == 1 for each in answers)
    assert any("a machine of the cluster was lost" in note for note in source.account.notes)
    assert len(asked) < server.count <= len(asked) + concurrency
    uncertain = ledger.spent - sum(each.paid for each in answers)
    assert uncertain == ledger.uncertain > 0
    assert len(server.answered) <= len(asked) + concurrency


@pytest.mark.slow
def test_faults_are_survived_on_nodes_too(engine: Engine, live: Live) -> None:
    """429 and 5xx are retried there and counted here."""
    with LLMServer(fault_rate={"429": 0.1, "503": 0.1}) as server:
        source = live.source(server, remote=engine.requester)
        assert len(Live.run(source, *questions(60))) == 60
    assert source.account.retried["rate limit (429)"] > 0
    assert source.account.retried["server error"] > 0
    assert source.account.answered == 60


@pytest.mark.slow
def test_errors_come_back(engine: Engine, live: Live) -> None:
    """A request given up is one example's, a wrong key is everybody's; keys are in no message."""
    with LLMServer(fault=lambda body: Fault.http(500) if "7" in str(body["messages"]) else None) as server:
        found = Live.results(live.source(server, attempts=2, remote=engine.requester), *questions(10))
        assert [type(each) for each in found].count(CompletionError) == 1
    with LLMServer(api_key="another") as server:
        source = live.source(server, remote=engine.requester, environ={"OPENAI_API_KEY": KEY})
        found = Live.results(source, *(request(f"wrong key {number}") for number in range(4)))
    assert {type(each) for each in found} == {EndpointError}
    assert "OPENAI_API_KEY" in str(found[0])
    assert KEY not in str(found)


@pytest.mark.slow
def test_no_key_is_in_a_file_of_the_cluster(engine: Engine, live: Live) -> None:
    """Orders hold keys, and Ray writes logs: of every process, of both nodes."""
    import ray

    with LLMServer(api_key=KEY) as server:
        source = live.source(server, remote=engine.requester, environ={"OPENAI_API_KEY": KEY})
        Live.run(source, *questions(20))
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    files = [path for path in session.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_a_limit_a_minute_is_shared_among_the_nodes(engine: Engine, live: Live) -> None:
    """All together keep to it, whoever asks."""
    with LLMServer() as server:
        listed = [{"base_url": server.base_url, "requests_per_minute": 600}]
        start = time.monotonic()
        Live.run(live.source(listed, remote=engine.requester), *questions(20))
        assert time.monotonic() - start > 20 / 600 * 60 - 1


@pytest.mark.slow
def test_another_version_on_a_node_is_named(engine: Engine, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install where is said."""
    monkeypatch.setattr("pytest_llmtune.cluster.node.version", lambda _: "9.9")
    with LLMServer() as server, pytest.raises(LLMTuneError, match=r"pytest runs 9\.9; install the same version"):
        Live.run(live.source(server, remote=engine.requester), *questions(2))


@pytest.mark.slow
def test_a_cancelled_run_leaves_no_reservation(engine: Engine, live: Live) -> None:
    """What was in flight counts as spent, for nobody knows; the tasks are stopped."""
    import asyncio

    with LLMServer(latency=20) as server:
        ledger = Ledger()
        source = live.source(server, ledger=ledger, prices=PRICES, remote=engine.requester)

        async def work() -> None:
            jobs = [asyncio.ensure_future(source.complete(each)) for each in questions(4)]  # type: ignore[arg-type]
            await asyncio.to_thread(server.until, lambda: server.count >= 2)
            start = time.monotonic()
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            await source.aclose()
            assert time.monotonic() - start < 10

        asyncio.run(work())
    assert ledger.reserved == 0
    assert ledger.spent == ledger.uncertain > 0
