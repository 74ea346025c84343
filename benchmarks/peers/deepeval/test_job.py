import json

import openai
from deepeval import evaluate
from deepeval.evaluate import AsyncConfig, DisplayConfig
from deepeval.metrics import ExactMatchMetric
from deepeval.test_case import LLMTestCase

ROWS = [json.loads(line) for line in open("data.jsonl")][:200]


def ask(question):
    messages = [{"role": "user", "content": question}]
    reply = openai.OpenAI().chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=20)
    return reply.choices[0].message.content


def test_job():
    cases = [
        LLMTestCase(input=row["question"], actual_output=ask(row["question"]), expected_output=row["answer"])
        for row in ROWS
    ]
    quiet = DisplayConfig(show_indicator=False, print_results=False)
    found = evaluate(cases, [ExactMatchMetric()], display_config=quiet, async_config=AsyncConfig(run_async=False))
    assert sum(result.success for result in found.test_results) / len(cases) >= 0.8
