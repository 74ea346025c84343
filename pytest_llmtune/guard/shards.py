"""Split a suite over CI jobs and merge their results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest_llmtune.guard.results_file as report_json
from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune.errors import ReportError
from pytest_llmtune.guard.evaluation import Aggregate, evaluation_of, mean
from pytest_llmtune.guard.result import usage_by_model

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.guard.result import RecordingFacts, SuiteReport
    from pytest_llmtune.suite import Config
    from pytest_llmtune.types import Evaluation, Example, ModelUsage


_ADVICE = "run every shard once, on the same commit, into a separate directory: pytest --llm-shard=K/N --llm-json=FILE"


@dataclass(frozen=True, slots=True)
class Shards:
    """The results in a directory: all shards of every suite, each once."""

    directory: Path
    suites: Mapping[str, tuple[SuiteReport, ...]]

    @classmethod
    def read(cls, directory: Path, most: int | None = None) -> Shards:
        """Read every JSON file below a directory.

        Args:
            most: limit in bytes of memory for all of them; None: files of our own.

        Raises:
            ReportError: no results, a file that is something else, or missing or duplicate shards; one message names all
                of them.
        """
        files = sorted(directory.rglob("*.json"))
        found: defaultdict[str, list[tuple[Path, SuiteReport]]] = defaultdict(list)
        for file in files:
            try:
                reports, weight = report_json.read_weighed(file, most)
            except ReportError as error:
                raise ReportError(f"{error}; {_ADVICE}") from None
            most = most and most - weight
            for report in reports:
                found[report.name].append((file.relative_to(directory), report))
        if not found:
            raise ReportError(f"{directory} holds no results of shards; {_ADVICE}")
        problems = [f"{name}: {what}" for name, shards in sorted(found.items()) if (what := _incomplete(shards))]
        if problems:
            raise ReportError("\n".join([f"{directory} cannot be merged:", *problems, _ADVICE]))
        for shards in found.values():
            shards.sort(key=lambda shard: shard[1].shard.index if shard[1].shard else 0)
        return cls(directory, {name: tuple(report for _, report in shards) for name, shards in found.items()})

    def of(self, suite: str) -> tuple[SuiteReport, ...]:
        """All shards of one suite, in order; ReportError if there are none."""
        if suite not in self.suites:
            raise ReportError(f"{suite}: {self.directory} holds no results of this suite; {_ADVICE}")
        return self.suites[suite]


def _incomplete(shards: Sequence[tuple[Path, SuiteReport]]) -> str:
    """Why these are not all shards of a suite, each once; empty if they are."""
    where: defaultdict[str, list[str]] = defaultdict(list)
    counts = set()
    for file, report in shards:
        if report.verdict.status == "error":
            return f"the shard in {file} could not be judged: {report.verdict.problem}"
        if report.shard is None:
            return f"{file} is of a run without --llm-shard"
        where[report.shard.name].append(str(file))
        counts.add(report.shard.count)
    if len(counts) > 1:
        names = ", ".join(f"{name} in {files[0]}" for name, files in sorted(where.items()))
        return f"shards of different divisions: {names}"
    if duplicates := [f"{name} in {' and '.join(files)}" for name, files in where.items() if len(files) > 1]:
        return f"duplicate: shard {', '.join(duplicates)}"
    (count,) = counts
    missing = [name for index in range(1, count + 1) if (name := f"{index}/{count}") not in where]
    return f"missing: shard {', '.join(missing)}" if missing else ""


@dataclass(frozen=True, slots=True)
class Merged:
    """The combined result of all shards of a suite."""

    evaluation: Evaluation | None
    """Over all rows; None if requests had no recording."""
    missing: int
    """Requests without a recording."""
    detail: str
    """How the first of them differs from the recorded ones."""
    mode: str
    facts: RecordingFacts | None
    spent: Decimal
    """USD of all shards."""
    by_model: Mapping[str, ModelUsage]
    """Usage and cost of all shards, by model."""


def merged(
    shards: Sequence[SuiteReport],
    examples: Sequence[Example],
    state: Mapping[str, str],
    config: Config,
    aggregate: Aggregate = mean,
) -> Merged:
    """Merge the shards of one suite.

    Args:
        shards: all of them, as returned by ``Shards.of``.
        examples: the suite's current rows.
        state: the current fingerprints, as in ``ShardFacts``.

    Raises:
        ReportError: a shard has a different state or different rows.
    """
    first = shards[0]
    for shard in shards:
        _check_state(shard, first, state)
    recordings = [shard.recording for shard in shards if shard.recording]
    missing = sum(recording.missing for recording in recordings)
    oldest = min((recording.oldest for recording in recordings if recording.oldest), default="")
    evaluation = None
    if not missing:
        evaluations = [shard.evaluation for shard in shards if shard.evaluation]
        found = {result.example.id: result for each in evaluations for result in each.results}
        if found.keys() != {example.id for example in examples}:
            differing = len(found.keys() ^ {example.id for example in examples})
            raise ReportError(f"{first.name}: the shards and the suite differ in {differing} rows; {_ADVICE}")
        results = tuple(replace(found[example.id], example=example) for example in examples)
        paid = sum((each.cost for each in evaluations), Decimal(0))
        evaluation = evaluation_of(config.to_lock(), results, paid=paid, aggregate=aggregate)
    return Merged(
        evaluation,
        missing,
        next((reason.detail for shard in shards for reason in shard.verdict.stale if reason.detail), ""),
        first.mode,
        first.recording and replace(first.recording, missing=missing, oldest=oldest),
        sum((shard.spent for shard in shards), Decimal(0)),
        usage_by_model(pair for shard in shards for pair in shard.by_model.items()),
    )


def _check_state(report: SuiteReport, first: SuiteReport, state: Mapping[str, str]) -> None:
    """Refuse a shard that was run on other data, prices or code, with another recording, or in another mode."""
    shard, recording = report.shard, report.recording
    assert shard is not None  # noqa: S101 - Shards.read has refused it
    different = sorted(key for key in {*state, *shard.state} if state.get(key) != shard.state.get(key))
    if (recording and (recording.interactions, recording.size)) != (
        first.recording and (first.recording.interactions, first.recording.size)
    ):
        different.append("recording")
    if report.mode != first.mode:
        different.append(f"mode ({report.mode}, not {first.mode})")
    if different:
        raise ReportError(
            f"{report.name}: shard {shard.name} was run with a different {', '.join(different)}; {_ADVICE}"
        )
