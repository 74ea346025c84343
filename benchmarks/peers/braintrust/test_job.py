import json

import openai
from braintrust import Eval

ROWS = [json.loads(line) for line in open("data.jsonl")][:200]
client = openai.OpenAI()


def ask(question):
    messages = [{"role": "user", "content": question}]
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=20)
    return reply.choices[0].message.content


def right(output, expected):
    return float(output == expected)


def test_job():
    data = [{"input": row["question"], "expected": row["answer"]} for row in ROWS]
    found = Eval("sums", data=data, task=ask, scores=[right], no_send_logs=True, max_concurrency=16)
    assert found.summary.scores["right"].score >= 0.8
