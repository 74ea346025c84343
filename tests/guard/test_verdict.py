"""Gates at their edges: what is a gate at all, what a shard may say, what a note counts."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
from typing import Any

import pytest
from support.results import CONFIG, evaluation, lock, result, scores

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.guard.gates import judge, unjudged
from pytest_llmtune.guard.lockfile import Lock
from pytest_llmtune.guard.rows import RowColumns
from pytest_llmtune.guard.verdict import Criteria, Gate, Limit, Outcome, Population, Stale, Verdict, match
from pytest_llmtune.types import Evaluation, Example, ShardFacts


def gates(verdict: Verdict) -> dict[str, bool]:
    return {gate.name: gate.passed for gate in verdict.gates}


def test_a_drop_is_judged_only_where_the_suite_says_so() -> None:
    """Without max_drop and alpha the baseline is shown, and is no gate."""
    baseline = lock(scores(1, 1, 1, 1))
    verdict = judge(scores(0, 0, 0, 1), Criteria(), baseline)
    assert (verdict.status, gates(verdict)) == ("passed", {})
    assert (verdict.baseline, verdict.value, verdict.compared, len(verdict.flips)) == (1.0, 0.25, 4, 3)
    assert gates(judge(scores(0, 0, 0, 1), Criteria(max_drop=0.5), baseline)) == {"max_drop": False}
    assert gates(judge(scores(0, 0, 0, 1), Criteria(alpha=0.3), baseline)) == {"max_drop": False}


@pytest.mark.parametrize(
    ("allowed", "unknown", "status"),
    [(0, 0, "passed"), (0, 1, "inconclusive"), (1, 1, "passed"), (1, 2, "inconclusive")],
)
def test_as_many_unknown_examples_as_are_allowed(allowed: int, unknown: int, status: str) -> None:
    """The gate is listed wherever there is one to list, passed or not."""
    verdict = judge(scores(1, 1, *[None] * unknown), Criteria(max_unknown=allowed))
    assert verdict.status == status
    assert gates(verdict) == ({"max_unknown": unknown <= allowed} if unknown else {})
    for gate in verdict.gates:
        assert (gate.metric, gate.value, gate.limit) == ("unknown", unknown, allowed)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("direction", ["min", "max"])
def test_what_is_no_number_is_within_no_limit(value: float, direction: str) -> None:
    """NaN passes neither way; infinity on its own side alone."""
    today = evaluation([result(0, metrics={"strange": value})])
    limit = Limit("strange", direction, Decimal(1))  # type: ignore[arg-type]
    assert judge(today, Criteria(limits=(limit,))).passed is (value == (math.inf if direction == "min" else -math.inf))


def test_a_drop_that_is_no_number_fails() -> None:
    """An aggregate that gives NaN cannot be said to have fallen by little."""
    verdict = judge(scores(1, 0), Criteria(max_drop=0.5), lock(scores(1, 1)), aggregate=lambda _: math.nan)
    assert gates(verdict) == {"max_drop": False}


def test_a_gate_on_a_metric_that_nobody_gives_names_those_there_are() -> None:
    with pytest.raises(
        SuiteError, match=r"no metric 'rouge'.* cost, .*expected_success, inference_cost, success, success_vote"
    ):
        judge(scores(1), Criteria(limits=(Limit("rouge", "min", Decimal(1)),)))


def test_a_group_that_is_not_there_names_those_there_are() -> None:
    today = evaluation([result(0, row={"t": "a", "q": "x"}), result(1, row={"t": "b", "q": "y"})])
    limit = Limit("success_vote", "min", Decimal(1), "c")
    with pytest.raises(SuiteError, match=r"min_success_vote\[c\].*t = 'c'.*the groups are a, b"):
        judge(today, Criteria(limits=(limit,), group_by="t"))


@pytest.mark.parametrize("metric", ["success_vote", "inference_cost"])
def test_a_group_of_which_nothing_is_known_does_not_pass(metric: str) -> None:
    """No score, and no cost either: an error that says so, or a verdict that fails."""
    today = evaluation([result(0, row={"t": "a", "q": "x"}), result(1, None, row={"t": "b", "q": "y"})])
    limit = Limit(metric, "max", Decimal(1), "b")
    try:
        status = judge(today, Criteria(limits=(limit,), group_by="t", max_unknown=1)).status
    except SuiteError:
        status = "error"
    assert status != "passed"


# shards


SHARD = ShardFacts(2, 5, 40, {})


def test_a_shard_is_not_judged() -> None:
    """Its few rows are shown, with the command that judges them all, whatever the criteria say."""
    criteria = Criteria(limits=(Limit("success_vote", "min", Decimal(1)),), max_drop=0, max_unknown=0)
    verdict = unjudged(scores(1, 0, None), criteria, (), SHARD)
    assert (verdict.status, verdict.gates, verdict.value, verdict.metric) == ("passed", (), 0.5, "success_vote")
    assert verdict.interval == scores(1, 0, None).intervals["success_vote"]
    assert verdict.notes == ("shard 2/5, 3 of 40 rows: not judged; judge all shards: pytest --llm-merge=DIR",)


def test_a_shard_that_is_stale_says_so() -> None:
    reason = Stale("3 of 3 requests have no recording", "--llm-record=missing")
    verdict = unjudged(None, Criteria(), [reason], SHARD)
    assert (verdict.status, verdict.stale, verdict.value, verdict.interval) == ("stale", (reason,), None, None)
    assert verdict.notes[0].startswith("shard 2/5, 0 of 40 rows")


def test_what_is_not_said_is_empty() -> None:
    """A reason without detail, a verdict without a problem, a limit under its usual key."""
    assert Stale("the grader changed", "--llm-accept").detail == ""
    assert judge(scores(1), Criteria()).problem == ""
    assert any(note.startswith("no gate") for note in judge(scores(1), Criteria()).notes)
    assert Limit("success", "min", Decimal(1)).name == "min_success"
    assert Limit("success", "max", Decimal(1), "a").name == "max_success[a]"
    assert Limit("inference_cost", "max", Decimal(1), key="inference_budget").name == "inference_budget"


# notes


@pytest.mark.parametrize(
    ("rows", "max_drop", "alpha", "note"),
    [
        (60, 0.1, None, None),
        (60, 0.1, 0.05, None),
        (59, 0.1, None, "59 examples: too few to tell a drop of 0.1 from chance"),
        (60, 0.1, 0.01, "60 examples: too few to tell a drop of 0.1 from chance"),
        (80, 0.1, 0.01, None),
        (5, 0.5, None, "5 examples: too few to tell a drop of 0.5 from chance; no drop can"),
        (6, 0.5, None, "6 examples: too few to tell a drop of 0.5 from chance"),
        (1, 0.5, None, "1 example: too few to tell a drop of 0.5 from chance; no drop can"),
    ],
)
def test_too_few_rows_for_the_drop_are_noted(rows: int, max_drop: float, alpha: float | None, note: str | None) -> None:
    """Six flips at alpha 0.05, eight at 0.01; which part of the rows that is, is said."""
    today = scores(*[1] * rows)
    notes = judge(today, Criteria(max_drop=max_drop, alpha=alpha), lock(today)).notes
    assert [text.startswith(note or "-") for text in notes if "too few" in text] == [True] * (note is not None)


def test_six_examples_can_tell_a_drop_to_nothing() -> None:
    """A drop of 1, which is all of them, is still a drop."""
    notes = judge(scores(*[1] * 6), Criteria(max_drop=0.5), lock(scores(*[1] * 6))).notes
    [note] = [text for text in notes if "too few" in text]
    assert "no drop can" not in note
    assert note.endswith(" 1")


UNGATED = "not gated against the baseline (max_drop=None): a drop of success_vote cannot fail"
NO_GATE = "no gate: nothing can fail; set min_<metric>, max_drop or inference_budget"
NO_COST = "cost not gated against the baseline (max_cost_rise=None)"


def test_notes_say_what_is_not_gated() -> None:
    """In this order, after those that are given; and nothing that is not so."""
    today, baseline = scores(*[1] * 60), lock(scores(*[1] * 60))
    all_gated = Criteria(max_drop=0.5, max_cost_rise=0.0)
    assert judge(today, Criteria(), notes=("a switch of endpoints",)).notes == (
        "a switch of endpoints",
        UNGATED,
        NO_GATE,
        NO_COST,
    )
    assert judge(today, Criteria(limits=(Limit("success", "min", Decimal(1)),))).notes == (UNGATED, NO_COST)
    assert judge(today, all_gated).notes == (NO_GATE, "no baseline yet: max_drop was not judged")
    assert judge(today, all_gated, baseline).notes == ()
    assert judge(today, Criteria(strict=True, max_cost_rise=0.0), baseline).notes == ()
    assert judge(today, dataclasses.replace(all_gated, reused=True, allow_vacuous=True), baseline).notes == (
        "the guard uses the rows the configuration was tuned on: no other rows are left, the score is optimistic",
        "allow_vacuous: the grader accepts answers that say nothing",
    )
    assert NO_GATE not in judge(scores(None), Criteria()).notes  # that nothing is known is enough to say


def test_new_labels_are_noted() -> None:
    """The rows are the same: each is compared with its former self."""
    key = RowColumns(("problem",), ("answer",)).key
    before = evaluation([result(0), result(1)])
    relabelled = dataclasses.replace(result(1), example=Example("e" * 16, 1, {**result(1).example.row, "answer": "43"}))
    today = evaluation([result(0), relabelled])
    population = match([one.example for one in today.results], lock(before), key)
    verdict = judge(today, Criteria(strict=True, max_cost_rise=0.0), lock(before), population=population)
    assert (verdict.status, verdict.stale) == ("passed", ())
    assert verdict.notes == ("since the baseline 1 relabelled (row 1); each is compared with its former self",)


# flips


def test_a_baseline_without_an_answer_had_no_votes() -> None:
    """Where no answer could be read then, a flip shows none."""
    verdict = judge(scores(1), Criteria(), lock(evaluation([result(0, 0, answer=None)])))
    assert verdict.flips[0].before == Outcome(0, None, 0, 5)


# what was asked


def test_a_flip_shows_what_the_prompt_uses_and_what_is_expected() -> None:
    """On one line each, with the names where there are several; whatever else the row holds."""
    columns = RowColumns(("problem", "hint"), ("answer",))
    row = {"id": 7, "problem": " How\nmany? ", "hint": "Count.", "answer": 3, "context": "a long story"}
    today = evaluation([result(0, 0, row=row)])
    [flip] = judge(today, Criteria(), lock(evaluation([result(0, 1, row=row)])), columns=columns).flips
    assert (flip.question, flip.expected) == ("problem: How many?; hint: Count.", "3")
    assert RowColumns(("problem",)).question(row) == "How many?"
    assert RowColumns(("problem",)).expected(row) == ""
    assert RowColumns().question({"a": None, "b": "x" * 1000, "c": "y"})[:8] == "b: xxxxx"
    assert len(RowColumns().question({"b": "x" * 1000})) == 300


def test_rows_that_ask_the_same_have_the_same_key() -> None:
    """Whatever else differs between them; another question has another key."""
    columns = RowColumns(("problem",), ("answer",))
    one, relabelled, other = ({"problem": p, "answer": a} for p, a in (("1?", "1"), ("1?", "2"), ("2?", "1")))
    assert columns.key(one) == columns.key(relabelled) != columns.key(other)
    assert len(columns.key(one)) == 16


# cost against the baseline


def costing(*usd: str, answer: str = "42", **config: Any) -> Evaluation:
    """Right answers, each of which cost so many USD."""
    results = [dataclasses.replace(result(i, answer=answer), cost=Decimal(cost)) for i, cost in enumerate(usd)]
    return evaluation(results, {**CONFIG, **config})


@pytest.mark.parametrize(
    ("before", "now", "allowed", "passed", "sentence"),
    [
        ("0.03", "0.03", 0.0, True, "did not change: $30.00 per 1,000 instances; max_cost_rise allows 0 %"),
        (
            "0.03",
            "0.024",
            0.0,
            True,
            "fell from $30.00 to $24.00 per 1,000 instances (-20 %); max_cost_rise allows 0 %",
        ),
        (
            "0.03",
            "0.033",
            0.1,
            True,
            "rose from $30.00 to $33.00 per 1,000 instances (+10 %); max_cost_rise allows 10 %",
        ),
        (
            "0.03",
            "0.03301",
            0.1,
            False,
            "rose from $30.00 to $33.01 per 1,000 instances (+10 %); max_cost_rise allows 10 %: "
            "the usage that the recording reports changed",
        ),
        ("0", "0", 0.0, True, "did not change: $0 per 1,000 instances; max_cost_rise allows 0 %"),
        (
            "0",
            "0.01",
            0.5,
            False,
            "rose from $0 to $10.00 per 1,000 instances; max_cost_rise allows 50 %: "
            "the usage that the recording reports changed",
        ),
    ],
)
def test_the_cost_per_instance_is_held_against_the_baseline(
    before: str, now: str, allowed: float, passed: bool, sentence: str
) -> None:
    """Over the same rows, with both numbers; only a failure says why."""
    criteria = Criteria(max_cost_rise=allowed)
    verdict = judge(costing(now, now), criteria, lock(costing(before, before)))
    [gate] = verdict.gates
    assert (gate.name, gate.metric, gate.passed, verdict.passed) == ("max_cost_rise", "inference_cost", passed, passed)
    assert gate.sentence == f"inference_cost {sentence}"
    assert (gate.value, gate.limit) == pytest.approx((float(now), float(before) * (1 + allowed)))


def test_a_risen_cost_names_every_reason() -> None:
    """Each price that changed, the prompt, new answers; a price that is the same, or was not there, is none."""
    baseline = lock(costing("0.01", "0.01"))
    today = costing("0.02", "0.02", answer="43", prompt="Think hard: {problem}")
    prices = {"gpt-4o-mini": {"input": Decimal("0.3"), "output": Decimal("0.6"), "cached_input": Decimal(1)}}
    criteria = Criteria(max_cost_rise=0.0, max_new_cost_rise=0.5)
    [gate] = judge(today, criteria, baseline, prices=prices).gates
    assert not gate.passed
    assert gate.sentence.endswith(
        "; max_cost_rise allows 50 %: the input price of gpt-4o-mini changed from $0.15 to $0.30 per 1M tokens"
        " and the prompt changed and the answers are new"
    )
    [gate] = judge(costing("0.02", "0.02"), criteria, baseline, prices={"another": prices["gpt-4o-mini"]}).gates
    assert gate.sentence.endswith("max_cost_rise allows 0 %: the usage that the recording reports changed")
    told = {"messages": [{"role": "user", "content": "Think hard: {problem}"}]}
    [gate] = judge(costing("0.02", "0.02", **told), Criteria(max_cost_rise=0.0), baseline).gates
    assert gate.sentence.endswith("max_cost_rise allows 0 %: the prompt changed")


def test_a_baseline_whose_rows_have_no_costs_is_compared_as_a_whole() -> None:
    """Written by an earlier version: its mean is held against today's where both are over the same rows, else it is inconclusive."""
    baseline = lock(costing("0.01", "0.03"))
    baseline = dataclasses.replace(
        baseline, examples=tuple(dataclasses.replace(example, cost=None) for example in baseline.examples)
    )
    criteria = Criteria(max_cost_rise=0.0, max_unknown=1)
    [gate] = judge(costing("0.02", "0.03"), criteria, baseline).gates
    assert (gate.passed, gate.value, gate.limit) == (False, 0.025, 0.02)
    assert gates(judge(costing("0.02", "0.02"), criteria, baseline)) == {"max_cost_rise": True}
    one_unknown = evaluation([costing("9").results[0], result(1, None)])
    assert gates(judge(one_unknown, criteria, baseline)) == {"max_cost_rise": False, "max_unknown": True}
    without = dataclasses.replace(baseline, metrics={})
    said = "cost not compared with the baseline, whose rows have no costs; --llm-accept writes them"
    for verdict in (judge(costing("9", "9"), criteria, without), judge(one_unknown, criteria, baseline)):
        assert verdict.gates[0].sentence == said
        assert not verdict.gates[0].conclusive
        assert verdict.status == "inconclusive"
    assert judge(costing("0.02", "0.02"), criteria, baseline).status == "passed"


# the drop, where little is known


@pytest.mark.parametrize(("known", "status"), [(4, "passed"), (2, "passed"), (1, "inconclusive")])
def test_half_of_the_rows_must_be_measured_on_both_sides(known: int, status: str) -> None:
    """Else nothing is said about a drop, which does not pass."""
    today = scores(*[1] * known, *[None] * (4 - known))
    verdict = judge(today, Criteria(max_drop=0.0, max_unknown=3), lock(scores(1, 1, 1, 1)))
    assert verdict.status == status
    [drop] = [gate for gate in verdict.gates if gate.name == "max_drop"]
    assert (drop.passed, drop.conclusive) == (status == "passed", status == "passed")
    if status == "inconclusive":
        assert drop.word == "not judged"
        assert drop.sentence == (
            "success_vote cannot be compared with the baseline: today has 1 measured rows, "
            "and 1 of them are in the baseline too"
        )


def test_a_gate_that_fails_is_not_hidden_by_one_that_cannot_be_judged() -> None:
    """What is known to have failed, has failed."""
    today = scores(0, None, None, None)
    criteria = Criteria(max_drop=0.0, max_unknown=3, limits=(Limit("success_vote", "min", Decimal("0.5")),))
    verdict = judge(today, criteria, lock(scores(1, 1, 1, 1)))
    assert verdict.status == "failed"
    assert [(gate.name, gate.word) for gate in verdict.gates] == [
        ("max_drop", "not judged"),
        ("min_success_vote", "FAIL"),
        ("max_unknown", "ok"),
    ]


# accepting


def test_what_is_accepted_is_shown_beside_what_was_and_not_held_against_it() -> None:
    """Both scores, both costs, what was lost and gained; other gates are judged as ever."""
    baseline = lock(costing("0.01", "0.01", "0.01", "0.01"))
    today = dataclasses.replace(scores(0, 0, 1, None), inference_cost=Decimal("0.02"))
    criteria = Criteria(max_drop=0.0, max_cost_rise=0.0, max_unknown=1)
    verdict = judge(today, criteria, baseline, accepted=True)
    assert (verdict.status, gates(verdict)) == ("passed", {"max_unknown": True})
    assert verdict.notes[0] == (
        "accepted: success_vote was 1 over 4 rows, and is 0.3333 over 3 rows (2 lost, 0 gained); "
        "inference_cost was $10.00 per 1,000 instances, and is $20.00"
    )
    assert judge(today, criteria, baseline).status == "failed"
    limited = dataclasses.replace(criteria, limits=(Limit("success_vote", "min", Decimal("0.5")),))
    assert judge(today, limited, baseline, accepted=True).status == "failed"
    assert not any(note.startswith("accepted") for note in judge(today, criteria, None, accepted=True).notes)


def test_accepting_other_rows_names_them() -> None:
    """They are no reason to be stale then."""
    baseline, today = lock(scores(1, 1)), evaluation([result(1), result(5), result(6)])
    verdict = judge(today, Criteria(max_drop=0.0), baseline, accepted=True)
    assert (verdict.status, verdict.stale) == ("passed", ())
    assert verdict.notes[0] == (
        "accepted: success_vote was 1 over 2 rows, and is 1 over 3 rows (0 lost, 0 gained); "
        "inference_cost was $0.03 per 1,000 instances and still is; 2 added (rows 5, 6), 1 removed (row 0)"
    )
    [reason] = judge(today, Criteria(max_drop=0.0), baseline).stale
    assert (reason.what, reason.option) == (
        "the rows changed since the baseline: 2 added (rows 5, 6), 1 removed (row 0)",
        "--llm-accept",
    )


# matching rows


def test_a_row_is_found_by_its_id_else_by_what_it_asks() -> None:
    """Each row of the baseline once: of two that ask the same, one is found and one is new."""
    key = RowColumns(("q",), ("answer",)).key

    def example(letter: str, index: int, q: str) -> Example:
        return Example(letter * 16, index, {"q": q, "answer": letter})

    def with_rows(*rows: Example) -> Evaluation:
        return evaluation([dataclasses.replace(result(row.index), example=row) for row in rows])

    before = with_rows(example("a", 0, "one?"), example("b", 1, "two?"), example("c", 2, "three?"))
    baseline = Lock.of("s", before, prices={}, fingerprints={}, key=key)
    rows = [example("a", 5, "one?"), example("d", 6, "two?"), example("e", 7, "two?"), example("f", 8, "four?")]
    found = match(rows, baseline, key)
    assert {now[0]: old.id[0] for now, old in found.pairs.items()} == {"a": "a", "d": "b"}
    assert (found.added, found.removed, found.relabelled) == ((7, 8), (2,), (6,))
    assert not found.is_same
    assert found.changes() == "2 added (rows 7, 8), 1 removed (row 2), 1 relabelled (row 6)"
    by_id = match(rows, baseline)
    assert (by_id.added, by_id.removed, by_id.relabelled) == ((6, 7, 8), (1, 2), ())
    same = match([row.example for row in before.results], baseline, key)
    assert (same.is_same, same.changes()) == (True, "")


def test_many_changed_rows_are_counted_and_the_first_five_named() -> None:
    assert Population({}, added=(9, 3, 5, 1, 7)).changes() == "5 added (rows 1, 3, 5, 7, 9)"
    assert Population({}, removed=(9, 3, 5, 1, 7, 2)).changes() == "6 removed (rows 1, 2, 3, 5, 7, ...)"
    assert not Population({}, removed=(1,)).is_same
    assert Population({}, relabelled=(1,)).is_same


def test_without_the_part_of_the_baseline_nothing_of_it_is_judged() -> None:
    """Everything else stays."""
    limits = (Limit("success", "min", Decimal(1)),)
    criteria = Criteria("success", "min", limits, 0.1, True, 0.05, 0.2, 0.3, max_unknown=4, group_by="t")
    assert (criteria.judges_drops, criteria.judges_cost) == (True, True)
    bare = criteria.against_nothing()
    assert bare == Criteria("success", "min", limits, max_unknown=4, group_by="t")
    assert (bare.judges_drops, bare.judges_cost) == (False, False)
    assert [Criteria(**{name: value}).judges_drops for name, value in (("strict", True), ("alpha", 0.1))] == [True] * 2


# the worst row


def rates(*values: float | None, groups: str = "") -> Evaluation:
    """Rows whose own rates are these; the suite's is the lowest."""
    rows = [
        result(i, value, row={"q": str(i), "t": groups[i : i + 1]}, metrics={"row_rate": value or 0.0})
        for i, value in enumerate(values)
    ]
    found = evaluation(rows)
    return dataclasses.replace(found, metrics={**found.metrics, "row_rate": min(v for v in values if v is not None)})


@pytest.mark.parametrize(
    ("values", "limit", "ending"),
    [
        ((0.5, 1.0, 0.25), "0.6", "row_rate 0.25 is below min_row_rate 0.6: row 2 (0.25), row 0 (0.5)"),
        ((0.5, 0.1, 0.3), "0.6", ": row 1 (0.1), row 2 (0.3), row 0 (0.5)"),
        ((0.5, 0.1, 0.3, 0.4), "0.6", ": row 1 (0.1), row 2 (0.3), row 3 (0.4) and 1 more"),
        ((0.5, None, 0.6, 0.9), "0.6", ": row 0 (0.5)"),
        ((0.6, 1.0), "0.6", "row_rate 0.6 is at least min_row_rate 0.6"),
    ],
)
def test_rows_below_a_limit_on_each_row_are_named_from_the_worst(
    values: tuple[float | None, ...], limit: str, ending: str
) -> None:
    """Counted from 1, three at most; what is unknown, or just at the limit, is not below it."""
    criteria = Criteria(limits=(Limit("row_rate", "min", Decimal(limit)),), max_unknown=1)
    assert judge(rates(*values), criteria).gates[0].sentence.endswith(ending)


def test_the_worst_row_of_a_group_is_held_against_the_groups_limit() -> None:
    """Its minimum, whatever the suite's aggregate; only rows of the group are named."""
    limit = Limit("row_rate", "min", Decimal("0.6"), "b")
    [gate] = judge(rates(0.1, 0.5, 1.0, groups="abb"), Criteria(limits=(limit,), group_by="t")).gates
    assert gate.sentence == "row_rate of t = b 0.5 is below min_row_rate 0.6: row 1 (0.5)"
    assert (gate.value, gate.passed) == (0.5, False)


def test_what_does_not_pass_has_reasons() -> None:
    """What is stale, else the gates that failed, else the problem; never nothing."""
    gates = tuple(Gate(f"min_{word}", word, word == "good", 1.0, 1.0, f"it is {word}") for word in ("good", "bad"))
    stale = (Stale("the prompt changed", "--llm-accept"), Stale("the grader changed", "--llm-accept"))
    assert Verdict("stale", "m", gates, stale=stale).reasons == ("the prompt changed", "the grader changed")
    assert Verdict("failed", "m", gates).reasons == ("it is bad",)
    assert Verdict("error", "m", problem="no lock file").reasons == ("no lock file",)
    assert Verdict("inconclusive", "m").reasons == ("no example could be measured",)
