"""``--llm-batch`` end to end: recording, a live run and a search go by the Batch API, at its price."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Project


def results(project: Project) -> dict[str, object]:
    found: dict[str, object] = json.loads((project.pytester.path / "results.json").read_text(encoding="utf-8"))[
        "suites"
    ][0]
    return found


@pytest.mark.parametrize("mode", ["--llm-record=all", "--llm-live"])
def test_a_run_is_one_batch(tuned: Project, mode: str) -> None:
    """No request goes alone; the same verdict; half of what the same run costs without batches."""
    tuned.server.batches.looks = 0
    before = tuned.server.count
    tuned.run(mode, "--llm-batch", "--llm-json=results.json").assert_outcomes(passed=1)
    assert tuned.server.count == before
    assert tuned.server.batches.sizes == [18]
    batched = Decimal(str(results(tuned)["spent"]))
    tuned.run("--llm-live", "--llm-json=results.json").assert_outcomes(passed=1)
    assert batched == Decimal(str(results(tuned)["spent"])) / 2 > 0
    tuned.run().assert_outcomes(passed=1)


def test_a_search_goes_by_batches(project: Project) -> None:
    """The winner is found; the cost per instance in the lock file is that of serving, not that of the batch."""
    project.server.batches.looks = 0
    project.run("--llm-tune", "--llm-batch", "--llm-json=results.json").assert_outcomes(passed=1)
    tuned = results(project)
    assert "model: good" in project.lock
    assert project.server.count == 0
    assert max(project.server.batches.sizes) >= 12
    before = sum(project.server.batches.sizes)
    project.run("--llm-live", "--llm-json=results.json").assert_outcomes(passed=1)
    assert sum(project.server.batches.sizes) == before
    found = results(project)
    assert found["verdict"]["value"] == 1  # type: ignore[index]
    assert found["evaluation"]["inference_cost"] == tuned["evaluation"]["inference_cost"]  # type: ignore[index]


def test_the_price_is_the_users_word(tuned: Project) -> None:
    """``--llm-batch-price`` for providers with another discount; nonsense is refused."""
    tuned.server.batches.looks = 0
    tuned.run("--llm-live", "--llm-json=results.json")
    whole = Decimal(str(results(tuned)["spent"]))
    tuned.run("--llm-live", "--llm-batch", "--llm-batch-price=0.8", "--llm-json=results.json").assert_outcomes(passed=1)
    assert Decimal(str(results(tuned)["spent"])) == whole * Decimal("0.8")
    result = tuned.run("--llm-live", "--llm-batch", "--llm-batch-price=2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--llm-batch-price is '2'*at most 1*"])
