"""Create the report of a suite from its evaluation."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune.grading.reasoning import marks_of
from pytest_llmtune.guard.gates import held_to_agreement, judge, unjudged
from pytest_llmtune.guard.result import Compared, Migration, RecordingFacts, SuiteReport
from pytest_llmtune.guard.verdict import Criteria, Stale, Verdict, criteria_of, match
from pytest_llmtune.recording.storage import files_of, read_all
from pytest_llmtune.settings import Mode, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_llmtune.data.split import Split
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.guard.lockfile import Lock
    from pytest_llmtune.guard.rows import RowColumns
    from pytest_llmtune.guard.sequential import EarlyStop
    from pytest_llmtune.recording import Recording
    from pytest_llmtune.suite import Config, Suite
    from pytest_llmtune.types import Evaluation, ShardFacts


@dataclass(frozen=True, slots=True)
class SuiteLocation:
    """Where a suite is declared, and where its files are."""

    nodeid: str
    path: str
    """The declaring file, relative to the project's root, with forward slashes."""
    line: int
    directory: Path
    """``<tests>/llmtune``."""


def recording_facts(path: Path, settings: Settings, recording: Recording, missing: int) -> RecordingFacts | None:
    """Facts about a suite's recording; None if the mode neither reads nor writes it."""
    if settings.mode is Mode.LIVE:
        return None
    written = settings.mode in (Mode.TUNE, Mode.RECORD_ALL)
    days = [interaction.recorded for interaction in read_all(path)] if written else [recording.oldest]
    return RecordingFacts(
        path.relative_to(settings.root).as_posix() if path.is_relative_to(settings.root) else path.name,
        len(days if written else recording.interactions),
        sum(file.stat().st_size for file in files_of(path, torn=True)),
        missing,
        0 if missing or settings.mode.online else recording.unused_count,
        min(filter(None, days), default=""),
    )


class ReportedRun(Protocol):
    """A suite in a run, with what a report needs; of one that could not be loaded only the first three."""

    suite: Suite
    settings: Settings
    location: SuiteLocation

    @property
    def split(self) -> Split: ...

    @property
    def grader(self) -> Grader: ...

    def columns(self, config: Config) -> RowColumns: ...

    def prices_now(self, config: Config) -> dict[str, dict[str, Decimal]]: ...


def report_of(
    run: ReportedRun,
    evaluation: Evaluation | None,
    baseline: Lock,
    facts: RecordingFacts | None,
    *,
    config: Config,
    stale: Sequence[Stale] = (),
    notes: Sequence[str] = (),
    compared: tuple[Compared, ...] = (),
    shard: ShardFacts | None = None,
    accepted: bool = False,
    early: EarlyStop | None = None,
) -> SuiteReport:
    """Judge an evaluation by the suite's criteria and the baseline; a shard's is not judged.

    Args:
        config: the evaluated configuration.
        accepted: the baseline is being replaced; it is shown, but does not gate.
        early: why a live run ended before all rows were evaluated; the baseline is then compared on those that were.
    """
    suite = run.suite
    criteria = criteria_of(suite, reused=run.split.reused)
    columns = run.columns(config)
    if shard is None:
        rows, old = run.split.test, baseline
        if early is not None and evaluation is not None:
            notes = (*notes, early.note)
            if early.ended:
                evaluation = replace(
                    evaluation, results=sorted(evaluation.results, key=lambda each: each.example.index)
                )
                rows = tuple(result.example for result in evaluation.results)
                pairs = match(run.split.test, baseline, columns.key).pairs
                old = replace(baseline, examples=tuple(pairs[row.id] for row in rows if row.id in pairs))
        verdict = judge(
            evaluation,
            criteria,
            old,
            stale=stale,
            notes=(*notes, *_data_notes(run.split)),
            aggregate=suite.aggregator,
            population=match(rows, old, columns.key),
            decided=early.decided if early is not None and early.ended else {},
            columns=columns,
            fresh=run.settings.mode in (Mode.LIVE, Mode.RECORD_ALL),
            prices=run.prices_now(config),
            accepted=accepted,
        )
        verdict = held_to_agreement(verdict, evaluation, run.grader)
    else:
        verdict = unjudged(evaluation, criteria, stale, shard)
    return _report(
        run,
        verdict,
        criteria,
        evaluation=evaluation,
        baseline=baseline if shard is None else None,  # the merging run reads it itself
        study=baseline.study if shard is None else None,
        compared=compared,
        recording=facts,
        spent=evaluation.cost if evaluation else Decimal(0),
        shard=shard,
        columns=columns,
    )


def migrated(
    run: ReportedRun,
    migrations: Sequence[Migration],
    evaluation: Evaluation,
    baseline: Lock,
    facts: RecordingFacts | None,
    *,
    config: Config,
    notes: Sequence[str] = (),
    problems: Sequence[str] = (),
) -> SuiteReport:
    """The report of ``--llm-migrate``: passed if every model keeps the quality, or one of them was locked.

    Args:
        evaluation: of the best model, shown as the suite's own figures.
        problems: why a model could not be used; empty for the others.
    """
    criteria = criteria_of(run.suite, reused=run.split.reused)
    gates = tuple(each.gate for each in migrations)
    shown = next((each for each in migrations if each.config == evaluation.config), None)
    failed = [each for each in migrations if not each.passed]
    if not failed or any(each.accepted for each in migrations):
        status = "passed"
    elif all(problems):
        status = "error"
    else:
        status = "failed" if any(each.gate.conclusive for each in failed) else "inconclusive"
    verdict = Verdict(
        status,  # type: ignore[arg-type]  # mypy: a str
        criteria.metric,
        gates if status != "error" else (),
        flips=shown.flips if shown else (),
        p_value=shown.p_value if shown else None,
        value=evaluation.metrics.get(criteria.metric),
        interval=evaluation.intervals.get(criteria.metric),
        baseline=shown.before.value if shown and shown.before else None,
        compared=shown.rows if shown else 0,
        notes=tuple(notes),
        problem="; ".join(problems) if status == "error" else "",
    )
    return _report(
        run,
        verdict,
        criteria,
        evaluation=evaluation,
        baseline=baseline,
        study=baseline.study,
        migrations=tuple(migrations),
        recording=facts,
        columns=run.columns(config),
    )


def _data_notes(split: Split) -> tuple[str, ...]:
    """Notes on how the data were read, and on rows dropped automatically."""
    dataset = split.dataset
    if dataset is None or not dataset.dropped:
        return dataset.notes if dataset else ()
    total = len(dataset.examples) + dataset.dropped + split.doubled
    lacking = ", ".join(f"{count} without {column!r}" for column, count in dataset.lacking.items())
    return (*dataset.notes, f"{dataset.dropped} of {total} rows were dropped for empty cells: {lacking}")


def error_of(run: ReportedRun, problem: str, notes: tuple[str, ...] = (), spent: Decimal = Decimal(0)) -> SuiteReport:
    """The report of a suite that could not be judged."""
    verdict = Verdict("error", run.suite.metric, problem=problem)
    return _report(run, verdict, criteria_of(run.suite, reused=False), notes=notes, spent=spent)


def undeclared(location: SuiteLocation, name: str, mode: Mode, problem: str) -> SuiteReport:
    """The report of a suite with an invalid declaration."""
    verdict, where = Verdict("error", Criteria().metric, problem=problem), location
    return SuiteReport(name, where.nodeid, where.path, where.line, mode.value, verdict, Criteria())


def _report(run: ReportedRun, verdict: Verdict, criteria: Criteria, **more: Any) -> SuiteReport:
    where, name, mode = run.location, run.suite.name, run.settings.mode.value
    reasoning = marks_of(run.suite.reasoning).key
    return SuiteReport(name, where.nodeid, where.path, where.line, mode, verdict, criteria, reasoning=reasoning, **more)
