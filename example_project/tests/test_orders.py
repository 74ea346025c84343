"""Suite `orders`: not a prompt but a function of the app, whose second call depends on the answer to the first."""

import pytest
from pytest_llmtune import models, uniform

from cornershop.models import MODELS, PRICES
from cornershop.orders import handle


@pytest.mark.llmtune(
    name="orders",
    dataset="../data/orders.jsonl",
    task=handle,
    temperature=uniform(0.2, 0.8),
    params={"mood_model": models(MODELS), "topic_model": models(MODELS), "examples": [4, 6]},
    n=[1, 3],  # runs of the function on a message; they vote
    grader=["exact", {"calls": {"max_calls": 2, "no_repeats": True}}],
    prices=PRICES,
    inference_budget=0.0002,
    optimization_budget=0.02,
    tune_size=15,
    stratify="answer",
    num_samples=6,
    prefer="pareto",  # the best; the lock file also lists what less money buys, for `pytest --llm-choose=K`
    min_success_vote=0.6,
    min_calls_success_vote=1.0,
    max_drop=0.05,
)
def test_orders(llmtune):
    llmtune.check()
