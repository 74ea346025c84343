"""EcoOptiGen's pruning: what is over the inference budget is found out for every pair of model and prompt, and stops early."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from support.llm_server import LLMServer
from support.searches import answers, billed, search, settings, suite

from pytest_llmtune import evaluate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_llmtune.tuning import Study

pytestmark = pytest.mark.filterwarnings("ignore")

SHORT, LONG = "{q}", "{q} " + "Think step by step. " * 20
KEYS = {"prompt": [SHORT, LONG], "temperature": [0, 1], "num_samples": 8}


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(answers) as running:
        yield running


PAIRS = {(model, long) for model in ("strong", "weak") for long in (False, True)}


def affordable(analysis: Study) -> set[tuple[str, bool]]:
    """(model, whether with the long prompt) of the trials that were not over the inference budget."""
    return {
        (str(trial.config["model"]), trial.config["prompt"] == LONG)
        for trial in analysis.trials
        if trial.status != "over_budget"
    }


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(
    ("budget", "dear"),
    [
        (0.002, set()),
        (0.0005, {("strong", True)}),
        (0.00011, {("strong", True), ("strong", False), ("weak", True)}),
    ],
)
def test_model_and_prompt_decide_together(
    server: LLMServer, tmp_path: Path, mode: str, budget: float, dear: set[tuple[str, bool]]
) -> None:
    """The first prompt's length says nothing about the second's; what is over the budget wins in neither mode.

    A pair whose prompt alone is too dear may never be asked; all others are tried.
    """
    config, analysis = search(server, tmp_path, mode=mode, inference_budget=budget, **KEYS)
    assert affordable(analysis) == PAIRS - dear
    long = config.to_lock()["prompt"] == LONG
    assert (config.model, long) not in dear
    assert analysis.best_result.inference_cost is not None
    assert analysis.best_result.inference_cost <= budget
    of = suite(mode=mode, inference_budget=budget, **KEYS)
    assert evaluate(of, config, use_cache=False, settings=settings(server, tmp_path)).inference_cost <= budget


def test_more_answers_are_taken_only_as_far_as_they_are_paid_for(server: LLMServer, tmp_path: Path) -> None:
    """One budget lets the cheap prompt have more answers than the dear one; both are within it on the test rows."""
    found = {}
    for prompt in (SHORT, LONG):
        keys = {"prompt": prompt, "model": "weak", "temperature": 0, "inference_budget": 0.00025, "metric": "success"}
        config, _ = search(server, tmp_path, n=[1, 2, 3, 4, 5, 6, 7, 8], **keys)
        of = suite(n=[1, 2, 3, 4, 5, 6, 7, 8], **keys)
        asked = evaluate(of, config, use_cache=False, settings=settings(server, tmp_path))
        assert asked.inference_cost <= 0.00025
        found[prompt] = config.n
    assert found[SHORT] > found[LONG] >= 1


def test_what_is_too_dear_stops_after_a_few_rows(server: LLMServer, tmp_path: Path) -> None:
    """Growing data sizes: a small part of the rows says it, and the dollars go to the others."""
    _, analysis = search(server, tmp_path, inference_budget=0.0005, **KEYS)
    rows: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for body in server.requests:
        text = body["messages"][-1]["content"]
        rows[body["model"], "Think" in text].add(text)
    assert len(rows["strong", True]) <= 8
    assert len(rows["strong", False]) >= 16
    dear = [trial for trial in analysis.trials if (trial.config["model"], trial.config["prompt"]) == ("strong", LONG)]
    assert {trial.status for trial in dear} <= {"over_budget"}
    assert sum(trial.spent for trial in dear) < billed(server) / 3
