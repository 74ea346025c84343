import json

import openai
import pytest
from phoenix.client.pytest import log_evaluation

ROWS = [json.loads(line) for line in open("data.jsonl")][:200]


@pytest.mark.phoenix(dataset="sums")
def test_job():
    client = openai.OpenAI()
    right = 0
    for row in ROWS:
        messages = [{"role": "user", "content": row["question"]}]
        reply = client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=20)
        right += reply.choices[0].message.content == row["answer"]
    log_evaluation(name="right", score=right / len(ROWS))
    assert right / len(ROWS) >= 0.8
