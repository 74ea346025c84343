"""Judge an evaluation against thresholds and the baseline."""

from __future__ import annotations

import math
import statistics
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from pytest_llmtune._dataclass import replace
from pytest_llmtune._util.stats import minimum_detectable_drop
from pytest_llmtune._util.text import apart, counted, dollars, number
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.guard.verdict import (
    ALPHA,
    Comparison,
    Criteria,
    Gate,
    Limit,
    Paired,
    Population,
    Stale,
    Verdict,
    compare,
    match,
    named,
)
from pytest_llmtune.suite.keys import COSTS, ROW_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_llmtune.grading import Grader
    from pytest_llmtune.guard.lockfile import Lock
    from pytest_llmtune.guard.rows import RowColumns
    from pytest_llmtune.types import Evaluation, ShardFacts


_TOLERANCE = 1e-9  # 0.85 - 0.83 is a little more than 0.02 in floats


def judge(
    evaluation: Evaluation | None,
    criteria: Criteria,
    baseline: Lock | None = None,
    *,
    stale: Sequence[Stale] = (),
    notes: Sequence[str] = (),
    aggregate: Callable[[Sequence[float]], float] = statistics.fmean,
    population: Population | None = None,
    columns: RowColumns | None = None,
    fresh: bool = False,
    prices: Mapping[str, Mapping[str, Decimal]] | None = None,
    accepted: bool = False,
    decided: Mapping[str, bool] | None = None,
) -> Verdict:
    """Judge an evaluation by its criteria.

    Args:
        evaluation: None if nothing could be measured, which needs a reason in ``stale``.
        baseline: None before the first tuning; gates that depend on it are then not judged.
        aggregate: maps a metric's values over examples to the suite's value.
        population: matches today's rows to the baseline's; None: rows are matched by ID.
        columns: which columns of a row to show.
        fresh: whether answers are new if the baseline does not tell which answers it had.
        prices: today's prices, as in the baseline, to explain a higher cost.
        accepted: today's result becomes the baseline; the old baseline is shown, but does not gate.
        decided: gates whose outcome on all rows is decided although only some were evaluated.

    Raises:
        SuiteError: a gate names a metric that the grader does not return.
    """
    if baseline and population is None and evaluation:
        population = match((result.example for result in evaluation.results), baseline)
    if baseline and population and not population.is_same and not accepted:
        stale = [*stale, Stale(f"the rows changed since the baseline: {population.changes()}", "--llm-accept")]
    if evaluation is None:
        return Verdict("stale", criteria.metric, stale=tuple(stale), notes=tuple(notes))
    comparison = None
    if baseline and population:
        comparison = compare(
            evaluation,
            population,
            metric=criteria.metric,
            mode=criteria.mode,
            aggregate=aggregate,
            columns=columns,
            fresh=fresh,
        )
    known = len(evaluation.results) - len(evaluation.unknown)
    gates = []
    if baseline and known and criteria.judges_drops and not accepted:
        gates.append(_drop_gate(comparison, criteria, baseline, known))
    if known:
        gates += [_limit_gate(limit, evaluation, criteria, aggregate) for limit in criteria.limits]
    if baseline and comparison and criteria.judges_cost and not accepted:
        gates.append(_cost_gate(comparison, criteria, baseline, evaluation, prices or {}))
    for index, gate in enumerate(gates):
        if decided and gate.name in decided:
            passed = decided[gate.name]
            sentence = f"{gate.sentence}; on all rows it {'passes' if passed else 'fails'}"
            gates[index] = replace(gate, passed=passed, conclusive=True, sentence=sentence)
        if gates[index].passed and comparison and not accepted and (rows := comparison.lapsed.get(gate.metric)):
            lost = f"the grader gives no {gate.metric} for {named(rows)}, which the baseline has"
            if any(result.error for result in evaluation.results if result.grade):
                lost += ", or the task raised there"
            gates[index] = replace(
                gates[index], passed=False, conclusive=False, sentence=f"{gates[index].sentence}; not judged: {lost}"
            )
    if criteria.judges_drops and all(gate.passed for gate in gates) and (worst := _worst(evaluation, criteria)):
        gates.append(worst)
    count, most = len(evaluation.unknown), criteria.max_unknown
    sentence = f"{count} of {len(evaluation.results)} examples have no answer; max_unknown allows {most}"
    unknown = Gate("max_unknown", "unknown", conclusive(evaluation, most), count, most, sentence)
    return Verdict(
        status=_status(gates, unknown, stale),
        metric=criteria.metric,
        gates=(*gates, *([unknown] if count else [])),
        flips=comparison.flips if comparison else (),
        p_value=comparison.shared.p_value if comparison else None,
        value=float(_metric(evaluation, criteria.metric)) if known else None,
        interval=evaluation.intervals.get(criteria.metric),
        baseline=comparison.shared.before if comparison and comparison.complete else None,
        compared=comparison.shared.rows if comparison else 0,
        before=comparison.shared.before if comparison else None,
        now=comparison.shared.now if comparison else None,
        stale=tuple(stale),
        notes=(
            *notes,
            *([_accepted(evaluation, comparison, criteria, baseline)] if accepted and baseline else []),
            *_notes(criteria, comparison, bool(gates) or accepted or not unknown.passed, baseline),
        ),
    )


def _accepted(evaluation: Evaluation, comparison: Comparison | None, criteria: Criteria, baseline: Lock) -> str:
    """Old and new score and cost, for a note."""
    metric, locked = criteria.metric, baseline.metrics.get(criteria.metric)
    known = len(evaluation.results) - len(evaluation.unknown)
    measured = _measured(baseline)  # 0 after --llm-choose: another configuration's rows say nothing about this one
    rows = f" over {counted(measured, 'row')}" if measured else ""
    old = f"{number(locked.value)}{rows}" if locked else "unknown"
    note = f"accepted: {metric} was {old}, and is {number(evaluation.metrics[metric])} over {counted(known, 'row')}"
    if comparison:
        note += f" ({comparison.shared.lost} lost, {comparison.shared.gained} gained)"
    if (cost := baseline.inference_cost) is not None:
        before, now = _dollars_apart(cost, evaluation.inference_cost)
        moved = f", and is {now}" if before != now else " and still is"
        note += f"; inference_cost was {before} per 1,000 instances{moved}"
    if comparison and (changes := comparison.population.changes()):
        note += f"; {changes}"
    return note


def unjudged(evaluation: Evaluation | None, criteria: Criteria, stale: Sequence[Stale], shard: ShardFacts) -> Verdict:
    """A shard's result without judging it; only all shards together are judged."""
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


_NO_JUDGE = ("inference_cost", "cost", "latency", "refused", "unknown")
"""Prefixes of metrics that do not depend on a judge."""


def held_to_agreement(verdict: Verdict, evaluation: Evaluation | None, grader: Grader) -> Verdict:
    """The verdict, with gates on a judge's metrics inconclusive if the judge agrees too little with hand labels."""
    if evaluation is None:
        return verdict
    for index, each in enumerate(grader.parts):
        least = each.min_agreement
        if least is None:
            continue
        prefix = f"{each.name}_" if index else ""  # the metrics of a list's first grader have none
        value = evaluation.metrics.get(f"{prefix}agreement")
        if value is None:
            text = f"no row has a hand label, so that the agreement of {each.name} is unknown"
        else:
            text = f"{each.name} agrees with {value:.4g} of the hand labels"
            for name, word in (("kappa", "Cohen's kappa"), ("base_rate", "base rate")):
                if prefix + name in evaluation.metrics:
                    text += f"; {word} {evaluation.metrics[prefix + name]:.2f}"
        value = value or 0.0
        passed, sentence = value >= least, f"{text}; min_agreement asks for {least:g}"
        gate = Gate(f"{prefix}min_agreement", f"{prefix}agreement", passed, value, least, sentence, conclusive=passed)
        verdict = _with_agreement(verdict, gate, prefix)
    return verdict


def _with_agreement(verdict: Verdict, agreement: Gate, prefix: str) -> Verdict:
    """The verdict with this gate; if it fails, those on the judge's metrics are not judged."""
    if agreement.passed:
        return replace(verdict, gates=(*verdict.gates, agreement))
    gates = list(verdict.gates)
    for index, gate in enumerate(gates):
        if gate.metric.startswith(prefix) if prefix else not gate.metric.startswith(_NO_JUDGE):
            sentence = f"{gate.sentence}; not judged: the judge is not trusted"
            gates[index] = replace(gate, passed=False, conclusive=False, sentence=sentence)
    failed = any(not gate.passed and gate.conclusive for gate in gates)
    if not failed and verdict.status in ("passed", "failed"):
        verdict = replace(verdict, status="inconclusive")
    return replace(verdict, gates=(*gates, agreement))


def _status(
    gates: Sequence[Gate], unknown: Gate, stale: Sequence[Stale]
) -> Literal["passed", "failed", "stale", "inconclusive"]:
    if stale:
        return "stale"
    if not unknown.passed:
        return "inconclusive"
    failed = [gate for gate in gates if not gate.passed]
    if failed and not any(gate.conclusive for gate in failed):
        return "inconclusive"
    return "failed" if failed else "passed"


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
    return float(min(values) if limit.metric == ROW_RATE else aggregate(values))


def _limit_gate(
    limit: Limit, evaluation: Evaluation, criteria: Criteria, aggregate: Callable[[Sequence[float]], float]
) -> Gate:
    if limit.group is not None:
        value = _group_value(evaluation, limit, criteria.group_by or "", aggregate)
    else:
        value = _metric(evaluation, limit.metric)
    low = limit.direction == "min"
    if isinstance(value, Decimal):  # USD are exact
        passed = value >= limit.limit if low else value <= limit.limit
    else:  # NaN never passes
        least, most = float(limit.limit) - _TOLERANCE, float(limit.limit) + _TOLERANCE
        passed = value >= least if low else value <= most
    each = limit.metric == "inference_cost"
    scale = 1000 if each else 1
    shown, allowed = apart(scale * value, scale * limit.limit, money=limit.metric in COSTS)
    relation = ("is at least" if low else "is within") if passed else ("is below" if low else "is over")
    group = f" of {criteria.group_by} = {limit.group}" if limit.group is not None else ""
    sentence = f"{limit.metric}{group} {shown} {relation} {limit.name.partition('[')[0]} {allowed}"
    if each:
        sentence += " per 1,000 instances"
    if limit.metric == ROW_RATE and not passed:
        sentence += f": {_below(evaluation, limit, criteria.group_by)}"
    return Gate(limit.name, limit.metric, passed, float(value), float(limit.limit), sentence)


def _below(evaluation: Evaluation, limit: Limit, column: str | None) -> str:
    """The rows below a limit on ``row_rate``, worst first."""
    rates = [
        (result.grade.metrics[ROW_RATE], result.example.index)
        for result in evaluation.results
        if result.grade
        and result.grade.metrics.get(ROW_RATE, 1.0) < float(limit.limit) - _TOLERANCE
        and (limit.group is None or str(result.example.row.get(column or "")) == limit.group)
    ]
    rows = ", ".join(f"row {index} ({number(rate)})" for rate, index in sorted(rates)[:3])
    return rows + (f" and {len(rates) - 3} more" if len(rates) > 3 else "")


def _drop_gate(comparison: Comparison | None, criteria: Criteria, baseline: Lock, known: int) -> Gate:
    """Compare today with the baseline over the rows that both have.

    If a row's answers are the baseline's recorded ones, only a change of code, prompt, data or grader can flip it; chance is
    considered only for new answers.
    """
    rows = comparison.shared.rows if comparison else 0
    allowed = criteria.max_drop or 0.0
    if comparison is None or 2 * rows < max(known, _measured(baseline)):
        sentence = (
            f"{criteria.metric} cannot be compared with the baseline: today has {known} measured rows, "
            f"and {rows} of them are in the baseline too"
        )
        return Gate("max_drop", criteria.metric, False, float("nan"), allowed, sentence, conclusive=False)
    shared, recorded, fresh = comparison.shared, comparison.recorded, comparison.fresh
    strict = shared if criteria.max_drop is not None else recorded if criteria.strict else None
    over = strict is not None and not strict.drop <= allowed + _TOLERANCE  # so that a NaN does not pass
    chance = ""
    significant = False
    if fresh and criteria.alpha is not None and fresh.drop > _TOLERANCE:
        significant = fresh.p_value < criteria.alpha
        shown, alpha = apart(fresh.p_value, criteria.alpha)
        chance = f"(exact McNemar p = {shown}, {'' if significant else 'not '}below alpha = {alpha})"
    sentence = _moved(shared, criteria, allowed) + _allowance(criteria, allowed, chance, over, significant)
    passed = not over and not significant and not math.isnan(shared.drop)
    return Gate("max_drop", criteria.metric, passed, shared.drop, allowed, sentence)


def _measured(baseline: Lock) -> int:
    """Number of rows of the baseline with an outcome."""
    return sum(1 for example in baseline.examples if example.metrics)


def _moved(shared: Paired, criteria: Criteria, allowed: float) -> str:
    before, now = apart(shared.before, shared.now)
    if before == now:
        return f"{criteria.metric} did not change: {before}"
    moved = f"{criteria.metric} {'fell' if shared.now < shared.before else 'rose'} from {before} to {now}"
    if not shared.drop > _TOLERANCE:
        return moved
    size = apart(shared.drop, allowed)[0]
    return f"{moved}, {'a drop of' if criteria.mode == 'max' else 'worse by'} {size}"


def _allowance(criteria: Criteria, allowed: float, chance: str, over: bool, significant: bool) -> str:
    """The allowed drop, and which of the two rules was violated."""
    if not chance:
        if criteria.max_drop is not None:
            return f"; max_drop allows {number(allowed)}"
        return "; by default no drop is allowed where the answers are the recorded ones" if criteria.strict else ""
    beyond_chance = f"more than chance {chance}"
    if criteria.max_drop is None:
        broken = "though the answers to some rows did not change, " if over else ""
        return f": {broken}{beyond_chance if significant else f'not {beyond_chance}'}"
    if over:
        return f": more than max_drop {number(allowed)}, {'and' if significant else 'though not'} {beyond_chance}"
    if significant:
        return f": {beyond_chance}, though max_drop allows {number(allowed)}"
    return f"; max_drop allows {number(allowed)}; not {beyond_chance}"


def _worst(evaluation: Evaluation, criteria: Criteria) -> Gate | None:
    """A gate that fails if every row has the worst score and no other gate fails: it could never fail later."""
    worst = 0.0 if criteria.mode == "max" else 1.0
    if evaluation.metrics.get(criteria.metric) != worst:
        return None
    if any(result.grade and result.grade.metrics.get(criteria.metric) != worst for result in evaluation.results):
        return None
    sentence = f"{criteria.metric} is {worst:g} on every row: it cannot get worse, so that nothing is guarded"
    return Gate("any_success", criteria.metric, False, worst, worst, sentence)


def _cost_gate(
    comparison: Comparison,
    criteria: Criteria,
    baseline: Lock,
    evaluation: Evaluation,
    prices: Mapping[str, Mapping[str, Decimal]],
) -> Gate:
    """Compare the cost per instance with the baseline's over the same rows; inconclusive if that is unknown."""
    allowed = (criteria.max_new_cost_rise if comparison.fresh else criteria.max_cost_rise) or 0.0
    before, now = comparison.cost_before, comparison.cost_now
    if before is None:  # written before rows had costs
        locked = baseline.inference_cost
        if locked is None or not comparison.complete or comparison.shared.rows != _measured(baseline):
            sentence = "cost not compared with the baseline, whose rows have no costs; --llm-accept writes them"
            return Gate("max_cost_rise", "inference_cost", False, float("nan"), allowed, sentence, conclusive=False)
        before, now = locked, evaluation.inference_cost
    limit = float(before) * (1 + allowed)
    passed = float(now) <= limit * (1 + _TOLERANCE)
    old, new = _dollars_apart(before, now)
    share = f" ({100 * (float(now) / float(before) - 1):+.3g} %)" if before else ""
    moved = f"did not change: {old} per 1,000 instances"
    if old != new:
        moved = f"{'rose' if now > before else 'fell'} from {old} to {new} per 1,000 instances{share}"
    sentence = f"inference_cost {moved}; max_cost_rise allows {number(100 * allowed)} %"
    if now > before and not passed:
        sentence += f": {_why_costlier(comparison, baseline, evaluation, prices)}"
    return Gate("max_cost_rise", "inference_cost", passed, float(now), limit, sentence)


def _dollars_apart(before: Decimal, now: Decimal) -> tuple[str, str]:
    """Two costs per instance as costs per 1,000, equal if they differ only by float rounding."""
    if math.isclose(before, now, rel_tol=_TOLERANCE):
        return dollars(1000 * now), dollars(1000 * now)
    return apart(1000 * before, 1000 * now, money=True)


def _why_costlier(
    comparison: Comparison, baseline: Lock, evaluation: Evaluation, prices: Mapping[str, Mapping[str, Decimal]]
) -> str:
    """Why the same rows cost more: a price, by model with both values; the prompt; or other answers."""
    reasons = []
    for model, today in prices.items():
        old = baseline.prices.get(model, {})
        reasons += [
            f"the {kind} price of {model} changed from {dollars(old[kind])} to {dollars(today[kind])} per 1M tokens"
            for kind in today
            if kind in old and old[kind] != today[kind]
        ]
    prompts = {kind: evaluation.config.get(kind) for kind in ("prompt", "messages")}
    if prompts != {kind: baseline.config.get(kind) for kind in prompts}:
        reasons.append("the prompt changed")
    if comparison.fresh:
        reasons.append("the answers are new")
    return " and ".join(reasons) or "the usage that the recording reports changed"


def conclusive(evaluation: Evaluation, max_unknown: int) -> bool:
    """Whether enough examples were completed for a verdict, or a baseline."""
    return len(evaluation.unknown) <= max_unknown and len(evaluation.unknown) < len(evaluation.results)


def _notes(criteria: Criteria, comparison: Comparison | None, gated: bool, baseline: Lock | None) -> list[str]:
    notes = []
    if criteria.reused:
        notes.append(
            "the guard uses the rows the configuration was tuned on: no other rows are left, the score is optimistic"
        )
    if criteria.allow_vacuous:
        notes.append("allow_vacuous: the grader accepts answers that say nothing")
    if not criteria.judges_drops:
        notes.append(f"not gated against the baseline (max_drop=None): a drop of {criteria.metric} cannot fail")
    if not gated:
        notes.append("no gate: nothing can fail; set min_<metric>, max_drop or inference_budget")
    if baseline is None and criteria.judges_drops:
        notes.append("no baseline yet: max_drop was not judged")
    if comparison and comparison.population.relabelled and comparison.population.is_same:
        notes.append(f"since the baseline {comparison.population.changes()}; each is compared with its former self")
    if comparison and criteria.max_drop is not None:
        rows = comparison.shared.rows
        smallest = minimum_detectable_drop(rows, criteria.alpha or ALPHA)
        if smallest > criteria.max_drop + _TOLERANCE:
            can = "no drop can" if smallest > 1 else f"the smallest detectable drop is {number(smallest)}"
            few = f"too few to tell a drop of {number(criteria.max_drop)} from chance"
            notes.append(f"{counted(rows, 'example')}: {few}; {can}")
    if not criteria.judges_cost:
        notes.append("cost not gated against the baseline (max_cost_rise=None)")
    return notes
