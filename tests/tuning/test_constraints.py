"""Limits beside the tuned metric hold in the search, not only in the guard: in one process, with latencies as given."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune import Suite
from pytest_llmtune.data.split import Split
from pytest_llmtune.grading.registry import resolve
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.tuning import tune
from pytest_llmtune.tuning.constraints import constraints_of
from pytest_llmtune.types import Completion, CompletionRequest, Example, Exchange
from pytest_llmtune.wire.tokens import completion_of

if TYPE_CHECKING:
    from pytest_llmtune.tuning import Study

pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = [{"q": f"Question {place}", "answer": str(place)} for place in range(40)]
PRICES = {name: {"input": 1, "output": 2} for name in ("brilliant", "solid", "poor")}


def right_and_valid(responses: list[str], answer: str, **_: Any) -> dict[str, float]:
    """Two metrics of one answer: what it says, and whether it is JSON."""
    try:
        json.loads(responses[0])
        valid = 1.0
    except ValueError:
        valid = 0.0
    return {"right": float(f'"{answer}"' in responses[0]), "valid": valid}


@dataclass
class Server:
    """The brilliant model is always right, yet one answer in five is no JSON, and one in five takes long."""

    spent: Decimal = Decimal(0)
    asked: dict[str, int] = field(default_factory=dict)

    async def complete(self, request: CompletionRequest) -> Completion:
        model, text = str(request.body["model"]), str(request.body["messages"][-1]["content"])
        place = int(text.split()[1])
        self.asked[model] = self.asked.get(model, 0) + 1
        right = model == "brilliant" or (model == "solid" and place % 4)
        bad = model == "brilliant" and place % 5 == 0
        answer = json.dumps({"answer": str(place) if right else "?"}) + ("!" if bad else "")
        message = {"role": "assistant", "content": answer}
        response = {
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20},
        }
        exchange = Exchange("POST", "", {**request.body}, response, latency=3.0 if bad else 0.5)
        return replace(completion_of([exchange], 1), paid=Decimal("0.00003"))


def search(server: Server | None = None, **keys: Any) -> Study:
    given = {
        "name": "answers",
        "dataset": ROWS,
        "prompt": "{q}",
        "model": list(PRICES),
        "temperature": [0.2, 0.8],
        "n": 1,
        "max_tokens": 20,
        "grader": right_and_valid,
        "metric": "right",
        "prices": PRICES,
        "optimization_budget": 0.02,
        "num_samples": -1,
    }
    suite = Suite(**given | keys)
    rows = tuple(Example(str(place), place, row) for place, row in enumerate(ROWS))
    return asyncio.run(
        tune(
            suite,
            Split(rows[:20], rows[20:]),
            grader=resolve(suite.grader),
            source=server or Server(),
            prices=PriceBook(suite.prices),
            ledger=Ledger(suite.optimization_budget),
        )
    )


@pytest.mark.parametrize("limit", [{"min_valid": 0.99}, {"max_latency_p95": 2}, {"max_latency": 0.9}])
def test_the_best_that_meets_the_limit_wins(limit: dict[str, float]) -> None:
    """Without it the brilliant model does; with it that model is given up."""
    assert search().winner.model == "brilliant"
    server = Server()
    study = search(server, **limit)
    assert study.winner.model == "solid"
    assert {trial.status for trial in study.trials if trial.config["model"] == "brilliant"} <= {"constraint", "stopped"}
    assert server.asked["brilliant"] <= server.asked["solid"]
    assert not study.notes


def test_where_none_meets_the_limit_the_best_wins_and_it_is_said() -> None:
    """The guard fails it then."""
    study = search(max_latency_p50=0.4)
    assert study.winner.model == "brilliant"
    assert study.notes == (
        "no configuration tried meets all limits on the tuning rows; the winner misses max_latency_p50 (0.5)",
    )


def test_a_row_by_chance_is_no_reason_to_give_up() -> None:
    """One slow row of five says little of a 95th percentile; three of ten do. Of rates and means alike."""
    suite = Suite(
        name="s",
        dataset=ROWS,
        prompt="{q}",
        model="solid",
        grader=right_and_valid,
        metric="right",
        prices=PRICES,
        max_latency_p95=2,
        min_valid=0.9,
        max_latency=1,
        min_right=0.5,
        max_inference_cost=1,
    )
    by_key = {one.gate.key: one for one in constraints_of(suite)}
    assert set(by_key) == {"max_latency_p95", "min_valid", "max_latency"}  # no budget, and not what is tuned
    slow, valid, mean = by_key["max_latency_p95"], by_key["min_valid"], by_key["max_latency"]
    assert not slow.met([1, 1, 1, 1, 3])
    assert not slow.hopeless([1, 1, 1, 1, 3])
    assert slow.hopeless([1] * 7 + [3] * 3)
    assert slow.met([1] * 20 + [3])
    assert not valid.hopeless([1, 1, 1, 1, 0])
    assert valid.hopeless([1, 0, 0, 1, 0, 0])
    assert not mean.met([0.5, 0.5, 0.5, 3])
    assert not replace(valid, aggregate=lambda _: float("nan")).met([1, 1])  # a function of the suite's
    assert not replace(mean, aggregate=lambda _: float("nan")).met([0.5])
    assert not mean.hopeless([0.5, 0.5, 0.5, 0.5, 3.2])
    assert mean.hopeless([1.5, 1.6, 1.4, 1.5, 1.5])
