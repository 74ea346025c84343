"""Figures of a suite from those of its examples."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.results import result

from pytest_llmtune._dataclass import replace
from pytest_llmtune._util.aio import has_loop, run_async
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import Grader, awaits, grade_answers, resolve
from pytest_llmtune.guard import evaluation, staleness
from pytest_llmtune.guard.evaluation import evaluate, evaluation_of
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.suite import Config
from pytest_llmtune.suite.prompts import Template
from pytest_llmtune.types import Answer, Choice, Completion, CompletionRequest, Example, ExampleGrade, Row, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("count", "p50", "p95", "p99"), [(100, 50, 95, 99), (1, 1, 1, 1), (10, 5, 10, 10), (20, 10, 19, 20)]
)
def test_percentiles_of_the_latency_are_of_the_nearest_rank(count: int, p50: int, p95: int, p99: int) -> None:
    """Of 1, 2, ... seconds, in any order: the value that so many of a hundred do not pass."""
    results = [dataclasses.replace(result(1), latency=float(seconds)) for seconds in range(count, 0, -1)]
    metrics = evaluation_of({}, results).metrics
    assert [metrics[f"latency_p{part}"] for part in (50, 95, 99)] == [p50, p95, p99]


def test_nothing_known_has_no_percentiles() -> None:
    """No example, no latency."""
    assert evaluation_of({}, []).metrics == {}


def test_an_interval_is_computed_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling takes longer than the rest of a small guard, which shows the interval of one metric."""
    sizes: list[int] = []
    original = evaluation.bootstrap_mean
    monkeypatch.setattr(evaluation, "bootstrap_mean", lambda values: sizes.append(len(values)) or original(values))
    results = [dataclasses.replace(result(index % 3), latency=float(index)) for index in range(12)]
    intervals = evaluation_of({}, results).intervals
    assert intervals["success_vote"].low < intervals["success_vote"].high
    assert sizes == []
    assert intervals["latency"] == intervals["latency"] == original([float(index) for index in range(12)])
    assert sizes == [12]
    assert "row_rate" not in intervals
    assert pickle.loads(pickle.dumps(intervals)) == intervals  # noqa: S301  # our own
    assert {"success_vote", "latency", "inference_cost"} <= set(intervals)


class Recorded:
    """A source that answers as a recording does, and notes whether a loop runs."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.loops = texts, list[bool]()

    async def complete(self, request: CompletionRequest) -> Completion:
        self.loops.append(has_loop())
        text = self.texts[int(request.body["messages"][0]["content"])]
        return Completion((Choice(text, "stop"),), Usage(1, 1), (), cost=Decimal(1))


def replayed(grader: Grader, *texts: str, loop: bool = False) -> tuple[list[float], list[bool]]:
    """The success of each row, whose answer is 7, and whether a loop ran when it was asked for."""
    examples = [Example(str(index), index, {"number": index, "answer": "7"}) for index in range(len(texts))]
    config, source = Config({"model": "m", "n": 1}, Template.prompt("{number}")), Recorded(*texts)
    job = evaluate(config, examples, grader=grader, source=source, prices=PriceBook(), concurrency=2)
    found = run_async(job, loop=loop)
    return [each.grade.metrics["success"] for each in found.results if each.grade is not None], source.loops


def test_a_replay_starts_a_loop_for_the_first_response_that_is_long() -> None:
    """It is read in a worker process; the rows after it are read concurrently."""
    number = resolve("numeric")
    assert replayed(number, "7", "8", "7") == ([1, 0, 1], [False] * 3)
    long = "so " * 4_000 + "the answer is 7"
    expected = [1, 1, 0, 1]
    assert replayed(number, "7", long, "8", long) == (expected, [False, False, True, True])
    assert replayed(number, "7", long, "8", long, loop=True) == (expected, [True] * 4)


class Waiting(Grader):
    """Somebody's own, that waits."""

    fingerprint = "1"

    def reference(self, row: Row) -> str:
        return str(row["answer"])

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        return grade_answers([Answer(text, text, text == row["answer"]) for text in responses])


class WaitingForAnother(Waiting):
    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:  # noqa: ARG002
        await asyncio.to_thread(str)
        return self.grade(responses, row)


def test_somebodys_own_coroutine_runs_in_a_loop() -> None:
    """It may use anything of asyncio, which our own graders ask for."""

    def function(responses: list[str], answer: str) -> bool:
        return answer in responses

    for spec in (
        "math",
        "exact",
        {"choice": {}},
        function,
        [function, "numeric"],
        Waiting(),
        {"judge": {"model": "m", "rubric": "right"}},
    ):
        assert not awaits(resolve(spec)), spec
    for one in (WaitingForAnother(), [function, WaitingForAnother()]):
        assert awaits(resolve(one))
    assert replayed(resolve(WaitingForAnother()), "7", "8", loop=True)[0] == [1, 0]


def test_few_requests_are_made_once_and_many_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are compared with the recording before it answers them; a plan of other rows makes its own."""
    made: list[int] = []
    original = staleness.requests_of
    monkeypatch.setattr(staleness, "requests_of", lambda *given: made.append(len(given[1])) or original(*given))
    examples = [Example(str(index), index, {"number": index // 2}) for index in range(6)]
    plan = staleness.RequestPlan(Config({"model": "m", "n": 1}, Template.prompt("{number}")), examples)
    first = list(plan.requests())
    assert [request.sample_index for request in first] == [0, 1] * 3
    assert list(plan.requests()) == first
    assert made == [6]
    assert [request.key for request in replace(plan, all=examples[::-1]).requests()] == [each.key for each in first][
        ::-1
    ]
    monkeypatch.setattr(staleness, "_FEW", 5)
    many = replace(plan)
    assert list(many.requests()) == list(many.requests()) == first
    assert made == [6, 6, 6, 6]


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (lambda _: "high", r"aggregate of \w+ over 2 rows gave 'high', not a number"),
        (lambda _: None, r"aggregate of \w+ over 2 rows raised TypeError"),
        (lambda values: values[7], r"aggregate of \w+ over 2 rows raised IndexError"),
    ],
)
def test_an_aggregate_that_gives_no_number_is_an_error_in_words(own: Any, says: str) -> None:
    with pytest.raises(SuiteError, match=says):
        evaluation_of({}, [result(0), result(1)], aggregate=own)
