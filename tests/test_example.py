"""The example project's files agree with each other: what tuning wrote is what a replay finds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing import Any

EXAMPLE = Path(__file__).parents[1] / "example_project"
SUITES = ("korean", "mood", "orders", "till")


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Suite to what ``--llm-json`` says of it."""
    path = tmp_path_factory.mktemp("example") / "results.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--llm-json={path}", "tests"]
    subprocess.run(command, cwd=EXAMPLE, check=True, stdout=subprocess.DEVNULL)
    return {suite["name"]: suite for suite in json.loads(path.read_text(encoding="utf-8"))["suites"]}


@pytest.mark.parametrize("name", SUITES)
def test_a_replay_finds_the_baseline_to_the_digit(replayed: dict[str, Any], name: str) -> None:
    """Score and cost: the recording holds what the live run counted, though the server counts one choice of n."""
    held, evaluation = replayed[name]["baseline"]["metrics"], replayed[name]["evaluation"]
    assert evaluation["metrics"]["success_vote"] == pytest.approx(held["success_vote"]["value"], rel=1e-9)
    assert float(evaluation["inference_cost"]) == pytest.approx(held["inference_cost"]["value"], rel=1e-9)
