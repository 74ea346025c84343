"""Voting: who is elected, what counts, and ties."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import grade_answers
from pytest_llmtune.types import Answer

KEYS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=12)


def answers(keys: list[str | None], reference: str = "a") -> list[Answer]:
    return [Answer(key, key or "", key is not None and key == reference) for key in keys]


@given(KEYS)
def test_the_elected_answer_has_the_most_votes_and_ties_go_to_the_first(keys: list[str | None]) -> None:
    """Against a plain count; unreadable answers do not vote."""
    grade = grade_answers(answers(keys))
    counts = Counter(key for key in keys if key is not None)
    expected = max(counts, key=lambda key: (counts[key], -keys.index(key))) if counts else None
    assert grade.voted_answer == expected
    assert grade.metrics["success_vote"] == float(expected == "a")
    assert sum(count for _, count in grade.votes) == sum(counts.values())


@given(KEYS)
def test_expected_success_and_success(keys: list[str | None]) -> None:
    """1-(1-p)^n over all n answers, and whether any is right."""
    metrics, share = grade_answers(answers(keys)).metrics, keys.count("a") / len(keys)
    assert metrics["expected_success"] == pytest.approx(1 - (1 - share) ** len(keys))
    assert metrics["success"] == float("a" in keys)
    assert metrics["success_vote"] <= metrics["success"]


def test_the_medoid_is_the_text_most_like_the_others() -> None:
    """Free texts that are never equal: the odd one out is not elected, though it comes first."""
    texts = ["Bananas are yellow.", "The capital is Paris.", "Paris is the capital.", "The capital city is Paris."]
    grade = grade_answers([Answer(text, text, "Paris" in text) for text in texts], "medoid")
    assert grade.voted_answer in texts[1:]
    assert grade.metrics["success_vote"] == 1


def test_a_tie_of_the_medoid_goes_to_the_first() -> None:
    """Two texts are equally like each other."""
    assert grade_answers(answers(["b", "a"]), "medoid").voted_answer == "b"


def test_a_function_elects_by_position() -> None:
    """It sees the readable texts alone; a position that is none is refused."""
    grade = grade_answers(answers([None, "b", "a"]), lambda texts: texts.index("a"))
    assert grade.metrics["success_vote"] == 1
    with pytest.raises(SuiteError, match="from 0 to 1"):
        grade_answers(answers(["a", "b"]), len)


def test_no_readable_answer_elects_nobody() -> None:
    """Not even a function is asked."""
    grade = grade_answers(answers([None, None]), lambda texts: 1 // len(texts))
    assert (grade.voted_answer, grade.votes, grade.metrics["success_vote"]) == (None, (), 0.0)
