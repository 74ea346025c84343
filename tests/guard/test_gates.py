"""The verdict: every gate with both numbers, flips in both directions, and a status that can be trusted."""

from __future__ import annotations

import dataclasses
import json
import statistics
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.results import evaluation, lock, result, scores

from pytest_llmtune._util.serialize import from_plain, to_plain
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.guard.gates import judge
from pytest_llmtune.guard.verdict import Criteria, Limit, Outcome, Stale, Verdict, criteria_of, excerpt, limits_of
from pytest_llmtune.suite import Suite
from pytest_llmtune.suite.keys import parse
from pytest_llmtune.types import Interval


def at_least(limit: str, metric: str = "success_vote", group: str | None = None) -> Limit:
    return Limit(metric, "min", Decimal(limit), group)


def at_most(limit: str, metric: str = "success_vote") -> Limit:
    return Limit(metric, "max", Decimal(limit))


def sentence(verdict: Verdict, gate: str) -> str:
    (found,) = [one.sentence for one in verdict.gates if one.name == gate]
    return found


@pytest.mark.parametrize(
    ("limit", "passed", "text"),
    [
        (at_least("0.75"), True, "success_vote 0.75 is at least min_success_vote 0.75"),
        (at_least("0.76"), False, "success_vote 0.75 is below min_success_vote 0.76"),
        (at_most("0.75"), True, "success_vote 0.75 is within max_success_vote 0.75"),
        (at_most("0.7"), False, "success_vote 0.75 is over max_success_vote 0.7"),
        (at_least("0.7500001"), False, "success_vote 0.75 is below min_success_vote 0.7500001"),
        (
            *limits_of([], Decimal("0.00003")),
            True,
            "inference_cost $0.00003 per instance is within inference_budget $0.00003",
        ),
        (
            *limits_of([parse("max_inference_cost", "0.000029")], Decimal(1)),
            False,
            "inference_cost $0.00003 per instance is over max_inference_cost $0.000029",
        ),
    ],
)
def test_a_limit_is_held_to_the_digit(limit: Limit, passed: bool, text: str) -> None:
    """At the limit passes, past it fails, and the sentence holds both numbers with the digits that tell them apart."""
    verdict = judge(scores(1, 1, 1, 0), Criteria(limits=(limit,)))
    assert verdict.status == ("passed" if passed else "failed")
    assert verdict.passed is passed
    assert [gate.sentence for gate in verdict.gates] == [text]
    assert verdict.gates[0].limit == float(limit.limit)
    assert verdict.failed_gates == (() if passed else verdict.gates)


def test_a_suites_thresholds_become_limits() -> None:
    """One limit for each group; the budget is the cost limit only where no own one is given."""
    thresholds = [parse("min_success_vote", {"geometry": 0.7, 3: 0.5}), parse("max_latency", 2)]
    assert limits_of(thresholds, Decimal(1)) == (
        at_least("0.7", group="geometry"),
        at_least("0.5", group="3"),
        at_most("2", "latency"),
        Limit("inference_cost", "max", Decimal(1), key="inference_budget"),
    )
    own = parse("max_inference_cost", 2)
    assert limits_of([own], Decimal(1)) == (at_most("2", "inference_cost"),)


def test_a_suites_keys_become_criteria() -> None:
    """Every key that a verdict depends on is passed on."""
    suite = Suite(
        name="algebra",
        dataset=[{"problem": "1 + 1?", "answer": "2"}],
        prompt="{problem}",
        model="m",
        grader="exact",
        metric="success",
        mode="min",
        inference_budget=0.004,
        min_success=0.5,
        max_drop=0.02,
        alpha=0.01,
        max_unknown=3,
        group_by="problem",
        allow_vacuous=True,
    )
    limits = (at_least("0.5", "success"), Limit("inference_cost", "max", Decimal("0.004"), key="inference_budget"))
    assert criteria_of(suite, reused=True) == Criteria(
        "success", "min", limits, 0.02, 0.01, 3, "problem", reused=True, allow_vacuous=True
    )


def test_dollars_are_compared_exactly() -> None:
    """A limit passed by the least part of a cent is passed; means of floats are given the rounding of floats."""
    today = scores(1)
    exact = today.inference_cost
    for limit, passed in ((exact, True), (exact - Decimal("1e-25"), False)):
        assert judge(today, Criteria(limits=limits_of([], limit))).passed is passed
    shares = evaluation([result(i, value) for i, value in enumerate((0.1, 0.1, 0.7))])
    assert judge(shares, Criteria(limits=(at_most("0.3"), at_least("0.3")))).passed


def test_the_runs_cost_can_be_limited() -> None:
    """max_cost is about the dollars that this run really spent."""
    today = dataclasses.replace(scores(1), cost=Decimal("0.50"))
    verdict = judge(today, Criteria(limits=(at_most("0.4", "cost"),)))
    assert [gate.sentence for gate in verdict.failed_gates] == ["cost $0.50 is over max_cost $0.40"]


def test_groups_can_have_cost_limits() -> None:
    """Dollars per instance are means over the rows of the group."""
    today = evaluation([result(0, row={"t": "a", "q": "x"}), result(1, row={"t": "b", "q": "y"})])
    limit = Limit("inference_cost", "max", Decimal("0.00003"), "a")
    assert judge(today, Criteria(limits=(limit,), group_by="t")).gates[0].sentence == (
        "inference_cost of t = a $0.00003 per instance is within max_inference_cost $0.00003"
    )


def test_a_failing_gate_hides_no_other() -> None:
    """Every gate is judged and listed, whatever failed before it."""
    criteria = Criteria(
        limits=(at_least("0.9"), at_least("0.2", "success"), *limits_of([], Decimal("0.00001"))), max_drop=0.1
    )
    verdict = judge(scores(1, 0), criteria, lock(scores(1, 1)))
    assert [(gate.name, gate.passed) for gate in verdict.gates] == [
        ("max_drop", False),
        ("min_success_vote", False),
        ("min_success", True),
        ("inference_budget", False),
    ]


@pytest.mark.parametrize(
    ("before", "now", "max_drop", "passed", "text"),
    [
        (17, 17, 0.0, True, "success_vote did not change: 0.85; max_drop allows 0"),
        (17, 18, 0.0, True, "success_vote rose from 0.85 to 0.9; max_drop allows 0"),
        (18, 17, 0.05, True, "success_vote fell from 0.9 to 0.85, a drop of 0.05; max_drop allows 0.05"),
        (18, 16, 0.05, False, "success_vote fell from 0.9 to 0.8, a drop of 0.1; max_drop allows 0.05"),
        (18, 17, 0.0, False, "success_vote fell from 0.9 to 0.85, a drop of 0.05; max_drop allows 0"),
    ],
)
def test_a_drop_is_absolute_and_exact(before: int, now: int, max_drop: float, passed: bool, text: str) -> None:
    """A drop of just max_drop is allowed, although floats make 0.9 - 0.85 a little more than 0.05."""
    baseline = lock(scores(*[1] * before, *[0] * (20 - before)))
    verdict = judge(scores(*[1] * now, *[0] * (20 - now)), Criteria(max_drop=max_drop), baseline)
    assert (verdict.passed, sentence(verdict, "max_drop")) == (passed, text)


def test_a_metric_to_be_minimised_drops_upwards() -> None:
    """With mode min, a rise is the drop and a lower value is a gain."""
    criteria = Criteria(metric="errors", mode="min", max_drop=0.1)
    few = evaluation([result(i, metrics={"errors": value}) for i, value in enumerate((0.0, 2.0, 1.0))])
    many = evaluation([result(i, metrics={"errors": value}) for i, value in enumerate((1.0, 1.0, 4.0))])
    worse = judge(many, criteria, lock(few))
    assert sentence(worse, "max_drop") == "errors rose from 1 to 2, a drop of 1; max_drop allows 0.1"
    assert [(flip.index, flip.direction) for flip in worse.flips] == [(0, "lost"), (2, "lost"), (1, "gained")]
    assert judge(few, criteria, lock(many)).passed


def test_with_alpha_a_drop_counts_only_when_it_is_significant() -> None:
    """Three losses of three are p = 0.25, which may be chance; eight of eight are not."""
    baseline = lock(scores(*[1] * 20))
    criteria = Criteria(max_drop=0.02, alpha=0.05)
    chance = judge(scores(*[0] * 3, *[1] * 17), criteria, baseline)
    assert chance.passed
    assert chance.p_value == pytest.approx(0.25)
    assert sentence(chance, "max_drop").endswith("(exact McNemar p = 0.25, not below alpha = 0.05)")
    real = judge(scores(*[0] * 8, *[1] * 12), criteria, baseline)
    assert real.status == "failed"
    assert sentence(real, "max_drop").endswith("(exact McNemar p = 0.0078, below alpha = 0.05)")


def test_alpha_alone_allows_no_significant_drop() -> None:
    """alpha without max_drop is a gate of its own, with an allowance of 0."""
    verdict = judge(scores(*[0] * 8, *[1] * 12), Criteria(alpha=0.05), lock(scores(*[1] * 20)))
    assert [gate.name for gate in verdict.failed_gates] == ["max_drop"]


def test_flips_tell_both_directions_with_votes_and_answers() -> None:
    """A flip holds question, vote counts and voted answers of both sides; what was lost comes first."""
    before = evaluation([result(0, 0, answer="41", votes=3), result(1, 1, answer="42", votes=5), result(2, 1)])
    now = evaluation([result(0, 1, answer="42", votes=4), result(1, 0, answer="9", votes=2), result(2, 1)])
    verdict = judge(now, Criteria(), lock(before))
    lost, gained = verdict.flips
    assert (lost.direction, lost.index, lost.question) == ("lost", 1, "What is 1 + 1?")
    assert (lost.before, lost.now) == (Outcome(1, "42", 5, 5), Outcome(0, "9", 2, 5))
    assert (gained.direction, gained.index, gained.before.votes, gained.now.votes) == ("gained", 0, 3, 4)
    assert verdict.p_value == 1.0


def test_an_answer_that_vanished_is_no_vote() -> None:
    """Where no answer could be read any more, there is none to show, and no votes."""
    verdict = judge(evaluation([result(0, 0, answer=None)]), Criteria(), lock(scores(1)))
    assert verdict.flips[0].now == Outcome(0, None, 0, 5)


def test_unchanged_results_flip_nothing() -> None:
    """Uneven shares are compared as the lock file keeps them: rounding is no flip."""
    same = evaluation([result(i, 1 / 3, metrics={"expected_success": 1 / 7}) for i in range(3)])
    verdict = judge(same, Criteria(metric="expected_success", max_drop=0), lock(same))
    assert (verdict.flips, verdict.passed, verdict.p_value) == ((), True, 1.0)


def test_changed_rows_are_compared_where_both_sides_know_them() -> None:
    """New and vanished rows cannot make a drop; the note says what was compared."""
    before = evaluation([result(i, 1) for i in range(4)])
    now = evaluation([result(i, 1) for i in range(1, 4)] + [result(i, 0) for i in range(10, 13)])
    verdict = judge(now, Criteria(max_drop=0.02), lock(before))
    assert verdict.passed
    assert (verdict.baseline, verdict.compared, verdict.value) == (1.0, 3, 0.5)
    assert "since the baseline 3 examples came and 1 went; compared over the 3 that both have" in verdict.notes


@pytest.mark.parametrize(
    ("before", "now", "note"),
    [
        (range(3), range(4), "since the baseline 1 example came and 0 went"),
        (range(4), range(3), "since the baseline 0 examples came"),
    ],
)
def test_rows_only_added_or_only_gone_are_said_too(before: range, now: range, note: str) -> None:
    """One kind of change is enough for the note."""
    verdict = judge(evaluation(list(map(result, now))), Criteria(), lock(evaluation(list(map(result, before)))))
    assert any(text.startswith(note) for text in verdict.notes)


def test_a_baseline_that_shares_no_row_is_stale() -> None:
    """A drop that cannot be judged must not pass: the baseline needs to be accepted anew."""
    baseline = lock(scores(1, 1))
    verdict = judge(evaluation([result(9, 0)]), Criteria(max_drop=0.02), baseline)
    assert (verdict.status, verdict.baseline, verdict.p_value, verdict.flips) == ("stale", None, None, ())
    assert verdict.stale == (
        Stale("the baseline has no example with success_vote in common with today", "--llm-accept"),
    )
    assert judge(evaluation([result(9, 0)]), Criteria(), baseline).passed


def test_unknown_examples_are_neither_right_nor_wrong() -> None:
    """Up to max_unknown of them are left out of every figure; more make the verdict inconclusive, which fails."""
    today, baseline = scores(1, 1, None, None), lock(scores(1, 1, 1, 1))
    allowed = judge(today, Criteria(max_drop=0, max_unknown=2, limits=(at_least("1"),)), baseline)
    assert (allowed.status, allowed.compared, allowed.flips) == ("passed", 2, ())
    refused = judge(today, Criteria(max_drop=0, max_unknown=1), baseline)
    assert (refused.status, refused.passed) == ("inconclusive", False)
    assert sentence(refused, "max_unknown") == "2 of 4 examples have no answer; max_unknown allows 1"


def test_nothing_known_is_inconclusive_whatever_is_allowed() -> None:
    """A run in which no example was completed can never pass."""
    verdict = judge(scores(None, None), Criteria(max_unknown=5, limits=(at_least("0.1"),)))
    assert (verdict.status, verdict.value) == ("inconclusive", None)
    assert judge(evaluation([]), Criteria()).status == "inconclusive"


def test_an_outage_is_no_reason_to_accept() -> None:
    """Nothing, or nothing that the baseline has, could be completed: inconclusive, and not a baseline to be replaced."""
    baseline = lock(scores(1, None, 1))
    for today in (scores(None, None, None), scores(None, 1, None)):
        verdict = judge(today, Criteria(max_drop=0, max_unknown=1), baseline)
        assert (verdict.status, verdict.stale) == ("inconclusive", ())
        assert not any("no gate" in note for note in verdict.notes)


def test_an_inconclusive_run_still_shows_what_failed() -> None:
    """The gates are judged over what is known."""
    verdict = judge(scores(0, 0, None), Criteria(limits=(at_least("0.5"),)))
    assert verdict.status == "inconclusive"
    assert [gate.name for gate in verdict.failed_gates] == ["min_success_vote", "max_unknown"]


def test_stale_wins_over_every_figure() -> None:
    """Numbers of another grader are no fact: the status is stale, though the flips are shown."""
    reasons = [Stale("the grader changed", "--llm-accept")]
    verdict = judge(scores(1, 0), Criteria(max_drop=0.02), lock(scores(1, 1)), stale=reasons)
    assert (verdict.status, verdict.stale, len(verdict.flips)) == ("stale", tuple(reasons), 1)


def test_a_suite_that_could_not_be_measured_is_stale() -> None:
    """Without an evaluation there is no gate, only the reason."""
    verdict = judge(None, Criteria(), stale=[Stale("3 of 3 requests have no recording", "--llm-record=missing")])
    assert (verdict.status, verdict.gates, verdict.value) == ("stale", (), None)


def test_groups_have_their_own_limits() -> None:
    """A threshold per group is judged over the rows of that group alone."""
    rows = [("algebra", 1.0), ("algebra", 1.0), ("geometry", 1.0), ("geometry", 0.0)]
    today = evaluation([result(i, score, row={"topic": topic, "q": str(i)}) for i, (topic, score) in enumerate(rows)])
    criteria = Criteria(limits=(at_least("0.7", group="geometry"), at_least("0.9", group="algebra")), group_by="topic")
    verdict = judge(today, criteria)
    assert [(gate.name, gate.passed) for gate in verdict.gates] == [
        ("min_success_vote[geometry]", False),
        ("min_success_vote[algebra]", True),
    ]
    assert verdict.gates[0].sentence == "success_vote of topic = geometry 0.5 is below min_success_vote 0.7"


def test_a_group_that_is_not_in_the_data_is_an_error() -> None:
    """A misspelt group cannot pass silently; the message lists the groups there are."""
    today = evaluation([result(0, row={"topic": "algebra", "q": "x"})])
    with pytest.raises(SuiteError, match=r"no example has topic = 'geometri'.*the groups are algebra"):
        judge(today, Criteria(limits=(at_least("0.7", group="geometri"),), group_by="topic"))


def test_a_metric_the_grader_does_not_give_is_an_error() -> None:
    """A gate on a metric that is not there cannot pass silently; the message lists what there is."""
    with pytest.raises(
        SuiteError, match=r"no metric 'sucess'.*expected_success, inference_cost, success, success_vote"
    ):
        judge(scores(1), Criteria(limits=(at_least("0.7", "sucess"),)))


def test_the_interval_is_that_of_the_tuned_metric() -> None:
    """The verdict passes on the evaluation's own interval."""
    assert judge(scores(1, 0), Criteria()).interval == Interval(0.4, 0.6)


@pytest.mark.parametrize(
    ("criteria", "note"),
    [
        (Criteria(reused=True, limits=(at_least("0"),)), "the guard uses the rows the configuration was tuned on"),
        (Criteria(allow_vacuous=True), "allow_vacuous: the grader accepts answers that say nothing"),
        (Criteria(), "no gate: nothing can fail"),
        (Criteria(max_drop=0.1), "no baseline yet: max_drop was not judged"),
    ],
)
def test_what_weakens_a_verdict_is_said(criteria: Criteria, note: str) -> None:
    """A reader is told what the figures do not show."""
    assert any(text.startswith(note) for text in judge(scores(1), criteria).notes)


@pytest.mark.parametrize(
    ("examples", "max_drop", "alpha", "note"),
    [
        (20, 0.02, None, "20 examples: too few to tell a drop of 0.02 from chance; the smallest that can is 0.3"),
        (20, 0.02, 0.001, "20 examples: too few to tell a drop of 0.02 from chance; the smallest that can is 0.55"),
        (1, 0.5, None, "1 example: too few to tell a drop of 0.5 from chance; no drop can"),
        (20, 0.3, None, None),
        (400, 0.02, None, None),
    ],
)
def test_too_few_data_to_tell_the_drop_is_said(
    examples: int, max_drop: float, alpha: float | None, note: str | None
) -> None:
    """Where even losses alone could not be told from chance, a plain sentence says which drop could."""
    same = scores(*[1] * examples)
    verdict = judge(same, Criteria(max_drop=max_drop, alpha=alpha), lock(same))
    assert verdict.notes == ((note,) if note else ())


def test_own_aggregates_judge_both_sides() -> None:
    """With a median, limits per group and the drop are medians too."""
    before = evaluation([result(i, value) for i, value in enumerate((0.2, 0.8, 0.9))])
    now = evaluation([result(i, value) for i, value in enumerate((0.0, 0.8, 1.0))])
    verdict = judge(now, Criteria(max_drop=0.0), lock(before), aggregate=statistics.median)
    assert (verdict.passed, verdict.baseline) == (True, 0.8)


def test_a_figure_that_is_no_number_passes_no_gate() -> None:
    """A grader that returns NaN cannot slip through a comparison, whichever way the limit points."""
    today = evaluation([result(0, metrics={"share": float("nan")})])
    before = evaluation([result(0, metrics={"share": 1.0})])
    criteria = Criteria("share", limits=(at_least("0.1", "share"), at_most("0.9", "share")), max_drop=0.5)
    verdict = judge(today, criteria, lock(before))
    assert [gate.passed for gate in verdict.gates] == [False, False, False]
    assert str(from_plain(Verdict, to_plain(verdict))) == str(verdict)


outcomes = st.lists(st.tuples(st.sampled_from([0.0, 1.0, None]), st.sampled_from([0.0, 1.0, None])), min_size=1)


@given(outcomes, st.floats(0, 1))
def test_a_verdict_agrees_with_its_own_flips(pairs: list[tuple[Any, Any]], max_drop: float) -> None:
    """The drop is the difference of losses and gains over the examples compared, and decides alone."""
    before, now = zip(*pairs, strict=True)
    both = [(old, new) for old, new in pairs if old is not None and new is not None]
    verdict = judge(scores(*now), Criteria(max_drop=max_drop, max_unknown=len(pairs)), lock(scores(*before)))
    lost = sum(flip.direction == "lost" for flip in verdict.flips)
    gained = len(verdict.flips) - lost
    assert (lost, gained) == (sum(o > n for o, n in both), sum(o < n for o, n in both))
    assert verdict.compared == len(both)
    if both:
        assert verdict.passed is ((lost - gained) / len(both) <= max_drop + 1e-9)


def test_a_verdict_crosses_processes_as_json() -> None:
    """Criteria and verdict survive JSON, gates with all digits of their amounts."""
    criteria = Criteria(
        limits=(at_least("0.7", group="x"), *limits_of([], Decimal("0.0000010"))), max_drop=0.1, group_by="g"
    )
    today = evaluation([result(i, i % 2, row={"g": "x", "q": "?"}) for i in range(4)])
    verdict = judge(today, criteria, lock(scores(1, 1)), stale=[Stale("a", "b")], notes=["c"])
    assert from_plain(Verdict, json.loads(json.dumps(to_plain(verdict)))) == verdict
    assert from_plain(Criteria, json.loads(json.dumps(to_plain(criteria)))) == criteria


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"id": "7", "question": "Why?\n  So."}, "Why? So."),
        ({"answer": 3, "frage": "Warum?"}, "Warum?"),
        ({"answer": 3}, ""),
        ({"text": "  ", "title": "T"}, "T"),
        ({"번호": "1", "문의": "컵이 깨졌어요", "분류": "불만"}, "컵이 깨졌어요"),
        ({"text": "x" * 1_000_000}, "x" * 300),
    ],
)
def test_an_excerpt_is_what_was_asked(row: dict[str, Any], text: str) -> None:
    """The column that usually holds the question, else the longest text; on one line, cut."""
    assert excerpt(row) == text
