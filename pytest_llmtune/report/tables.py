"""Cells that several reports show: a suite's figures, its flips, and the tables of ``--llm-migrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmtune._util.text import cost_change, dollars, interval, number, one_line, thousand
from pytest_llmtune.guard.result import SuiteReport, totals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.guard.lockfile import Measured
    from pytest_llmtune.guard.result import Compared
    from pytest_llmtune.guard.verdict import Flip


def figures(report: SuiteReport) -> tuple[str, str, str, str, str]:
    """Score, baseline, 95 % interval, cost of 1,000 instances, number of examples; each empty where unknown."""
    verdict, evaluation, sure = report.verdict, report.evaluation, report.verdict.interval
    return (
        "" if verdict.value is None else number(verdict.value),
        "" if verdict.baseline is None else number(verdict.baseline),
        interval(sure.low, sure.high) if sure else "",
        "" if evaluation is None else thousand(evaluation.inference_cost),
        "" if evaluation is None else str(len(evaluation.results)),
    )


def measured(figure: Measured) -> str:
    """``0.84 (0.77 to 0.89)``."""
    sure = figure.interval
    return number(figure.value) + (f" ({interval(sure.low, sure.high)})" if sure else "")


def cost_interval(one: Compared) -> str:
    """The interval of the cost of 1,000 instances; empty if unknown."""
    sure = one.cost_interval
    return f"{thousand(sure.low)} to {thousand(sure.high)}" if sure else ""


def p_value_text(p_value: float | None) -> str:
    """``; exact McNemar p = 0.03``; empty if unknown."""
    return "" if p_value is None else f"; exact McNemar p = {number(p_value)}"


_MOVES = ("move", "score", "95 % interval", "lost", "gained", "p", "USD per 1,000", "latency p50", "p95", "verdict")
_TOTALS = ("all suites", "suites", "keep quality", "worse", "inconclusive", "USD per 1,000 of each", "spent now")


def moves(reports: Sequence[SuiteReport]) -> list[tuple[str, ...]]:
    """A header and one row per suite and model; empty if there are none."""
    rows = []
    for report in reports:
        for each in report.migrations:
            known, sure = each.now is not None, each.now.interval if each.now else None
            quality = f"{number(each.before.value)} -> {number(each.now.value)}" if each.before and each.now else "-"
            latency = zip(each.latency_before or (), each.latency or (), strict=False)
            p50, p95 = [f"{number(a, 2)} -> {number(b, 2)} s" for a, b in latency] or ("-", "-")
            rows.append(
                (
                    f"{one_line(report.name)}: {one_line(each.model)}",
                    quality,
                    interval(sure.low, sure.high) if sure else "-",
                    str(each.lost) if known else "-",
                    str(each.gained) if known else "-",
                    "-" if each.p_value is None else number(each.p_value),
                    cost_change(each.cost_before, each.cost) or "not known",
                    p50,
                    p95,
                    each.verdict + (", a gate fails" if each.broken else "") + (", locked" if each.accepted else ""),
                )
            )
    return [_MOVES, *rows] if rows else []


def flipped(reports: Sequence[SuiteReport]) -> list[tuple[str, ...]]:
    """A header and a row per flip, at most 50 per suite and model; empty without flips."""
    rows = [
        (f"{one_line(report.name)}: {one_line(each.model)}", *flip_cells(flip))
        for report in reports
        for each in report.migrations
        for flip in each.flips[:50]
    ]
    return [("move", "flip", "row", "question", "expected", "before", "now"), *rows] if rows else []


def flip_cells(flip: Flip) -> tuple[str, ...]:
    """Direction, row, question, expected answer, answer before and now."""
    answers = (one_line(side.voted_answer or "no answer", 80) for side in (flip.before, flip.now))
    return flip.direction, str(flip.index), one_line(flip.question, 120), one_line(flip.expected, 80), *answers


def all_suites(reports: Sequence[SuiteReport]) -> list[tuple[str, ...]]:
    """A header and one row per model: cost and savings of migrating every suite."""
    rows = [
        (
            one_line(each.model),
            str(each.suites),
            str(each.keeps_quality),
            str(each.worse),
            str(each.inconclusive),
            cost_change(each.cost_before, each.cost) or "not known",
            dollars(each.spent),
        )
        for each in totals(reports)
    ]
    return [_TOTALS, *rows] if rows else []
