"""After the race: test rows are asked until the winner's cost is clear, for as long as the budget pays for a round."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import LLMServer, prompt_tokens

from pytest_llmtune import Suite, evaluate, tune
from pytest_llmtune.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS, MOST = 3, 12
"""Of an answer, and that one may have: what a request costs, and what is reserved for it, in millionths of a USD."""


def answer(body: dict[str, Any]) -> str:
    """As many tokens for every row."""
    return f"It is {re.findall(r'[0-9]+', body['messages'][-1]['content'])[0]}."


@pytest.mark.parametrize(("rows", "worth"), [(40, 1), (400, 3)])
def test_settling_ends_where_the_budget_pays_for_few_requests(tmp_path: Path, rows: int, worth: int) -> None:
    """Fewer than one in 128 of those that the race asked, or than one; up to there, the doubt being kept up, it asks."""
    budget = (
        Decimal(rows * TOKENS + 40 * MOST) / 900_000
    )  # a tenth of it is kept from the race, which asks all its rows
    suite = Suite(
        name="doubtful",
        dataset=[{"q": f"{number}?", "answer": str(number)} for number in range(100, 400 + rows)],
        prompt="{q}",
        model="m",
        temperature=0,
        n=1,
        max_tokens=MOST,
        grader="numeric",
        prices={"m": {"input": 0, "output": 1}},
        tune_size=rows,
        inference_budget=TOKENS * 1.000001 / 1_000_000,  # as good as what it costs: never clear before all is asked
        optimization_budget=float(budget),
    )
    with LLMServer(answer) as server:
        _, study = tune(suite, settings=Settings(root=tmp_path, base_url=server.base_url, concurrency=16))
        asked = len(server.answered)
    assert rows < asked < rows + 300
    left = (budget * 1_000_000 - asked * TOKENS) / MOST
    assert worth - 1 <= left < worth
    assert study.summary.spent == Decimal(asked * TOKENS) / 1_000_000


@pytest.mark.parametrize(("n", "prompt_usd", "together"), [(4, 0.01, 1), (4, 10, 4), (2, 0.01, 2)])
def test_one_answer_a_row_tells_its_length(tmp_path: Path, n: int, prompt_usd: float, together: int) -> None:
    """Test rows are asked once each; for all answers only where the prompt, billed again, is much of the cost, or of two."""
    cost = (prompt_usd * prompt_tokens([{"content": "100?"}]) + n * TOKENS) / 1_000_000
    suite = Suite(
        name="doubtful",
        dataset=[{"q": f"{number}?", "answer": str(number)} for number in range(100, 140)],
        prompt="{q}",
        model="m",
        temperature=0,
        n=n,
        max_tokens=MOST,
        grader="numeric",
        prices={"m": {"input": prompt_usd, "output": 1}},
        tune_size=20,
        inference_budget=cost * 1.000001,
        optimization_budget=0.1,
    )
    with LLMServer(answer) as server:
        settings = Settings(root=tmp_path, base_url=server.base_url, concurrency=16)
        config, _ = tune(suite, settings=settings)
        asked = [(body["messages"][-1]["content"], body.get("n") or 1) for body in server.answered]
        judged = evaluate(suite, config, settings=settings)
    test = {example.row["q"] for example in suite.load().test}
    guarded = [n for prompt, n in asked if prompt in test]
    assert len(guarded) == len(test)
    assert set(guarded) == {together}
    assert float(judged.inference_cost) == pytest.approx(
        cost
    )  # the prompt counts once, however the answers were asked for
