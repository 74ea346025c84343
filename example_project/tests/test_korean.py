"""Suite `korean`: Korean messages from a spreadsheet, graded by the app's own parser (cornershop/answers.py)."""

import pytest
from pytest_llmtune import randint, uniform

from cornershop.answers import elect, stated_label
from cornershop.desk import KOREAN_LABELS
from cornershop.models import MODELS, PRICES
from cornershop.prompts import KOREAN


def grade(responses, 분류):
    """How the n answers to one message did. The second argument is the column of the same name."""
    labels = [stated_label(text, KOREAN_LABELS) for text in responses]
    right = [label == 분류 for label in labels]
    share = sum(right) / len(right)
    elected = elect(labels)
    return {
        "expected_success": 1 - (1 - share) ** len(right),
        "success": any(right),
        "success_vote": elected == 분류,
        "voted_answer": elected,
        "votes": {label: labels.count(label) for label in KOREAN_LABELS},
    }


@pytest.mark.llmtune(
    name="korean",
    dataset="../data/korean_messages.csv",  # with a BOM and empty cells; rows that lack a column we use are left out
    messages=KOREAN,
    model=MODELS,
    temperature=uniform(0.2, 1.0),
    n=randint(1, 12),
    max_tokens=10,
    stop=["\n", "<|im_end|>"],
    grader=grade,
    prices=PRICES,
    inference_budget=0.00006,
    optimization_budget=0.02,
    num_samples=10,
    min_success_vote=0.8,
    max_drop=0.05,
)
def test_korean(llmtune):
    llmtune.check()
