"""Which configuration wins: what was seen decides, and what was not seen is believed, never taken for equal."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
