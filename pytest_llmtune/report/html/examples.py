"""The examples of a suite as the page's table needs them: cleaned, cut, and small enough to open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.figures import dollars
from pytest_llmtune._util.text import clean, one_line
from pytest_llmtune.guard.comparison import excerpt

if TYPE_CHECKING:
    from pytest_llmtune.guard.comparison import Flip
    from pytest_llmtune.guard.lockfile import LockedExample
    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.guard.verdict import Criteria
    from pytest_llmtune.types import ExampleResult

__all__ = ["cut", "outcome", "table"]


_TEXT_BUDGET = 40_000_000  # characters of responses in one suite; a browser opens that
_LONGEST, _SHORTEST = 20_000, 500
_VOTES = 20


def table(report: SuiteReport) -> list[dict[str, Any]]:
    """One mapping an example; long responses are cut, so that the page of a huge run still opens."""
    results = report.evaluation.results if report.evaluation else ()
    responses = sum(len(result.responses) for result in results)
    limit = max(_SHORTEST, min(_LONGEST, _TEXT_BUDGET // max(1, responses)))
    flips = {flip.id: flip for flip in report.verdict.flips}
    locked = {example.id: example for example in report.baseline.examples} if report.baseline else {}
    return [
        _example(result, report.criteria, flips.get(result.example.id), locked.get(result.example.id), limit)
        for result in results
    ]


def _example(
    result: ExampleResult, criteria: Criteria, flip: Flip | None, before: LockedExample | None, limit: int
) -> dict[str, Any]:
    grade = result.grade
    return {
        "index": result.example.index,
        "id": result.example.id,
        "outcome": outcome(result, criteria),
        "flip": flip.direction if flip else None,
        "question": one_line(excerpt(result.example.row), 200),
        "answer": _answer(grade.voted_answer, grade.votes, len(result.responses)) if grade else "",
        "before": _answer(before.voted_answer, before.votes, before.responses) if before else "",
        "score": round(grade.metrics[criteria.metric], 6) if grade and criteria.metric in grade.metrics else None,
        "cost": dollars(result.cost, 3),
        "error": clean(result.error) if result.error else "",
        "votes": [[cut(answer, limit), count] for answer, count in grade.votes[:_VOTES] if count] if grade else [],
        "right": [answer.correct for answer in grade.answers] if grade else [],
        "responses": [cut(response, limit) for response in result.responses],
        "row": {one_line(str(name), 100): cut(str(value), limit) for name, value in result.example.row.items()},
    }


def outcome(result: ExampleResult, criteria: Criteria) -> str:
    """``right``, ``wrong``, ``refused`` or ``unknown``; a share of right answers counts as wrong."""
    if result.grade is None:
        return "unknown"
    if result.status == "refused":
        return "refused"
    metrics = result.grade.metrics
    if "success_vote" in metrics:
        return "right" if metrics["success_vote"] >= 1 else "wrong"
    score = metrics.get(criteria.metric, 0.0)
    return "right" if (score >= 1 if criteria.mode == "max" else score <= 0) else "wrong"


def _answer(answer: str | None, votes: tuple[tuple[str, int], ...], responses: int) -> str:
    if answer is None:
        return "no answer"
    tally = f" ({votes[0][1]} of {responses})" if votes and responses > 1 else ""
    return f"{one_line(answer, 200)}{tally}"


def cut(text: str, limit: int) -> str:
    """Cleaned text of several lines, with a word about what is missing."""
    if len(text) <= limit:
        return clean(text)
    return f"{clean(text[:limit])}\n... cut, {len(text) - limit:,} more characters"
