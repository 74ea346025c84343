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
from support.results import COLUMNS, evaluation, lock, result, scores

from pytest_llmtune._util.serialize import from_plain, to_plain
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.guard.gates import judge
from pytest_llmtune.guard.rows import RowColumns
from pytest_llmtune.guard.verdict import Criteria, Limit, Outcome, Stale, Verdict, criteria_of, limits_of, match
from pytest_llmtune.suite import Suite
from pytest_llmtune.suite.keys import parse_threshold
from pytest_llmtune.types import Evaluation, ExampleResult, Interval, ModelCall, TaskRun


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
            "inference_cost $0.03 is within inference_budget $0.03 per 1,000 instances",
        ),
        (
            *limits_of([parse_threshold("max_inference_cost", "0.000029")], Decimal(1)),
            False,
            "inference_cost $0.03 is over max_inference_cost $0.029 per 1,000 instances",
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
    thresholds = [parse_threshold("min_success_vote", {"geometry": 0.7, 3: 0.5}), parse_threshold("max_latency", 2)]
    assert limits_of(thresholds, Decimal(1)) == (
        at_least("0.7", group="geometry"),
        at_least("0.5", group="3"),
        at_most("2", "latency"),
        Limit("inference_cost", "max", Decimal(1), key="inference_budget"),
    )
    own = parse_threshold("max_inference_cost", 2)
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
        max_cost_rise=0.25,
        max_unknown=3,
        group_by="problem",
        allow_vacuous=True,
    )
    limits = (at_least("0.5", "success"), Limit("inference_cost", "max", Decimal("0.004"), key="inference_budget"))
    assert criteria_of(suite, reused=True) == Criteria(
        "success",
        "min",
        limits,
        max_drop=0.02,
        alpha=0.01,
        max_cost_rise=0.25,
        max_new_cost_rise=0.25,
        max_unknown=3,
        group_by="problem",
        reused=True,
        allow_vacuous=True,
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, Criteria(strict=True, alpha=0.05, max_cost_rise=0.0, max_new_cost_rise=0.1)),
        ({"max_drop": None}, Criteria(max_cost_rise=0.0, max_new_cost_rise=0.1)),
        ({"max_drop": None, "alpha": 0.01}, Criteria(alpha=0.01, max_cost_rise=0.0, max_new_cost_rise=0.1)),
        ({"max_drop": 0.1}, Criteria(max_drop=0.1, alpha=0.05, max_cost_rise=0.0, max_new_cost_rise=0.1)),
        ({"max_drop": 0.1, "alpha": None}, Criteria(max_drop=0.1, max_cost_rise=0.0, max_new_cost_rise=0.1)),
        ({"max_cost_rise": None}, Criteria(strict=True, alpha=0.05)),
        ({"max_cost_rise": 0}, Criteria(strict=True, alpha=0.05, max_cost_rise=0.0, max_new_cost_rise=0.0)),
    ],
)
def test_a_suite_is_gated_unless_it_opts_out(keys: dict[str, Any], expected: Criteria) -> None:
    """What is not given has a default that can fail; an explicit None is the only way around it."""
    suite = Suite(name="s", dataset=[{"q": "1", "answer": "2"}], prompt="{q}", model="m", grader="exact", **keys)
    assert criteria_of(suite, reused=False) == expected


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
        "inference_cost of t = a $0.03 is within max_inference_cost $0.03 per 1,000 instances"
    )


def test_a_groups_cost_is_a_mean_over_the_rows_that_are_known() -> None:
    """An example that could not be completed cost nothing that is known: it does not make the others cheaper."""
    rows = [("a", 1.0, "0.00004"), ("a", 0.0, "0.00002"), ("a", None, "0"), ("b", 1.0, "0.00009"), ("b", None, "0")]
    today = evaluation(
        [
            dataclasses.replace(result(i, score, row={"t": group, "q": str(i)}), cost=Decimal(cost))
            for i, (group, score, cost) in enumerate(rows)
        ]
    )
    limits = tuple(Limit("inference_cost", "max", Decimal("0.000025"), group) for group in "ab")
    verdict = judge(today, Criteria(limits=limits, group_by="t", max_unknown=2))
    assert [(gate.value, gate.passed) for gate in verdict.gates[:2]] == [(0.00003, False), (0.00009, False)]


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
    assert sentence(worse, "max_drop") == "errors rose from 1 to 2, worse by 1; max_drop allows 0.1"
    assert [(flip.index, flip.direction) for flip in worse.flips] == [(0, "lost"), (2, "lost"), (1, "gained")]
    assert judge(few, criteria, lock(many)).passed


@pytest.mark.parametrize(
    ("lost", "max_drop", "passed", "ending"),
    [
        (3, None, True, ": not more than chance (exact McNemar p = 0.25, not below alpha = 0.05)"),
        (8, None, False, ": more than chance (exact McNemar p = 0.0078, below alpha = 0.05)"),
        (
            3,
            0.02,
            False,
            ": more than max_drop 0.02, though not more than chance (exact McNemar p = 0.25, not below alpha",
        ),
        (8, 0.02, False, ": more than max_drop 0.02, and more than chance (exact McNemar p = 0.0078, below alpha"),
        (
            8,
            0.5,
            False,
            ": more than chance (exact McNemar p = 0.0078, below alpha = 0.05), though max_drop allows 0.5",
        ),
        (3, 0.5, True, "; max_drop allows 0.5; not more than chance (exact McNemar p = 0.25, not below alpha = 0.05)"),
    ],
)
def test_a_drop_over_new_answers_is_chance_or_is_not(
    lost: int, max_drop: float | None, passed: bool, ending: str
) -> None:
    """Three losses of three are p = 0.25, which may be chance; eight of eight are not. Which rule was broken is said."""
    criteria = Criteria(max_drop=max_drop, strict=max_drop is None, alpha=0.05)
    verdict = judge(scores(*[0] * lost, *[1] * (20 - lost)), criteria, lock(scores(*[1] * 20)))
    assert verdict.passed is passed
    assert ending in sentence(verdict, "max_drop")
    assert verdict.p_value == pytest.approx(2 * 0.5**lost)


def test_over_recorded_answers_one_lost_row_is_no_chance() -> None:
    """The answers did not change, so something else did: a code change fails by default, however few rows it costs."""
    same = ["So it is \\boxed{42}."] * 5
    before, now = scores(*[1] * 20, responses=same), scores(0, *[1] * 19, responses=same)
    verdict = judge(now, Criteria(strict=True, alpha=0.05), lock(before))
    assert verdict.status == "failed"
    assert sentence(verdict, "max_drop") == (
        "success_vote fell from 1 to 0.95, a drop of 0.05; "
        "by default no drop is allowed where the answers are the recorded ones"
    )
    assert judge(now, Criteria(max_drop=0.05, alpha=0.05), lock(before)).passed
    opted_out = judge(now, Criteria(), lock(before))
    assert opted_out.passed
    assert "not gated against the baseline (max_drop=None): a drop of success_vote cannot fail" in opted_out.notes


def _task_runs(*runs: str) -> tuple[TaskRun, ...]:
    """Runs of a task with one call for each letter, whose answer the letter is."""
    return tuple(
        TaskRun(number, "", calls=tuple(ModelCall(index, "m", digest=letter) for index, letter in enumerate(calls, 1)))
        for number, calls in enumerate(runs, 1)
    )


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        (["ab"], ["ab"], False),
        (["ab"], ["a"], False),  # a call less asks nobody anew
        (["ab"], [""], False),
        (["ab"], ["ac"], True),
        (["ab"], ["aab"], True),
        ([""], [""], True),  # what it calls is not seen
        (["ab", "ac"], ["ac", "ab"], False),
        (["ab", "ac"], ["ab", "ad"], True),
        (["ab", "ac"], ["", ""], False),
        (["ab", "ac"], ["ab"], True),
        (["ab"], ["ab", "ab"], True),
    ],
)
def test_a_tasks_answers_are_new_if_one_of_its_calls_is(before: list[str], now: list[str], new: bool) -> None:
    """What it returns is no answer of a model: another result of the same calls is a change of code, and no chance."""
    texts = {"responses": ["old"] * len(before)}, {"responses": ["new"] * len(now)}
    old = [dataclasses.replace(result(i, **texts[0]), runs=_task_runs(*before)) for i in range(20)]
    lost = dataclasses.replace(result(0, 0, **texts[1]), runs=_task_runs(*now))
    verdict = judge(evaluation([lost, *old[1:]]), Criteria(strict=True, alpha=0.05), lock(evaluation(old)))
    assert verdict.passed is new
    assert ("where the answers are the recorded ones" in sentence(verdict, "max_drop")) is not new


def test_new_answers_to_some_rows_do_not_excuse_the_others() -> None:
    """One row was recorded again; a row whose answers are the old ones was lost by the grader."""
    same = ["So it is \\boxed{42}."] * 5
    before = evaluation([result(i, responses=same) for i in range(20)])
    now = evaluation([result(0, 0, responses=["I refuse."]), result(1, 0, responses=same), *before.results[2:]])
    verdict = judge(now, Criteria(strict=True, alpha=0.05), lock(before))
    assert verdict.status == "failed"
    assert "though the answers to some rows did not change" in sentence(verdict, "max_drop")


def test_a_baseline_of_an_earlier_version_does_not_say_which_answers_it_saw() -> None:
    """Then the mode says it: replayed answers are taken for the same, answers from an endpoint for new ones."""
    old = lock(scores(*[1] * 20))
    old = dataclasses.replace(old, examples=tuple(dataclasses.replace(each, answers="") for each in old.examples))
    criteria, now = Criteria(strict=True, alpha=0.05), scores(0, *[1] * 19)
    assert judge(now, criteria, old).status == "failed"
    assert judge(now, criteria, old, fresh=True).passed


def test_alpha_alone_allows_no_significant_drop() -> None:
    """alpha without max_drop is a gate of its own, with an allowance of 0."""
    verdict = judge(scores(*[0] * 8, *[1] * 12), Criteria(alpha=0.05), lock(scores(*[1] * 20)))
    assert [gate.name for gate in verdict.failed_gates] == ["max_drop"]


def test_a_significant_rise_passes_whatever_alpha() -> None:
    """The p-value is two-sided; eight rows gained of eight are p = 0.0078, and no drop."""
    verdict = judge(scores(*[1] * 20), Criteria(strict=True, alpha=0.05), lock(scores(*[0] * 8, *[1] * 12)))
    assert verdict.passed
    assert verdict.p_value == pytest.approx(2 * 0.5**8)
    assert "p =" not in sentence(verdict, "max_drop")


@pytest.mark.parametrize(("passed", "word"), [(True, "passes"), (False, "fails")])
def test_a_gate_decided_early_has_the_outcome_on_all_rows(passed: bool, word: str) -> None:
    """Whatever the rows so far say; other gates are judged by them."""
    limits = at_least("0.5"), at_least("0.7")
    verdict = judge(
        scores(1, 1, 0), Criteria(max_drop=0.1, limits=limits), lock(scores(1, 1, 1)), decided={"max_drop": passed}
    )
    assert [gate.passed for gate in verdict.gates] == [passed, True, False]
    assert sentence(verdict, "max_drop").endswith(f"; on all rows it {word}")
    assert "on all rows" not in verdict.gates[1].sentence


def test_a_rise_of_the_cost_fails_and_names_the_price() -> None:
    """The same answers at a higher price: the model and both prices are named; a new length of answers is given room."""
    before, criteria = scores(1, 1), Criteria(max_cost_rise=0.0, max_new_cost_rise=0.1)

    def dearer(share: str, **keys: Any) -> Evaluation:
        found = scores(1, 1, **keys)
        results = tuple(dataclasses.replace(one, cost=one.cost * Decimal(share)) for one in found.results)
        return dataclasses.replace(found, results=results, inference_cost=found.inference_cost * Decimal(share))

    prices = {"gpt-4o-mini": {"input": Decimal("0.15"), "output": Decimal("0.9")}}
    verdict = judge(dearer("1.5"), criteria, lock(before), prices=prices)
    assert verdict.status == "failed"
    assert sentence(verdict, "max_cost_rise") == (
        "inference_cost rose from $0.03 to $0.045 per 1,000 instances (+50 %); max_cost_rise allows 0 %: "
        "the output price of gpt-4o-mini changed from $0.60 to $0.90 per 1M tokens"
    )
    assert judge(dearer("1"), criteria, lock(before), prices=prices).passed
    assert judge(dearer("0.5"), criteria, lock(before), prices=prices).passed
    assert not judge(dearer("1.0001"), criteria, lock(before)).passed
    new = {"responses": ["Well, 42."]}
    assert judge(dearer("1.05", **new), criteria, lock(before)).passed
    too_much = judge(dearer("1.2", **new), criteria, lock(before))
    assert sentence(too_much, "max_cost_rise").endswith("max_cost_rise allows 10 %: the answers are new")
    assert judge(dearer("9"), Criteria(), lock(before)).passed


def test_flips_tell_both_directions_with_votes_and_answers() -> None:
    """A flip holds question, vote counts and voted answers of both sides; what was lost comes first."""
    before = evaluation([result(0, 0, answer="41", votes=3), result(1, 1, answer="42", votes=5), result(2, 1)])
    now = evaluation([result(0, 1, answer="42", votes=4), result(1, 0, answer="9", votes=2), result(2, 1)])
    verdict = judge(now, Criteria(), lock(before), columns=COLUMNS)
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


def test_added_and_removed_rows_make_the_baseline_stale() -> None:
    """Another population has another score: it must be accepted; the rows that both have are compared all the same."""
    before = evaluation([result(i, 1) for i in range(4)])
    now = evaluation([result(i, 1) for i in range(1, 4)] + [result(i, 0) for i in range(10, 13)])
    verdict = judge(now, Criteria(max_drop=0.02), lock(before))
    reason = "the rows changed since the baseline: 3 added (rows 10, 11, 12), 1 removed (row 0)"
    assert (verdict.status, verdict.stale) == ("stale", (Stale(reason, "--llm-accept"),))
    assert (verdict.value, verdict.compared, verdict.before, verdict.now) == (0.5, 3, 1.0, 1.0)
    assert verdict.baseline is None  # it would stand beside a value over other rows
    assert [(gate.name, gate.passed) for gate in verdict.gates] == [("max_drop", True)]


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (range(3), range(4), "1 added (row 3)"),
        (range(4), range(3), "1 removed (row 3)"),
        (range(20), range(10), "10 removed (rows 10, 11, 12, 13, 14, ...)"),
    ],
)
def test_rows_only_added_or_only_removed_are_reported(before: range, now: range, reason: str) -> None:
    """One kind of change is enough, with or without a gate."""
    verdict = judge(evaluation(list(map(result, now))), Criteria(), lock(evaluation(list(map(result, before)))))
    assert verdict.stale == (Stale(f"the rows changed since the baseline: {reason}", "--llm-accept"),)


def relabelled(index: int, score: float) -> ExampleResult:
    """The same question with another reference, and so with another id."""
    made = result(index, score, row={"problem": f"What is {index} + {index}?", "answer": "other"})
    return dataclasses.replace(made, example=dataclasses.replace(made.example, id=f"f{index:015x}"))


def test_a_new_label_makes_no_new_row() -> None:
    """Rows are matched by what they ask: however many labels are edited, the fall of the score is seen."""
    baseline = lock(scores(*[1] * 20))
    now = evaluation([*(relabelled(i, 0) for i in range(18)), *(result(i) for i in range(18, 20))])
    population = match([one.example for one in now.results], baseline, COLUMNS.key)
    verdict = judge(now, Criteria(max_drop=0.05), baseline, population=population, columns=COLUMNS)
    assert (verdict.status, verdict.baseline, verdict.compared) == ("failed", 1.0, 20)
    assert sentence(verdict, "max_drop").startswith("success_vote fell from 1 to 0.1")
    assert any("18 relabelled (rows 0, 1, 2, 3, 4, ...)" in note for note in verdict.notes)
    assert (verdict.flips[0].question, verdict.flips[0].expected) == ("What is 0 + 0?", "other")


def test_rows_that_ask_the_same_are_matched_one_to_one() -> None:
    """Two rows may ask the same: each is paired once, the identical one first."""
    rows = [result(index, row={"problem": "?", "answer": str(index)}) for index in range(3)]
    baseline = lock(evaluation(rows[:2]))
    population = match([one.example for one in (rows[2], rows[1])], baseline, COLUMNS.key)
    assert {today: old.id for today, old in population.pairs.items()} == {
        rows[1].example.id: rows[1].example.id,
        rows[2].example.id: rows[0].example.id,
    }
    assert (population.added, population.removed, population.relabelled) == ((), (), (2,))


def test_too_few_shared_rows_are_inconclusive() -> None:
    """A comparison of two rows says nothing about forty: the gate is never ok, and the suite is stale anyway."""
    before = evaluation([result(i, 1) for i in range(40)])
    now = evaluation([result(i, 1) for i in range(38, 78)])
    verdict = judge(now, Criteria(max_drop=0.5), lock(before))
    (gate,) = verdict.gates
    assert (gate.passed, gate.conclusive, verdict.status) == (False, False, "stale")
    assert gate.sentence == (
        "success_vote cannot be compared with the baseline: today has 40 measured rows, and 2 of them are in the baseline too"
    )
    allowed = judge(scores(None, None, None, 1), Criteria(max_drop=0.5, max_unknown=3), lock(scores(1, 1, 1, 1)))
    assert (allowed.status, [gate.conclusive for gate in allowed.gates]) == ("inconclusive", [False, True])


def test_a_baseline_that_shares_no_row_is_stale() -> None:
    """A drop that cannot be judged must not pass: the baseline needs to be accepted anew."""
    baseline = lock(scores(1, 1))
    verdict = judge(evaluation([result(9, 0)]), Criteria(max_drop=0.02), baseline)
    assert (verdict.status, verdict.baseline, verdict.p_value, verdict.flips) == ("stale", None, None, ())
    assert [reason.option for reason in verdict.stale] == ["--llm-accept"]
    assert judge(evaluation([result(9, 0)]), Criteria(), baseline).status == "stale"


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
        (
            20,
            0.02,
            None,
            "20 examples: too few to tell a drop of 0.02 from chance; the smallest detectable drop is 0.3",
        ),
        (
            20,
            0.02,
            0.001,
            "20 examples: too few to tell a drop of 0.02 from chance; the smallest detectable drop is 0.55",
        ),
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
    verdict = judge(same, Criteria(max_drop=max_drop, alpha=alpha, max_cost_rise=0), lock(same))
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
    if 2 * len(both) >= max(sum(side is not None for side in sides) for sides in (before, now)) > 0:
        nothing_right = not any(score for score in now)
        assert verdict.passed is (not nothing_right and (lost - gained) / len(both) <= max_drop + 1e-9)


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
    ("asked", "row", "text"),
    [
        (("question",), {"id": "7", "question": "Why?\n  So.", "answer": "because it is so"}, "Why? So."),
        (("frage", "art"), {"answer": 3, "frage": "Warum?", "art": "W"}, "frage: Warum?; art: W"),
        (("text",), {"text": None, "title": "T"}, ""),
        (("문의",), {"번호": "1", "문의": "컵이 깨졌어요", "분류": "불만"}, "컵이 깨졌어요"),
        (("text",), {"text": "x" * 1_000_000}, "x" * 300),
        ((), {"n": 3}, "3"),
    ],
)
def test_a_question_is_what_the_prompt_uses(asked: tuple[str, ...], row: dict[str, Any], text: str) -> None:
    """The columns that the prompt names, however long the others are; on one line, cut."""
    assert RowColumns(asked).question(row) == text


def test_a_row_is_shown_with_the_columns_of_prompt_and_grader() -> None:
    """For a prompt that is a function, everything but the reference is asked."""
    columns, rows = ("q", "hint", "answer"), [{"q": "1", "hint": "h", "answer": "2"}]

    def found(prompt: Any) -> RowColumns:
        suite = Suite(name="s", dataset=rows, prompt=prompt, model="m", grader="exact")
        return RowColumns.of(suite, suite.space.templates[0], columns)

    assert found("{q}") == RowColumns(("q",), ("answer",))
    assert found("{hint}: {q}") == RowColumns(("q", "hint"), ("answer",))
    assert found(lambda row: row["q"]) == RowColumns(("q", "hint"), ("answer",))


@pytest.mark.parametrize(("mode", "score"), [("max", 0.0), ("min", 1.0)])
def test_the_worst_score_on_every_row_guards_nothing(mode: Any, score: float) -> None:
    """Nothing could get worse than that; the best score is fine, whichever it is."""
    criteria = Criteria(mode=mode, max_drop=0.05)
    verdict = judge(scores(score, score, score), criteria)
    assert verdict.status == "failed"
    assert f"success_vote is {score:g} on every row" in sentence(verdict, "any_success")
    best = 1 - score
    assert judge(scores(best, best, best), criteria).status == "passed"
    assert judge(scores(score, best, score), criteria).status == "passed"


def test_a_group_is_judged_over_its_rows_that_have_the_metric() -> None:
    """A grader may leave a metric out of some rows."""
    row = {"t": "a", "q": "1"}
    some = [
        result(0, row=row, metrics={"steps": 1.0}),
        result(1, row=row | {"q": "2"}),
        result(2, row=row | {"q": "3"}),
    ]
    found = dataclasses.replace(evaluation(some[:1]), results=tuple(some))
    verdict = judge(found, Criteria(limits=(at_least("1", "steps", group="a"),), group_by="t"))
    assert verdict.gates[0].sentence == "steps of t = a 1 is at least min_steps 1"


def _without(metric: str, one: ExampleResult) -> ExampleResult:
    """The row with a grade that lacks a metric."""
    assert one.grade is not None
    metrics = {name: value for name, value in one.grade.metrics.items() if name != metric}
    return dataclasses.replace(one, grade=dataclasses.replace(one.grade, metrics=metrics))


def test_a_metric_that_rows_no_longer_have_is_not_judged() -> None:
    """The grader gives none for the rows that were hard: the score of the others is no score, whichever gate looks at it."""
    same = ["So it is \\boxed{42}."] * 5
    before = evaluation([result(i, responses=same, metrics={"polite": 1.0}) for i in range(10)])
    criteria = Criteria(strict=True, alpha=0.05, limits=(at_least("0.9"), at_least("0.9", "polite")))
    now = evaluation([*before.results[:8], *(_without("success_vote", one) for one in before.results[8:])])
    verdict = judge(now, criteria, lock(before))
    assert verdict.status == "inconclusive"
    assert [gate.word for gate in verdict.gates] == ["not judged", "not judged", "ok"]
    for gate in ("max_drop", "min_success_vote"):
        ending = "; not judged: the grader gives no success_vote for rows 8, 9, which the baseline has"
        assert sentence(verdict, gate).endswith(ending)
    now = evaluation([*before.results[:9], _without("polite", before.results[9])])
    verdict = judge(now, criteria, lock(before))
    assert [gate.word for gate in verdict.gates] == ["ok", "ok", "not judged"]
    assert sentence(verdict, "min_polite").endswith("no polite for row 9, which the baseline has")
    assert judge(now, criteria, lock(before), accepted=True).passed
    assert judge(now, criteria, lock(now)).passed  # it never had one
    fallen = [result(0, 0, responses=same, metrics={"polite": 1.0}), *now.results[1:]]
    assert judge(evaluation(fallen), criteria, lock(before)).status == "failed"  # what is known to be worse


def test_the_cost_of_a_row_counts_whether_or_not_it_has_the_metric() -> None:
    """A row whose grade lacks the tuned metric is still paid for."""
    before = scores(1, 1, 1, 1)
    dear = dataclasses.replace(before.results[3], cost=Decimal("0.003"))
    now = evaluation([*before.results[:3], _without("success_vote", dear)])
    verdict = judge(now, Criteria(max_cost_rise=0.0, max_new_cost_rise=0.0), lock(before))
    assert verdict.status == "failed"
    assert "inference_cost rose from $0.03 to $0.7725 per 1,000" in sentence(verdict, "max_cost_rise")


def test_a_graders_own_metric_says_nothing_of_a_row_on_which_the_task_raised() -> None:
    """An exception is polite and short: its figures may not pass for those of an answer. Scores are 0, and are judged."""
    before = evaluation([result(i, metrics={"polite": 0.9, "row_rate": 1.0}) for i in range(10)])
    run = TaskRun(1, "", error="ValueError: x")
    raised = dataclasses.replace(
        result(0, 0, responses=["(ValueError: x)"], metrics={"polite": 1.0, "row_rate": 0.0}),
        error="ValueError: x",
        runs=(run,),
    )
    now = evaluation([raised, *before.results[1:]])
    by_polite = Criteria("polite", strict=True, alpha=0.05, limits=(at_least("0.5", "polite"), at_least("0.5")))
    verdict = judge(now, by_polite, lock(before))
    assert verdict.status == "inconclusive"
    assert [gate.word for gate in verdict.gates] == ["not judged", "not judged", "ok"]
    ending = "not judged: the grader gives no polite for row 0, which the baseline has, or the task raised there"
    assert sentence(verdict, "min_polite").endswith(ending)
    assert judge(now, by_polite, lock(now)).passed  # it raised in the baseline too
    fine = dataclasses.replace(raised, runs=(run, TaskRun(2, "42")))
    assert judge(evaluation([fine, *before.results[1:]]), by_polite, lock(before)).passed  # one of its runs answered
    scored = Criteria(limits=(at_least("0.5"), at_least("0", "row_rate")))
    assert judge(now, scored, lock(before)).passed
