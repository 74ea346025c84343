"""Which configuration wins: what was seen decides, and what was not seen is believed, never taken for equal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import LLMServer
from support.searches import answers, search

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(answers) as running:
        yield running


def test_votes_that_were_never_seen_are_believed(server: LLMServer, tmp_path: Path) -> None:
    """The money pays for one answer a row: that says nothing against nine, which the inference budget allows."""
    keys = {"model": "weak", "temperature": 0.5, "n": [1, 9], "optimization_budget": 0.0009}
    config, _ = search(server, tmp_path, **keys, num_samples=1, tune_size=12)
    assert max(body.get("n") or 1 for body in server.requests) <= 2  # two: a question of how the server counts
    assert config.n == 9


def test_fewer_answers_win_where_all_say_the_same(server: LLMServer, tmp_path: Path) -> None:
    """Nine answers to each of the rows were seen, and are equal."""
    server.answer = lambda body: answers({**body, "n": 1}) * (body.get("n") or 1)
    keys = {"model": "weak", "temperature": 0.5, "n": [1, 9], "optimization_budget": 1}
    config, _ = search(server, tmp_path, **keys, num_samples=1, tune_size=12)
    assert max(body.get("n") or 1 for body in server.requests) > 1
    assert config.n == 1


def test_cost_is_preferred_where_the_score_is_as_good(tmp_path: Path) -> None:
    """Both models are right always: the cheap one wins; with the best score preferred nothing is lost either."""
    right = {"strong": 1.0, "weak": 0.9}

    def skilled(body: dict[str, Any]) -> list[str]:
        a, b = map(int, re.findall(r"\d+", str(body["messages"][-1]["content"]))[:2])
        wrong = right[body["model"]] < 1 and (a + b) % 8 == 0
        return [f"It is {777 if wrong else a + b}."] * (body.get("n") or 1)

    keys = {"temperature": 0, "n": 1, "tune_size": 32, "num_samples": 2}
    with LLMServer(skilled) as server:
        best, _ = search(server, tmp_path, **keys)
        assert best.model == "strong"
        assert search(server, tmp_path, **keys, prefer="cost", within=0.01).config.model == "strong"
        assert search(server, tmp_path, **keys, prefer="cost", within=0.4).config.model == "weak"
        _, analysis = search(server, tmp_path, **keys, prefer="pareto")
    assert [trial.config["model"] for trial in analysis.summary.front] == ["strong", "weak"]
    costs = [trial.inference_cost or 0 for trial in analysis.summary.front]
    assert costs == sorted(costs, reverse=True)
