import pytest


@pytest.mark.llmtune(
    dataset="data.jsonl",
    prompt="{question}",
    model="gpt-4o-mini",
    max_tokens=20,
    grader="exact",
    tune_size=20,
    inference_budget=0.0001,
    min_success_vote=0.8,
)
def test_job(llmtune):
    llmtune.check()
