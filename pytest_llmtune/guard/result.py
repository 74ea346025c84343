"""The result of a suite, from which every report is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Literal

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.serialize import to_plain
from pytest_llmtune._util.text import quoted, scoped
from pytest_llmtune.grading.reasoning import Marks, marks_by_key
from pytest_llmtune.guard.lockfile import Lock, Measured, StudySummary
from pytest_llmtune.guard.rows import RowColumns
from pytest_llmtune.guard.verdict import Criteria, Flip, Gate, Verdict
from pytest_llmtune.types import Evaluation, Interval, ModelUsage, ShardFacts

_MEANING = {
    "--llm-accept": "makes today's result the new baseline, if you intended the change",
    "--llm-tune": "searches for a better configuration; this costs money",
    "--llm-record=missing": "sends only the requests that have no recording",
    "--llm-live": "sends the requests again",
    "--llm-record=all": "sends every request again; what an interrupted run has paid for is kept",
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
class Migration:
    """Another model compared with the committed recording, row by row."""

    model: str
    """As given: ``MODEL``, or ``PARAMETER=MODEL``."""
    verdict: Literal["keeps quality", "worse", "inconclusive"]
    sentence: str
    """The verdict with its figures."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The configuration evaluated."""
    notes: tuple[str, ...] = ()
    """Further differences from the locked configuration, and why; failed gates of the suite."""
    before: Measured | None = None
    """The tuned metric of the recording; None, as the other figures, where nothing could be measured."""
    now: Measured | None = None
    rows: int = 0
    """Compared."""
    drop: Measured | None = None
    """How much worse the metric is over the rows compared; each bound holds with ``confidence`` by itself."""
    confidence: float = 0.95
    margin: float = 0.0
    """The drop that is allowed."""
    lost: int = 0
    gained: int = 0
    p_value: float | None = None
    """Exact McNemar, two-sided."""
    flips: tuple[Flip, ...] = ()
    needed: int | None = None
    """Rows that would be enough for a verdict, where these are not."""
    cost_before: Decimal | None = None
    """Mean USD per instance at today's prices."""
    cost: Decimal | None = None
    """None if unknown, which is not free."""
    latency_before: tuple[float, float] | None = None
    """Seconds: the median, and what 95 of 100 rows stay below."""
    latency: tuple[float, float] | None = None
    spent: Decimal = Decimal(0)
    """USD of this run."""
    broken: bool = False
    """Whether a gate other than ``max_drop`` failed."""
    accepted: bool = False
    """Whether lock file and recording are its own now."""

    @property
    def passed(self) -> bool:
        return self.verdict == "keeps quality" and not self.broken

    @property
    def gate(self) -> Gate:
        """The verdict as a gate of the suite."""
        drop = float("nan") if self.drop is None else self.drop.value
        conclusive = self.verdict != "inconclusive"
        return Gate("migrate", self.model, self.passed, drop, self.margin, self.sentence, conclusive=conclusive)


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
    """The day, ``YYYY-MM-DD``, of the oldest answer that was replayed or written; empty if unknown."""


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
    """``replay``, ``record=missing``, ``record=all``, ``live``, ``tune``, ``migrate`` or ``accept``."""
    verdict: Verdict
    criteria: Criteria
    evaluation: Evaluation | None = None
    """None if nothing could be measured."""
    baseline: Lock | None = None
    study: StudySummary | None = None
    """The search of this run, else that of the lock file."""
    compared: tuple[Compared, ...] = ()
    migrations: tuple[Migration, ...] = ()
    """Other models, as ``--llm-migrate`` names them; ``evaluation`` and ``verdict`` are of the best of them."""
    recording: RecordingFacts | None = None
    notes: tuple[str, ...] = ()
    spent: Decimal = Decimal(0)
    """USD spent on this suite in this run."""
    by_model: Mapping[str, ModelUsage] = field(default_factory=dict)
    """Usage and cost of this suite in this run, by model."""
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
        advice = f"{unused} recorded interactions are no longer used; remove them: pytest --llm-record=missing"
        differences = [f"{each.model}: {note}" for each in self.migrations for note in each.notes]
        notes = (*self.verdict.notes, *differences, *self.notes, *([advice] if unused else []))
        return tuple(scoped(note, self.nodeid) for note in notes)

    @property
    def side_by_side(self) -> tuple[Compared, ...]:
        """The chosen configuration, and those evaluated over the same rows; empty if there are none."""
        evaluation, verdict = self.evaluation, self.verdict
        if not self.compared or evaluation is None or verdict.value is None:
            return ()
        score = Measured.of(verdict.value, verdict.interval)
        cost = evaluation.inference_cost, evaluation.intervals.get("inference_cost")
        return (Compared("chosen", evaluation.config, score, *cost), *self.compared)

    @property
    def cost_limit(self) -> float | None:
        """The limit on USD per instance, as its gate gives it."""
        return next((gate.limit for gate in self.verdict.gates if gate.metric == "inference_cost"), None)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the search of this run."""
        return self.mode == "tune" and self.study is not None and self.study.stopped_by == "interrupted"

    @property
    def commands(self) -> tuple[tuple[str, str], ...]:
        """Commands to run next and what they do, most likely first; empty if nothing is wrong."""
        options = dict.fromkeys(stale.option for stale in self.verdict.stale) or dict.fromkeys(self._next_commands())
        if any(gate.name == "max_unknown" and not gate.passed for gate in self.verdict.gates):
            again = self.mode in ("live", "tune", "record=all")  # answers first: unknown ones cannot be accepted
            options.pop("--llm-accept", None)
            options = {f"--llm-{self.mode}" if again else "--llm-record=missing": None, **options}
        known = {**_MEANING, **self._migration_commands}
        return tuple(
            (f"pytest {option} {quoted(self.nodeid)}", known.get(option, known.get(option.rpartition(" ")[2], "")))
            for option in options
        )

    @property
    def _migration_commands(self) -> dict[str, str]:
        """Options and what they do: retune each model that is worse, lock one that keeps the quality."""
        found = {}
        passed = [each.model for each in self.migrations if each.passed]
        if passed and not any(each.accepted for each in self.migrations):
            option = quoted(f"--llm-migrate={','.join(passed)}")
            which = passed[0] if len(passed) == 1 else "the cheapest"
            found[f"{option} --llm-accept"] = f"locks {which}; no request is sent again"
        for each in self.migrations:
            if each.verdict == "worse":
                option = quoted(f"--llm-migrate={each.model}")
                found[f"{option} --llm-tune"] = "tunes this model only, within the suite's budgets"
        return found

    def _next_commands(self) -> tuple[str, ...]:
        verdict = self.verdict
        if self.migrations:
            return tuple(self._migration_commands)
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


def usage_by_model(usages: Iterable[tuple[str, ModelUsage]]) -> dict[str, ModelUsage]:
    """Usage and cost, added up for each model."""
    total: dict[str, ModelUsage] = {}
    for model, usage in usages:
        total[model] = total.get(model, ModelUsage()) + usage
    return total


@dataclass(frozen=True, slots=True)
class Total:
    """One model over all suites of a run."""

    model: str
    suites: int
    keeps_quality: int
    worse: int
    inconclusive: int
    cost_before: Decimal | None
    """USD for one instance of each suite, as locked; None, like ``cost``, if one of them is unknown."""
    cost: Decimal | None
    spent: Decimal
    """USD of this run."""


def totals(reports: Iterable[SuiteReport]) -> tuple[Total, ...]:
    """What each model costs and saves over all suites, in the order in which they were named."""
    found: dict[str, list[Migration]] = {}
    for report in reports:
        for each in report.migrations:
            found.setdefault(each.model, []).append(each)
    rows = []
    for model, moves in found.items():
        verdicts = [each.verdict for each in moves]
        passed, worse, inconclusive = (verdicts.count(word) for word in ("keeps quality", "worse", "inconclusive"))
        before, now = [each.cost_before for each in moves], [each.cost for each in moves]
        known = None not in before and None not in now
        cost_before, cost = (sum(filter(None, side), Decimal(0)) if known else None for side in (before, now))
        spent = sum((each.spent for each in moves), Decimal(0))
        rows.append(Total(model, len(moves), passed, worse, inconclusive, cost_before, cost, spent))
    return tuple(rows)
