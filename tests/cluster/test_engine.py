"""What the engine sends to the cluster, and what stays in this process; no cluster is needed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_llmtune.cluster import Engine
from pytest_llmtune.cluster.grading import ClusterGrader
from pytest_llmtune.grading import Grader, resolve, with_reliability
from pytest_llmtune.grading.base import GraderWrapper

JUDGE = {"judge": {"model": "m", "rubric": "Is it right?"}}
EMBEDDINGS = {"similarity": {"model": "m", "threshold": 0.5}}


def on_a_cluster(grader: Grader) -> Grader:
    return object.__new__(Engine).grader(grader, Path())


def innermost(grader: Any) -> Any:
    while isinstance(grader, GraderWrapper) and not isinstance(grader, ClusterGrader):
        grader = grader.inner
    return grader


@pytest.mark.parametrize("spec", [JUDGE, EMBEDDINGS])
def test_graders_that_ask_a_model_stay_here(spec: dict[str, Any]) -> None:
    """Their requests need this process's cache and budget; also where reliability is measured around them."""
    grader = resolve(spec)
    for each in (grader, with_reliability(grader, ["row_rate"])):
        assert innermost(on_a_cluster(each)) is innermost(grader)


def test_other_graders_run_on_the_cluster() -> None:
    """Reasoning is removed and reliability counted here, by the classes around them."""
    grader = with_reliability(resolve("exact"), ["row_rate"])
    sent = on_a_cluster(grader)
    assert type(sent) is type(grader)
    assert isinstance(innermost(sent), ClusterGrader)
