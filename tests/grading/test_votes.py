"""Voting: who is elected, what counts, and ties."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import VOTES, check_vote, grade_answers
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


def test_no_response_at_all_is_no_success() -> None:
    """Nothing to divide by, and nothing elected."""
    grade = grade_answers([])
    assert grade.metrics == {"expected_success": 0.0, "success": 0.0, "success_vote": 0.0}
    assert (grade.voted_answer, grade.votes, grade.answers) == (None, (), ())


def test_answers_keep_their_order_and_votes_theirs() -> None:
    """All answers as they came; groups from the largest, the text of each group's first answer, ties by appearance."""
    given = [
        Answer("1", "one", True),
        Answer(None, "", False),
        Answer("2", "two", False),
        Answer("1", "uno", True),
        Answer("3", "three", False),
        Answer("2", "due", False),
        Answer("1", "one", True),
    ]
    grade = grade_answers(given)
    assert grade.answers == tuple(given)
    assert grade.answers[0] is grade.answers[6]  # equal answers are kept once
    assert grade.votes == (("one", 3), ("two", 2), ("three", 1))
    assert grade.voted_answer == "one"


def plain_medoid(texts: list[str]) -> int:
    """Dice's coefficient over bags of words, in fractions; the first of the best."""
    bags = [Counter(re.findall("[a-z]+", text)) for text in texts]

    def likeness(one: Counter[str], other: Counter[str]) -> Fraction:
        shared, size = (one & other).total(), one.total() + other.total()
        return Fraction(2 * shared, size) if shared else Fraction(0)

    totals = [sum(likeness(one, other) for j, other in enumerate(bags) if j != i) for i, one in enumerate(bags)]
    return totals.index(max(totals))


TEXTS = st.lists(st.lists(st.sampled_from(["a", "be", "see"]), max_size=6).map(" ".join), min_size=1, max_size=7)


@given(TEXTS)
def test_the_medoid_is_that_of_dices_coefficient(texts: list[str]) -> None:
    """Against the formula in exact fractions: repeated words count, texts of no words are like nothing."""
    given = [Answer(str(number), f"{text}", False) for number, text in enumerate(texts)]
    place = plain_medoid(texts)
    assert grade_answers(given, "medoid").voted_answer == texts[place]
    marked = [Answer(str(number), text, number == place) for number, text in enumerate(texts)]
    assert grade_answers(marked, "medoid").metrics["success_vote"] == 1


@pytest.mark.parametrize(
    ("texts", "elected"),
    [
        (["zero", "PARIS, France!", "paris france"], 1),  # case and punctuation make no other word
        (["x1", "a b", "x1 y2"], 0),  # letters and digits together are one word
        (["上海", "北京", "东京"], 1),  # each letter of a script without spaces is one: the last two share one
        (["上海", "京", "北京", "东京"], 1),
    ],
)
def test_words_of_any_script_are_compared(texts: list[str], elected: int) -> None:
    given = [Answer(str(number), text, number == elected) for number, text in enumerate(texts)]
    assert grade_answers(given, "medoid").metrics["success_vote"] == 1


@pytest.mark.parametrize("place", [2, -1, True, False, "0", 0.0, None])
def test_a_function_that_gives_no_position_is_refused(place: object) -> None:
    with pytest.raises(SuiteError, match=r"^the vote function returned .*; expected a position from 0 to 1$"):
        grade_answers(answers(["a", "b"]), lambda _: place)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(("place", "elected"), [(0, "b"), (1, "a")])
def test_every_position_can_be_elected(place: int, elected: str) -> None:
    """The first as well as the last."""
    assert grade_answers(answers(["b", "a"]), lambda _: place).voted_answer == elected


def test_ways_to_vote_are_checked() -> None:
    """By name or a function; anything else is told with what there is."""
    assert [check_vote(vote) for vote in VOTES] == ["equivalence", "medoid"]
    assert check_vote(len) is len
    for wrong in ("majority", "", None, 1, ["medoid"]):
        with pytest.raises(SuiteError, match=r"^grader: vote=.* is not one of equivalence, medoid or a function"):
            check_vote(wrong, "grader")
    with pytest.raises(SuiteError, match=r"^vote: vote='x'"):
        check_vote("x")
