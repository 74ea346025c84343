"""Mistakes; mypy finds an error in each line with an ignore, which is itself an error where it is unused. Never run."""

from __future__ import annotations

from pytest_llmtune import Evaluation, Suite, complete, grade, mark

Suite(datset="a.jsonl", model="m", grader="math", prompt="{q}")  # type: ignore[call-arg]
Suite(dataset="a.jsonl", model="m", grader="math", prompt="{q}", tune_size="many")  # type: ignore[arg-type]
Suite(dataset="a.jsonl", model="m", grader="math", prompt="{q}", mode="maximum")  # type: ignore[arg-type]
Suite(dataset="a.jsonl", model="m", grader="math", prompt="{q}", min_sucess_vote=0.5)  # type: ignore[call-arg]
Suite(dataset="a.jsonl", model="m", grader="math", prompt="{q}", max_drop=0.1)


def check(evaluation: Evaluation) -> None:
    assert evaluation.success_vote > 0.5
    assert evaluation.sucess_vote > 0.5  # type: ignore[attr-defined]


complete({"model": "m", "prompt": "{q}"}, {"q": "1"}, temperature=0.3)
complete({"model": "m", "prompt": "{q}"}, {"q": "1"}, tempratur=0.3)  # type: ignore[call-arg]
complete({"model": "m", "prompt": "{q}"}, {"q": "1"}, n="three")  # type: ignore[arg-type]
grade("math", ["1"])  # type: ignore[call-arg]
mark(dataset="a.jsonl", model="m", grader="math", prompt="{q}", temperatur=0.5)  # type: ignore[call-arg]
mark(dataset="a.jsonl", model="m", prompt="{q}")  # type: ignore[call-arg]
