"""What a failing suite says on the terminal, and the table at the end of a run."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from rich.cells import cell_len
from support.results import evaluation, lock, report, result, scores

from pytest_llmtune.regression import Criteria, Stale, cost_limit
from pytest_llmtune.report.terminal import failure, summary

FAILED = report(
    scores(1, 0, 1, 1, 1, None),
    lock(scores(1, 1, 0, 1, 1, 1)),
    Criteria(max_drop=0.02, max_unknown=1, limits=(cost_limit(Decimal("0.00001")),)),
    notes=("the prompt differs from the baseline's",),
)


def dropped(verbosity: int = 0, width: int = 80, flips: int = 3) -> str:
    today = evaluation([result(i, 0, answer="41", votes=3) for i in range(flips)])
    before = evaluation([result(i, 1, votes=5) for i in range(flips)])
    return failure(report(today, lock(before)), width=width, verbosity=verbosity)


def test_a_failure_tells_the_whole_story() -> None:
    """What failed and by how much, the limit, the flips with votes and answers, the notes and the next command."""
    assert failure(FAILED).splitlines() == [
        "algebra failed: inference_cost $0.00003 per instance is over inference_budget $0.00001",
        "",
        "  ok    success_vote did not change: 0.8; max_drop allows 0.02",
        "  FAIL  inference_cost $0.00003 per instance is over inference_budget $0.00001",
        "  ok    1 of 6 examples have no answer; max_unknown allows 1",
        "",
        "success_vote 0.8 (95 % interval 0.7 to 0.9) over 5 examples; baseline 0.8 over 5",
        "inference_cost $0.00003 per instance",
        "",
        "  unknown  row 5: 429 Too Many Requests, given up after 5 tries",
        "",
        "flipped since the baseline: 1 lost, 1 gained; exact McNemar p = 1",
        "  lost    row 1 [0000000000000001]  What is 1 + 1?",
        "          before 42 (4 of 5 votes)  ->  now 41 (4 of 5 votes)",
        "  gained  row 2 [0000000000000002]  What is 2 + 2?",
        "          before 41 (4 of 5 votes)  ->  now 42 (4 of 5 votes)",
        "",
        FAILED.verdict.notes[0].join(["note: ", ""]),
        "note: the prompt differs from the baseline's",
        "next: pytest --llm-tune tests/test_math.py::test_algebra",
        "      searches a better configuration; this costs money",
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
    criteria = Criteria(max_drop=0, limits=(cost_limit(Decimal("0.00001")),))
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
        "      asks only what has no recording",
        "next: pytest --llm-accept tests/test_math.py::test_algebra",
        "      if today's result is meant: makes it the baseline",
    ]


@pytest.mark.parametrize(
    ("mode", "option"), [("replay", "record=missing"), ("record=all", "record=missing"), ("live", "live")]
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
    assert "answer 1:" not in dropped(flips=8, verbosity=1)


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


def test_the_summary_has_one_line_a_suite() -> None:
    """Score with baseline and interval, cost with its limit, examples and verdict; the spend at the end."""
    good = report(scores(1, 1), lock(scores(1, 1)), name="intent", spent=Decimal("0.125"))
    stale = report(None, name="감정", stale=[Stale("x", "--llm-accept")])
    assert summary([FAILED, good, stale]).splitlines() == [
        "suite    score  baseline  95 % interval      cost     limit  n  verdict",
        "algebra    0.8       0.8     0.7 to 0.9  $0.00003  $0.00001  6  failed",
        "intent       1         1       0.9 to 1  $0.00003         -  2  passed",
        "감정         -         -              -         -         -  -  stale",
        "spent $0.125",
    ]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_wide_names_align_and_long_ones_are_cut(width: int) -> None:
    """A Korean name has two cells a character: columns stay aligned, and no line is wider than it must be."""
    reports = [
        report(scores(1), lock(scores(1)), name=name) for name in ("한국어 상담 분류", "é" * 5, "x" * 200, "多" * 90)
    ]
    lines = summary(reports, width=width).splitlines()
    words = ["verdict", *["passed"] * 4]
    assert len({cell_len(line[: line.index(word)]) for line, word in zip(lines, words, strict=True)}) == 1
    assert max(map(cell_len, lines)) <= max(width, 78)
    assert all("..." in line for line in lines[3:])


def test_nothing_is_said_where_nothing_is_to_say() -> None:
    """No suites, or -q and all is well: silence. A failure is shown under -q too."""
    assert summary([]) == ""
    assert summary([report(scores(1))], verbosity=-1) == ""
    assert "failed" in summary([FAILED], verbosity=-1)
