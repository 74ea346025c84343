"""The `math` grader on math-verify's and hendrycks/math's own published test cases: see data/README.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.math import Math

DATA = Path(__file__).with_name("data") / "published_pairs.jsonl"
PAIRS = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def accepted(grader: Math, pair: dict[str, str]) -> bool:
    try:
        return grader.grade([pair["response"]], {"answer": pair["reference"]}).metrics["success_vote"] == 1
    except SuiteError:  # a reference that cannot be used is refused before a search, and accepts nothing
        return False


@pytest.mark.parametrize(("symbolic", "least"), [(False, 0.6), (True, 0.95)], ids=["alone", "with math-verify"])
def test_published_pairs(symbolic: bool, least: float) -> None:
    """No wrong pair is accepted; of the equal ones 60 % are without the extra, 95 % with it."""
    grader = Math(symbolic=symbolic)
    equal = [accepted(grader, pair) for pair in PAIRS if pair["equal"]]
    assert not [pair for pair in PAIRS if not pair["equal"] and accepted(grader, pair)]
    assert len(equal) == 237
    assert sum(equal) >= least * len(equal)
