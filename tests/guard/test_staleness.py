"""The locked configuration of a suite whose prompt has changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.locks import CONFIG, lock

from pytest_llmtune import Suite
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.guard.staleness import BaselineConfig

SUITE = Suite(
    name="sums",
    dataset=[{"question": "1 + 1?", "answer": "2"}, {"question": "1 + 2?", "answer": "3"}],
    prompt=["Answer: {question}", "Think: {question}"],
    model=["small", "big"],
    grader="exact",
)


@pytest.mark.parametrize(
    ("index", "prompt"), [("1", "Think: {question}"), ("9", "Think: {question}"), ("x", "Answer: {question}")]
)
def test_a_changed_prompt_stands_in_for_the_locked_one(index: str, prompt: str) -> None:
    """The template in the locked one's place, the last one if there are fewer now, the first if the place is unreadable."""
    locked = lock(fingerprints={"prompt": "gone", "prompt_index": index})
    config = BaselineConfig.of(SUITE, locked).config
    assert config.to_lock() == {**{name: CONFIG[name] for name in ("model", "temperature", "n")}, "prompt": prompt}


def test_a_lock_file_that_names_no_model_is_refused() -> None:
    """Another one would be as good a guess as the first of the space."""
    locked = replace(lock(), config={"n": 3, "prompt": "old"})
    with pytest.raises(SuiteError, match="the lock file of 'sums' names no model; search again: pytest --llm-tune"):
        BaselineConfig.of(SUITE, locked)
