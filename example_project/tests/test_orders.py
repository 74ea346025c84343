"""Suite `orders`: not a prompt but a function of the app, with two calls of a model and a look-up between them."""

import pytest

from cornershop.models import PRICES
from cornershop.orders import handle


@pytest.mark.llmtune(
    name="orders",
    dataset="../data/orders.jsonl",
    task=handle,
    model="smollm2-135m-instruct",
    temperature=0.0,
    params={"examples": [2, 4]},
    n=1,
    grader=["exact", {"calls": {"max_calls": 2, "no_repeats": True}}],
    prices=PRICES,
    inference_budget=0.00005,
    optimization_budget=0.01,
    tune_size=3,
    num_samples=2,
    min_calls_success_vote=1.0,
    max_drop=0.05,
)
def test_orders(llmtune):
    llmtune.check()
