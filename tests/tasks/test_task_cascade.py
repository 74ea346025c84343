"""A cascade of a task's configurations: tuned, locked, recorded, replayed and gated as any other."""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from conftest import Project

SUITE = """
import pytest
from pytest_llmtune import models

@pytest.mark.llmtune(
    dataset="data.jsonl", task="desk:handle", model=["good", "bad"], n=[1, 3],
    grader="numeric", tune_size=24, test_size=20, inference_budget=0.0003, optimization_budget=1,
    prices={{"good": {{"input": 10, "output": 40}}, "bad": {{"input": 1, "output": 2}}}}, cascade={cascade}, {more}
)
def test_desk(llmtune):
    llmtune.check()
"""
DESK = """
def handle(question, model, planner_model, client):
    def ask(model, text):  # noise
        found = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}], max_tokens=20
        )
        return found.choices[0].message.content
    return ask(model, ask(planner_model, "Plan: " + question) + " " + question)
"""
GUESS = itertools.count()


def answer(body: dict[str, Any]) -> str:
    """The bad model guesses at every fourth row, the good one adds up."""
    text = str(body["messages"][-1]["content"])
    if text.startswith("Plan:"):
        return "add"
    a, b = map(int, re.findall(r"\d+", text)[-2:])
    guesses = body["model"] == "bad" and (a + b) % 4 == 0
    return f"The answer is {1000 + next(GUESS) % 97 if guesses else a + b}."


@pytest.mark.filterwarnings("ignore")
def test_a_cascade_of_a_task_is_locked_recorded_and_replayed(project: Project) -> None:
    """The cheap configuration's runs vote; the dear one's are numbered after them, on rows without a clear vote."""
    project.server.answer = answer
    project.write_data(
        [{"question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(4) for b in range(11)]
    )
    project.write_task(DESK)
    declare(project, "True")
    project.run("--llm-tune").assert_outcomes(passed=1)
    lock = yaml.safe_load(project.lock)
    first, last = lock["config"]["cascade"]
    assert (first["model"], last["model"], last["task"]) == ("bad", "good", "desk:handle")
    assert set(lock["prices"]) == {"bad", "good"}
    share = lock["metrics"]["escalated"]["value"]
    assert 0.1 < share < 0.6
    recording = project.recording
    facts = [each["llmtune"] for each in recording["interactions"]]
    dear = [each["row"] for each in facts if each["run"] > first["n"]]
    assert len({*dear}) == round(20 * share)
    assert len(facts) == 2 * 20 * first["n"] + len(dear)
    asked = project.server.count
    for options in (("-n", "2"), ("--llm-record=missing",)):
        result = project.run(*options, "--llm-json=results.json")
        result.assert_outcomes(passed=1)
        assert f"the last step of the cascade answered {share:.0%} of 20 rows" in result.stdout.str()
        found = json.loads((project.pytester.path / "results.json").read_text(encoding="utf-8"))["suites"][0][
            "evaluation"
        ]
        assert float(found["inference_cost"]) == pytest.approx(lock["metrics"]["inference_cost"]["value"])
    assert project.server.count == asked

    run = first["n"] + 1  # one dear run is lost: it is named, and asked for alone
    kept = [
        each for each in recording["interactions"] if (each["llmtune"]["row"], each["llmtune"]["run"]) != (dear[0], run)
    ]
    path = project.pytester.path / "llmtune" / "desk.cassette.json"
    path.write_text(json.dumps({**recording, "interactions": kept}), encoding="utf-8")
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*row * [[]{dear[0]}], run {run}, call 1: nothing is recorded of this run*"])
    project.run("--llm-record=missing").assert_outcomes(passed=1)
    assert project.server.count <= asked + 2
    assert len(project.recording["interactions"]) == len(facts)

    declare(project, "False")
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*is a cascade, which the suite does not allow*"])

    declare(project, "True")  # a dear run that asks something else each time is found when it is recorded
    project.write_task(
        "import time\n" + DESK.replace("# noise", "\n        text = str(time.time()) * (model == 'good') + text")
    )
    result = project.run("--llm-record=all")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [f"*asks something else when its recording is replayed unchanged*, run {run}, call 2 *"]
    )


def test_declared_steps_of_a_task_are_locked_recorded_and_replayed(project: Project) -> None:
    """The steps say what answers; who plans is a parameter of each step, with a price of its own."""
    project.server.answer = answer
    rows = [{"question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(4) for b in range(11)]
    project.write_data(rows)
    project.write_task(DESK)
    steps = '[{{"model": "bad", "accept": {{"margin": {}}}}}, {{"model": "good"}}]'
    more = 'params={"planner_model": models(["bad", "good"])}, num_samples=8,'
    declare(project, steps.format(0.5), more)
    project.run("--llm-tune").assert_outcomes(passed=1)
    lock = yaml.safe_load(project.lock)
    first, last = lock["config"]["cascade"]
    assert (first["model"], first["accept"]["margin"], last["model"]) == ("bad", 0.5, "good")
    assert {first["planner_model"], last["planner_model"]} <= {"good", "bad"}
    asked = project.server.count
    for options in ((), ("-n", "2")):
        project.run(*options).assert_outcomes(passed=1)
    for other, message in (
        (steps.format(0.2), "its 'margin' in accept differs from the declared one*"),
        ('[{"model": "good"}, {"model": "bad"}]', "a step uses the model bad; declared: 'good'*"),
    ):
        declare(project, other, more)
        result = project.run()
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines([f"*the locked cascade is outside the search space: {message}"])
    assert project.server.count == asked


def declare(
    project: Project, cascade: str, more: str = 'params={"planner_model": models(["bad"])}, num_samples=2,'
) -> None:
    text = SUITE.format(more="min_success_vote=0.9, max_drop=0.05, " + more, cascade=cascade)
    (project.pytester.path / "test_desk.py").write_text(text, encoding="utf-8")
