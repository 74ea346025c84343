"""What a failing suite says on the terminal, and the table at the end of a run."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from rich.cells import cell_len
from support.results import compared, evaluation, lock, report, result, scores

from pytest_llmtune._util.text import columns, wrapped
from pytest_llmtune.guard.lockfile import Measured, StudySummary
from pytest_llmtune.guard.result import RecordingFacts
from pytest_llmtune.guard.verdict import Criteria, Stale, limits_of
from pytest_llmtune.report.terminal import failure, spending, summary

FAILED = report(
    scores(1, 0, 1, 1, 1, None),
    lock(scores(1, 1, 0, 1, 1, 1)),
    Criteria(max_drop=0.02, max_unknown=1, limits=limits_of([], Decimal("0.00001"))),
    notes=("the prompt differs from the baseline's",),
)


def dropped(verbosity: int = 0, width: int = 80, flips: int = 3) -> str:
    today = evaluation([result(i, 0, answer="41", votes=3) for i in range(flips)])
    before = evaluation([result(i, 1, votes=5) for i in range(flips)])
    return failure(report(today, lock(before)), width=width, verbosity=verbosity)


def test_a_failure_tells_the_whole_story() -> None:
    """What failed and by how much, the limit, the flips with votes and answers, the notes and the next command."""
    assert failure(FAILED).splitlines() == [
        "algebra failed: inference_cost $0.03 is over inference_budget $0.01 per 1,000 instances",
        "",
        "  ok    success_vote did not change: 0.8; max_drop allows 0.02",
        "  FAIL  inference_cost $0.03 is over inference_budget $0.01 per 1,000 instances",
        "  ok    1 of 6 examples have no answer; max_unknown allows 1",
        "",
        "success_vote 0.8 (95 % interval 0.7 to 0.9) over 5 examples; baseline 0.8 over 5",
        "inference_cost $0.03 per 1,000 instances",
        "",
        "  unknown  row 5: 429 Too Many Requests, given up after 5 tries",
        "",
        "flipped since the baseline: 1 lost, 1 gained; exact McNemar p = 1",
        "  lost    row 1 [0000000000000001]  What is 1 + 1?",
        "          expected 42",
        "          before 42 (4 of 5 votes)  ->  now 41 (4 of 5 votes)",
        "  gained  row 2 [0000000000000002]  What is 2 + 2?",
        "          expected 42",
        "          before 41 (4 of 5 votes)  ->  now 42 (4 of 5 votes)",
        "",
        FAILED.verdict.notes[0].join(["note: ", ""]),
        "note: cost not gated against the baseline (max_cost_rise=None)",
        "note: the prompt differs from the baseline's",
        "next: pytest --llm-tune tests/test_math.py::test_algebra",
        "      searches for a better configuration; this costs money",
    ]


def test_a_drop_alone_offers_to_accept_it_first() -> None:
    """Where only the baseline is missed, the result may be meant: accepting it is the first command."""
    lines = dropped().splitlines()
    assert lines[0] == "algebra failed: success_vote fell from 1 to 0, a drop of 1; max_drop allows 0.02"
    assert [line for line in lines if line.startswith("next: ")] == [
        "next: pytest --llm-accept tests/test_math.py::test_algebra",
        "next: pytest --llm-tune tests/test_math.py::test_algebra",
    ]


def test_several_failed_gates_are_counted_in_the_headline() -> None:
    """The headline names the first and counts the others."""
    criteria = Criteria(max_drop=0, limits=limits_of([], Decimal("0.00001")))
    text = failure(report(scores(0), lock(scores(1)), criteria))
    assert text.splitlines()[0].endswith("max_drop allows 0 (and 1 more)")


def test_a_stale_suite_names_what_changed_and_the_command() -> None:
    """Every reason has its sentence and each mending command is named once."""
    stale = [
        Stale("the prompt changed: 20 of 20 requests have no recording", "--llm-record=missing"),
        Stale("3 more have none", "--llm-record=missing"),
        Stale("the grader changed", "--llm-accept"),
    ]
    assert failure(report(None, stale=stale)).splitlines() == [
        "algebra is stale: the prompt changed: 20 of 20 requests have no recording",
        "",
        "also stale: 3 more have none",
        "also stale: the grader changed",
        "",
        "next: pytest --llm-record=missing tests/test_math.py::test_algebra",
        "      sends only the requests that have no recording",
        "next: pytest --llm-accept tests/test_math.py::test_algebra",
        "      makes today's result the new baseline, if you intended the change",
    ]


@pytest.mark.parametrize(
    ("mode", "option"), [("replay", "record=missing"), ("record=all", "record=all"), ("live", "live")]
)
def test_an_inconclusive_run_asks_again(mode: str, option: str) -> None:
    """Too many unknown examples: the headline counts them, and the command asks again in the way it was asked."""
    text = failure(report(scores(1, None, None), mode=mode))
    assert text.startswith("algebra is inconclusive: 2 of 3 examples have no answer; max_unknown allows 0\n")
    assert f"next: pytest --llm-{option} tests/test_math.py::test_algebra" in text


def test_flips_are_few_unless_verbose() -> None:
    """Five flips are shown, all of them with -v."""
    assert dropped(flips=8).count("  lost    row") == 5
    assert "  ... and 3 more (-v shows all)" in dropped(flips=8)
    assert dropped(flips=8, verbosity=1).count("  lost    row") == 8
    assert dropped(flips=8, verbosity=-1) == dropped(flips=8)
    assert "answer 1:" not in dropped(flips=8, verbosity=1)


def test_unknown_examples_are_few_unless_verbose() -> None:
    """Five examples without an answer are shown with their error, all of them with -v."""
    one = report(scores(1, *[None] * 8))
    assert failure(one).count("  unknown  row") == 5
    assert "\n  ... and 3 more\n" in failure(one)
    assert failure(one, verbosity=1).count("  unknown  row") == 8
    assert "more" not in failure(one, verbosity=1)


def test_losses_and_gains_are_counted_apart() -> None:
    """The line above the flips says how many got worse and how many better."""
    text = failure(report(scores(0, 0, 0, 1), lock(scores(1, 1, 1, 0))))
    assert "flipped since the baseline: 3 lost, 1 gained; exact McNemar p = 0.625" in text


def test_very_verbose_shows_every_answer_in_full() -> None:
    """With -vv nothing is cut, and every response is printed behind a bar."""
    long = "word " * 100 + "end"
    today = evaluation([result(0, 0, responses=[long, "second\nline"])])
    text = failure(report(today, lock(scores(1))), width=80, verbosity=2)
    assert f"          | {long}" in text
    assert "          answer 2:\n          | second\n          | line" in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_lines_about_examples_fit_the_terminal(width: int) -> None:
    """Long questions and answers, Chinese ones too, are cut to the width in cells and end in dots."""
    today = evaluation([result(0, 0, answer="错" * 200, question="多少？" * 100, votes=3)])
    before = evaluation([result(0, 1, answer="x" * 150, question="多少？" * 100, votes=5)])
    lines = failure(report(today, lock(before)), width=width).splitlines()
    about = [line for line in lines if "row 0" in line or "before" in line]
    assert all(width - 6 < cell_len(line) <= width for line in about)
    assert about[0].endswith("...")
    assert re.search(r"before x+\.\.\. \(5 of 5 votes\)  ->  now 错+\.\.\. \(3 of 5 votes\)$", about[1])


def test_one_response_needs_no_vote_count() -> None:
    """With n = 1 there is no vote to count; an answer that could not be read is named as such."""
    today = evaluation([result(0, 0, answer=None, responses=["?"])])
    before = evaluation([result(0, 1, answer="42", responses=["42"], votes=1)])
    assert "before 42  ->  now no answer" in failure(report(today, lock(before)))


def test_node_ids_with_blanks_are_quoted() -> None:
    """The next command can be pasted into a shell."""
    text = failure(report(scores(0), lock(scores(1)), nodeid="tests/test x.py::test_a[gpt 4]"))
    assert 'next: pytest --llm-accept "tests/test x.py::test_a[gpt 4]"' in text


def test_colour_only_where_pytest_has_it() -> None:
    """Without colour there is no escape; with colour, the same text."""
    plain = failure(FAILED, color=False)
    coloured = failure(FAILED, color=True)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain != coloured
    assert "\x1b" not in summary([FAILED], color=False)
    assert re.sub(r"\x1b\[[0-9;]*m", "", summary([FAILED], color=True)) == summary([FAILED])


def test_only_what_failed_is_red() -> None:
    """In the table, the line of a failing suite stands out."""
    _, failed, passed = summary([FAILED, report(scores(1))], color=True).splitlines()[:3]
    assert failed.startswith("\x1b[31m")
    assert "\x1b" not in passed


def test_the_summary_has_one_line_a_suite() -> None:
    """Score with baseline and interval, cost with its limit, examples and verdict; the spend at the end."""
    good = report(scores(1, 1), lock(scores(1, 1)), name="intent", spent=Decimal("0.125"))
    stale = report(None, name="감정", stale=[Stale("x", "--llm-accept")])
    reports = [FAILED, good, stale]
    assert [*summary(reports).splitlines(), *spending(reports, (), Decimal(0))] == [
        "suite    score  baseline  95 % interval  per 1,000  limit  n  verdict",
        "algebra    0.8       0.8     0.7 to 0.9      $0.03  $0.01  6  failed",
        "intent       1         1       0.9 to 1      $0.03      -  2  passed",
        "감정         -         -              -          -      -  -  stale",
        f"note: intent: {good.verdict.notes[0]}",
        "note: intent: cost not gated against the baseline (max_cost_rise=None)",
        "spent $0.125",
    ]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_wide_names_align_and_long_ones_are_cut(width: int) -> None:
    """A Korean name has two cells a character: columns stay aligned, and no line is wider than it must be."""
    reports = [
        report(scores(1), lock(scores(1)), name=name) for name in ("한국어 상담 분류", "é" * 5, "x" * 200, "多" * 90)
    ]
    lines = summary(reports, width=width).splitlines()[:5]
    words = ["verdict", *["passed"] * 4]
    assert len({cell_len(line[: line.index(word)]) for line, word in zip(lines, words, strict=True)}) == 1
    assert max(map(cell_len, lines)) <= max(width, 78)
    assert all("..." in line for line in lines[3:])


def test_a_search_says_what_it_found() -> None:
    """After tuning: trials, dollars, what ended it, the choice, its score on the tuning and on held-out rows."""
    study = StudySummary(
        (),
        Decimal("0.93"),
        "num_samples",
        Decimal(1),
        tuning=Measured(0.85, 0.7, 0.93),
        heldout=Measured(0.8, 0.6, 0.9),
    )
    tuned = report(scores(1), mode="tune", study=study)
    assert summary([tuned]).splitlines()[2:5] == [
        "algebra: searched 0 trials, $0.93 of $1.00 spent, ended by num_samples",
        "algebra: chose gpt-4o-mini, temperature=0.7, n=5, prompt: {problem} Put the answer in \\boxed{{}}.",
        "algebra: success_vote 0.85 (0.7 to 0.93) on the tuning rows, 0.8 (0.6 to 0.9) on held-out rows",
    ]
    assert "searched" not in summary([report(scores(1), mode="replay", study=study)])


def test_baselines_stand_beside_the_choice() -> None:
    """Scores and costs with their intervals, one line a configuration."""
    one = report(scores(1, 0), compared=(compared("untuned", 0.25, "0.0011"), compared("n=5", 0.75, "0.01")))
    assert summary([one]).splitlines()[3:7] == [
        "algebra         success_vote  cost per 1,000",
        "chosen      0.5 (0.4 to 0.6)  $0.03",
        "untuned  0.25 (0.15 to 0.35)  $1.10",
        "n=5      0.75 (0.65 to 0.85)  $10.00",
    ]


def test_what_weakens_a_passed_verdict_is_said() -> None:
    """A suite that passes with rows it was tuned on, or with a stale recording, says so in the summary."""
    recording = RecordingFacts("x.json", 20, 1, unused=3)
    one = report(scores(1), criteria=Criteria(reused=True), recording=recording)
    notes = [line for line in summary([one]).splitlines() if line.startswith("note: algebra: ")]
    assert "the guard uses the rows" in notes[0]
    command = "pytest --llm-record=missing tests/test_math.py::test_algebra"
    assert notes[-1].endswith(f"3 recorded interactions are no longer used; remove them: {command}")


def test_nothing_is_said_where_nothing_is_to_say() -> None:
    """No suites, or -q and all is well: silence. A failure is shown under -q too."""
    assert summary([]) == ""
    gated = Criteria(strict=True, max_cost_rise=0.0)
    assert summary([report(scores(1), lock(scores(1)), gated)], verbosity=-1) == ""
    assert "failed" in summary([FAILED], verbosity=-1)


def test_a_quiet_run_still_says_what_changes_the_meaning_of_passed() -> None:
    """One line a suite where a winner was chosen, money was spent, or nothing could have failed."""
    assert summary([report(scores(1), lock(scores(1)), Criteria(), spent=Decimal("0.125"))], verbosity=-1) == (
        "algebra passed: success_vote 1; spent $0.13; "
        "not gated against the baseline (max_drop=None): a drop of success_vote cannot fail; "
        "no gate: nothing can fail; set min_<metric>, max_drop or inference_budget; "
        "cost not gated against the baseline (max_cost_rise=None)"
    ).replace("$0.13", "$0.125")
    gated = Criteria(strict=True, max_cost_rise=0.0)
    tuned = summary([report(scores(1), lock(scores(1)), gated, mode="tune")], verbosity=-1)
    assert tuned.startswith("algebra passed: success_vote 1; chose gpt-4o-mini, temperature=0.7, n=5")


def test_what_cannot_fail_is_called_so_in_the_table() -> None:
    """A suite that opted out of every gate on its quality does not stand beside the others as if it had been guarded."""
    row = summary([report(scores(0), lock(scores(1)), Criteria())]).splitlines()[1]
    assert row.endswith("passed, not gated")


def test_a_stale_suite_shows_what_its_score_did() -> None:
    """A regression does not hide behind the reason for staleness: both scores, the gates and the flips are there."""
    reasons = [Stale("the grader changed: 0 of 2 requests lack a recording", "--llm-accept")]
    text = failure(report(scores(0, 1), lock(scores(1, 1)), Criteria(max_drop=0.1), stale=reasons))
    assert text.splitlines()[0] == (
        "algebra is stale: the grader changed: 0 of 2 requests lack a recording; success_vote fell from 1 to 0.5, "
        "and 1 gate fails"
    )
    assert "FAIL  success_vote fell from 1 to 0.5" in text
    assert "lost    row 0" in text


def test_a_baseline_over_other_rows_does_not_stand_beside_the_score() -> None:
    """The table has no figure of another population; the text says over which rows the two were compared."""
    one = report(scores(1, 0, 0, 0), lock(scores(1, 1, 1)), Criteria(max_drop=0.1))
    assert summary([one]).splitlines()[1].split()[:3] == ["algebra", "0.25", "-"]
    assert "over the 3 in the baseline too 0.3333, where the baseline has 1" in failure(one)


def test_a_table_leaves_out_what_does_not_fit() -> None:
    """First the columns that are said to be optional, then the end of the names."""
    rows = [("name", "score", "lost", "verdict"), ("a" * 20, "0.9", "15", "worse")]
    assert columns(rows, 50, (2, 1))[1] == f"{'a' * 20}    0.9    15  worse"
    assert columns(rows, 36, (2, 1)) == [f"{'name':20}  score  verdict", f"{'a' * 20}    0.9  worse"]
    assert columns(rows, 25, (2,))[1] == "aaaaaaaaa...    0.9  worse"


def test_lines_are_broken_between_words() -> None:
    """Of what a terminal would break anywhere; a command, and a word longer than the terminal, stay whole."""
    long = "note: sums: 40 examples: too few to tell a drop of 0.02 from chance; the smallest detectable drop is 0.15"
    shown = wrapped(f"short\n  FAIL  {long}\nnext: pytest --llm-tune {'x' * 90}", 60).split("\n")
    assert max(map(len, shown[:-1])) <= 60
    assert " ".join(" ".join(shown[1:-1]).split()) == f"FAIL {long}"
    assert shown[2].startswith("      ")
    assert shown[-1] == f"next: pytest --llm-tune {'x' * 90}"
