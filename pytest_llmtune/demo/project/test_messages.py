import pytest
from pytest_llmtune import randint, uniform

import shop


def grade(responses, label):
    """Read each response as the app does, let them vote, and compare with the column `label`."""
    labels = [shop.label(response) for response in responses]
    elected = max(labels, key=labels.count)
    return {"success_vote": elected == label, "voted_answer": elected, "votes": labels.count(elected)}


@pytest.mark.llmtune(
    name="messages",
    dataset="messages.jsonl",  # 64 rows with the columns "message" and "label"
    prompt=[
        "{message}\nIs this praise, a complaint or a question?",
        "{message}\nPraise, complaint or question? Answer with one word.",
    ],
    model=["stand-in-small", "stand-in-large"],
    temperature=uniform(0, 1),
    n=randint(1, 6),  # answers that vote
    max_tokens=20,
    grader=grade,
    prices={  # USD per 1M tokens; not needed for models that genai-prices knows
        "stand-in-small": {"input": 0.1, "output": 0.4},
        "stand-in-large": {"input": 1, "output": 4},
    },
    inference_budget=0.00005,  # USD per row
    optimization_budget=0.02,  # USD for the whole search
    tune_size=24,
    num_samples=8,
    max_drop=0.02,
)
def test_messages(llmtune):
    llmtune.check()
