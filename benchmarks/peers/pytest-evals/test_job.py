import json

import openai
import pytest

ROWS = [json.loads(line) for line in open("data.jsonl")][:200]


@pytest.mark.eval(name="sums")
@pytest.mark.parametrize("row", ROWS)
def test_row(row, eval_bag):
    messages = [{"role": "user", "content": row["question"]}]
    reply = openai.OpenAI().chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=20)
    eval_bag.right = reply.choices[0].message.content == row["answer"]


@pytest.mark.eval_analysis(name="sums")
def test_job(eval_results):
    assert sum(one.result.right for one in eval_results) / len(ROWS) >= 0.8
