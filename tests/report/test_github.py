"""GitHub Actions: annotations and the job's summary."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from support.results import evaluation, lock, report, result, scores

from pytest_llmtune._util.text import COMMENT_MARK
from pytest_llmtune.errors import ReportError
from pytest_llmtune.guard.verdict import Criteria, Stale, limits_of
from pytest_llmtune.report.ci import append_summary, comment, error_annotations, markdown, write_comment

if TYPE_CHECKING:
    from pathlib import Path

FAILED = report(
    scores(1, 0),
    lock(scores(1, 1)),
    Criteria(max_drop=0.02, limits=limits_of([], Decimal("0.00001"))),
    notes=("50% of it",),
)
PASSED = report(scores(1), lock(scores(1)), name="intent")
STALE = report(None, stale=[Stale("the prompt changed", "--llm-record=missing")], name="a,b:c", path="t,1.py")


def test_each_failing_suite_is_annotated_where_it_is_declared() -> None:
    """One line a failing suite: file and line, every failed gate and the next command; none for those that pass."""
    assert error_annotations([PASSED, FAILED, STALE]) == [
        "::error file=tests/test_math.py,line=12,title=llmtune%3A algebra failed::"
        "success_vote fell from 1 to 0.5, a drop of 0.5; max_drop allows 0.02; "
        "inference_cost $0.03 is over inference_budget $0.01 per 1,000 instances"
        "%0Anext: pytest --llm-tune tests/test_math.py::test_algebra",
        "::error file=t%2C1.py,line=12,title=llmtune%3A a%2Cb%3Ac stale::the prompt changed"
        "%0Anext: pytest --llm-record=missing tests/test_math.py::test_algebra",
    ]


def test_the_summary_shows_every_suite_and_explains_failures() -> None:
    """A table of all, then gates, notes, flips and commands of what failed."""
    text = markdown([PASSED, FAILED])
    assert text.startswith("## LLM suites: 1 of 2 failed\n\n| suite | verdict |")
    assert "| intent | passed | success\\_vote | 1 | 1 | 0.9 to 1 | $0.03 | 1 |" in text
    assert "| algebra | **failed** | success\\_vote | 0.5 | 1 | 0.4 to 0.6 | $0.03 | 2 |" in text
    assert "* **FAIL**: success\\_vote fell from 1 to 0.5, a drop of 0.5; max\\_drop allows 0.02" in text
    assert "* note: 50% of it" in text
    assert "\n1 example lost, 0 gained since the baseline; exact McNemar p = 1\n" in text
    assert (
        "* lost row 1: ` What is 1 + 1? `<br>expected ` 42 `<br>before ` 42 ` (4 of 5 votes), now ` 41 ` (4 of 5 votes)"
        in text
    )
    command = "Next: ` pytest --llm-tune tests/test_math.py::test_algebra `"
    assert f"{command} (searches for a better configuration; this costs money)" in text
    assert "### intent" not in text


def test_all_well_is_one_table() -> None:
    """Where nothing failed, the summary is the table."""
    assert markdown([PASSED]).splitlines()[0] == "## LLM suites: 1 passed"
    assert "###" not in markdown([PASSED])


def test_flips_are_bounded() -> None:
    """A summary shows twenty flips and counts the others."""
    text = markdown([report(scores(*[0] * 50, 1), lock(scores(*[1] * 50, 0)))])
    assert "\n50 examples lost, 1 gained since the baseline" in text
    assert text.count("* lost row") == 20
    assert "* ... and 31 more" in text
    assert "more" not in markdown([report(scores(*[0] * 20), lock(scores(*[1] * 20)))])


def test_a_huge_summary_stays_below_githubs_limit() -> None:
    """GitHub drops a summary of more than 1 MiB: thousands of failing suites are cut, and that is said."""
    one = report(scores(*[0] * 20, question="w " * 500), lock(scores(*[1] * 20)))
    text = markdown([one] * 3000)
    assert len(text.encode()) < 1_000_000
    shown = text.count("### algebra")
    assert shown > 100
    assert text.endswith(f"\n... and {3000 - shown} more\n")


def test_one_response_needs_no_vote_count() -> None:
    """With n = 1 there is no vote; an answer that could not be read is named as such."""
    today = evaluation([result(0, 0, answer=None, responses=["?"])])
    before = evaluation([result(0, 1, answer="42", responses=["42"], votes=1)])
    assert "<br>before ` 42 `, now no answer\n" in markdown([report(today, lock(before))])


@pytest.mark.parametrize(
    "answer",
    [
        "a`b``c",
        "![x](https://evil.example/p.png)",
        "<img src=x>",
        "@team",
        "|",
        "[x](y)",
        "\n## x",
        "`",
        "``` x",
        "",
        " ",
    ],
)
def test_answers_are_shown_not_rendered(answer: str) -> None:
    """Whatever Markdown or HTML an answer holds, it stays inside of a code span of its own line."""
    text = markdown([report(evaluation([result(0, 0, answer=answer)]), lock(scores(1)))])
    (line,) = [line for line in text.splitlines() if line.startswith("* lost")]
    shown = " ".join(answer.split())
    fence = "`" * (1 + max((run for run in range(4) if "`" * run in shown), default=0))
    assert line.endswith(f"now {f'{fence} {shown} {fence}' if shown else '(nothing)'} (4 of 5 votes)")


def test_suite_names_are_escaped() -> None:
    """A name with Markdown or HTML in it cannot break the table or mention a team."""
    text = markdown([report(scores(1), name="a|b<i>@team\n*x*")])
    assert "| a\\|b&lt;i\\>@\u200bteam \\*x\\* | passed |" in text


def test_the_summary_is_appended(tmp_path: Path) -> None:
    """What other steps wrote stays; a file that cannot be written is a ReportError."""
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    append_summary(path, [PASSED])
    assert path.read_text().startswith("before\n## LLM suites")
    with pytest.raises(ReportError, match="the summary cannot be written"):
        append_summary(tmp_path, [PASSED])


def test_a_comment_is_marked_and_folds_what_failed() -> None:
    """A workflow finds it by its first line; the table is seen at once, the rest is folded."""
    text = comment([PASSED, FAILED])
    assert text.startswith(f"{COMMENT_MARK}\n## LLM suites: 1 of 2 failed\n\n| suite |")
    assert text.count("<details>") == text.count("</details>") == 1
    assert "<summary>algebra: failed</summary>\n\n* **FAIL**: success\\_vote fell" in text
    assert COMMENT_MARK not in markdown([PASSED, FAILED])


def test_a_comment_stays_within_the_limit_of_its_place() -> None:
    failures = [report(scores(0), lock(scores(1)), Criteria(max_drop=0.02), name=f"suite{i}") for i in range(400)]
    text = comment(failures)
    assert len(text.encode()) < 65_536
    assert " more\n" in text


def test_a_comment_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match="the comment cannot be written"):
        write_comment(tmp_path / "file" / "comment.md", [PASSED])
