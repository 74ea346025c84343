"""Verdicts, gates, and the examples that flipped."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.stats import mcnemar_exact
from pytest_llmtune.guard.lockfile import Lock, LockedExample, short_answer
from pytest_llmtune.guard.rows import RowColumns, answers_digest, calls_digest
from pytest_llmtune.suite.keys import SCORES, Threshold, reliability_names
from pytest_llmtune.types import Evaluation, Example, ExampleResult, Interval, Row

if TYPE_CHECKING:
    from pytest_llmtune.suite import Suite


_NAMED = 5
"""Maximum number of rows named in a message."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One example on one side of a comparison."""

    value: float
    """The tuned metric."""
    voted_answer: str | None
    votes: int
    """Number of responses with the voted answer."""
    responses: int

    @property
    def tally(self) -> str:
        """`` (3 of 5 votes)``; empty if there was one response."""
        return f" ({self.votes} of {self.responses} votes)" if self.responses > 1 else ""


@dataclass(frozen=True, slots=True)
class Flip:
    """An example whose tuned metric changed since the baseline."""

    id: str
    index: int
    question: str
    """The beginning of the columns that the prompt uses."""
    direction: Literal["lost", "gained"]
    """``lost``: the metric got worse."""
    before: Outcome
    now: Outcome
    expected: str = ""
    """The beginning of the reference; empty if the grader needs none."""


def flip_counts(flips: Sequence[Flip]) -> tuple[int, int]:
    """How many are lost, and how many gained."""
    lost = sum(flip.direction == "lost" for flip in flips)
    return lost, len(flips) - lost


def named(rows: Sequence[int]) -> str:
    """``rows 31, 32``; the first few of many."""
    shown = ", ".join([*map(str, sorted(rows)[:_NAMED]), *(["..."] if len(rows) > _NAMED else [])])
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}"


@dataclass(frozen=True, slots=True)
class Population:
    """How today's rows match the baseline's. Rows are matched by question, so that a new label is not a new row."""

    pairs: Mapping[str, LockedExample]
    """Today's ID to the same row in the baseline."""
    added: tuple[int, ...] = ()
    """Indexes of today's rows that are not in the baseline."""
    removed: tuple[int, ...] = ()
    """Indexes in the baseline's data of rows that were removed."""
    relabelled: tuple[int, ...] = ()
    """Indexes of today's rows with an unchanged question but changes in other columns."""

    @property
    def is_same(self) -> bool:
        """Whether both sides have the same rows, so that their scores are comparable."""
        return not self.added and not self.removed

    def changes(self) -> str:
        """``2 added (rows 31, 32), 1 removed (row 4)``; empty if all rows are the same."""
        found = []
        for kind, rows in (("added", self.added), ("removed", self.removed), ("relabelled", self.relabelled)):
            if rows:
                found.append(f"{len(rows)} {kind} ({named(rows)})")
        return ", ".join(found)


def match(examples: Iterable[Example], baseline: Lock, key: Callable[[Row], str] | None = None) -> Population:
    """Match today's rows to the baseline: the identical row, else one with the same question, by ``key``, if there is one."""
    locked = {example.id: example for example in baseline.examples}
    pairs: dict[str, LockedExample] = {}
    changed = []
    for example in examples:
        if example.id in locked:
            pairs[example.id] = locked.pop(example.id)
        else:
            changed.append(example)
    by_question = defaultdict(list)
    for old in locked.values():
        if old.asked:
            by_question[old.asked].append(old)
    added, relabelled = [], []
    for example in changed:
        same = by_question[key(example.row)] if key is not None else []
        if same:
            old = same.pop(0)
            pairs[example.id] = old
            del locked[old.id]
            relabelled.append(example.index)
        else:
            added.append(example.index)
    removed = tuple(old.index for old in locked.values())
    return Population(pairs, tuple(added), removed, tuple(relabelled))


@dataclass(frozen=True, slots=True)
class Paired:
    """The tuned metric of rows on both sides."""

    before: float
    now: float
    drop: float
    """How much worse; negative if better."""
    lost: int
    gained: int
    rows: int

    @property
    def p_value(self) -> float:
        """Exact McNemar test, two-sided; for metrics other than 0 and 1, the sign test."""
        return mcnemar_exact(self.lost, self.gained)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Baseline and today over the rows measured on both sides."""

    shared: Paired
    recorded: Paired | None
    """Rows with the baseline's answers, where only a change of code or data can cause a flip."""
    fresh: Paired | None
    """Rows with new answers, where chance plays a part."""
    flips: tuple[Flip, ...]
    population: Population
    complete: bool
    """Whether the shared rows are all rows measured today."""
    cost_before: Decimal | None
    """Mean USD per instance over the rows known on both sides; None if the baseline's rows have no costs."""
    cost_now: Decimal
    lapsed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By metric: indexes of the rows that have it in the baseline, and today a grade that lacks it or says nothing."""


@dataclass(slots=True)
class _Sides:
    """Collects values of the same rows on both sides."""

    before: list[float] = field(default_factory=list)
    now: list[float] = field(default_factory=list)
    lost: int = 0
    gained: int = 0

    def add(self, before: float, now: float, mode: str) -> None:
        self.before.append(before)
        self.now.append(now)
        if before != now:
            worse = (now < before) == (mode == "max")
            self.lost, self.gained = self.lost + worse, self.gained + (not worse)

    def paired(self, mode: str, aggregate: Callable[[Sequence[float]], float]) -> Paired | None:
        if not self.before:
            return None
        before, now = aggregate(self.before), aggregate(self.now)
        drop = before - now if mode == "max" else now - before
        return Paired(before, now, drop, self.lost, self.gained, len(self.before))


def compare(
    evaluation: Evaluation,
    population: Population,
    *,
    metric: str,
    mode: Literal["max", "min"],
    aggregate: Callable[[Sequence[float]], float],
    columns: RowColumns | None = None,
    fresh: bool = False,
) -> Comparison | None:
    """Compare row by row; None if no row has the metric on both sides. ``columns`` and ``fresh`` as for ``judge``."""
    columns = columns or RowColumns()
    shared, recorded, new = _Sides(), _Sides(), _Sides()
    flips, measured, old_costs, costs = [], 0, [], []
    lapsed: defaultdict[str, list[int]] = defaultdict(list)
    for result in evaluation.results:  # once: they may lie on disk
        example, grade = population.pairs.get(result.example.id), result.grade
        measured += grade is not None
        if example is None or grade is None or example.status == "unknown":
            continue
        costs.append(result.cost)
        old_costs.append(example.cost)
        for name in example.metrics.keys() - _measured_metrics(result, example):
            lapsed[name].append(result.example.index)
        if metric not in grade.metrics or metric not in example.metrics:
            continue
        old, now = example.metrics[metric], round(float(grade.metrics[metric]), 6)  # as in a lock file
        for sides in (shared, new if _has_new_answers(result, example, fresh=fresh) else recorded):
            sides.add(old, now, mode)
        if old != now:
            voted, votes = grade.voted_answer and short_answer(grade.voted_answer), grade.votes
            flips.append(
                Flip(
                    id=result.example.id,
                    index=result.example.index,
                    question=columns.question(result.example.row),
                    direction="lost" if (now < old) == (mode == "max") else "gained",
                    before=Outcome(old, example.voted_answer, _top(example.votes), example.responses),
                    now=Outcome(now, voted, _top(votes), len(result.responses)),
                    expected=columns.expected(result.example.row),
                )
            )
    found = shared.paired(mode, aggregate)
    if found is None:
        return None
    return Comparison(
        shared=found,
        recorded=recorded.paired(mode, aggregate),
        fresh=new.paired(mode, aggregate),
        flips=tuple(sorted(flips, key=lambda flip: (flip.direction != "lost", flip.index))),
        population=population,
        complete=found.rows == measured,
        cost_before=None if None in old_costs else sum(filter(None, old_costs), Decimal(0)) / len(costs),
        cost_now=sum(costs, Decimal(0)) / len(costs),
        lapsed={name: tuple(sorted(rows)) for name, rows in lapsed.items()},
    )


def _measured_metrics(result: ExampleResult, example: LockedExample) -> Set[str]:
    """The metrics that say something about a row.

    If a task now raises on it, a grader has seen only the exception, and its own metrics say nothing; scores are 0.
    """
    assert result.grade is not None  # noqa: S101  # ``compare`` has looked
    names = result.grade.metrics.keys()
    if result.error is None or not all(run.error for run in result.runs):
        return names
    if answers_digest(result.responses) == example.answers:  # it raised in the baseline, too
        return names
    return {name for name in names if name.endswith((*SCORES, "escalated")) or reliability_names([name])}


def _has_new_answers(result: ExampleResult, example: LockedExample, *, fresh: bool) -> bool:
    """Whether the models' answers are not the baseline's, so that chance plays a part; ``fresh`` as for ``judge``.

    What a task returns may change with its code. It is new only if one of its calls is: a change of code is no chance.
    """
    if not example.answers:
        return fresh
    if answers_digest(result.responses) == example.answers:
        return False
    if not result.runs or not example.calls:
        return True
    if not any(len(run.calls) for run in result.runs):
        return False
    if len(result.runs) > 1 or example.responses > 1:
        return calls_digest(result.runs) != example.runs
    return not Counter(call.digest for call in result.runs[0].calls) <= Counter(example.calls)


def _top(votes: Sequence[tuple[str, int]]) -> int:
    return votes[0][1] if votes else 0


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on one metric, over the suite or over one group of its rows."""

    metric: str
    direction: Literal["min", "max"]
    limit: Decimal
    group: str | None = None
    """The value of the ``group_by`` column; None for the whole suite."""
    key: str = ""
    """The suite's key that set it, if not ``min_<metric>`` or ``max_<metric>``."""

    @property
    def name(self) -> str:
        key = self.key or f"{self.direction}_{self.metric}"
        return key if self.group is None else f"{key}[{self.group}]"


def limits_of(thresholds: Iterable[Threshold], inference_budget: Decimal | None = None) -> tuple[Limit, ...]:
    """Thresholds as limits, one per group; the inference budget is one too, unless ``max_inference_cost`` is given."""
    limits = []
    for each in thresholds:
        groups = each.limit if isinstance(each.limit, Mapping) else {None: each.limit}
        limits += [Limit(each.metric, each.direction, limit, group) for group, limit in groups.items()]
    if inference_budget is not None and "max_inference_cost" not in (limit.name for limit in limits):
        limits.append(Limit("inference_cost", "max", inference_budget, key="inference_budget"))
    return tuple(limits)


@dataclass(frozen=True, slots=True)
class Criteria:
    """Everything that a verdict depends on besides evaluation and baseline, from the suite's keys."""

    metric: str = "success_vote"
    mode: Literal["max", "min"] = "max"
    limits: tuple[Limit, ...] = ()
    max_drop: float | None = None
    """How much worse the metric may get, absolute, over the rows on both sides. None: no limit."""
    strict: bool = False
    """Without ``max_drop``: whether any drop over recorded answers fails, because chance plays no part."""
    alpha: float | None = None
    """A drop over new answers fails if the exact McNemar p-value is below this; None: no test."""
    max_cost_rise: float | None = None
    """How much the cost per instance may rise with recorded answers, as a fraction of the baseline's. None: not gated."""
    max_new_cost_rise: float | None = None
    """The same for new answers, which have other lengths."""
    max_unknown: int = 0
    """How many examples may lack an answer."""
    group_by: str | None = None
    reused: bool = False
    """Whether the guard uses the rows that the configuration was tuned on."""
    allow_vacuous: bool = False

    @property
    def judges_drops(self) -> bool:
        """Whether a drop below the baseline can fail."""
        return self.strict or self.max_drop is not None or self.alpha is not None

    @property
    def judges_cost(self) -> bool:
        """Whether a higher cost than the baseline's can fail."""
        return self.max_cost_rise is not None

    def against_nothing(self) -> Criteria:
        """The criteria that do not depend on a baseline."""
        return replace(self, max_drop=None, strict=False, alpha=None, max_cost_rise=None, max_new_cost_rise=None)


ALPHA = 0.05
"""The default of ``alpha``."""
NEW_COST_RISE = 0.1
"""The default of ``max_cost_rise`` for new answers, which have other lengths."""


def criteria_of(suite: Suite, *, reused: bool) -> Criteria:
    """The criteria given by a suite's keys; ``reused``: it guards on the tuning rows, because no others are left."""
    drop, alpha, rise = suite.max_drop, suite.alpha, suite.max_cost_rise
    if alpha == "auto":
        alpha = None if drop is None else ALPHA
    return Criteria(
        metric=suite.metric,
        mode=suite.mode,
        limits=limits_of(suite.thresholds, suite.inference_budget),
        max_drop=None if drop == "auto" else drop,
        strict=drop == "auto",
        alpha=alpha,
        max_cost_rise=0.0 if rise == "auto" else rise,
        max_new_cost_rise=NEW_COST_RISE if rise == "auto" else rise,
        max_unknown=suite.max_unknown,
        group_by=suite.group_by,
        reused=reused,
        allow_vacuous=suite.allow_vacuous,
    )


@dataclass(frozen=True, slots=True)
class Stale:
    """A reason why a result is stale, and the option that fixes it."""

    what: str
    option: str
    """As in ``--llm-record=missing``."""
    detail: str = ""
    """More lines, such as the difference to the nearest recorded request."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit, and how the result compares with it."""

    name: str
    """The suite's key, such as ``min_success_vote``."""
    metric: str
    passed: bool
    value: float
    limit: float
    sentence: str
    """Holds both numbers."""
    conclusive: bool = True
    """False: too little is known to say, which does not pass either."""

    @property
    def word(self) -> str:
        return "ok" if self.passed else "FAIL" if self.conclusive else "not judged"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a suite may pass, and why."""

    status: Literal["passed", "failed", "stale", "inconclusive", "error"]
    """``error``: nothing could be judged, and ``problem`` says why."""
    metric: str
    gates: tuple[Gate, ...] = ()
    flips: tuple[Flip, ...] = ()
    """Examples that changed since the baseline; what got worse first."""
    p_value: float | None = None
    """Exact McNemar, two-sided, of the flips; None without a baseline."""
    value: float | None = None
    """The tuned metric today; None where nothing was measured."""
    interval: Interval | None = None
    """95 %, of ``value``."""
    baseline: float | None = None
    """The tuned metric of the baseline; None unless it is over the same rows as ``value``."""
    compared: int = 0
    """Number of rows measured on both sides."""
    before: float | None = None
    """The baseline's tuned metric over the compared rows."""
    now: float | None = None
    """Today's tuned metric over the compared rows."""
    stale: tuple[Stale, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""
    """Description of an error (no lock file, exhausted budget, ...); empty unless ``error``."""

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    @property
    def failed_gates(self) -> tuple[Gate, ...]:
        return tuple(gate for gate in self.gates if not gate.passed)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the suite does not pass."""
        reasons = [each.what for each in self.stale] or [gate.sentence for gate in self.failed_gates]
        return (*reasons, *([self.problem] if self.problem else [])) or ("no example could be measured",)
