"""Terminal output: verdicts and summaries."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.text import (
    apart,
    cell_cut,
    clean,
    columns,
    counted,
    dollars,
    interval,
    label,
    number,
    one_line,
    per_thousand,
    scoped,
    thousand,
)
from pytest_llmtune.guard.result import usage_by_model
from pytest_llmtune.guard.verdict import Flip, Outcome, flip_counts
from pytest_llmtune.report.tables import all_suites, cost_interval, figures, measured, moves, p_value_text
from pytest_llmtune.types import ModelUsage, TestCalls, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_llmtune.guard.result import SuiteReport


_FLIPS = 5
_SHOWN_ROWS = 3
_STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}


@dataclass(frozen=True, slots=True)
class _Ink:
    """ANSI colours, if supported."""

    on: bool

    def __call__(self, text: str, *styles: str) -> str:
        codes = ";".join(_STYLES[style] for style in styles)
        return f"\x1b[{codes}m{text}\x1b[0m" if self.on and codes else text


def failure(report: SuiteReport, *, width: int = 80, color: bool = False, verbosity: int = 0) -> str:
    """Why a suite did not pass: its gates, the flipped examples and the next command.

    Args:
        width: the terminal's width in cells; lines about examples are truncated to it unless ``verbosity`` is 2.
        color: whether to use ANSI colours.
        verbosity: pytest's, 0 by default; 1 shows all flips, 2 also all answers in full.
    """
    ink = _Ink(color)
    lines = [ink(_headline(report), "bold", "red"), ""]
    for block in (_stale(report), _gates(report, ink), _figures(report), _unknown(report, verbosity)):
        lines += [*block, ""] if block else []
    lines += _nothing_right(report, ink, width)
    lines += [*_flips(report, ink, width, verbosity)]
    lines += [f"note: {one_line(remark)}" for remark in report.remarks]
    lines += _next(report)
    return "\n".join(lines).rstrip()


def _next(report: SuiteReport) -> list[str]:
    lines = []
    for command, meaning in report.commands:
        lines += [f"next: {clean(command)}", *([f"      {meaning}"] if meaning else [])]
    return lines


def _headline(report: SuiteReport) -> str:
    verdict = report.verdict
    name = one_line(report.name)
    if verdict.status == "error":
        return f"{name}: {one_line(verdict.problem)}"
    if verdict.status == "stale":
        reason = one_line(verdict.stale[0].what) if verdict.stale else "its recording does not fit"
        return f"{name} is stale: {reason}{_moved(report)}"
    reasons = verdict.reasons
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    word = "is inconclusive" if verdict.status == "inconclusive" else "failed"
    return f"{name} {word}: {one_line(reasons[-1 if verdict.status == 'inconclusive' else 0])}{more}"


def _moved(report: SuiteReport) -> str:
    """How a stale suite's score changed, so that the reason does not hide it."""
    verdict = report.verdict
    if verdict.before is None or verdict.now is None:
        return ""
    before, now = apart(verdict.before, verdict.now)
    verb = "is still" if before == now else f"{'fell' if verdict.now < verdict.before else 'rose'} from {before} to"
    shared = "" if verdict.baseline is not None else f" over the {counted(verdict.compared, 'row')} that both have"
    failed = len(verdict.failed_gates)
    gates = f", and {counted(failed, 'gate')} {'fails' if failed == 1 else 'fail'}" if failed else ""
    return f"; {one_line(verdict.metric)} {verb} {now}{shared}{gates}"


def _stale(report: SuiteReport) -> list[str]:
    first, *others = report.verdict.stale or (None,)
    detail = [f"  {one_line(line)}" for line in first.detail.splitlines()] if first else []
    return detail + [f"also stale: {one_line(reason.what)}" for reason in others if reason]


def _gates(report: SuiteReport, ink: _Ink) -> list[str]:
    words = {True: ink("ok  ", "green"), False: ink("FAIL", "bold", "red")}
    return [
        f"  {words[gate.passed] if gate.conclusive else ink('?   ', 'bold', 'yellow')}  {one_line(gate.sentence)}"
        for gate in report.verdict.gates
    ]


def _figures(report: SuiteReport) -> list[str]:
    verdict, evaluation = report.verdict, report.evaluation
    if verdict.value is None or evaluation is None:
        return []
    known = len(evaluation.results) - len(evaluation.unknown)
    sure = f" (95 % interval {interval(verdict.interval.low, verdict.interval.high)})" if verdict.interval else ""
    text = f"{one_line(verdict.metric)} {number(verdict.value)}{sure} over {counted(known, 'example')}"
    if verdict.baseline is not None:
        text += f"; baseline {number(verdict.baseline)} over {verdict.compared}"
    elif verdict.before is not None and verdict.now is not None:
        before, now = apart(verdict.before, verdict.now)
        text += f"; over the {verdict.compared} in the baseline too {now}, where the baseline has {before}"
    return [text, f"inference_cost {per_thousand(evaluation.inference_cost)}"]


def _nothing_right(report: SuiteReport, ink: _Ink, width: int) -> list[str]:
    """A few rows of a suite without a correct row: question, reference, answer."""
    value, worst = report.verdict.value, 0.0 if report.criteria.mode == "max" else 1.0
    if value != worst or report.evaluation is None or report.verdict.flips:
        return []
    known = [result for result in islice(report.evaluation.results, 50) if result.grade][:_SHOWN_ROWS]
    lines = [ink(f"no row is right: {one_line(report.verdict.metric)} is {worst:g}", "bold", "red")]
    for result in known:
        response = result.responses[0] if result.responses else ""
        question = f"row {result.example.index}  {one_line(report.columns.question(result.example.row))}"
        lines.append(f"  {cell_cut(question, width - 2)}")
        if expected := report.columns.expected(result.example.row):
            lines.append(f"    expected  {cell_cut(one_line(expected), width - 14)}")
        lines.append(f"    the model said  {cell_cut(one_line(response) or '(nothing)', width - 20)}")
    return [*lines, ""]


def _unknown(report: SuiteReport, verbosity: int) -> list[str]:
    unknown = report.evaluation.unknown if report.evaluation else ()
    shown = unknown if verbosity > 0 else unknown[:_FLIPS]
    lines = [
        f"  unknown  row {result.example.index}: {one_line(scoped(result.error or 'no answer', report.nodeid))}"
        for result in shown
    ]
    return lines + ([f"  ... and {len(unknown) - len(shown)} more"] if len(unknown) > len(shown) else [])


def _flips(report: SuiteReport, ink: _Ink, width: int, verbosity: int) -> Iterator[str]:
    verdict = report.verdict
    groups = [(f"flipped with {one_line(each.model)}", each.flips, each.p_value) for each in report.migrations]
    for title, flips, p_value in groups or [("flipped since the baseline", verdict.flips, verdict.p_value)]:
        if not flips:
            continue
        lost, gained = flip_counts(flips)
        yield f"{title}: {lost} lost, {gained} gained{p_value_text(p_value)}"
        shown = flips if verbosity > 0 else flips[:_FLIPS]
        for flip in shown:
            yield from _flip(flip, ink, 1_000_000 if verbosity > 1 else width)
            if verbosity > 1 and not groups:
                yield from _answers(report, flip)
        if len(shown) < len(flips):
            yield f"  ... and {len(flips) - len(shown)} more (-v shows all)"
        yield ""


def _flip(flip: Flip, ink: _Ink, width: int) -> Iterator[str]:
    word = ink("lost  ", "red") if flip.direction == "lost" else ink("gained", "green")
    head = f"row {flip.index} [{flip.id}]"
    yield f"  {word}  {cell_cut(f'{head}  {one_line(flip.question)}', width - 10)}"
    if flip.expected:
        yield f"          expected {cell_cut(one_line(flip.expected), width - 20)}"
    room = (width - len("          before   ->  now ")) // 2
    yield f"          before {_outcome(flip.before, room)}  ->  now {_outcome(flip.now, room)}"


def _outcome(outcome: Outcome, width: int) -> str:
    if outcome.voted_answer is None:
        return "no answer"
    return f"{cell_cut(one_line(outcome.voted_answer), max(8, width - len(outcome.tally)))}{outcome.tally}"


def _answers(report: SuiteReport, flip: Flip) -> Iterator[str]:
    """All responses in full; each line prefixed, so that none looks like our own or a CI command."""
    results = report.evaluation.results if report.evaluation else ()
    for result in results:
        if result.example.id == flip.id:
            for index, response in enumerate(result.responses, 1):
                thought, answer = report.marks.split(response)
                folded = f" (after {len(thought):,} characters of reasoning)" if thought else ""
                yield f"          answer {index}{folded}:"
                yield from (f"          | {line}" for line in clean(answer).split("\n"))


def summary(reports: Sequence[SuiteReport], *, width: int = 80, color: bool = False, verbosity: int = 0) -> str:
    """A line per suite, results of searches, and notes; with ``-q``, if all passed, only of suites with notes."""
    if not reports:
        return ""
    if verbosity < 0 and all(report.verdict.passed for report in reports):
        return "\n".join([*filter(None, map(_quiet, reports)), *_migrated(reports, _Ink(color), width, verbosity)])
    ink = _Ink(color)
    lines = columns([_HEAD, *map(_row, reports)], width)
    lines[0] = ink(lines[0], "bold")
    for index, report in enumerate(reports, 1):
        if not report.verdict.passed:
            lines[index] = ink(lines[index], "red")
    for report in reports:
        lines += [*_search(report), *_compared(report, width)]
        if report.verdict.passed:
            lines += _nothing_right(report, ink, width)
        if report.verdict.passed or report.verdict.status == "error":  # the others report it in their failure
            lines += [f"note: {one_line(report.name)}: {one_line(remark)}" for remark in report.remarks]
    return "\n".join([*lines, *_migrated(reports, ink, width, verbosity)])


def _migrated(reports: Sequence[SuiteReport], ink: _Ink, width: int, verbosity: int) -> Iterator[str]:
    """Results of ``--llm-migrate``, by suite and in total."""
    if not any(report.migrations for report in reports):
        return
    for report in reports:
        if report.migrations and report.verdict.passed:  # the others report it in their failure
            yield ""
            yield from _gates(report, ink)
            yield from _flips(report, ink, width, verbosity)
            yield from _next(report)
    narrow = [tuple(cell for index, cell in enumerate(row) if index not in (2, 7, 8)) for row in moves(reports)]
    # columns omitted for lack of room are in the gates' sentences, and below
    yield from ("", *columns(narrow, width, (4, 3, 2)), "", *columns(all_suites(reports), width, (6, 1)))


def spending(
    reports: Sequence[SuiteReport], calls: Sequence[TestCalls], killed: Decimal, *, width: int = 80, verbosity: int = 0
) -> list[str]:
    """What the run, and earlier runs that were killed, spent; with ``-v`` also each test's own calls, and each model."""
    lines = [*_calls(calls, width), *_by_model(reports, calls)] if verbosity > 0 else []
    quiet = verbosity < 0 and all(report.verdict.passed for report in reports)  # the suites' lines report theirs
    by_calls = sum((each.spent for each in calls), Decimal(0))
    spent = by_calls if quiet else sum((report.spent for report in reports), by_calls)
    if spent:
        part = f", {dollars(by_calls)} of it by calls of tests" if by_calls and reports and not quiet else ""
        lines.append(f"spent {dollars(spent)}{part}")
    if killed:
        lines.append(f"an earlier run that was killed had spent {dollars(killed)}")
    return lines


def _calls(calls: Sequence[TestCalls], width: int) -> list[str]:
    if not calls:
        return []
    rows = []
    for each in calls:
        usage = sum(each.usage.values(), Usage(0, 0))
        cost = "not known" if each.problem else dollars(each.cost)
        figures = (each.calls, usage.prompt_tokens, usage.completion_tokens, dollars(each.spent), cost)
        rows.append((one_line(each.nodeid), *map(str, figures)))
    problems = dict.fromkeys(f"cost not known: {one_line(each.problem)}" for each in calls if each.problem)
    return [*columns([("test", "calls", "tokens in", "out", "spent now", "cost"), *rows], width), *problems]


def _by_model(reports: Sequence[SuiteReport], calls: Sequence[TestCalls]) -> list[str]:
    """One line per model called by tests or suites."""
    known = [(model, ModelUsage(usage)) for each in calls for model, usage in each.usage.items()]
    total = usage_by_model([*known, *(pair for report in reports for pair in report.by_model.items())])
    return [
        f"{one_line(model)}: {each.usage.prompt_tokens:,} tokens in ({each.usage.cached_tokens:,} cached), "
        f"{each.usage.completion_tokens:,} out in {counted(max(1, each.usage.requests), 'call')}"
        + (f"; {dollars(each.cost)} for suites" if each.cost else "")
        for model, each in sorted(total.items())
    ]


_WEAKENING = (
    "not gated",
    "cost not gated",
    "cost not compared",
    "no gate",
    "allow_vacuous",
    "accepted:",
    "the guard uses the rows",
)
"""Prefixes of notes that weaken the meaning of *passed*."""


def _quiet(report: SuiteReport) -> str:
    """One line with the chosen configuration, spending, and anything that weakens the verdict; or nothing."""
    verdict = report.verdict
    notes = [remark for remark in report.remarks if remark.startswith(_WEAKENING)]
    chosen = [f"chose {label(report.evaluation.config)}"] if report.mode == "tune" and report.evaluation else []
    spent = [f"spent {dollars(report.spent)}"] if report.spent else []
    if not (parts := [*chosen, *spent, *notes]):
        return ""
    score = [] if verdict.value is None else [f"{verdict.metric} {number(verdict.value)}"]
    return f"{one_line(report.name)} {verdict.status}: {one_line('; '.join([*score, *parts]))}"


_HEAD = ("suite", "score", "baseline", "95 % interval", "per 1,000", "limit", "n", "verdict")


def _row(report: SuiteReport) -> tuple[str, ...]:
    *shown, count = (cell or "-" for cell in figures(report))
    limit = "-" if report.cost_limit is None else thousand(report.cost_limit)
    return (one_line(report.name), *shown, limit, count, report.status)


def _search(report: SuiteReport) -> list[str]:
    """The result of this run's search, with its score."""
    study = report.study
    if report.mode != "tune" or study is None:
        return [] if report.mode in ("replay", "live") else _front(report)
    budget = f" of {dollars(study.optimization_budget)}" if study.optimization_budget is not None else ""
    ended = f"{len(study.trials)} trials, {dollars(study.spent)}{budget} spent, ended by {study.stopped_by}"
    scores = {"on the tuning rows": study.tuning, "on held-out rows": study.heldout}
    shown = [f"{measured(score)} {where}" for where, score in scores.items() if score]
    name = one_line(report.name)
    return [
        f"{name}: searched {one_line(ended)}",
        *([f"{name}: chose {one_line(label(report.evaluation.config))}"] if report.evaluation else []),
        *([f"{name}: {one_line(report.verdict.metric)} {', '.join(shown)}"] if shown else []),
        *_front(report),
    ]


def _front(report: SuiteReport) -> list[str]:
    """What each dollar buys, a line for each point of the search's front."""
    front = report.study.front if report.study else ()
    return [
        f"{one_line(report.name)}: --llm-choose={index}: {one_line(one.label)}" for index, one in enumerate(front, 1)
    ]


def _compared(report: SuiteReport, width: int) -> list[str]:
    """Table of the chosen configuration and the baselines."""
    if not report.side_by_side:
        return []
    rows = [(one_line(report.name), one_line(report.verdict.metric), "cost per 1,000")]
    for one in report.side_by_side:
        bounds = f" ({cost_interval(one)})" if one.cost_interval else ""
        rows.append((one_line(one.label), measured(one.score), f"{thousand(one.inference_cost)}{bounds}"))
    return ["", *columns(rows, width), ""]
