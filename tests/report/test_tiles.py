"""The few numbers at the top of a suite's section of the page."""

from __future__ import annotations

from decimal import Decimal

import pytest
from support.results import evaluation, lock, report, result, scores

from pytest_llmtune.guard.lockfile import StudySummary
from pytest_llmtune.guard.verdict import Criteria, Limit, Stale, Verdict
from pytest_llmtune.report.html.view import band, tiles
from pytest_llmtune.types import Interval


def shown(one: object) -> dict[str, tuple[str, str]]:
    return {tile["label"]: (tile["value"], tile["note"]) for tile in tiles(one)}  # type: ignore[arg-type]


def test_score_baseline_cost_examples_and_search() -> None:
    """Each with its value and a word beneath; outcomes that nobody had are left out."""
    before = evaluation([result(i, 1.0) for i in range(4)])
    now = evaluation([result(0, 0.0), result(1, 1.0), result(2, 1.0), result(3, None)])
    limits = (Limit("inference_cost", "max", Decimal("0.5")),)
    study = StudySummary((), Decimal("1.5"), "num_samples")
    assert shown(report(now, lock(before), Criteria(limits=limits), study=study)) == {
        "success_vote": ("0.6667", "95 % interval 0.567 to 0.767"),
        "baseline": ("1", "1 lost, 0 gained since"),
        "cost per 1,000 instances": ("$0.03", "at most $500.00"),
        "examples": ("4", "2 right, 1 wrong, 1 unknown"),
        "search": ("$1.50", "spent on 0 trials"),
    }


def test_what_is_not_known_has_no_tile() -> None:
    """A stale suite has none at all; one without baseline has no tile for it."""
    assert shown(report(None, stale=[Stale("the prompt changed", "--llm-tune")])) == {}
    assert list(shown(report(scores(1)))) == ["success_vote", "cost per 1,000 instances", "examples"]


@pytest.mark.parametrize(
    ("value", "low", "high", "baseline", "expected"),
    [
        (0.5, 0.25, 0.75, 0.6, {"low": 25.0, "width": 50.0, "value": 50.0, "baseline": 60.0}),
        (0.5, 0.25, 0.75, 7.0, {"low": 25.0, "width": 50.0, "value": 50.0}),
        (3.5, 2.25, 4.75, 3.0, None),
        (0.5, float("nan"), 0.75, 0.6, None),
    ],
)
def test_the_band_lies_between_0_and_1(
    value: float, low: float, high: float, baseline: float, expected: dict[str, float] | None
) -> None:
    """Where a metric is no share there is no band; a baseline outside is not drawn."""
    verdict = Verdict("passed", "m", value=value, interval=Interval(low, high), baseline=baseline)
    assert band(verdict) == expected
