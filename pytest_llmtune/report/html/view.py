"""The data of the HTML report's page: tiles, tables, examples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import ndiff
from itertools import islice
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.serialize import to_plain
from pytest_llmtune._util.text import clean, counted, dollars, interval, label, number, one_line, per_thousand, thousand
from pytest_llmtune.guard.verdict import Criteria, Flip, Verdict, flip_counts
from pytest_llmtune.report.html import charts
from pytest_llmtune.report.tables import cost_interval, figures, flip_cells, p_value_text
from pytest_llmtune.wire.trace import message_text

if TYPE_CHECKING:
    from pytest_llmtune.guard.lockfile import LockedExample, Measured
    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.types import ExampleResult, TaskRun, TestCalls


_TEXT_BUDGET = 40_000_000  # characters of responses in one suite; a browser opens that
_LONGEST, _SHORTEST = 20_000, 500
_VOTES = 20
_SHOWN_ROWS, _LINES = 5, 60
"""Limits of the list of changes."""
_TRACES = 300
"""Maximum number of rows with traces."""
_MESSAGES, _MESSAGES_LONGEST = 4_000_000, 8_000
"""Characters of messages in all traces of a suite, and of one call."""


def table(report: SuiteReport) -> list[dict[str, Any]]:
    """One mapping per example; long responses are truncated so that a browser can open the page of a huge run."""
    results = report.evaluation.results if report.evaluation else ()
    responses = sum(len(result.responses) for result in results)
    limit = max(_SHORTEST, min(_LONGEST, _TEXT_BUDGET // max(1, responses)))
    flips, locked = _by_row(report)
    return [
        _example(result, report, flips.get(result.example.id), locked.get(result.example.id), limit)
        for result in results
    ]


def _by_row(report: SuiteReport) -> tuple[dict[str, Flip], dict[str, LockedExample]]:
    """Flips, and the baseline's examples, by the row's ID."""
    locked = report.baseline.examples if report.baseline else ()
    return {flip.id: flip for flip in report.verdict.flips}, {example.id: example for example in locked}


def _example(
    result: ExampleResult, report: SuiteReport, flip: Flip | None, before: LockedExample | None, limit: int
) -> dict[str, Any]:
    grade, criteria, columns = result.grade, report.criteria, report.columns
    split = [report.marks.split(response) for response in result.responses]
    return {
        "index": result.example.index,
        "id": result.example.id,
        "outcome": outcome(result, criteria),
        "flip": flip.direction if flip else None,
        "question": one_line(columns.question(result.example.row), 200),
        "expected": one_line(columns.expected(result.example.row), 200),
        "answer": _answer(grade.voted_answer, grade.votes, len(result.responses)) if grade else "",
        "before": _answer(before.voted_answer, before.votes, before.responses) if before else "",
        "score": round(grade.metrics[criteria.metric], 6) if grade and criteria.metric in grade.metrics else None,
        "cost": thousand(result.cost),
        "error": clean(result.error) if result.error else "",
        "votes": [[cut(answer, limit), count] for answer, count in grade.votes[:_VOTES] if count] if grade else [],
        "right": [answer.correct for answer in grade.answers] if grade else [],
        "responses": [cut(answer, limit) for _, answer in split],
        "thoughts": [cut(thought, limit) for thought, _ in split] if any(thought for thought, _ in split) else [],
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
    """Cleaned text, truncated with a note on how much is missing."""
    if len(text) <= limit:
        return clean(text)
    return f"{clean(text[:limit])}\n... cut, {len(text) - limit:,} more characters"


def tiles(report: SuiteReport) -> Iterator[dict[str, str]]:
    """Tiles for score, baseline, cost and examples, as far as known, each with a caption."""
    verdict, evaluation = report.verdict, report.evaluation
    if verdict.value is not None:
        sure = verdict.interval
        note = f"95 % interval {interval(sure.low, sure.high)}" if sure else ""
        yield _tile(one_line(verdict.metric), number(verdict.value), note)
    if verdict.baseline is not None:
        lost, gained = flip_counts(verdict.flips)
        yield _tile("baseline", number(verdict.baseline), f"{lost} lost, {gained} gained since")
    if evaluation is not None:
        allowed = "" if report.cost_limit is None else f"at most {thousand(report.cost_limit)}"
        yield _tile("cost per 1,000 instances", thousand(evaluation.inference_cost), allowed)
        counts = Counter(outcome(result, report.criteria) for result in evaluation.results)
        named = [f"{counts[name]} {name}" for name in ("right", "wrong", "refused", "unknown") if counts[name]]
        yield _tile("examples", f"{len(evaluation.results):,}", ", ".join(named))
    if report.study is not None:
        trials = counted(len(report.study.trials), "trial")
        yield _tile("search", dollars(report.study.spent, 3), f"spent on {trials}")


def _tile(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def band(verdict: Verdict) -> dict[str, float] | None:
    """Positions of score, interval and baseline on a scale from 0 to 1, in per cent; None if any lies outside."""
    sure, value, baseline = verdict.interval, verdict.value, verdict.baseline
    if sure is None or value is None or not 0 <= sure.low <= value <= sure.high <= 1:
        return None
    shown = {"low": sure.low, "width": sure.high - sure.low, "value": value}
    if baseline is not None and 0 <= baseline <= 1:
        shown["baseline"] = baseline
    return {name: round(100 * share, 2) for name, share in shown.items()}


_FACT = 20_000  # characters of a prompt
COLUMNS = (
    ("index", "Row"),
    ("outcome", "Outcome"),
    ("question", "Question"),
    ("expected", "Expected"),
    ("answer", "Answer (votes)"),
    ("before", "Baseline (votes)"),
    ("score", "Score"),
    ("cost", "USD per 1,000"),
)


def tested(calls: TestCalls) -> dict[str, str]:
    """The table row of one test's own calls."""
    return {
        "name": one_line(calls.nodeid),
        "calls": str(calls.calls),
        "models": one_line(", ".join(sorted(calls.usage)), 200),
        "asked": f"{sum(usage.prompt_tokens for usage in calls.usage.values()):,}",
        "answered": f"{sum(usage.completion_tokens for usage in calls.usage.values()):,}",
        "cost": f"not known: {one_line(calls.problem, 300)}" if calls.problem else dollars(calls.cost),
        "spent": dollars(calls.spent),
    }


def suite(report: SuiteReport) -> dict[str, Any]:
    """All data of one suite, as cleaned text; the template escapes it."""
    verdict, study = report.verdict, report.study
    return {
        "name": one_line(report.name),
        "status": verdict.status,
        "metric": one_line(verdict.metric),
        **dict(zip(("value", "baseline", "interval", "cost", "count"), figures(report), strict=True)),
        "tiles": list(tiles(report)),
        "range": band(verdict),
        "place": one_line(f"{report.path}, line {report.line}; mode: {report.mode}"),
        "problem": [one_line(line) for line in verdict.problem[:_FACT].splitlines() if line.strip()],
        "stale": [one_line(stale.what) for stale in verdict.stale],
        "gates": [
            {"passed": gate.passed, "word": gate.word, "sentence": one_line(gate.sentence)} for gate in verdict.gates
        ],
        "flips": _flips_text(report),
        "notes": [one_line(note) for note in report.remarks],
        "chosen": _chosen(report),
        "changed": [
            (title[:300], [line[:300] for line in lines[:_LINES]]) for title, lines in islice(_changed(report), 8)
        ],
        "asks": _asks(report),
        "progress": charts.progress(study, report.criteria.mode),
        "commands": [(clean(command), meaning) for command, meaning in report.commands],
        "quality": charts.quality(report),
        "quality_text": _quality_text(report),
        "spending": charts.spending(study),
        "spending_text": f"{dollars(study.spent)} spent over {len(study.trials)} trials" if study else "",
        "trials": list(_trials(report)),
        "compared": list(_compared(report)),
        "examples": table(report),
        "traces": list(_traces(report)),
        "facts": [(one_line(name), cut(value, _FACT)) for name, value in _facts(report)],
    }


def _config(report: SuiteReport) -> Mapping[str, Any]:
    """The configuration evaluated, else the locked one; empty if there is none."""
    source = report.evaluation or report.baseline
    return source.config if source else {}


def _chosen(report: SuiteReport) -> dict[str, Any]:
    """The configuration in use: parameters, messages of the prompt, cost; empty if there is none."""
    evaluation, config = report.evaluation, _config(report)
    if not config:
        return {}
    plain = {name: value for name, value in config.items() if name not in ("prompt", "messages")}
    messages = [("prompt", config["prompt"])] if "prompt" in config else []
    listed = config.get("messages")
    parts = [part for part in listed[:_LINES] if isinstance(part, Mapping)] if isinstance(listed, (list, tuple)) else []
    messages += [(str(part.get("role", "")), part.get("content", "")) for part in parts]
    return {
        "parameters": [(one_line(name, 100), one_line(_plain(value), 300)) for name, value in plain.items()],
        "messages": [(one_line(role, 40), cut(_plain(text), _FACT // len(messages))) for role, text in messages],
        "cost": per_thousand(evaluation.inference_cost) if evaluation else "",
    }


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(to_plain(value), ensure_ascii=False, default=str)


def _changed(report: SuiteReport) -> Iterator[tuple[str, list[str]]]:
    """Differences of a failed suite from its baseline: a title, and lines that start with ``+``, ``-`` or a space."""
    verdict, lock = report.verdict, report.baseline
    if verdict.passed:
        return
    for stale in verdict.stale:
        if stale.detail:
            yield one_line(stale.what), [clean(line) for line in stale.detail[:_FACT].splitlines()]
    before, now = (lock.config if lock else {}), (report.evaluation.config if report.evaluation else {})
    if before and now:
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        texts = [name for name in names if name in ("prompt", "messages")]
        lines = [
            f"{sign}{one_line(name)}: {one_line(_plain(side[name]), 300)}"
            for name in names
            if name not in texts
            for sign, side in (("-", before), ("+", now))
            if name in side
        ]
        if lines:
            yield "configuration", lines
        for name in texts:
            old, new = (_plain(side.get(name, ""))[:_FACT].splitlines() for side in (before, now))
            yield name, [clean(line[0] + line[2:]) for line in ndiff(old, new) if not line.startswith("?")]
    if lost := [flip for flip in verdict.flips if flip.direction == "lost"]:
        hidden, lines = len(lost) - _SHOWN_ROWS, []
        for flip in lost[:_SHOWN_ROWS]:
            expected = f" (expected {one_line(flip.expected, 60)})" if flip.expected else ""
            lines.append(f" row {flip.index}: {one_line(flip.question, 120)}{expected}")
            lines.append(f"-  {one_line(flip.before.voted_answer or 'no answer', 120)}")
            lines.append(f"+  {one_line(flip.now.voted_answer or 'no answer', 120)}")
        lines += [f" ... and {hidden} more lost: see Examples below"] if hidden > 0 else []
        yield f"rows: {len(lost)} lost, {len(verdict.flips) - len(lost)} gained", lines


def _asks(report: SuiteReport) -> dict[str, Any]:
    """Parameters and message templates from which the page builds a row's request; empty if it cannot."""
    config = report.evaluation.config if report.evaluation else {}
    messages = config.get("messages") or ([{"role": "user", "content": config["prompt"]}] if "prompt" in config else [])
    texts = [message.get("content") for message in messages if isinstance(message, Mapping)]
    if not texts or len(texts) != len(messages) or not all(isinstance(text, str) for text in texts):
        return {}
    if "model" not in config or any(result.runs for result in (report.evaluation.results if report.evaluation else ())):
        return {}
    body = {name: value for name, value in config.items() if name not in ("prompt", "messages", "extra_body")}
    found = {"body": body | dict(config.get("extra_body") or {}), "messages": list(messages)}
    return found if len(_plain(found)) < _FACT else {}


def _traces(report: SuiteReport) -> Iterator[dict[str, Any]]:
    """The calls of a task's runs per row; flipped rows first."""
    results = [result for result in (report.evaluation.results if report.evaluation else ()) if result.runs]
    flips, locked = _by_row(report)
    shown = sorted(results, key=lambda result: result.example.id not in flips)[:_TRACES]
    calls = sum(len(run.calls) for result in shown for run in result.runs)
    limit = max(_SHORTEST, min(_MESSAGES_LONGEST, _MESSAGES // max(1, calls)))
    for result in shown:
        row, flip = result.example, flips.get(result.example.id)
        yield {
            "row": row.index,
            "question": one_line(report.columns.question(row.row), 120),
            "outcome": outcome(result, report.criteria) + (f", {flip.direction}" if flip else ""),
            "differs": first_difference(result, locked.get(row.id)) if flip else "",
            "runs": [_run(run, limit) for run in result.runs],
        }


def first_difference(result: ExampleResult, before: LockedExample | None) -> str:
    """Says which call of the first run is the first that differs from the baseline."""
    if before is None or not before.calls or not result.runs:
        return ""
    now = [call.digest for call in result.runs[0].calls]
    index = next((index for index, (a, b) in enumerate(zip(now, before.calls, strict=False)) if a != b), None)
    if index is not None:
        return f"call {index + 1} of run 1 is the first that differs from the baseline's"
    if len(now) != len(before.calls):
        return f"run 1 makes {counted(len(now), 'call')}, in the baseline {len(before.calls)}"
    return "the calls of run 1 are those of the baseline: what the app makes of them changed"


def _run(run: TaskRun, limit: int) -> dict[str, Any]:
    """One run; ``limit``: characters of messages shown for each call."""
    return {
        "title": f"run {run.number}: {one_line(run.error or run.text, 200)}",
        "facts": f"{counted(len(run.calls), 'call')}, {dollars(run.cost, 3)}, {number(run.latency)} s",
        "calls": [
            {
                "number": call.number,
                "model": one_line(call.model or call.path),
                "tokens": f"{call.usage.prompt_tokens} + {call.usage.completion_tokens}",
                "usd": dollars(call.usd, 3),
                "seconds": number(call.latency),
                "sent": _sent(call.messages, run.calls[index - 1].messages if index else (), limit),
                "text": cut(call.text, _SHORTEST),
                "tools": [
                    one_line(f"{tool.name}({json.dumps(tool.arguments, ensure_ascii=False, default=str)})", 300)
                    + (f" = {one_line(tool.result, 200)}" if tool.result is not None else "")
                    for tool in call.tool_calls
                ],
            }
            for index, call in enumerate(run.calls)
        ],
    }


def _sent(messages: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]], limit: int) -> dict[str, str]:
    """The messages of a call that the call before did not have."""
    same = next((index for index, pair in enumerate(zip(messages, before, strict=False)) if pair[0] != pair[1]), None)
    known = min(len(messages), len(before)) if same is None else same
    texts = [f"(the first {counted(known, 'message')} as in the call before)"] if known else []
    texts += map(message_text, messages[known:])
    return {"title": counted(len(messages), "message"), "text": cut("\n\n".join(texts), limit)} if messages else {}


def _measured(figure: Measured | None) -> tuple[str, str]:
    """A score and its interval, each empty where unknown."""
    sure = figure.interval if figure else None
    return number(figure.value) if figure else "", interval(sure.low, sure.high) if sure else ""


def _flips_text(report: SuiteReport) -> str:
    verdict = report.verdict
    if verdict.baseline is None:
        return ""
    lost, gained = flip_counts(verdict.flips)
    flipped = f"{counted(lost, 'example')} lost and {gained} gained since the baseline"
    return f"{flipped}, of {verdict.compared} compared{p_value_text(verdict.p_value)}"


def _quality_text(report: SuiteReport) -> str:
    study = report.study
    if not study:
        return ""
    winner = next((trial for trial in study.trials if trial.number == study.winner), None)
    text = f"Scatter plot of cost per 1,000 instances against {one_line(report.criteria.metric)}, {len(study.trials)} trials"
    if winner is None:
        return text
    return f"{text}; the winner scores {_measured(winner.score)[0]} at {thousand(winner.inference_cost or 0)}"


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
            "cost": "" if trial.inference_cost is None else thousand(trial.inference_cost),
            "spent": dollars(trial.spent),
            "config": label(trial.config),
        }


def _compared(report: SuiteReport) -> Iterator[dict[str, Any]]:
    for index, one in enumerate(report.side_by_side):
        score, sure = _measured(one.score)
        yield {
            "label": one_line(one.label),
            "winner": index == 0,
            "config": label(one.config),
            "score": score,
            "interval": sure,
            "cost": thousand(one.inference_cost),
            "cost_interval": cost_interval(one),
        }


def _facts(report: SuiteReport) -> Iterator[tuple[str, str]]:
    lock, recording, study = report.baseline, report.recording, report.study
    for name, value in _config(report).items():
        yield name, _plain(value)
    if study:
        yield "search", f"{len(study.trials)} trials, {dollars(study.spent)} spent, ended by {study.stopped_by}"
        for name, figure in (("score on the tuning rows", study.tuning), ("score on held-out rows", study.heldout)):
            score, sure = _measured(figure)
            if figure:
                yield name, f"{score} (95 % interval {sure})" if sure else score
        for index, point in enumerate(study.front, 1):
            yield f"front, --llm-choose={index}", point.label
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


def flips(report: SuiteReport) -> list[dict[str, str]]:
    """The first flipped examples as text."""
    names = ("direction", "row", "question", "expected", "before", "now")
    return [dict(zip(names, flip_cells(flip), strict=True)) for flip in report.verdict.flips[:20]]
