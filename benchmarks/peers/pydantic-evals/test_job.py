import json

import openai
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import EqualsExpected

ROWS = [json.loads(line) for line in open("data.jsonl")][:200]
client = openai.AsyncOpenAI()


async def ask(question: str) -> str:
    messages = [{"role": "user", "content": question}]
    reply = await client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=20)
    return reply.choices[0].message.content


def test_job():
    cases = [Case(inputs=row["question"], expected_output=row["answer"]) for row in ROWS]
    dataset = Dataset(name="sums", cases=cases, evaluators=[EqualsExpected()])
    report = dataset.evaluate_sync(ask, max_concurrency=16, progress=False)
    assert not report.failures
    assert report.averages().assertions >= 0.8
