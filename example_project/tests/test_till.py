"""Suite `till`: sums told in words, answered in \\boxed{}, elected from several answers."""

import pytest
from pytest_llmtune import randint, uniform

from cornershop.models import MODELS, PRICES
from cornershop.prompts import TILL


@pytest.mark.llmtune(
    name="till",
    dataset="../data/till.jsonl",
    messages=TILL,
    model=MODELS,
    temperature=uniform(0.2, 1.0),
    n=randint(1, 10),
    max_tokens=32,
    stop=["\n", "<|im_end|>"],
    grader={"math": {"symbolic": False}},  # the same verdict with and without the extra math
    prices=PRICES,
    inference_budget=0.00015,
    optimization_budget=0.05,
    num_samples=10,
    baselines=[{"model": "gemma-3-270m", "messages": TILL[1], "temperature": 0.4, "n": 1}],
    min_success_vote=0.65,
    max_drop=0.05,
)
def test_till(llmtune):
    llmtune.check()
