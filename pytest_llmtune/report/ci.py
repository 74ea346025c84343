"""GitHub annotations and summaries, and JUnit properties."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmtune._util.files import write_text
from pytest_llmtune._util.text import COMMENT_MARK, counted, interval, lifeless, number, one_line
from pytest_llmtune.errors import ReportError
from pytest_llmtune.guard.verdict import Flip, Outcome, flip_counts
from pytest_llmtune.report.tables import all_suites, figures, moves, p_value_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.types import TestCalls


_FLIPS = 20
_NOTES = 200
_MAX_COMMENT = 60_000  # bytes; GitHub's limit is 65,536 characters
_MAX_BYTES = 900_000  # GitHub drops a step summary above 1 MiB


def error_annotations(reports: Sequence[SuiteReport], *, within: str = "") -> list[str]:
    """One ``::error`` line per suite that did not pass; ``within``: the project's path in its repository, as ``packages/app``."""
    return [_annotation(report, within) for report in reports if not report.verdict.passed]


def project_within(root: Path, workspace: str | None) -> str:
    """A project's path in the checkout, ``$GITHUB_WORKSPACE``; empty at its root or outside."""
    if not workspace or not root.resolve().is_relative_to(Path(workspace).resolve()):
        return ""
    return root.resolve().relative_to(Path(workspace).resolve()).as_posix().removeprefix(".")


def _annotation(report: SuiteReport, within: str) -> str:
    message = "; ".join(map(one_line, report.verdict.reasons))
    following = "".join(f"\nnext: {command}" for command, _ in report.commands[:1])
    title = _property(f"llmtune: {one_line(report.name, 100)} {report.verdict.status}")
    path = f"{within}/{report.path}" if within else report.path
    return f"::error file={_property(path)},line={report.line},title={title}::{_data(message + following)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def markdown(reports: Sequence[SuiteReport]) -> str:
    """The job summary: a table of all suites, then the failures; at most 900 kB."""
    return _markdown(reports, most=_MAX_BYTES, folded=False)


def comment(reports: Sequence[SuiteReport]) -> str:
    """A comment for a pull request: a table of all suites, and collapsed failures; within GitHub's length limit."""
    return f"{COMMENT_MARK}\n{_markdown(reports, most=_MAX_COMMENT, folded=True)}"


def headline(reports: Sequence[SuiteReport]) -> str:
    """How many suites failed, or that none did."""
    failed = sum(not report.verdict.passed for report in reports)
    if failed:
        return f"LLM suites: {failed} of {len(reports)} failed"
    return f"LLM suites: {'all ' if len(reports) > 1 else ''}{len(reports)} passed"


def _markdown(reports: Sequence[SuiteReport], *, most: int, folded: bool) -> str:
    passed = [report for report in reports if report.verdict.passed]
    notes = [f"* {_escaped(report.name)}: {_escaped(note)}" for report in passed for note in report.remarks]
    parts = [f"## {headline(reports)}", "", *_table(reports), "", *_migrations(reports), *notes[:_NOTES]]
    size = sum(len(part.encode()) + 1 for part in parts)
    shown = [report for report in reports if not report.verdict.passed or report.migrations]
    for index, report in enumerate(shown):
        section = "\n".join(_section(report))
        if folded:
            title, _, rest = section.partition("\n")
            section = f"<details><summary>{title.removeprefix('### ')}</summary>\n{rest}\n</details>\n"
        size += len(section.encode()) + 1
        if size > most:
            parts.append(f"... and {len(shown) - index} more")
            break
        parts.append(section)
    return "\n".join(parts) + "\n"


def _table(reports: Sequence[SuiteReport]) -> Iterator[str]:
    yield "| suite | verdict | metric | value | baseline | 95 % interval | cost per 1,000 | examples |"
    yield "|---|---|---|--:|--:|--:|--:|--:|"
    for report in reports:
        word = report.status if report.verdict.passed else f"**{report.verdict.status}**"
        cells = (_escaped(report.name), word, _escaped(report.verdict.metric), *figures(report))
        yield f"| {' | '.join(cells)} |"


def _migrations(reports: Sequence[SuiteReport]) -> Iterator[str]:
    """The tables of ``--llm-migrate``."""
    if not any(report.migrations for report in reports):
        return
    for head, *rows in (moves(reports), all_suites(reports)):
        yield from (f"| {' | '.join(head)} |", "|" + "---|" * len(head))
        yield from (f"| {' | '.join(map(_escaped, row))} |" for row in rows[:_NOTES])
        yield f"\n... and {len(rows) - _NOTES} more\n" if len(rows) > _NOTES else ""


def _section(report: SuiteReport) -> Iterator[str]:
    verdict = report.verdict
    yield f"### {_escaped(report.name)}: {verdict.status}"
    yield ""
    yield from (f"* {_escaped(reason)}" for reason in [verdict.problem] if reason)
    yield from (f"* {_escaped(stale.what)}" for stale in verdict.stale)
    yield from (
        f"* {gate.word if gate.passed else f'**{gate.word}**'}: {_escaped(gate.sentence)}" for gate in verdict.gates
    )
    yield from (f"* note: {_escaped(note)}" for note in report.remarks)
    for each in report.migrations:
        if each.flips:
            yield f"\n{_escaped(each.model)}:"
            yield from _flips(each.flips, each.p_value)
    if verdict.flips and not report.migrations:
        yield from _flips(verdict.flips, verdict.p_value)
    for command, meaning in report.commands:
        yield f"\nNext: {_code(command)}" + (f" ({_escaped(meaning)})" if meaning else "")
    yield ""


def _flips(flips: Sequence[Flip], p_value: float | None) -> Iterator[str]:
    lost, gained = flip_counts(flips)
    yield f"\n{counted(lost, 'example')} lost, {gained} gained since the baseline{p_value_text(p_value)}\n"
    for flip in flips[:_FLIPS]:
        question = f": {_code(flip.question)}" if flip.question else ""
        expected = f"<br>expected {_code(flip.expected)}" if flip.expected else ""
        yield f"* {flip.direction} row {flip.index}{question}{expected}<br>before {_outcome(flip.before)}, now {_outcome(flip.now)}"
    if len(flips) > _FLIPS:
        yield f"* ... and {len(flips) - _FLIPS} more"


def _outcome(outcome: Outcome) -> str:
    return "no answer" if outcome.voted_answer is None else f"{_code(outcome.voted_answer)}{outcome.tally}"


def _escaped(text: str) -> str:
    """Text escaped for Markdown and HTML."""
    escaped = re.sub(r"([\\`*_{}\[\]<>()+\-!|~&$]|#(?!\d)|:(?!//))", r"\\\1", one_line(text, 500))
    return lifeless(escaped.replace("\\<", "&lt;"))


def _code(text: str) -> str:
    """A code span, in which nothing is interpreted as Markdown, HTML or a mention."""
    shown = one_line(text, 200)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence} {shown} {fence}" if shown else "(nothing)"


def write_comment(path: Path, reports: Sequence[SuiteReport]) -> None:
    """Write the comment for ``--llm-comment``; ReportError if it cannot be written."""
    try:
        write_text(path, comment(reports))
    except OSError as error:
        raise ReportError(f"{path}: the comment cannot be written: {error.strerror or error}") from error


def append_summary(path: Path, reports: Sequence[SuiteReport]) -> None:
    """Append the summary to the file named by ``$GITHUB_STEP_SUMMARY``; ReportError if it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(markdown(reports))
    except OSError as error:
        raise ReportError(f"{path}: the summary cannot be written: {error.strerror or error}") from error


def junit_properties(report: SuiteReport) -> list[tuple[str, str]]:
    """(name, value) pairs for ``user_properties``; names start with ``llmtune.``, USD are given without a sign."""
    return [(f"llmtune.{name}", one_line(value, 500)) for name, value in _figures(report)]


def junit_of_calls(calls: TestCalls) -> list[tuple[str, str]]:
    """Number, cost and tokens of a test's own calls, as ``junit_properties``."""
    found = [("", str(calls.calls)), (".cost", f"{calls.cost:f}"), (".spent", f"{calls.spent:f}")]
    for model, usage in sorted(calls.usage.items()):
        found.append((f".tokens.{one_line(model, 100)}", f"{usage.prompt_tokens} in, {usage.completion_tokens} out"))
    found += [(".problem", one_line(calls.problem, 500))] if calls.problem else []
    return [(f"llmtune.calls{name}", value) for name, value in found]


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
        yield from zip(("lost", "gained"), map(str, flip_counts(verdict.flips)), strict=True)
    if evaluation is not None:
        yield "inference_cost", f"{evaluation.inference_cost:.12f}".rstrip("0").rstrip(".")
        yield "examples", str(len(evaluation.results))
        yield "unknown", str(len(evaluation.unknown))
    yield "spent", f"{report.spent:f}"
    for each in report.migrations:
        yield f"migrate.{one_line(each.model, 100)}", each.sentence
    yield from _search(report)
    for gate in verdict.gates:
        yield f"gate.{gate.name}", f"{gate.word}: {gate.sentence}"
    for stale in verdict.stale:
        yield "stale", stale.what
    for note in report.remarks:
        yield "note", note
    if verdict.problem:
        yield "problem", verdict.problem


def _search(report: SuiteReport) -> Iterator[tuple[str, str]]:
    """Results of the search and of the baselines."""
    study = report.study
    for name, figure in (("tuning", study.tuning), ("heldout", study.heldout)) if study else ():
        if figure is not None:
            yield f"{name}.value", number(figure.value, 6)
            if sure := figure.interval:
                yield f"{name}.interval", interval(sure.low, sure.high)
    for index, one in enumerate(report.compared, 1):
        score, cost = one.score.interval, one.cost_interval
        yield f"compared.{index}.label", one.label
        yield f"compared.{index}.value", number(one.score.value, 6)
        if score:
            yield f"compared.{index}.interval", interval(score.low, score.high)
        yield f"compared.{index}.inference_cost", f"{one.inference_cost:.12f}".rstrip("0").rstrip(".")
        if cost:
            yield f"compared.{index}.inference_cost.interval", f"{cost.low:.9f} to {cost.high:.9f}"
