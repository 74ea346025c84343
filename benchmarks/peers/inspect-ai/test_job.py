import json

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import exact
from inspect_ai.solver import generate

ROWS = [json.loads(line) for line in open("data.jsonl")][:200]


def test_job():
    samples = [Sample(input=row["question"], target=row["answer"]) for row in ROWS]
    task = Task(dataset=samples, solver=generate(cache=True), scorer=exact())
    [log] = eval(task, model="openai/gpt-4o-mini", max_tokens=20, display="none")
    assert log.status == "success"
    assert log.results.scores[0].metrics["mean"].value >= 0.8
