"""How a suite with a task is declared: models that stand in its own parameters, baselines, locked configurations."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

from pytest_llmtune import Outcome, Suite, SuiteError, models
from pytest_llmtune.suite import Config
from pytest_llmtune.suite.task import Task, outcome_of

if TYPE_CHECKING:
    from conftest import Project

ROWS = [{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]
WITHOUT_MODEL = """
import pytest
from pytest_llmtune import models

@pytest.mark.llmtune(
    dataset="data.jsonl", task="desk:handle", params={{"planner_model": models(["good", "bad"]), "style": "short"}},
    temperature=[0.5], n=2, grader="numeric", tune_size=4, test_size=4, num_samples=4, optimization_budget=1,
    prices={{"good": {{"input": 1, "output": 2}}, "bad": {{"input": 1, "output": 2}}}}, {more}
)
def test_desk(llmtune):
    llmtune.check()
"""
DESK = """
def handle(question, planner_model, style, temperature, client):
    return client.chat.completions.create(
        model=planner_model, messages=[{"role": "user", "content": f"({style}) {question}"}], max_tokens=20,
        temperature=temperature,
    ).choices[0].message.content
"""


def named(question: str, planner_model: str) -> str:
    return question + planner_model


def whole(question: str, config: dict[str, Any]) -> str:
    return question + config["planner_model"]


def asks(question: str, model: str) -> str:
    return question + model


def suite(task: Any, **more: Any) -> Suite:
    return Suite(name="x", dataset=ROWS, grader="exact", tune_size=1, task=task, **more)


PLANNER = {"planner_model": models(["a", "b"])}


@pytest.mark.parametrize("task", [named, whole])
def test_a_task_whose_models_are_its_own_parameters_needs_no_model(task: Any) -> None:
    """The configuration then has none, is locked without one and read again."""
    declared = suite(task, params=PLANNER)
    declared.load()
    config = declared.space.first()
    assert dict(config.params) == {"planner_model": "a"}
    assert (config.model, config.models, declared.space.models_of(config)) == ("", (), ("a",))
    again = Config.from_lock(config.to_lock(), declared.space.templates)
    assert (again, declared.space.why_not(again)) == (config, None)


def test_a_single_model_of_a_parameter_is_a_constant() -> None:
    """``models(["a"])`` leaves nothing to choose."""
    assert suite(named, params={"planner_model": models(["a"])}).space.constant.params == {"planner_model": "a"}


@pytest.mark.parametrize(
    ("task", "more", "message"),
    [
        (whole, {}, "model is missing: the task .*whole takes config, which names no model; give model="),
        (whole, {"params": {"planner_model": ["a"]}}, "model is missing: the task"),
        (asks, {"params": PLANNER}, "takes 'model' \\(which model= of the suite gives\\), which nothing fills"),
        (None, {"prompt": "{question}"}, "model is missing; a suite needs"),
    ],
)
def test_what_needs_a_model_is_refused_without_one(task: Any, more: dict[str, Any], message: str) -> None:
    """A prompt, and a task that takes the configuration or ``model``."""
    with pytest.raises(SuiteError, match=message):
        suite(task, **more).load()


def yields(question: str) -> Any:
    yield question


async def yields_async(question: str) -> Any:
    yield question


def positional(question: str, /) -> str:
    return question


@pytest.mark.parametrize(
    ("task", "message"),
    [(yields, "yields, which yields"), (yields_async, "yields"), (positional, "'question' cannot be given by name")],
)
def test_what_cannot_be_a_task_is_refused(task: Any, message: str) -> None:
    """When the suite is read; a generator's first item would be no answer."""
    with pytest.raises(SuiteError, match=message):
        suite(task, params=PLANNER)


@pytest.mark.parametrize("step", [{"model": "small"}, {"model": "small", "accept": {"margin": 0.5}}])
def test_a_cascade_of_a_tasks_own_models_names_none(step: dict[str, Any]) -> None:
    """Without ``model=`` no model answers; the search may still choose two configurations."""
    more = {"inference_budget": 0.1, "optimization_budget": 1, "params": PLANNER}
    assert suite(named, cascade=True, **more).cascade is True
    assert suite(named, cascade={"accept": {"margin": 0.5}}, **more).cascade
    with pytest.raises(SuiteError, match="names a model, but the suite has no model=, only parameters of its task"):
        suite(named, cascade=[step, {}], **more)


class Yields:
    def __call__(self, question: str) -> Any:
        yield question


@pytest.mark.parametrize("task", [yields, positional, Yields(), 5, "json:no_such"])
def test_a_task_that_is_refused_is_the_only_problem(task: Any) -> None:
    """Nothing that would be missing without a task is told beside it, and each place is named once."""
    with pytest.raises(SuiteError) as caught:
        suite(task, params=PLANNER)
    assert (str(caught.value).count("Suite("), str(caught.value).count("\n")) == (1, 0)


def test_a_parameter_that_nothing_fills_is_told_in_one_place() -> None:
    with pytest.raises(SuiteError) as caught:
        suite(lambda quesiton: quesiton, params=PLANNER).load()
    assert str(caught.value).count("Suite(") == 1
    assert "'quesiton' (did you mean 'question'?), which nothing fills" in str(caught.value)


class Desk:
    """An app whose entry point is a method."""

    def handle(self, question: str, *parts: str, style: str = "short", **row: Any) -> list[Any]:
        row["tags"].append("seen")
        return [question, parts, style, row]

    __call__ = handle


def decorated(question: str, answer: str, tags: list[str]) -> Any:
    return Desk().handle(question, answer=answer, tags=tags)


@functools.wraps(decorated)
def decorator(*args: Any, **kwargs: Any) -> Any:
    return decorated(*args, **kwargs)


@pytest.mark.parametrize(
    "function",
    [Desk().handle, Desk(), decorator, functools.partial(Desk().handle, style="short")],
    ids=["method", "object", "decorated", "partial"],
)
def test_parameters_are_filled_by_name(function: Any) -> None:
    """Of methods, callable objects, decorated functions and partial ones; a run cannot change another's row."""
    row = {"question": "q", "answer": "a", "tags": ["new"]}
    task = Task.of(function, Path(), None)
    task.check(list(row), [])
    for _ in range(2):
        found = function(**task.arguments(row, {}, str))
        assert json.loads(outcome_of(found, "t").text)[-1]["tags"] == ["new", "seen"]
    assert row["tags"] == ["new"]


@dataclasses.dataclass
class Answer:
    text: str
    model: Any = None


class Model(pydantic.BaseModel):
    total: int


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ("seven", "seven"),
        ({"total": 7}, '{"total": 7}'),
        (Model(total=7), '{"total": 7}'),
        ([Answer("a", Model(total=7))], '[{"text": "a", "model": {"total": 7}}]'),
        (Outcome("seven", {"any": object}), "seven"),
    ],
)
def test_what_a_task_may_return(returned: Any, text: str) -> None:
    """Text, JSON, and what has a plain form."""
    assert outcome_of(returned, "t").text == text


@pytest.mark.parametrize("returned", [None, float("nan"), [float("inf")], object(), Model, {"a": {1, 2}}])
def test_what_a_task_must_not_return(returned: Any) -> None:
    """It is told, and not graded as some text."""
    with pytest.raises(SuiteError, match="the task t returned"):
        outcome_of(returned, "t")


def test_a_locked_model_that_the_suite_no_longer_has_is_outside_its_space() -> None:
    """And one that it has by now, too."""
    with_model, without = suite(named, params=PLANNER, model="m"), suite(named, params=PLANNER)
    assert without.space.why_not(with_model.space.first()) == "the model 'm' is given, and the suite has none"
    assert with_model.space.why_not(without.space.first()) == "the model None is not one of 'm'"


def test_baselines_of_a_task_take_its_parameters_and_prompts() -> None:
    """As they stand: braces are the task's business."""
    found = suite(whole, params=PLANNER, prompt=["one {x}", "two"], baselines=[{"planner_model": "b", "prompt": "{y}"}])
    [baseline] = found.baselines
    assert baseline.to_lock() == {"planner_model": "b", "prompt": "{y}"}
    assert baseline.runs_task


def test_a_suite_without_a_model_is_tuned_replayed_and_priced(project: Project) -> None:
    """The planner that adds up wins, its price is locked, and nothing is asked again."""
    project.write_task(DESK)
    project.write_suite("min_success_vote=0.9,", suite=WITHOUT_MODEL)
    project.run("--llm-tune").assert_outcomes(passed=1)
    assert "planner_model: good" in project.lock
    assert "\nprices: {good: {" in project.lock.replace("prices:\n  good: {", "prices: {good: {")
    before = project.server.count
    project.run().assert_outcomes(passed=1)
    for number in (1, 2):
        project.run(f"--llm-shard={number}/2", f"--llm-json=shards/{number}.json").assert_outcomes(passed=1)
    project.run("--llm-merge=shards", "--llm-report=report.html").assert_outcomes(passed=1)
    assert project.server.count == before
