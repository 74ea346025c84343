"""Evaluations, locks and suite reports from a few words, for the tests of verdicts and reports."""

from __future__ import annotations

import statistics
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_llmtune.guard.gates import judge
from pytest_llmtune.guard.lockfile import Lock, StudySummary
from pytest_llmtune.guard.result import Compared, RecordingFacts, SuiteReport
from pytest_llmtune.guard.rows import RowColumns
from pytest_llmtune.guard.verdict import Criteria
from pytest_llmtune.types import Answer, Evaluation, Example, ExampleGrade, ExampleResult, Interval, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIG = {"model": "gpt-4o-mini", "temperature": 0.7, "n": 5, "prompt": "{problem} Put the answer in \\boxed{{}}."}
PRICES = {"gpt-4o-mini": {"input": Decimal("0.15"), "output": Decimal("0.6")}}
COLUMNS = RowColumns(("problem",), ("answer",))
FINGERPRINTS = {"dataset": "d" * 64, "grader": "e" * 64, "prompt": "f" * 64}


def result(
    index: int,
    score: float | None = 1.0,
    *,
    answer: str | None = "42",
    votes: int = 4,
    question: str | None = None,
    responses: Sequence[str] | None = None,
    row: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    error: str = "429 Too Many Requests, given up after 5 tries",
) -> ExampleResult:
    """One example; a score of None makes it unknown. Five responses, ``votes`` of them the voted answer."""
    row = row or {"problem": question or f"What is {index} + {index}?", "answer": "42"}
    example = Example(f"{index:016x}", index, row)
    if score is None:
        return ExampleResult(example, "unknown", None, error=error)
    texts = tuple(responses or [f"So it is \\boxed{{{answer}}}."] * 5)
    tally = ((answer, votes), ("7", len(texts) - votes)) if answer is not None else ()
    figures = {"success_vote": score, "success": float(score > 0), "expected_success": score, **(metrics or {})}
    answers = tuple(Answer(answer, answer or "", score > 0) for _ in texts)
    return ExampleResult(
        example,
        "ok",
        ExampleGrade(figures, tuple(vote for vote in tally if vote[1]), answer, answers),
        texts,
        Usage(20, 50),
        Decimal("0.00003"),
        0.25,
    )


def evaluation(results: Sequence[ExampleResult], config: Mapping[str, Any] = CONFIG) -> Evaluation:
    """Means over the known results, with an interval of 0.1 to each side."""
    known = [one for one in results if one.grade]
    graded = [one.grade.metrics for one in known if one.grade]
    names = graded[0] if graded else ()
    metrics = {name: statistics.fmean(figures[name] for figures in graded if name in figures) for name in names}
    return Evaluation(
        config=config,
        results=tuple(results),
        metrics=metrics,
        intervals={name: Interval(max(0.0, value - 0.1), min(1.0, value + 0.1)) for name, value in metrics.items()},
        inference_cost=sum((one.cost for one in known), Decimal(0)) / max(1, len(known)),
        cost=Decimal(0),
    )


def scores(*values: float | None, **keys: Any) -> Evaluation:
    """An evaluation whose examples have these scores; right ones answer 42, wrong ones 41."""
    return evaluation([result(i, value, answer="42" if value else "41", **keys) for i, value in enumerate(values)])


def lock(of: Evaluation, study: StudySummary | None = None) -> Lock:
    return Lock.of("algebra", of, prices=PRICES, fingerprints=FINGERPRINTS, study=study, key=COLUMNS.key)


def report(
    today: Evaluation | None, baseline: Lock | None = None, criteria: Criteria | None = None, **keys: Any
) -> SuiteReport:
    """A suite report with a verdict that is really judged."""
    criteria = criteria or Criteria(max_drop=0.02)
    judging = {name: keys.pop(name) for name in ("stale",) if name in keys}
    columns = keys.pop("columns", COLUMNS)
    facts: dict[str, Any] = {
        "name": "algebra",
        "nodeid": "tests/test_math.py::test_algebra",
        "path": "tests/test_math.py",
        "line": 12,
        "mode": "replay",
        "recording": RecordingFacts("tests/llmtune/algebra.cassette.json", 20, 12_345),
        **keys,
    }
    return SuiteReport(
        verdict=judge(today, criteria, baseline, columns=columns, **judging),
        columns=columns,
        criteria=criteria,
        evaluation=today,
        baseline=baseline,
        **facts,
    )


def compared(label: str, score: float, cost: str) -> Compared:
    from pytest_llmtune.guard.lockfile import Measured

    return Compared(label, {"model": "gpt-4o-mini", "n": 1}, Measured(score, score - 0.1, score + 0.1), Decimal(cost))
