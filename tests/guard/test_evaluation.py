"""Figures of a suite from those of its examples."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from support.results import result

from pytest_llmtune.guard import evaluation
from pytest_llmtune.guard.evaluation import evaluation_of


@pytest.mark.parametrize(
    ("count", "p50", "p95", "p99"), [(100, 50, 95, 99), (1, 1, 1, 1), (10, 5, 10, 10), (20, 10, 19, 20)]
)
def test_percentiles_of_the_latency_are_of_the_nearest_rank(count: int, p50: int, p95: int, p99: int) -> None:
    """Of 1, 2, ... seconds, in any order: the value that so many of a hundred do not pass."""
    results = [dataclasses.replace(result(1), latency=float(seconds)) for seconds in range(count, 0, -1)]
    metrics = evaluation_of({}, results).metrics
    assert [metrics[f"latency_p{part}"] for part in (50, 95, 99)] == [p50, p95, p99]


def test_nothing_known_has_no_percentiles() -> None:
    """No example, no latency."""
    assert evaluation_of({}, []).metrics == {}


def test_an_interval_is_computed_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling takes longer than the rest of a small guard, which shows the interval of one metric."""
    sizes: list[int] = []
    original = evaluation.bootstrap_mean
    monkeypatch.setattr(evaluation, "bootstrap_mean", lambda values: sizes.append(len(values)) or original(values))
    results = [dataclasses.replace(result(index % 3), latency=float(index)) for index in range(12)]
    intervals = evaluation_of({}, results).intervals
    assert intervals["success_vote"].low < intervals["success_vote"].high
    assert sizes == []
    assert intervals["latency"] == intervals["latency"] == original([float(index) for index in range(12)])
    assert sizes == [12]
    assert "row_rate" not in intervals
    assert pickle.loads(pickle.dumps(intervals)) == intervals  # noqa: S301  # our own
    assert {"success_vote", "latency", "inference_cost"} <= set(intervals)
