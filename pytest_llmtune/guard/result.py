"""The result of a suite, from which every report is made."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.serialize import from_plain, to_plain
from pytest_llmtune._util.text import quoted, scoped
from pytest_llmtune.errors import ReportError
from pytest_llmtune.grading.reasoning import Marks, marks_by_key
from pytest_llmtune.guard.lockfile import Lock, Measured, StudySummary
from pytest_llmtune.guard.rows import RowColumns
from pytest_llmtune.guard.verdict import Criteria, Verdict
from pytest_llmtune.types import Evaluation, Interval, ShardFacts

__all__ = ["Compared", "RecordingFacts", "SuiteReport"]


_MEANING = {
    "--llm-accept": "if today's result is meant: makes it the baseline",
    "--llm-tune": "searches a better configuration; this costs money",
    "--llm-record=missing": "asks only what has no recording",
    "--llm-live": "asks again",
    "--llm-record=all": "asks everything again; what a run that was stopped has paid for is kept",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """Another configuration evaluated over the same rows."""

    label: str
    config: Mapping[str, Any]
    score: Measured
    """The tuned metric."""
    inference_cost: Decimal
    """Mean USD per instance."""
    cost_interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """The recording that was replayed or written."""

    path: str
    """Relative to the project's root, with forward slashes."""
    interactions: int
    size: int
    """Bytes."""
    missing: int = 0
    """Requests of the suite that have no recording."""
    unused: int = 0
    """Interactions that no request of the suite uses."""
    oldest: str = ""
    """The day, ``YYYY-MM-DD``, of the oldest answer that was replayed or written; empty where none says."""


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """One suite in one run."""

    name: str
    nodeid: str
    path: str
    """The file that declares the suite, relative to the project's root, with forward slashes."""
    line: int
    """The line in ``path`` that declares it, from 1."""
    mode: str
    """``replay``, ``record=missing``, ``record=all``, ``live``, ``tune`` or ``accept``."""
    verdict: Verdict
    criteria: Criteria
    evaluation: Evaluation | None = None
    """None if nothing could be measured."""
    baseline: Lock | None = None
    study: StudySummary | None = None
    """The search of this run, else that of the lock file."""
    compared: tuple[Compared, ...] = ()
    recording: RecordingFacts | None = None
    notes: tuple[str, ...] = ()
    spent: Decimal = Decimal(0)
    """USD spent on this suite in this run."""
    shard: ShardFacts | None = None
    """The part of the suite's rows; None: all."""
    columns: RowColumns = field(default_factory=RowColumns)
    """The columns to show of a row."""
    reasoning: tuple[tuple[str, str], ...] = ()
    """``Marks.key``: the marks of reasoning in a response, if the suite gives its own."""

    @property
    def marks(self) -> Marks:
        """The marks of reasoning in a response, which is shown collapsed."""
        return marks_by_key(self.reasoning)

    @property
    def status(self) -> str:
        """The verdict in one word, with a remark if no quality gate could have failed."""
        gated = self.criteria.judges_drops or any(gate.metric == self.criteria.metric for gate in self.verdict.gates)
        return self.verdict.status if gated or not self.verdict.passed else "passed, not gated"

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks on the verdict, the run and the recording."""
        unused = self.recording.unused if self.recording else 0
        mending = f"{unused} recorded interactions are no longer used; remove them: pytest --llm-record=missing"
        notes = (*self.verdict.notes, *self.notes, *([mending] if unused else []))
        return tuple(scoped(note, self.nodeid) for note in notes)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the search of this run."""
        return self.mode == "tune" and self.study is not None and self.study.stopped_by == "interrupted"

    @property
    def commands(self) -> tuple[tuple[str, str], ...]:
        """Commands to run next and what they do, most likely first; empty if nothing is wrong."""
        options = dict.fromkeys(stale.option for stale in self.verdict.stale) or dict.fromkeys(self._mending())
        if any(gate.name == "max_unknown" and not gate.passed for gate in self.verdict.gates):
            again = self.mode in (
                "live",
                "tune",
                "record=all",
            )  # first of all answers: nobody accepts what is not known
            options.pop("--llm-accept", None)
            options = {f"--llm-{self.mode}" if again else "--llm-record=missing": None, **options}
        return tuple(
            (f"pytest {option} {quoted(self.nodeid)}", _MEANING.get(option.rpartition(" ")[2], ""))
            for option in options
        )

    def _mending(self) -> tuple[str, ...]:
        verdict = self.verdict
        if verdict.passed or verdict.status == "error":  # the error message says what to do
            return ()
        if any(gate.name == "max_drop" and not gate.conclusive for gate in verdict.gates):
            return ("--llm-accept",)
        if verdict.status == "inconclusive":
            return ()
        only_baseline = all(gate.name in ("max_drop", "max_cost_rise") for gate in verdict.failed_gates)
        return ("--llm-accept", "--llm-tune") if only_baseline else ("--llm-tune",)

    def to_data(self) -> dict[str, Any]:
        """JSON data, with USD as strings with all digits.

        Between processes, send ``guard.results_file.dumps``: its ASCII survives transports that fail on lone surrogates.
        """
        data: dict[str, Any] = to_plain(self)
        return data

    @classmethod
    def from_data(cls, data: Any) -> SuiteReport:
        """Read a report from ``to_data``'s data.

        Raises:
            ReportError: the data have another shape; the message names the path.
        """
        try:
            return from_plain(cls, data)
        except ValueError as error:
            raise ReportError(f"no report of a suite: {error}") from None
