"""Split a suite over CI jobs and merge their results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest_llmtune.guard.results_file as report_json
from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune.completions.stats import RequestStats
from pytest_llmtune.errors import ReportError
from pytest_llmtune.guard.evaluation import Aggregate, evaluation_of

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.guard.result import RecordingFacts, SuiteReport
    from pytest_llmtune.suite import Config
    from pytest_llmtune.types import Evaluation, Example, ExampleResult, ModelUsage


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
        wrong = [f"{name}: {what}" for name, parts in sorted(found.items()) if (what := _incomplete(parts))]
        if wrong:
            raise ReportError("\n".join([f"{directory} cannot be merged:", *wrong, _ADVICE]))
        return cls(
            directory,
            {
                name: tuple(
                    sorted((report for _, report in parts), key=lambda each: each.shard.index if each.shard else 0)
                )
                for name, parts in found.items()
            },
        )

    def of(self, suite: str) -> tuple[SuiteReport, ...]:
        """All shards of one suite, in order.

        Raises:
            ReportError: there are none.
        """
        if suite not in self.suites:
            raise ReportError(f"{suite}: {self.directory} holds no results of this suite; {_ADVICE}")
        return self.suites[suite]


def _incomplete(parts: Sequence[tuple[Path, SuiteReport]]) -> str:
    """Why these are not all shards of a suite, each once; empty if they are."""
    where: defaultdict[str, list[str]] = defaultdict(list)
    counts = set()
    for file, report in parts:
        if report.verdict.status == "error":
            return f"the shard in {file} could not be judged: {report.verdict.problem}"
        if report.shard is None:
            return f"{file} is of a run without --llm-shard"
        where[report.shard.name].append(str(file))
        counts.add(report.shard.count)
    if len(counts) > 1:
        names = ", ".join(f"{name} in {files[0]}" for name, files in sorted(where.items()))
        return f"shards of different divisions: {names}"
    if twice := [f"{name} in {' and '.join(files)}" for name, files in where.items() if len(files) > 1]:
        return f"duplicate: shard {', '.join(twice)}"
    (count,) = counts
    lacking = [name for index in range(1, count + 1) if (name := f"{index}/{count}") not in where]
    return f"missing: shard {', '.join(lacking)}" if lacking else ""


@dataclass(frozen=True, slots=True)
class Merged:
    """The combined result of all shards of a suite."""

    results: tuple[ExampleResult, ...]
    """One per row, in the order of rows; empty if requests had no recording."""
    cost: Decimal
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

    def evaluation(self, config: Config, aggregate: Aggregate) -> Evaluation | None:
        """The evaluation over all rows; None if requests had no recording."""
        if self.missing:
            return None
        return evaluation_of(config.to_lock(), self.results, paid=self.cost, aggregate=aggregate)


def merged(parts: Sequence[SuiteReport], examples: Sequence[Example], state: Mapping[str, str]) -> Merged:
    """Merge the shards of one suite.

    Args:
        parts: all shards, as returned by ``Shards.of``.
        examples: the suite's current rows.
        state: the current fingerprints, as in ``ShardFacts``.

    Raises:
        ReportError: a shard has a different state or different rows.
    """
    name = parts[0].name
    for part in parts:
        _same_state(part, parts[0], state)
    missing = sum(part.recording.missing for part in parts if part.recording)
    oldest = min((part.recording.oldest for part in parts if part.recording and part.recording.oldest), default="")
    facts = parts[0].recording and replace(parts[0].recording, missing=missing, oldest=oldest)
    details = [reason.detail for part in parts for reason in part.verdict.stale if reason.detail]
    cost = sum((part.evaluation.cost for part in parts if part.evaluation), Decimal(0))
    results: tuple[ExampleResult, ...] = ()
    if not missing:
        found = {result.example.id: result for part in parts if part.evaluation for result in part.evaluation.results}
        if found.keys() != {example.id for example in examples}:
            odd = len(found.keys() ^ {example.id for example in examples})
            raise ReportError(f"{name}: the shards and the suite differ in {odd} rows; {_ADVICE}")
        results = tuple(replace(found[example.id], example=example) for example in examples)
    stats = RequestStats()
    for model, billed in [pair for part in parts for pair in part.by_model.items()]:
        stats.bill(model, billed)
    return Merged(
        results,
        cost,
        missing,
        details[0] if details else "",
        parts[0].mode,
        facts,
        sum((part.spent for part in parts), Decimal(0)),
        stats.by_model,
    )


def _same_state(part: SuiteReport, first: SuiteReport, state: Mapping[str, str]) -> None:
    assert part.shard is not None  # noqa: S101 - Shards.read has refused it
    other = sorted(key for key in {*state, *part.shard.state} if state.get(key) != part.shard.state.get(key))
    if (part.recording and (part.recording.interactions, part.recording.size)) != (
        first.recording and (first.recording.interactions, first.recording.size)
    ):
        other.append("recording")
    if part.mode != first.mode:
        other.append(f"mode ({part.mode}, not {first.mode})")
    if other:
        raise ReportError(
            f"{part.name}: shard {part.shard.name} was run with a different {', '.join(other)}; {_ADVICE}"
        )
