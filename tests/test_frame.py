"""``evaluation.frame()``: one row per example, in pandas and in polars."""

from __future__ import annotations

import sys

import pytest
from support.results import evaluation, scores

from pytest_llmtune.errors import MissingToolError
from pytest_llmtune.types import Evaluation

RESULTS = scores(1, 0, 0.5, None)
FIXED = [
    "index",
    "id",
    "status",
    "voted_answer",
    "responses",
    "cost",
    "latency",
    "prompt_tokens",
    "completion_tokens",
    "error",
]


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_one_row_for_each_example(kind: str) -> None:
    pytest.importorskip(kind)
    made: Evaluation = RESULTS if isinstance(RESULTS, Evaluation) else evaluation(RESULTS)
    frame = made.frame(kind)  # type: ignore[call-overload]
    assert type(frame).__module__.startswith(kind)
    columns = list(frame.columns)
    assert columns[: len(FIXED)] == FIXED
    assert len(frame) == len(made.results)
    assert list(frame["id"]) == [result.example.id for result in made.results]
    assert list(frame["status"])[-1] == "unknown"
    values = list(frame["success_vote"])
    assert values[:3] == [1.0, 0.0, 0.5]
    assert values[3] is None or values[3] != values[3]
    assert {f"row.{name}" for name in made.results[0].example.row} <= {*columns}
    assert list(evaluation([]).frame(kind).columns)[: len(FIXED)] == FIXED  # type: ignore[call-overload]


def test_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas first, else polars, else what to install."""
    made = RESULTS if isinstance(RESULTS, Evaluation) else evaluation(RESULTS)
    pytest.importorskip("polars")
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert type(made.frame()).__module__.startswith("polars")
    with pytest.raises(MissingToolError, match="needs pandas, which is not installed: pip install pandas"):
        made.frame("pandas")
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingToolError, match="pandas or polars"):
        made.frame()
    with pytest.raises(MissingToolError, match="valid: 'pandas', 'polars'"):
        made.frame("arrow")  # type: ignore[call-overload]
