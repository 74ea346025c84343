"""The graders that look at how an answer came about, and the metrics of reliability."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import resolve, with_reliability
from pytest_llmtune.grading.reliability import pass_at, pass_hat
from pytest_llmtune.suite import Suite
from pytest_llmtune.types import ModelCall, RunText, TaskRun, ToolCall

ROW = {"answer": "x", "order": 7, "tools": ["look_up"]}


def ran(*tools: tuple[str, Any], error: str | None = None, repeats: bool = False) -> RunText:
    """A run of one model call for each tool."""
    calls = tuple(
        ModelCall(
            number, "m", ({"role": "user", "content": "same" if repeats else str(number)},), "", (ToolCall(*tool),)
        )
        for number, tool in enumerate(tools, 1)
    )
    return RunText("x", TaskRun(1, "x", calls=calls, error=error))


def right(spec: Any, response: str) -> bool:
    return resolve(spec).grade([response], ROW).metrics["success"] == 1.0


def test_a_run_keeps_its_trace_when_its_reasoning_is_taken_away() -> None:
    """Whatever the grader reads."""
    run = TaskRun(1, "", calls=ran(LOOK_UP).run.calls)
    response = RunText("<think>Let me look it up.</think>on its way", run)
    row = {**ROW, "answer": "on its way"}
    metrics = resolve(["exact", {"tools": {"include": ["look_up"]}}]).grade([response], row).metrics
    assert (metrics["success"], metrics["tools_success"]) == (1, 1)


def not_rude(responses: list[str], **row: Any) -> bool:
    return not any("fool" in response for response in responses)


@pytest.mark.parametrize(
    "spec", [{"regex": {"reference": "pattern"}}, not_rude, [not_rude, {"regex": {"reference": "pattern"}}]]
)
def test_a_run_that_raised_is_wrong_whatever_a_grader_makes_of_an_empty_text(spec: Any) -> None:
    """Of two runs one that raised is half of what there is; a function judges them together."""
    raised, fine = RunText("", TaskRun(1, "", error="ValueError: no")), RunText("", TaskRun(2, ""))
    grader, row = resolve(spec), {"pattern": "^(?!.*fool)"}
    assert grader.grade([fine], row).metrics["success"] == 1
    grade = grader.grade([raised], row)
    assert {grade.metrics[name] for name in grade.metrics if name.endswith(("success", "success_vote"))} == {0}
    assert grade.voted_answer is None
    if grader.per_response:
        assert grader.grade([fine, raised], row).metrics["expected_success"] == pytest.approx(0.75)


LOOK_UP, CANCEL = ("look_up", {"id": 7}), ("cancel", {})


@pytest.mark.parametrize(
    ("options", "tools", "expected"),
    [
        ({"include": ["look_up"]}, [LOOK_UP, CANCEL], True),
        ({"include": ["look_up"]}, [CANCEL], False),
        ({"include": "{tools}"}, [LOOK_UP], True),
        ({"include": "{tools}"}, [CANCEL], False),
        ({"exclude": ["cancel"]}, [LOOK_UP], True),
        ({"exclude": ["cancel"]}, [LOOK_UP, CANCEL], False),
        ({"include": ["cancel", "look_up"]}, [LOOK_UP, CANCEL], True),
        ({"include": ["cancel", "look_up"], "order": "in_order"}, [LOOK_UP, CANCEL], False),
        ({"include": ["look_up", "cancel"], "order": "in order"}, [LOOK_UP, LOOK_UP, CANCEL], True),
        ({"include": ["look_up", "cancel"], "order": "exact"}, [LOOK_UP, LOOK_UP, CANCEL], False),
        ({"include": ["look_up", "cancel"], "order": "exact"}, [LOOK_UP, CANCEL], True),
        ({"args": {"look_up": {"id": 7}}}, [LOOK_UP], True),
        ({"args": {"look_up": {"id": "{order}"}}}, [LOOK_UP], True),
        ({"args": {"look_up": {"id": "{order}"}}}, [("look_up", {"id": 8})], False),
        ({"args": {"look_up": {"id": 7}}}, [("look_up", {"id": True})], False),
        ({"args": {"look_up": {"schema": {"required": ["id"]}}}}, [LOOK_UP], True),
        ({"args": {"look_up": {"schema": {"required": ["name"]}}}}, [LOOK_UP], False),
        ({"args": {"look_up": {"type": "object", "properties": {"id": {"type": "string"}}}}}, [LOOK_UP], False),
        ({"max_calls": 1}, [LOOK_UP], True),
        ({"max_calls": 1}, [LOOK_UP, CANCEL], False),
        ({"max_calls": 0}, [], True),
        ({"include": ["look_up", "look_up"]}, [LOOK_UP, CANCEL], False),
        ({"include": ["look_up", "look_up"]}, [LOOK_UP, CANCEL, LOOK_UP], True),
    ],
)
def test_tools(options: dict[str, Any], tools: list[Any], expected: bool) -> None:
    """Each option by itself, at both sides."""
    assert right({"tools": options}, ran(*tools)) is expected


@pytest.mark.parametrize(
    ("options", "response", "expected"),
    [
        ({"max_calls": 2}, ran(LOOK_UP, CANCEL), True),
        ({"max_calls": 1}, ran(LOOK_UP, CANCEL), False),
        ({"max_turns": 1}, ran(LOOK_UP, CANCEL), True),
        ({"no_repeats": True}, ran(LOOK_UP, CANCEL), True),
        ({"no_repeats": True}, ran(("look_up", {"id": "7" * 300 + "1"}), ("look_up", {"id": "7" * 300 + "2"})), True),
        ({"no_repeats": True}, ran(LOOK_UP, LOOK_UP), False),
        ({"no_repeats": True}, ran(LOOK_UP, CANCEL, repeats=True), False),
    ],
)
def test_calls(options: dict[str, Any], response: str, expected: bool) -> None:
    """Calls of models, turns and repetitions."""
    assert right({"calls": options}, response) is expected


@pytest.mark.parametrize(("digests", "expected"), [("ab", True), ("aa", False)])
def test_calls_without_messages_are_not_all_the_same(digests: str, expected: bool) -> None:
    """Of a reranker's or an image's call the messages are not read."""
    calls = tuple(ModelCall(number, "m", digest=digest) for number, digest in enumerate(digests, 1))
    assert right({"calls": {"no_repeats": True}}, RunText("x", TaskRun(1, "x", calls=calls))) is expected


@pytest.mark.parametrize("spec", [{"tools": {"exclude": ["cancel"]}}, {"calls": {"max_calls": 5}}])
@pytest.mark.parametrize("response", ["", "x", ran(error="ValueError: no")])
def test_what_is_no_finished_run_is_wrong(spec: Any, response: str) -> None:
    """A plain answer has no trace, and a run that raised proves nothing: neither passes what only forbids."""
    assert not right(spec, response)


@pytest.mark.parametrize(
    "spec",
    [
        {"tools": {}},
        {"tools": {"order": "backwards", "include": ["a"]}},
        {"tools": {"include": 5}},
        {"tools": {"args": {"a": {"schema": {"type": "nonsense"}}}}},
        {"calls": {}},
        {"calls": {"max_calls": -1}},
        {"tools": {"max_calls": "4"}},
        {"tools": {"max_calls": 2.5}},
        {"tools": {"include": ["a"], "order": 5}},
        {"tools": {"include": ["a"], "order": "exact", "exclude": {"b": 1}}},
        {"calls": {"max_turns": "4"}},
        {"calls": {"no_repeats": "yes"}},
    ],
)
def test_options_that_mean_nothing_are_refused(spec: Any) -> None:
    """Before anything is asked."""
    with pytest.raises(SuiteError):
        resolve(spec)


def test_a_second_grader_names_its_metrics() -> None:
    """They can be tuned and gated by these names."""
    metrics = (
        resolve(["exact", {"tools": {"max_calls": 5}}, {"calls": {"max_calls": 5}}]).grade([ran(LOOK_UP)], ROW).metrics
    )
    assert (metrics["tools_success_vote"], metrics["tools_per_run"], metrics["calls_per_run"]) == (1.0, 1.0, 1.0)


def test_a_function_sees_the_calls_of_each_response() -> None:
    """``calls`` beside ``responses``: for each response its calls."""

    def grade(responses: list[str], answer: str, calls: list[list[ModelCall]]) -> dict[str, float]:
        assert [len(each) for each in calls] == [1, 0]
        return {"success_vote": float(calls[0][0].tool_calls[0].name == "look_up" and responses[0] == answer)}

    assert resolve(grade).grade([ran(LOOK_UP), "plain"], ROW).metrics == {"success_vote": 1.0}


@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 1), (5, 2), (5, 5), (6, 3)])
def test_estimators_against_all_draws(n: int, k: int) -> None:
    """The mean over every way to draw k of n responses, for every number of right ones."""
    for good in range(n + 1):
        draws = list(itertools.combinations([1] * good + [0] * (n - good), k))
        assert pass_at(n, good, k) == pytest.approx(sum(any(draw) for draw in draws) / len(draws))
        assert pass_hat(n, good, k) == pytest.approx(sum(all(draw) for draw in draws) / len(draws))


def test_reliability_is_measured_for_any_suite() -> None:
    """By name, over the responses of each row."""
    grader = with_reliability(resolve("exact"), ["success_vote", "pass_at_2", "pass_hat_2", "row_rate"])
    metrics = grader.grade(["x", "x", "y"], ROW).metrics
    assert (metrics["pass_at_2"], metrics["pass_hat_2"], metrics["row_rate"]) == pytest.approx((1.0, 1 / 3, 2 / 3))


def test_too_few_responses_are_refused_before_anything_is_paid_for() -> None:
    """``pass_hat_k`` needs k responses a row, whatever the search chooses."""
    keys: dict[str, Any] = {
        "name": "a", "dataset": [ROW], "prompt": "{order}", "model": "m", "grader": "exact", "tune_size": 1,
    }  # fmt: skip
    with pytest.raises(SuiteError, match=r"may be 1, but pass_hat_3 needs 3 responses per row"):
        Suite(**keys, n=[1, 5], pass_hat_k={3: 0.5})
    assert [gate.key for gate in Suite(**keys, n=3, pass_hat_k={3: 0.5}).thresholds] == ["min_pass_hat_3"]
