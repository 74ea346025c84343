"""JUnit properties, parsed back from the XML that pytest writes."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from support.results import lock, report, scores

from pytest_llmtune.guard.verdict import Criteria, Stale, limits_of
from pytest_llmtune.report.ci import junit_properties

if TYPE_CHECKING:
    import pytest

    from pytest_llmtune.guard.result import SuiteReport

FAILED = report(
    scores(1, 0, None),
    lock(scores(1, 1, 1)),
    Criteria(max_drop=0.02, max_unknown=1, limits=limits_of([], Decimal("0.004"))),
    spent=Decimal("0.0000001"),
)


def test_every_figure_is_a_property() -> None:
    """Metric, cost, baseline, verdict and every gate, with names of our own."""
    assert dict(junit_properties(FAILED)) == {
        "llmtune.suite": "algebra",
        "llmtune.mode": "replay",
        "llmtune.verdict": "failed",
        "llmtune.metric": "success_vote",
        "llmtune.value": "0.5",
        "llmtune.interval": "0.4 to 0.6",
        "llmtune.baseline": "1",
        "llmtune.p_value": "1",
        "llmtune.lost": "1",
        "llmtune.gained": "0",
        "llmtune.inference_cost": "0.00003",
        "llmtune.examples": "3",
        "llmtune.unknown": "1",
        "llmtune.spent": "0.0000001",
        "llmtune.gate.max_drop": "FAIL: success_vote fell from 1 to 0.5, a drop of 0.5; max_drop allows 0.02",
        "llmtune.gate.inference_budget": (
            "ok: inference_cost $0.03 is within inference_budget $4.00 per 1,000 instances"
        ),
        "llmtune.gate.max_unknown": "ok: 1 of 3 examples have no answer; max_unknown allows 1",
        "llmtune.note": "cost not gated against the baseline (max_cost_rise=None)",
    }


def test_a_stale_suite_says_why() -> None:
    """Where nothing was measured, the reasons are the properties."""
    stale: SuiteReport = report(None, stale=[Stale("the prompt changed", "--llm-accept")])
    assert ("llmtune.stale", "the prompt changed") in junit_properties(stale)
    assert "llmtune.value" not in dict(junit_properties(stale))


def test_pytest_writes_them_as_valid_xml(pytester: pytest.Pytester) -> None:
    """Through pytest's own writer, properties of a suite with a hostile name parse as XML."""
    nasty = report(scores(1), name='a"<b>&\x00\x1b]]>\ud800')
    pytester.makepyfile(f"def test_it(request): request.node.user_properties.extend({junit_properties(nasty)!r})")
    pytester.runpytest("-p", "no:llmtune", "--junitxml=out.xml")
    found = {
        element.get("name"): element.get("value")
        for element in ElementTree.parse(pytester.path / "out.xml").iter("property")  # noqa: S314 - our own file
    }
    assert found["llmtune.suite"] == 'a"<b>&\\x00\\x1b]]>\\ud800'
    assert found["llmtune.verdict"] == "passed"
