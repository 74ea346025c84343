"""A suite as the words and tables of the page."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from support.results import FINGERPRINTS, compared, evaluation, lock, report, result, scores

from pytest_llmtune.grading.reasoning import marks_of
from pytest_llmtune.guard.lockfile import Measured, StudySummary, TrialSummary
from pytest_llmtune.guard.result import Compared
from pytest_llmtune.guard.verdict import Criteria, Stale
from pytest_llmtune.report.ci import headline
from pytest_llmtune.report.html import view as examples
from pytest_llmtune.report.html.view import suite
from pytest_llmtune.types import Example, ExampleGrade, ExampleResult, Interval, ModelCall, TaskRun

STUDY = StudySummary(
    (
        TrialSummary(1, {"model": "m"}, Measured(0.5), Decimal("0.001"), Decimal("0.5"), "done"),
        TrialSummary(2, {"model": "m", "n": 2}, None, None, Decimal(0), "failed"),
    ),
    Decimal("0.5"),
    "num_samples",
    tuning=Measured(0.9, 0.8, 1),
    heldout=Measured(0.7),
    winner=1,
    note="its scores are means",
)


def graded(metrics: dict[str, float], status: str = "ok") -> ExampleResult:
    return ExampleResult(Example("a", 0, {"q": "?"}), status, ExampleGrade(metrics))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "criteria", "word"),
    [
        (result(0, 1), Criteria(), "right"),
        (result(0, 0), Criteria(), "wrong"),
        (result(0, 0.5), Criteria(), "wrong"),
        (result(0, None), Criteria(), "unknown"),
        (graded({"success_vote": 1}, "refused"), Criteria(), "refused"),
        (graded({"f1": 1}), Criteria("f1"), "right"),
        (graded({"f1": 0.9}), Criteria("f1"), "wrong"),
        (graded({"errors": 0}), Criteria("errors", "min"), "right"),
        (graded({"errors": 2}), Criteria("errors", "min"), "wrong"),
        (graded({}), Criteria("f1"), "wrong"),
    ],
)
def test_an_example_is_right_wrong_refused_or_unknown(one: ExampleResult, criteria: Criteria, word: str) -> None:
    """By its vote where the grader has one, else by the tuned metric in the direction that is better."""
    assert examples.outcome(one, criteria) == word


def test_a_row_of_the_table_has_both_sides() -> None:
    """Answer and votes of today and of the baseline, score, dollars and flip stand in one row."""
    today = evaluation([result(0, 0.0, answer="41", votes=3), result(1, None)])
    (flipped, unknown) = suite(report(today, lock(scores(1, 1))))["examples"]
    assert (flipped["answer"], flipped["before"], flipped["flip"]) == ("41 (3 of 5)", "42 (4 of 5)", "lost")
    assert (flipped["score"], flipped["cost"], flipped["right"]) == (0, "$0.03", [False] * 5)
    assert flipped["votes"] == [["41", 3], ["7", 2]]
    assert (unknown["answer"], unknown["score"], unknown["flip"]) == ("", None, None)
    assert unknown["error"].startswith("429")


def test_an_answer_that_could_not_be_read_is_named() -> None:
    """No answer is not an empty answer; one response needs no count."""
    none, one = evaluation([result(0, 0, answer=None), result(1, answer="x", responses=["x"], votes=1)]).results
    table = examples.table(report(evaluation([none, one])))
    assert [row["answer"] for row in table] == ["no answer", "x"]


def test_many_long_answers_share_the_room() -> None:
    """The more responses there are, the shorter each is cut; none below 500 characters."""
    limits = []
    for count in (1, 8_000, 200_000):
        limits.append(max(500, min(20_000, 40_000_000 // count)))
        texts = ["x" * 30_000] * min(count, 8_000)
        if count <= 8_000:
            (row,) = examples.table(report(evaluation([result(0, responses=texts)])))
            assert len(row["responses"][0].split("\n")[0]) == limits[-1]
    assert limits == [20_000, 5_000, 500]


def test_facts_hold_configuration_search_lock_and_recording() -> None:
    """Everything a reviewer asks for stands behind one button."""
    facts = dict(suite(report(scores(1), lock(scores(1)), study=STUDY))["facts"])
    assert facts["model"] == "gpt-4o-mini"
    assert facts["temperature"] == "0.7"
    assert facts["search"] == "2 trials, $0.50 spent, ended by num_samples"
    assert facts["score on the tuning rows"] == "0.9 (95 % interval 0.8 to 1)"
    assert facts["score on held-out rows"] == "0.7"
    assert facts["note on the search"] == "its scores are means"
    assert facts["fingerprint of grader"] == FINGERPRINTS["grader"]
    assert facts["price of gpt-4o-mini"] == "input $0.15 per 1M tokens, output $0.60 per 1M tokens"
    assert facts["recording"] == "tests/llmtune/algebra.cassette.json: 20 interactions, 12,345 bytes"


def test_a_stale_suite_shows_the_locked_configuration() -> None:
    """Where nothing was measured, the configuration is the lock file's."""
    facts = dict(suite(report(None, lock(scores(1))))["facts"])
    assert facts["model"] == "gpt-4o-mini"


def test_trials_are_a_table_too() -> None:
    """What the figure shows can be read without it: each trial with score, cost, dollars and configuration."""
    winner, failed = suite(report(scores(1), study=STUDY))["trials"]
    assert (winner["winner"], winner["score"], winner["cost"], winner["spent"]) == (True, "0.5", "$1.00", "$0.50")
    assert (failed["winner"], failed["score"], failed["cost"], failed["status"]) == (False, "", "", "failed")
    assert failed["config"] == "m, n=2"


def test_baselines_are_side_by_side_with_the_choice() -> None:
    """The chosen configuration comes first; intervals of costs are shown where they are known."""
    sure = Compared("n=5", {"n": 5}, Measured(0.7), Decimal("0.002"), Interval(0.001, 0.003))
    chosen, untuned, five = suite(report(scores(1, 0), compared=(compared("untuned", 0.5, "0.001"), sure)))["compared"]
    assert (chosen["label"], chosen["winner"], chosen["score"]) == ("chosen", True, "0.5")
    assert (untuned["interval"], untuned["cost_interval"]) == ("0.4 to 0.6", "")
    assert five["cost_interval"] == "$1.00 to $3.00"
    assert suite(report(None, compared=(sure,)))["compared"] == []


def test_the_headline_counts() -> None:
    """The page's title says at once whether all is well."""
    assert headline([report(scores(1))]) == "LLM suites: 1 passed"
    assert headline([report(scores(1)), report(None)]) == "LLM suites: 1 of 2 failed"


def test_reasoning_is_apart_from_the_answer() -> None:
    """The page folds it; the marks are the suite's."""
    one = evaluation([result(0, responses=["<think>7? No.</think>\n\n42", "[plan]8[/plan] 42"])])
    (row,) = examples.table(report(one))
    assert (row["responses"], row["thoughts"]) == (["42", "[plan]8[/plan] 42"], ["7? No.", ""])
    (row,) = examples.table(replace(report(one), reasoning=marks_of({"open": "[plan]", "close": "[/plan]"}).key))
    assert (row["responses"][1], row["thoughts"]) == ("42", ["", "8"])
    (row,) = examples.table(report(evaluation([result(0, responses=["42"])])))
    assert row["thoughts"] == []


def test_the_configuration_is_shown_with_its_prompt_and_what_a_thousand_cost() -> None:
    made = suite(report(evaluation([result(0)], {"model": "m", "n": 2, "stop": ["\n"], "prompt": "{q}\nAnswer:"})))
    assert made["chosen"] == {
        "parameters": [("model", "m"), ("n", "2"), ("stop", '["\\n"]')],
        "messages": [("prompt", "{q}\nAnswer:")],
        "cost": "$0.03 per 1,000 instances",
    }
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{q}"}]
    made = suite(report(evaluation([result(0)], {"model": "m", "messages": messages})))
    assert made["chosen"]["messages"] == [("system", "Be brief."), ("user", "{q}")]
    assert made["asks"] == {"body": {"model": "m"}, "messages": messages}


def test_a_failure_says_what_changed() -> None:
    """Configuration, prompt line by line, and the first rows that were lost; a suite that passes has no such box."""
    before = lock(evaluation([result(i) for i in range(8)], {"model": "m", "n": 1, "prompt": "{q}\nOne word."}))
    now = evaluation(
        [result(i, float(i > 6), answer="7") for i in range(8)], {"model": "m", "n": 3, "prompt": "{q}\nBriefly."}
    )
    changed = dict(suite(report(now, before))["changed"])
    assert changed["configuration"] == ["-n: 1", "+n: 3"]
    assert changed["prompt"] == [" {q}", "-One word.", "+Briefly."]
    rows = changed["rows: 7 lost, 0 gained"]
    assert (len(rows), rows[-1]) == (16, " ... and 2 more lost: see Examples below")
    assert rows[1:3] == ["-  42", "+  7"]
    stale = suite(report(None, stale=[Stale("the prompt changed", "--llm-record=missing", "-a\n+b")]))
    assert stale["changed"] == [("the prompt changed", ["-a", "+b"])]
    assert suite(report(now))["changed"] == []


def call(digest: str) -> ModelCall:
    return ModelCall(1, "m", digest=digest)


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ((), ("a",), ""),
        (("a", "b"), ("a", "c"), "call 2 of run 1 is the first that differs from the baseline's"),
        (("a",), ("a", "b"), "run 1 makes 2 calls, in the baseline 1"),
        (("a",), ("a",), "the calls of run 1 are those of the baseline: what the app makes of them changed"),
    ],
)
def test_the_first_call_that_differs_is_named(before: tuple[str, ...], now: tuple[str, ...], text: str) -> None:
    today = replace(result(0), runs=(TaskRun(1, "42", calls=tuple(map(call, now))),))
    example = lock(evaluation([result(0)])).examples[0]
    assert examples.first_difference(today, replace(example, calls=before)) == text
    assert examples.first_difference(today, None) == ""
