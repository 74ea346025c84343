"""``--llm-tune-dry-run``: what it says a search costs at most is never passed, and what it says is cached is."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import LLMServer, prompt_tokens, tokens

from pytest_llmtune import Suite, evaluate, randint, tune
from pytest_llmtune.grading import resolve
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.settings import Settings
from pytest_llmtune.tuning import StudyLog, dry_run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")

TOOL = {"type": "function", "function": {"name": "look_up", "description": "long " * 200}}


def suite(**keys: Any) -> Suite:
    given = {
        "name": "numbers",
        "dataset": [{"q": f"Question {number}? " + "Think well. " * 40, "answer": str(number)} for number in range(12)],
        "prompt": "{q}",
        "model": "m",
        "temperature": 0,
        "n": 10,
        "max_tokens": 8,
        "grader": "numeric",
        "prices": {"m": {"input": 1, "output": 4}},
        "tune_size": 6,
        "num_samples": 1,
    }
    return Suite(**given | keys)


def printed(of: Suite) -> str:
    """The first line of a dry run."""
    prices = PriceBook(of.prices)
    grader = resolve(of.grader, base_dir=of.base_dir)
    text = asyncio.run(dry_run(of, of.load(), prices=prices, cache=None, grader=grader, log=StudyLog()))
    return text.splitlines()[0]


def figures(text: str) -> list[Decimal]:
    return [Decimal(found) for found in re.findall(r"at most \$([\d.]+)", text)]


def billed(server: LLMServer) -> Decimal:
    """USD: the tools are a part of the prompt."""
    total = Decimal(0)
    for body in server.answered:
        prompt = prompt_tokens(body["messages"]) + tokens(str(body.get("tools", "")))
        total += prompt + 4 * sum(tokens(choice.text) for choice in server.choices(body))
    return total / 1_000_000


@pytest.mark.parametrize(
    "keys", [{}, {"inference_budget": 0.0035}, {"tools": [TOOL], "n": 1}, {"temperature": [0, 1], "n": randint(1, 7)}]
)
def test_no_search_costs_more_than_was_said(tmp_path: Path, keys: dict[str, Any]) -> None:
    """Without a budget, with answers as long as they may be, of a server that is asked for each by itself."""
    of = suite(**keys)
    search, winner = figures(printed(of))
    with LLMServer("word " * 20, ignore_n=True) as server:
        settings = Settings(root=tmp_path, base_url=server.base_url)
        config, _ = tune(of, settings=settings)
        assert Decimal(0) < billed(server) <= search
        server.answered.clear()
        evaluate(of, config, settings=settings)
        assert billed(server) <= winner


def test_all_that_a_run_asks_is_counted() -> None:
    """Baselines and runners-up have figures of their own; where the budget is less than the worst case, it is the bound."""
    assert "baseline" not in printed(suite())
    assert "runners-up" not in printed(suite())
    text = printed(suite(n=randint(1, 7), optimization_budget=0.00001, inference_budget=1, baselines=[{}, {"n": 2}]))
    search, winner, baselines = figures(text)
    assert search == Decimal("0.00001")
    assert Decimal(0) < baselines < winner
    assert "2 baselines at most" in text
    assert "up to 4 runners-up" in text


def test_the_requests_of_a_judge_are_reported() -> None:
    """They are within a budget of the search, and no part of the other figures."""
    assert "own requests" in printed(suite(grader={"judge": {"rubric": "Right?", "model": "m"}}, optimization_budget=1))
