"""Figures of a suite from those of its examples."""

from __future__ import annotations

import dataclasses

import pytest
from support.results import result

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
