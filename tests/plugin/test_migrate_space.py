"""The search space of one model, without what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.results import evaluation, result

from pytest_llmtune import Suite, lograndint, uniform
from pytest_llmtune.grading import resolve
from pytest_llmtune.guard.rows import RowColumns
from pytest_llmtune.guard.verdict import Criteria
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.recording import Gathered
from pytest_llmtune.recording.format import Interaction
from pytest_llmtune.suite.domains import Choice, Constant
from pytest_llmtune.workflow.migrate import MigrateMode, _restricted, calls_model

KEYS = {"name": "a", "dataset": [{"question": "q", "answer": "a"}], "prompt": "{question}", "grader": "exact"}


def domains(suite: Suite, **changes: str | float | None) -> dict[str, object]:
    made = _restricted(suite, "model", "new", changes)
    assert made.space.models == ("new",)
    assert suite.space.models == ("old",)
    return dict(made.space.for_model("new"))


def test_refused_parameters_leave_the_space() -> None:
    """The default space: randomness goes whole, a length changes its name, bounds are lowered."""
    suite = Suite(**KEYS, model="old", max_tokens=lograndint(50, 1000), stop=[None, "a"])
    found = domains(suite, temperature=None, max_tokens="max_completion_tokens")
    assert found.keys() == {"max_completion_tokens", "n", "stop"}
    found = domains(suite, temperature=1.0, max_tokens=100.0)
    assert found["max_tokens"] == lograndint(50, 101)
    assert found["temperature_or_top_p"].branches[0]["temperature"] == uniform(0, 1)  # type: ignore[attr-defined]
    assert domains(suite, max_tokens=20.0)["max_tokens"] == Constant(20)


def test_choices_and_constants_are_lowered() -> None:
    suite = Suite(**KEYS, model="old", temperature=[0, 1, 2], max_tokens=500)
    assert domains(suite, temperature=1.0)["temperature"] == Choice((0, 1))
    assert domains(suite, max_tokens=100.0)["max_tokens"] == Constant(100.0)


def test_a_task_that_never_asks_the_model_tells_nothing() -> None:
    """In any row and any run; the model is in the body of the request or in its URL."""
    gathered = Gathered()
    assert not calls_model(gathered, "old")
    gathered.runs["0", 1] = (Interaction("POST", "http://127.0.0.1:9/v1/chat/completions", '{"model":"old"}', 200, ""),)
    gathered.runs["1", 1] = ()
    gathered.runs["1", 2] = (Interaction("POST", "http://127.0.0.1:9/v1/models/older:generateContent", "{}", 200, ""),)
    assert calls_model(gathered, "old")
    assert calls_model(gathered, "older")
    assert not calls_model(gathered, "new")


@pytest.mark.parametrize(("agreement", "passes"), [(0.9, True), (0.5, False), (None, False)])
def test_no_model_keeps_quality_by_a_judge_that_agrees_too_little(agreement: float | None, passes: bool) -> None:
    """As in the guard: nothing is gated on such a judge, so that nothing is locked by its word."""
    suite = Suite(**KEYS, model="old")
    grader = resolve({"judge": {"model": "judge", "rubric": "Polite?", "min_agreement": 0.8}})
    before = evaluation([result(index) for index in range(40)])
    config, services = suite.space.first(), Any
    mode = MigrateMode(
        *(suite, [one.example for one in before.results], grader, services, Ledger()),
        *(Criteria(max_drop=0.2), RowColumns(), lambda _: None, config, before, "test_it.py::test_it"),  # type: ignore[arg-type]
    )
    figures = before.metrics | ({} if agreement is None else {"agreement": agreement})  # type: ignore[operator]
    found = mode._judged("new", config, (), replace(before, metrics=figures), Gathered()).migration
    assert found.verdict == "keeps quality"
    assert (found.passed, found.broken) == (passes, not passes)
    assert passes or "min_agreement asks for 0.8" in found.sentence
