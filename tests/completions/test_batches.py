"""The Batch API over real HTTP: one file for many requests, faults in it, restarts, and its price."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.live import Live, request
from support.llm_server import LLMServer

from pytest_llmtune._util.jsonhash import build
from pytest_llmtune.completions.batch_api import Batcher, Batching
from pytest_llmtune.errors import CompletionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_llmtune.completions.source import LiveSource


def echo(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"])


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(echo) as running:
        yield running


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    made = Live(tmp_path)
    yield made
    made.close()


def source(live: Live, server: LLMServer, **options: Any) -> LiveSource:
    batching = Batching(live.directory / "batches", quiet=0.05, pause=0.01, **options)
    return live.source(server, concurrency=1000, batching=batching)


def texts(completions: list[Any]) -> list[list[str]]:
    return [[choice.text for choice in done.choices] for done in completions]


def notes(live: Live) -> list[str]:
    return sorted(path.name for path in (live.directory / "batches").glob("*"))


def test_many_requests_are_one_batch_at_its_price(live: Live, server: LLMServer) -> None:
    """No request goes alone; the ledger counts half of the price; nothing is left behind."""
    asked = [request(number, 2) for number in range(40)]
    batched = source(live, server)
    found = live.run(batched, *asked)
    assert texts(found) == [[str(number)] * 2 for number in range(40)]
    assert (server.batches.sizes, server.count) == ([40], 0)
    alone = Live(live.directory / "alone")
    ordinary = alone.source(server)
    alone.run(ordinary, *asked)
    alone.close()
    assert batched.ledger.spent == ordinary.ledger.spent / 2 > 0
    assert notes(live) == []


def test_batches_keep_the_providers_limit(live: Live, server: LLMServer) -> None:
    """So many requests a batch and no more."""
    live.run(source(live, server, most=15), *(request(number) for number in range(40)))
    assert sorted(server.batches.sizes) == [10, 15, 15]


def test_embeddings_have_batches_of_their_own(live: Live, server: LLMServer) -> None:
    """A batch has one URL; an embedding is billed by its input alone."""
    server.embed = lambda _: [0.6, 0.8]
    batched = source(live, server)
    embeddings = [build({"model": "m", "input": text}, 1) for text in "ab"]
    found = live.run(batched, request(1), *embeddings, request(2))
    assert sorted(server.batches.sizes) == [2, 2]
    assert [one.exchanges[0].response["data"][0]["embedding"] for one in found[1:3]] == [[0.6, 0.8]] * 2
    assert [(one.usage.prompt_tokens, one.usage.completion_tokens) for one in found[1:3]] == [(1, 0)] * 2
    assert (texts([found[0], found[3]]), server.count) == ([["1"], ["2"]], 0)


def test_requests_that_failed_in_a_batch_go_again(live: Live, server: LLMServer) -> None:
    """A third of them fails once: the next batch holds these alone."""
    failed: set[str] = set()

    def once(body: dict[str, Any]) -> int | None:
        text = echo(body)
        if int(text) % 3 or text in failed:
            return None
        failed.add(text)
        return 500

    server.batches.fail = once
    found = live.run(source(live, server), *(request(number) for number in range(30)))
    assert texts(found) == [[str(number)] for number in range(30)]
    assert server.batches.sizes[0] == 30
    assert sum(server.batches.sizes[1:]) == 10


def test_what_expired_is_sent_again(live: Live, server: LLMServer) -> None:
    """Half of a batch was done within its day: the other half is asked for once more, and paid for once."""
    server.batches.expire = 1
    found = live.run(source(live, server), *(request(number) for number in range(20)))
    assert texts(found) == [[str(number)] for number in range(20)]
    assert server.batches.sizes[0] == 20
    assert sum(server.batches.sizes[1:]) == 10
    assert len(server.answered) == 20


def test_a_batch_that_is_refused_fails_with_the_providers_words(live: Live, server: LLMServer) -> None:
    """And is not tried again."""
    server.batches.invalid = "the model does not take batches"
    with pytest.raises(CompletionError, match="the model does not take batches"):
        live.run(source(live, server), request())
    assert len(server.batches.sizes) == 1


def test_a_run_that_died_collects_its_batch(live: Live, server: LLMServer) -> None:
    """Interrupted while it waited: the next run sends nothing, and gets the answers that were paid for."""
    asked = [request(number) for number in range(20)]
    server.batches.looks = 10**6

    async def interrupted() -> None:
        first = source(live, server)
        try:
            async with asyncio.timeout(0.5):
                await asyncio.gather(*map(first.complete, asked))
        finally:
            await first.aclose()

    with pytest.raises(TimeoutError):
        asyncio.run(interrupted())
    assert len(notes(live)) == 1
    server.batches.looks = 0
    for batch in server.batches.batches.values():
        batch["looks"] = 0
    found = live.run(source(live, server), *asked, request("new"))
    assert texts(found) == [*([str(number)] for number in range(20)), ["new"]]
    assert server.batches.sizes == [20, 1]
    assert notes(live) == []


@pytest.mark.parametrize("arrived", [True, False])
def test_a_run_that_died_while_creating_a_batch_looks_for_it(live: Live, server: LLMServer, arrived: bool) -> None:
    """The note without the provider's name: the batch is found by its own, or was never created."""
    live.run(source(live, server), request("asked"))
    [kept] = server.batches.batches.values()
    name = kept["metadata"]["llmtune"] if arrived else "0" * 32
    ids = [json.loads(line)["custom_id"] for line in server.batches.files[kept["input_file_id"]].splitlines()]
    directory = live.directory / "batches"
    (directory / f"{name}.json").write_text(json.dumps({"batch": None, "requests": ids}), encoding="utf-8")
    anew = Live(live.directory / "anew")
    batching = Batching(directory, quiet=0.05, pause=0.01)
    found = anew.run(anew.source(server, batching=batching), request("asked"))
    anew.close()
    assert texts(found) == [["asked"]]
    assert len(server.batches.sizes) == (1 if arrived else 2)
    assert notes(live) == []


def test_faults_while_looking_are_waited_out(live: Live, server: LLMServer) -> None:
    """The batch goes on whether we can see it or not: nothing is sent twice."""
    server.batches.looks = 3
    server.batches.blind = 3
    assert texts(live.run(source(live, server), request("asked"))) == [["asked"]]
    assert (server.batches.sizes, server.batches.blind) == ([1], 0)


def test_a_failed_download_asks_and_pays_nothing_again(live: Live, server: LLMServer) -> None:
    """The batch has ended and is paid for; only its file could not be read: it is read again."""
    server.batches.unsent = 2
    asked = [request(number) for number in range(10)]
    assert texts(live.run(source(live, server), *asked)) == [[str(number)] for number in range(10)]
    assert (server.batches.sizes, server.batches.unsent, len(server.answered)) == ([10], 0, 10)
    assert notes(live) == []


def test_a_batch_whose_creation_was_not_confirmed_is_looked_for(live: Live, server: LLMServer) -> None:
    """In the same run, not only in the next: a second one would be paid for too."""
    server.batches.unsaid = 1
    assert texts(live.run(source(live, server), *map(request, range(10)))) == [[str(number)] for number in range(10)]
    assert (server.batches.sizes, len(server.answered)) == ([10], 10)
    assert notes(live) == []


def test_the_order_of_results_does_not_matter_and_a_success_outweighs_an_error(live: Live, server: LLMServer) -> None:
    """An answer that is there is paid for, whatever the file of errors says of it."""
    server.batches.shuffled = True
    assert texts(live.run(source(live, server), *map(request, range(10)))) == [[str(number)] for number in range(10)]
    assert server.batches.sizes == [10]


def test_what_nobody_took_from_a_batch_stays_noted(live: Live, server: LLMServer) -> None:
    """The run that collects half of an earlier batch leaves the other half to the next, which pays nothing."""
    server.batches.looks = 10**6

    async def interrupted() -> None:
        first = source(live, server)
        try:
            async with asyncio.timeout(0.5):
                await asyncio.gather(*(first.complete(request(number)) for number in range(10)))
        finally:
            await first.aclose()

    with pytest.raises(TimeoutError):
        asyncio.run(interrupted())
    server.batches.looks = 0
    for batch in server.batches.batches.values():
        batch["looks"] = 0
    assert texts(live.run(source(live, server), *map(request, range(5)))) == [[str(number)] for number in range(5)]
    assert texts(live.run(source(live, server), *map(request, range(10)))) == [[str(number)] for number in range(10)]
    assert server.batches.sizes == [10]
    assert notes(live) == []


def test_notes_hold_nothing_of_what_was_asked(live: Live, server: LLMServer) -> None:
    """Digests alone; a file that is no note is left as it is."""
    (live.directory / "batches").mkdir()
    (live.directory / "batches" / "strange.json").write_text("[]", encoding="utf-8")
    server.batches.looks = 10**6

    async def interrupted() -> None:
        first = source(live, server)
        try:
            async with asyncio.timeout(0.5):
                await first.complete(request("a secret question"))
        finally:
            await first.aclose()

    with pytest.raises(TimeoutError):
        asyncio.run(interrupted())
    [note, _] = sorted((live.directory / "batches").glob("*.json"))
    assert "secret" not in note.read_text(encoding="utf-8")


def test_a_batch_that_cannot_be_created_fails_every_request_in_it(tmp_path: Path) -> None:
    """Its note stays, because the provider may have it all the same."""
    error = OSError("no route")

    async def create(**_: Any) -> None:
        raise error

    async def work() -> list[Any]:
        client: Any = SimpleNamespace(files=SimpleNamespace(create=create))
        batcher = Batcher(client, Batching(tmp_path, quiet=0.0), "http://h")
        posts = (batcher.post({"model": "m", "messages": [{"role": "user", "content": text}]}) for text in "ab")
        found = await asyncio.gather(*posts, return_exceptions=True)
        await batcher.aclose()
        return found

    assert asyncio.run(work()) == [error, error]
    [note] = tmp_path.glob("*.json")
    assert json.loads(note.read_text(encoding="utf-8"))["batch"] is None
