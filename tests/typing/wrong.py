"""Mistakes; ``mypy --strict`` must find each line that says so, and no other. Checked, never run."""

from __future__ import annotations

from pytest_llmtune import Evaluation, Suite, complete, grade, mark

Suite(datset="a.jsonl", model="m", grader="math", prompt="{q}")  # wrong
Suite(dataset="a.jsonl", model="m", grader="math", prompt="{q}", tune_size="many")  # wrong
Suite(dataset="a.jsonl", model="m", grader="math", prompt="{q}", mode="maximum")  # wrong
Suite(dataset="a.jsonl", model="m", grader="math", prompt="{q}", min_sucess_vote=0.5)  # wrong
Suite(dataset="a.jsonl", model="m", grader="math", prompt="{q}", max_drop=0.1)


def check(evaluation: Evaluation) -> None:
    assert evaluation.success_vote > 0.5
    assert evaluation.sucess_vote > 0.5  # wrong


complete({"model": "m", "prompt": "{q}"}, {"q": "1"}, temperature=0.3)
complete({"model": "m", "prompt": "{q}"}, {"q": "1"}, tempratur=0.3)  # wrong
complete({"model": "m", "prompt": "{q}"}, {"q": "1"}, n="three")  # wrong
grade("math", ["1"])  # wrong
mark(dataset="a.jsonl", model="m", grader="math", prompt="{q}", temperatur=0.5)  # wrong
mark(dataset="a.jsonl", model="m", prompt="{q}")  # wrong
