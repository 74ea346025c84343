"""A suite report as the words and tables of the HTML page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.figures import counted, dollars, interval, number
from pytest_llmtune._util.serialize import to_plain
from pytest_llmtune._util.text import clean, one_line
from pytest_llmtune.report.html import charts, examples, tiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_llmtune.guard.lockfile import Measured
    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.types import Interval

__all__ = ["COLUMNS", "flips", "headline", "suite"]


_FACT = 20_000  # characters of a prompt
COLUMNS = (
    ("index", "Row"),
    ("outcome", "Outcome"),
    ("question", "Question"),
    ("answer", "Answer (votes)"),
    ("before", "Baseline (votes)"),
    ("score", "Score"),
    ("cost", "USD"),
)


def headline(reports: Sequence[SuiteReport]) -> str:
    failed = sum(not report.verdict.passed for report in reports)
    return f"LLM suites: {failed} of {len(reports)} failed" if failed else f"LLM suites: all {len(reports)} passed"


def suite(report: SuiteReport) -> dict[str, Any]:
    """Everything the page says about one suite; cleaned text, not yet escaped."""
    verdict, evaluation, study = report.verdict, report.evaluation, report.study
    return {
        "name": one_line(report.name),
        "status": verdict.status,
        "metric": one_line(verdict.metric),
        "value": "" if verdict.value is None else number(verdict.value),
        "interval": _interval(verdict.interval),
        "baseline": "" if verdict.baseline is None else number(verdict.baseline),
        "cost": "" if evaluation is None else dollars(evaluation.inference_cost),
        "tiles": list(tiles.tiles(report)),
        "range": tiles.band(verdict),
        "count": "" if evaluation is None else len(evaluation.results),
        "place": one_line(f"{report.path}, line {report.line}; mode: {report.mode}"),
        "problem": [one_line(line) for line in verdict.problem[:_FACT].splitlines() if line.strip()],
        "stale": [one_line(stale.what) for stale in verdict.stale],
        "gates": [{"passed": gate.passed, "sentence": one_line(gate.sentence)} for gate in verdict.gates],
        "flips": _flips_text(report),
        "notes": [one_line(note) for note in report.remarks],
        "commands": [(clean(command), meaning) for command, meaning in report.commands],
        "quality": charts.quality(report),
        "quality_text": _quality_text(report),
        "spending": charts.spending(study),
        "spending_text": f"{dollars(study.spent)} spent over {len(study.trials)} trials" if study else "",
        "trials": list(_trials(report)),
        "compared": list(_compared(report)),
        "examples": examples.table(report),
        "facts": [(one_line(name), examples.cut(value, _FACT)) for name, value in _facts(report)],
    }


def _interval(sure: Interval | None) -> str:
    return interval(sure.low, sure.high) if sure else ""


def _measured(figure: Measured | None) -> tuple[str, str]:
    return (number(figure.value), _interval(figure.interval)) if figure else ("", "")


def _flips_text(report: SuiteReport) -> str:
    verdict = report.verdict
    if verdict.baseline is None:
        return ""
    lost = sum(flip.direction == "lost" for flip in verdict.flips)
    chance = "" if verdict.p_value is None else f"; exact McNemar p = {number(verdict.p_value)}"
    return (
        f"{counted(lost, 'example')} lost and {len(verdict.flips) - lost} gained since the baseline, "
        f"of {verdict.compared} compared{chance}"
    )


def _quality_text(report: SuiteReport) -> str:
    study = report.study
    if not study:
        return ""
    winner = next((trial for trial in study.trials if trial.number == study.winner), None)
    text = f"Scatter plot of cost per instance against {one_line(report.criteria.metric)}, {len(study.trials)} trials"
    if winner is None:
        return text
    return f"{text}; the winner scores {_measured(winner.score)[0]} at {dollars(winner.inference_cost or 0)}"


def _trials(report: SuiteReport) -> Iterator[dict[str, Any]]:
    study = report.study
    for trial in study.trials if study else ():
        score, sure = _measured(trial.score)
        yield {
            "number": trial.number,
            "winner": study is not None and trial.number == study.winner,
            "status": one_line(trial.status),
            "score": score,
            "interval": sure,
            "cost": "" if trial.inference_cost is None else dollars(trial.inference_cost),
            "spent": dollars(trial.spent),
            "config": charts.label(trial.config),
        }


def _compared(report: SuiteReport) -> Iterator[dict[str, Any]]:
    evaluation, verdict = report.evaluation, report.verdict
    if not report.compared or evaluation is None or verdict.value is None:
        return
    yield {
        "label": "chosen",
        "winner": True,
        "config": charts.label(evaluation.config),
        "score": number(verdict.value),
        "interval": _interval(verdict.interval),
        "cost": dollars(evaluation.inference_cost),
        "cost_interval": _money_interval(evaluation.intervals.get("inference_cost")),
    }
    for one in report.compared:
        score, sure = _measured(one.score)
        yield {
            "label": one_line(one.label),
            "winner": False,
            "config": charts.label(one.config),
            "score": score,
            "interval": sure,
            "cost": dollars(one.inference_cost),
            "cost_interval": _money_interval(one.cost_interval),
        }


def _money_interval(sure: Interval | None) -> str:
    return f"{dollars(sure.low)} to {dollars(sure.high)}" if sure else ""


def _facts(report: SuiteReport) -> Iterator[tuple[str, str]]:
    evaluation, lock, recording, study = report.evaluation, report.baseline, report.recording, report.study
    for name, value in (evaluation.config if evaluation else lock.config if lock else {}).items():
        yield name, value if isinstance(value, str) else json.dumps(to_plain(value), ensure_ascii=False)
    if study:
        yield "search", f"{len(study.trials)} trials, {dollars(study.spent)} spent, ended by {study.stopped_by}"
        for name, figure in (("score on the tuning rows", study.tuning), ("score on held-out rows", study.heldout)):
            if figure:
                score, sure = _measured(figure)
                yield name, f"{score} (95 % interval {sure})" if sure else score
        if study.note:
            yield "note on the search", study.note
    if lock:
        yield from ((f"fingerprint of {name}", value) for name, value in lock.fingerprints.items())
        for model, price in lock.prices.items():
            yield (
                f"price of {model}",
                ", ".join(f"{kind} {dollars(amount)} per 1M tokens" for kind, amount in price.items()),
            )
    if recording:
        yield "recording", f"{recording.path}: {recording.interactions:,} interactions, {recording.size:,} bytes"
        yield "requests without recording", str(recording.missing)
        yield "interactions no longer used", str(recording.unused)


def flips(report: SuiteReport, limit: int = 20) -> list[dict[str, str]]:
    """The first flipped examples, as words."""
    return [
        {
            "direction": flip.direction,
            "row": str(flip.index),
            "question": one_line(flip.question, 120),
            "before": one_line(flip.before.voted_answer or "no answer", 80),
            "now": one_line(flip.now.voted_answer or "no answer", 80),
        }
        for flip in report.verdict.flips[:limit]
    ]
