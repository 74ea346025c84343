"""Answers that a search with another limit of length paid for: which of them serve, and that they stay the same."""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import LLMServer, tokens
from support.searches import answers, search, suite

from pytest_llmtune.completions.cache import Cache
from pytest_llmtune.grading import resolve
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.tuning import StudyLog, dry_run
from pytest_llmtune.tuning.proposals import Proposals
from pytest_llmtune.tuning.reuse import AnswerReuse
from pytest_llmtune.types import Exchange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(answers) as running:
        yield running


def asked(server: LLMServer, before: int) -> list[dict[str, Any]]:
    """Bodies of the requests after the first ``before``."""
    return server.requests[before:]


def found(root: Path, server: LLMServer, **keys: Any) -> tuple[dict[str, Any], Any, list[dict[str, Any]]]:
    """Winner and claim of a search, and what it asked."""
    before = server.count
    tuned = search(server, root, **{"num_samples": 4} | keys)
    return tuned.config.to_lock(), tuned.analysis.summary.tuning, asked(server, before)


def test_a_wider_limit_costs_nothing_where_all_answers_ended_by_themselves(server: LLMServer, tmp_path: Path) -> None:
    """Not one request; and the winner has the new limit."""
    narrow, score, _ = found(tmp_path, server, max_tokens=40)
    wide, again, requests = found(tmp_path, server, max_tokens=80)
    assert requests == []
    assert (wide, again) == (narrow | {"max_tokens": 80}, score)
    assert search(server, tmp_path, max_tokens=80, num_samples=4).analysis.summary.spent == 0


def test_no_limit_and_the_limit_s_other_name_are_limits_too(server: LLMServer, tmp_path: Path) -> None:
    """``max_completion_tokens`` and none at all are served by ``max_tokens``."""
    found(tmp_path, server, max_tokens=40)
    assert found(tmp_path, server, max_tokens=..., max_completion_tokens=50)[2] == []
    assert found(tmp_path, server, max_tokens=...)[2] == []


def test_truncated_answers_are_requested_again(server: LLMServer, tmp_path: Path) -> None:
    """Rows whose answers the first limit cut, and only those."""
    short = 6
    _, _, first = found(tmp_path, server, max_tokens=short, n=1)
    _, _, second = found(tmp_path, server, max_tokens=40, n=1)
    longest = {body["messages"][0]["content"]: 0 for body in first}
    for body in first:
        text = answers(body)[0]
        longest[body["messages"][0]["content"]] = max(longest[body["messages"][0]["content"]], tokens(text))
    assert {longest[body["messages"][0]["content"]] > short for body in second} == {True}
    assert 0 < len(second) < len(first)


def test_a_smaller_limit_is_served_where_lengths_are_known(server: LLMServer, tmp_path: Path) -> None:
    """One answer a request: its length is what was billed. Those that would have been cut are asked for."""
    _, _, first = found(tmp_path, server, max_tokens=40, n=1)
    _, _, second = found(tmp_path, server, max_tokens=7, n=1)
    assert 0 < len(second) < len(first)
    assert all(tokens(answers(body)[0]) >= 7 for body in second)


def test_the_same_search_takes_the_same_again(tmp_path: Path) -> None:
    """Though other searches asked in between; the first one takes nothing from those that came after it."""

    def drawn(body: dict[str, Any]) -> str:
        a, b = map(int, re.findall(r"\d+", body["messages"][0]["content"]))
        luck = zlib.crc32(str((body["model"], a, b, body["max_tokens"])).encode()) % 3
        return f"It is {a + b if luck else 777}." + " word" * (a % 5)

    with LLMServer(drawn) as server:
        first = found(tmp_path, server, max_tokens=7, n=1)
        second = found(tmp_path, server, max_tokens=40, n=3)
        found(tmp_path, server, max_tokens=20, n=3)
        assert {body["n"] for body in second[2]} == {2, 3}  # beside one that was lent, and alone
        assert found(tmp_path, server, max_tokens=40, n=3) == (*second[:2], [])
        assert found(tmp_path, server, max_tokens=7, n=1) == (*first[:2], [])


def test_a_dry_run_knows_and_writes_nothing(server: LLMServer, tmp_path: Path) -> None:
    """All that the search asks is there; the cache is left as it was."""
    found(tmp_path, server, max_tokens=40)
    before, wide = server.count, suite(max_tokens=80, num_samples=4)
    cache = Cache(tmp_path / ".llmtune" / "cache", seed="0")
    limits = cache.recall("limits")
    grader, prices = resolve(wide.grader, base_dir=wide.base_dir), PriceBook(wide.prices)
    told = asyncio.run(dry_run(wide, wide.load(), prices=prices, cache=cache, grader=grader, log=StudyLog()))
    assert "; it chooses model='strong', " in told
    assert "max_tokens=80, and 0 of 24 test rows are cached" in told
    assert server.count == before
    assert ["max_tokens", 40] in limits
    assert cache.recall("limits") == limits
    cache.close()


@pytest.mark.parametrize("entry", [5, "x", [5], [["x", 1]], [["max_tokens", "y"]], [[]], {"a": 1}])
def test_any_value_may_stand_in_the_cache(tmp_path: Path, entry: Any) -> None:
    """It comes from a stranger's pull request, perhaps: what is no limit, or no key of exchanges, lends nothing."""
    cache, space = Cache(tmp_path), suite(max_tokens=40).space
    cache.remember("limits", entry)
    assert AnswerReuse.of(cache, space).limits == [("max_tokens", 40)]
    cache.remember("limits", [["max_tokens", 7]])
    arm = Proposals(space, "max").next()
    assert arm is not None
    request = arm.config().request({"q": "1 plus 1"})
    cache.remember(f"lent/{request.key}", entry)
    assert AnswerReuse.of(cache, space).reusable(arm, {"q": "1 plus 1"}, 40) == {}
    cache.close()


@pytest.mark.parametrize("response", [{}, {"choices": []}, {"choices": 5}, {"choices": [5]}, {"choices": [{}]}])
def test_an_exchange_without_proper_answers_is_not_reused(tmp_path: Path, response: dict[str, Any]) -> None:
    """A cache may hold anything; what the search needs it asks for."""
    cache, row = Cache(tmp_path), {"q": "1 plus 1"}
    other, own = (suite(max_tokens=limit).space for limit in (7, 40))
    AnswerReuse.of(cache, other)
    (arm, elsewhere) = (Proposals(space, "max").next() for space in (own, other))
    assert arm is not None
    assert elsewhere is not None
    asked = elsewhere.config().request(row)
    cache.add(asked.key, Exchange("POST", "http://x", dict(asked.body), response))
    assert AnswerReuse.of(cache, own).reusable(arm, row, 40) == {}
    cache.close()
