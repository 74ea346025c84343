"""A suite's figures as JUnit properties: short, and such as XML can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmtune._util.figures import interval, number
from pytest_llmtune._util.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_llmtune.guard.result import SuiteReport

__all__ = ["properties"]


def properties(report: SuiteReport) -> list[tuple[str, str]]:
    """(name, value) pairs for ``user_properties``; every name starts with ``llmtune.``, USD have no sign."""
    return [(f"llmtune.{name}", one_line(value, 500)) for name, value in _figures(report)]


def _figures(report: SuiteReport) -> Iterator[tuple[str, str]]:
    verdict, evaluation = report.verdict, report.evaluation
    yield "suite", report.name
    yield "mode", report.mode
    yield "verdict", verdict.status
    yield "metric", verdict.metric
    if verdict.value is not None:
        yield "value", number(verdict.value, 6)
    if verdict.interval is not None:
        yield "interval", interval(verdict.interval.low, verdict.interval.high)
    if verdict.baseline is not None:
        yield "baseline", number(verdict.baseline, 6)
    if verdict.p_value is not None:
        yield "p_value", number(verdict.p_value, 6)
        yield "lost", str(sum(flip.direction == "lost" for flip in verdict.flips))
        yield "gained", str(sum(flip.direction == "gained" for flip in verdict.flips))
    if evaluation is not None:
        yield "inference_cost", f"{evaluation.inference_cost:.12f}".rstrip("0").rstrip(".")
        yield "examples", str(len(evaluation.results))
        yield "unknown", str(len(evaluation.unknown))
    yield "spent", f"{report.spent:f}"
    yield from _search(report)
    for gate in verdict.gates:
        yield f"gate.{gate.name}", f"{'ok' if gate.passed else 'FAIL'}: {gate.sentence}"
    for stale in verdict.stale:
        yield "stale", stale.what
    if verdict.problem:
        yield "problem", verdict.problem


def _search(report: SuiteReport) -> Iterator[tuple[str, str]]:
    """What the search found, and the baselines beside it."""
    study = report.study
    for name, figure in (("tuning", study.tuning), ("heldout", study.heldout)) if study else ():
        if figure is not None:
            yield f"{name}.value", number(figure.value, 6)
            if sure := figure.interval:
                yield f"{name}.interval", interval(sure.low, sure.high)
    for place, one in enumerate(report.compared, 1):
        score, cost = one.score.interval, one.cost_interval
        yield f"compared.{place}.label", one.label
        yield f"compared.{place}.value", number(one.score.value, 6)
        if score:
            yield f"compared.{place}.interval", interval(score.low, score.high)
        yield f"compared.{place}.inference_cost", f"{one.inference_cost:.12f}".rstrip("0").rstrip(".")
        if cost:
            yield f"compared.{place}.inference_cost.interval", f"{cost.low:.9f} to {cost.high:.9f}"
