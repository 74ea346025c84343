"""Gates at their edges: what is a gate at all, what a shard may say, what a note counts."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from support.results import evaluation, lock, result, scores

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.guard.gates import judge, unjudged
from pytest_llmtune.guard.rows import RowColumns
from pytest_llmtune.guard.verdict import Criteria, Limit, Outcome, Stale
from pytest_llmtune.types import ShardFacts

if TYPE_CHECKING:
    from pytest_llmtune.guard.verdict import Verdict


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
