import json

import evaltrack
import openai
import pytest
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Evaluator

ROWS = [json.loads(line) for line in open("data.jsonl")][:200]
client = openai.AsyncOpenAI()


class Right(Evaluator):
    def evaluate(self, ctx) -> float:
        return float(ctx.output == ctx.expected_output)


async def ask(question: str) -> str:
    messages = [{"role": "user", "content": question}]
    reply = await client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=20)
    return reply.choices[0].message.content


@pytest.mark.evaltrack(score_bars={"Right": 0})  # its gate is per case; the mean is asserted below
def test_job():
    cases = [Case(name=row["question"], inputs=row["question"], expected_output=row["answer"]) for row in ROWS]
    dataset = Dataset(name="sums", cases=cases, evaluators=[Right()])
    report = dataset.evaluate_sync(ask, max_concurrency=16, progress=False)
    evaltrack.run(lambda: report)
    assert not report.failures
    assert report.averages().scores["Right"] >= 0.8
