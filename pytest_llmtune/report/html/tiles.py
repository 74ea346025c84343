"""The few numbers that one looks for first, each on a tile of its own."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_llmtune._util.figures import counted, dollars, interval, number
from pytest_llmtune._util.text import one_line
from pytest_llmtune.report.html.examples import outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.guard.verdict import Verdict

__all__ = ["band", "tiles"]


Tile = dict[str, str]


def tiles(report: SuiteReport) -> Iterator[Tile]:
    """Score, baseline, cost and examples, as far as they are known; each with a word beneath."""
    verdict, evaluation = report.verdict, report.evaluation
    if verdict.value is not None:
        sure = verdict.interval
        note = f"95 % interval {interval(sure.low, sure.high)}" if sure else ""
        yield _tile(one_line(verdict.metric), number(verdict.value), note)
    if verdict.baseline is not None:
        lost = sum(flip.direction == "lost" for flip in verdict.flips)
        yield _tile("baseline", number(verdict.baseline), f"{lost} lost, {len(verdict.flips) - lost} gained since")
    if evaluation is not None:
        limit = next((gate.limit for gate in verdict.gates if gate.metric == "inference_cost"), None)
        allowed = "" if limit is None else f"at most {dollars(limit)}"
        yield _tile("cost per instance", dollars(evaluation.inference_cost, 3), allowed)
        counts = Counter(outcome(result, report.criteria) for result in evaluation.results)
        told = ", ".join(
            f"{count} {name}" for name in ("right", "wrong", "refused", "unknown") if (count := counts[name])
        )
        yield _tile("examples", f"{len(evaluation.results):,}", told)
    if report.study is not None:
        trials = counted(len(report.study.trials), "trial")
        yield _tile("search", dollars(report.study.spent, 3), f"spent on {trials}")


def _tile(label: str, value: str, note: str) -> Tile:
    return {"label": label, "value": value, "note": note}


def band(verdict: Verdict) -> dict[str, float] | None:
    """Where score, interval and baseline lie between 0 and 1, in per cent; None where they do not."""
    sure, value, baseline = verdict.interval, verdict.value, verdict.baseline
    if sure is None or value is None or not 0 <= sure.low <= value <= sure.high <= 1:
        return None
    shown = {"low": sure.low, "width": sure.high - sure.low, "value": value}
    if baseline is not None and 0 <= baseline <= 1:
        shown["baseline"] = baseline
    return {name: round(100 * share, 2) for name, share in shown.items()}
