"""Judge an evaluation against thresholds and the baseline."""

from __future__ import annotations

import statistics
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from pytest_llmtune._util.stats import minimum_detectable_drop
from pytest_llmtune._util.text import apart, counted, number
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.guard.verdict import Criteria, Gate, Limit, Stale, Verdict, compare, criteria_of, limits_of
from pytest_llmtune.suite.keys import COSTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_llmtune.guard.lockfile import Lock
    from pytest_llmtune.guard.verdict import Comparison
    from pytest_llmtune.types import Evaluation, ShardFacts

__all__ = [
    "Criteria",
    "Gate",
    "Limit",
    "Stale",
    "Verdict",
    "conclusive",
    "criteria_of",
    "judge",
    "limits_of",
    "unjudged",
]


_TOLERANCE = 1e-9  # 0.85 - 0.83 is a little more than 0.02 in floats


def judge(
    evaluation: Evaluation | None,
    criteria: Criteria,
    baseline: Lock | None = None,
    *,
    stale: Sequence[Stale] = (),
    notes: Sequence[str] = (),
    aggregate: Callable[[Sequence[float]], float] = statistics.fmean,
) -> Verdict:
    """Hold an evaluation against its criteria.

    Args:
        evaluation: None where nothing could be measured, which needs a reason in ``stale``.
        baseline: None before the first tuning: ``max_drop`` is then not judged.
        aggregate: from the values of a metric over examples to the suite's value.

    Raises:
        SuiteError: a gate names a metric that the grader does not give.
    """
    if evaluation is None:
        return Verdict("stale", criteria.metric, stale=tuple(stale), notes=tuple(notes))
    comparison = compare(evaluation, baseline, criteria.metric, criteria.mode, aggregate) if baseline else None
    known = len(evaluation.results) - len(evaluation.unknown)
    if criteria.judges_drops and baseline and not comparison and conclusive(evaluation, criteria.max_unknown):
        stale = [
            *stale,
            Stale(f"the baseline has no example with {criteria.metric} in common with today", "--llm-accept"),
        ]
    gates = []
    if comparison and criteria.judges_drops:
        gates.append(_drop_gate(comparison, criteria))
    if known:
        gates += [_limit_gate(limit, evaluation, criteria, aggregate) for limit in criteria.limits]
    unknown = _unknown_gate(evaluation, criteria)
    return Verdict(
        status=_status(gates, unknown, stale),
        metric=criteria.metric,
        gates=(*gates, *([unknown] if evaluation.unknown else [])),
        flips=comparison.flips if comparison else (),
        p_value=comparison.p_value if comparison else None,
        value=float(_metric(evaluation, criteria.metric)) if known else None,
        interval=evaluation.intervals.get(criteria.metric),
        baseline=comparison.before if comparison else None,
        compared=comparison.compared if comparison else 0,
        stale=tuple(stale),
        notes=(*notes, *_notes(criteria, comparison, gates if unknown.passed else [unknown], baseline)),
    )


def unjudged(evaluation: Evaluation | None, criteria: Criteria, stale: Sequence[Stale], shard: ShardFacts) -> Verdict:
    """A shard's figures: its few rows are held against nothing; the shards together are."""
    count = len(evaluation.results) if evaluation else 0
    note = f"shard {shard.name}, {count} of {shard.rows} rows: not judged; judge all shards: pytest --llm-merge=DIR"
    return Verdict(
        "stale" if stale else "passed",
        criteria.metric,
        value=evaluation.metrics.get(criteria.metric) if evaluation else None,
        interval=evaluation.intervals.get(criteria.metric) if evaluation else None,
        stale=tuple(stale),
        notes=(note,),
    )


def _status(
    gates: Sequence[Gate], unknown: Gate, stale: Sequence[Stale]
) -> Literal["passed", "failed", "stale", "inconclusive"]:
    if stale:
        return "stale"
    if not unknown.passed:
        return "inconclusive"
    return "passed" if all(gate.passed for gate in gates) else "failed"


def _metric(evaluation: Evaluation, name: str) -> float | Decimal:
    """Costs are exact, other metrics floats."""
    if name in COSTS:
        return evaluation.inference_cost if name == "inference_cost" else evaluation.cost
    try:
        return float(evaluation.metrics[name])
    except KeyError:
        known = ", ".join(sorted({*evaluation.metrics, *COSTS}))
        raise SuiteError(
            f"no metric {name!r}: the grader gives {known}. Name one of these in metric= and the gates"
        ) from None


def _group_value(
    evaluation: Evaluation, limit: Limit, column: str, aggregate: Callable[[Sequence[float]], float]
) -> float | Decimal:
    results = [result for result in evaluation.results if str(result.example.row.get(column)) == limit.group]
    if limit.metric == "inference_cost":
        costs = [result.cost for result in results if result.grade]
        if costs:
            return sum(costs, Decimal(0)) / len(costs)
    values = [r.grade.metrics[limit.metric] for r in results if r.grade and limit.metric in r.grade.metrics]
    if not values:
        groups = sorted({str(result.example.row.get(column)) for result in evaluation.results})
        raise SuiteError(
            f"{limit.name}: no example has {column} = {limit.group!r} and a metric {limit.metric!r}; "
            f"the groups are {', '.join(groups[:20])}"
        )
    return float(aggregate(values))


def _limit_gate(
    limit: Limit, evaluation: Evaluation, criteria: Criteria, aggregate: Callable[[Sequence[float]], float]
) -> Gate:
    if limit.group is not None:
        value = _group_value(evaluation, limit, criteria.group_by or "", aggregate)
    else:
        value = _metric(evaluation, limit.metric)
    low = limit.direction == "min"
    passed = _within(value, limit.limit, low=low)
    shown, allowed = apart(value, limit.limit, money=limit.metric in COSTS)
    relation = ("is at least" if low else "is within") if passed else ("is below" if low else "is over")
    group = f" of {criteria.group_by} = {limit.group}" if limit.group is not None else ""
    per = " per instance" if limit.metric == "inference_cost" else ""
    sentence = f"{limit.metric}{group} {shown}{per} {relation} {limit.name.partition('[')[0]} {allowed}"
    return Gate(limit.name, limit.metric, passed, float(value), float(limit.limit), sentence)


def _within(value: float | Decimal, limit: Decimal, *, low: bool) -> bool:
    """Dollars are compared exactly; means of floats may be a rounding away from their limit. NaN is never within."""
    if isinstance(value, Decimal):
        return value >= limit if low else value <= limit
    return value >= float(limit) - _TOLERANCE if low else value <= float(limit) + _TOLERANCE


def _drop_gate(comparison: Comparison, criteria: Criteria) -> Gate:
    allowed = criteria.max_drop or 0.0
    over = not comparison.drop <= allowed + _TOLERANCE  # so that a NaN does not pass
    significant = criteria.alpha is None or comparison.p_value < criteria.alpha
    shown, limit = apart(comparison.drop, allowed)
    before, now = apart(comparison.before, comparison.now)
    verb = "did not change:" if before == now else "fell from" if comparison.now < comparison.before else "rose from"
    moved = f"{criteria.metric} {verb} {before}" + (f" to {now}" if before != now else "")
    size = f", a drop of {shown}" if comparison.drop > _TOLERANCE else ""
    sentence = f"{moved}{size}; max_drop allows {limit}"
    if over and criteria.alpha is not None:
        relation = "below" if significant else "not below"
        sentence += f" (exact McNemar p = {number(comparison.p_value)}, {relation} alpha = {number(criteria.alpha)})"
    return Gate("max_drop", criteria.metric, not (over and significant), comparison.drop, allowed, sentence)


def conclusive(evaluation: Evaluation, max_unknown: int) -> bool:
    """Whether enough examples were completed to judge by, and to be a baseline."""
    return len(evaluation.unknown) <= max_unknown and len(evaluation.unknown) < len(evaluation.results)


def _unknown_gate(evaluation: Evaluation, criteria: Criteria) -> Gate:
    count, total = len(evaluation.unknown), len(evaluation.results)
    passed = conclusive(evaluation, criteria.max_unknown)
    sentence = f"{count} of {total} examples have no answer; max_unknown allows {criteria.max_unknown}"
    return Gate("max_unknown", "unknown", passed, count, criteria.max_unknown, sentence)


def _notes(
    criteria: Criteria, comparison: Comparison | None, gates: Sequence[Gate], baseline: Lock | None
) -> list[str]:
    notes = []
    if criteria.reused:
        notes.append(
            "the guard uses the rows the configuration was tuned on: no other rows are left, the score is optimistic"
        )
    if criteria.allow_vacuous:
        notes.append("allow_vacuous: the grader accepts answers that say nothing")
    if not gates:
        notes.append("no gate: nothing can fail; set min_<metric>, max_drop or inference_budget")
    if baseline is None and criteria.judges_drops:
        notes.append("no baseline yet: max_drop was not judged")
    return notes + (_comparison_notes(criteria, comparison) if comparison else [])


def _comparison_notes(criteria: Criteria, comparison: Comparison) -> list[str]:
    notes = []
    if comparison.added or comparison.gone:
        notes.append(
            f"since the baseline {counted(comparison.added, 'example')} came and {comparison.gone} went; "
            f"compared over the {comparison.compared} that both have"
        )
    if criteria.max_drop is not None:
        notes += _power_note(comparison.compared, criteria.max_drop, criteria.alpha or 0.05)
    return notes


def _power_note(compared: int, max_drop: float, alpha: float) -> list[str]:
    smallest = minimum_detectable_drop(compared, alpha)
    if smallest <= max_drop + _TOLERANCE:
        return []
    can = "no drop can" if smallest > 1 else f"the smallest that can is {number(smallest)}"
    return [f"{counted(compared, 'example')}: too few to tell a drop of {number(max_drop)} from chance; {can}"]
