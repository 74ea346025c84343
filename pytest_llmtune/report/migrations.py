"""Tables of ``--llm-migrate``: each suite with each model, and all suites together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmtune._util.text import dollars, interval, number, one_line
from pytest_llmtune.guard.result import SuiteReport, totals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from pytest_llmtune.guard.verdict import Flip


_MOVES = ("move", "score", "95 % interval", "lost", "gained", "p", "USD per 1,000", "latency p50", "p95", "verdict")
_TOGETHER = ("all suites", "suites", "keep quality", "worse", "inconclusive", "USD per 1,000 of each", "spent now")


def moves(reports: Sequence[SuiteReport]) -> list[tuple[str, ...]]:
    """A header and one row per suite and model; empty if there are none."""
    rows = []
    for report in reports:
        for each in report.migrations:
            measured, sure = each.now is not None, each.now.interval if each.now else None
            quality = f"{number(each.before.value)} -> {number(each.now.value)}" if each.before and each.now else "-"
            latency = zip(each.latency_before or (), each.latency or (), strict=False)
            p50, p95 = [f"{number(a, 2)} -> {number(b, 2)} s" for a, b in latency] or ("-", "-")
            rows.append(
                (
                    f"{one_line(report.name)}: {one_line(each.model)}",
                    quality,
                    interval(sure.low, sure.high) if sure else "-",
                    str(each.lost) if measured else "-",
                    str(each.gained) if measured else "-",
                    "-" if each.p_value is None else number(each.p_value),
                    _cost(each.cost_before, each.cost),
                    p50,
                    p95,
                    each.verdict + (", a gate fails" if each.broken else "") + (", locked" if each.accepted else ""),
                )
            )
    return [_MOVES, *rows] if rows else []


def flipped(reports: Sequence[SuiteReport], most: int = 50) -> list[tuple[str, ...]]:
    """A header and a row per flip, at most ``most`` per suite and model; empty without flips."""
    rows = [
        (f"{one_line(report.name)}: {one_line(each.model)}", *flip_cells(flip))
        for report in reports
        for each in report.migrations
        for flip in each.flips[:most]
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
            _cost(each.cost_before, each.cost),
            dollars(each.spent),
        )
        for each in totals(reports)
    ]
    return [_TOGETHER, *rows] if rows else []


def _cost(before: Decimal | None, now: Decimal | None) -> str:
    if before is None or now is None:
        return "not known"
    share = f" ({100 * (float(now / before) - 1):+.3g} %)" if before else ""
    return f"{dollars(1000 * before, 3)} -> {dollars(1000 * now, 3)}{share}"
