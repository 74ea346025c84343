"""Answers that are taken back, denied, or only bounds of the number: never the answer."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_llmtune import grade

LETTERS = {"choice": {"labels": ["A", "B", "C", "D"]}}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is A. Wait, actually B.", "B"),
        ("The answer is A. Wait, B.", "B"),
        ("Answer: A. Actually, **B**", "B"),
        ("Answer: A.\nActually: (B)", "B"),
        ("The answer is A. Actually, no, B.", "B"),
        ("The answer is A. Actually, B is what many choose.", "A"),
        ("The answer is A. Actually, I checked it twice.", "A"),
    ],
)
def test_the_last_letter_counts(text: str, label: str) -> None:
    assert grade(LETTERS, [text], {"answer": label}).voted_answer == label


@pytest.mark.parametrize("grader", ["numeric", "math"])
def test_the_last_number_counts(grader: str) -> None:
    for text in (
        "The answer is 4. Wait, actually 5.",
        "The answer is 4. Actually, 5",
        "The answer is 4. Wait... no, 5.",
    ):
        assert grade(grader, [text], {"answer": "5"}).metrics["success_vote"] == 1
        assert grade(grader, [text], {"answer": "4"}).metrics["success_vote"] == 0
    text = "The answer is 4. Actually, 5 of them are red."
    assert grade(grader, [text], {"answer": "4"}).metrics["success_vote"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "The answer cannot be 5.",
        "It can't be 5",
        "The answer is not equal to 5.",
        "It doesn't equal 5",
        "It is anything but 5",
        "x > 5",
        "x>5",
        "x ≤ 5",
        "<5",
        "≠ 5",
        "n >= 5",
        "less than 5",
        "The answer is greater than 5.",
        "#### more than 5",
        "The answer is x \\ge 5",
        "The answer is other than 5",
        "It is not exactly 5",
    ],
)
def test_a_bound_is_not_the_number(text: str) -> None:
    assert grade("numeric", [text], {"answer": "5"}).metrics["success_vote"] == 0


@pytest.mark.parametrize(
    "text",
    [
        "<b>5</b>",
        "<strong>5</strong>",
        "> 5",
        "> **5**",
        "x => 5",
        "2 + 3 -> 5",
        "<br>5",
        "<p>It is 5",
        "The answer is 5, which is more than 4.",
        "It is 5 rather than 4",
        "5 (not 4)",
        "Since 7 > 4, the answer is 5",
        "3 more than 2 is 5",
        "3 is less than 8 by 5",
        "Not equal to 4. It is 5.",
        "I can't be exact, but 5",
    ],
)
def test_other_marks_are_no_bounds(text: str) -> None:
    assert grade("numeric", [text], {"answer": "5"}).metrics["success_vote"] == 1


DENIED = """
The answer isn't 5. | It isn't 5 | The answer wasn't 5 | 5 is not the answer | 5 isn't the answer. | **5** is not correct | $5$ is wrong
\\boxed{5} is wrong | \\boxed{5} is wrong. | $\\boxed{5}$ is incorrect. | The answer is 5, but that is incorrect | The answer is not \\boxed{5}
The answer is 5. That is wrong. | The answer is 5. But that's not right. | \\boxed{5}. No, that is wrong. | The answer is 5, which is wrong.
"""
TAKEN_BACK = """
\\boxed{4} is wrong. It is 5 | I first thought the answer is 4, but it is 5 | Initially, I thought the answer was 4, but it is 5
I thought the answer was 4, but it is 5. | \\boxed{4}, but that is wrong. The answer is 5.
\\boxed{5} rather than \\boxed{4} | \\boxed{5}, not \\boxed{4}
The answer is 4. That is wrong. The answer is 5. | 4 is not the answer. The answer is 5. | The answer 4 is wrong. The answer is 5.
The answer is 5. Note that 4 is not the answer. | The answer is 5. You might think 4, but that is wrong. | It is 5, it isn't 4
The answer is 5. It is wrong to forget the carry. | The answer is 5, not 4. | The answer is 5. If you forget the carry, you get 4. That is wrong.
I thought about it and the answer is 5. | First, I got 2. Then 2 + 3. The answer is 5. | The answer is 5. This is not wrong.
The answer is 5, which is not the answer most people give. | \\boxed{5}. If you think this is wrong, tell me.
The answer is 5. If this is wrong, let me know | \\boxed{5}. Correct me if it is wrong. | The answer is 5 (I first thought it was 4).
The second got 4 and the first got 5 | In the game she first answered 4 and then 5
Isn't it 4? No, that's wrong. It's 5.
"""


def listed(table: str) -> list[str]:
    return [text.strip() for line in table.strip().splitlines() for text in line.split(" | ")]


@pytest.mark.parametrize("grader", ["numeric", {"math": {"symbolic": False}}, "math"])
@pytest.mark.parametrize("text", listed(DENIED))
def test_a_value_that_is_denied_is_not_the_answer(grader: Any, text: str) -> None:
    assert grade(grader, [text], {"answer": "5"}).metrics["success_vote"] == 0


@pytest.mark.parametrize("grader", ["numeric", {"math": {"symbolic": False}}])
@pytest.mark.parametrize("text", listed(TAKEN_BACK))
def test_what_stands_after_a_denial_counts(grader: Any, text: str) -> None:
    assert grade(grader, [text], {"answer": "4"}).metrics["success_vote"] == 0
    assert grade(grader, [text], {"answer": "5"}).metrics["success_vote"] == 1


YES_NO = ["yes", "no"]
MOODS = ["positive", "negative"]
ABCD = ["A", "B", "C", "D"]


@pytest.mark.parametrize(
    ("labels", "text", "label"),
    [
        (YES_NO, "yes, but actually no", "no"),
        (YES_NO, "Yes. Actually, no.", "no"),
        (YES_NO, "No. Wait, actually yes", "yes"),
        (YES_NO, "Yes, actually.", "yes"),
        (YES_NO, "Actually, no.", "no"),
        (MOODS, "positive, but actually negative", "negative"),
        (YES_NO, "No. It is wrong.", "no"),
        (["true", "false"], "That is false.", "false"),
        (["correct", "incorrect"], "It says 5, which is incorrect.", "incorrect"),
        (["right", "wrong"], "The answer: this is wrong", "wrong"),
        (MOODS, "I doubt anybody would like this: negative", "negative"),
        (MOODS, "I doubt it is positive", None),
        (MOODS, '{"not": "positive"}', None),
        (MOODS, "I refuse to choose positive.", None),
        (ABCD, "\\boxed{B} rather than \\boxed{A}", "B"),
        (ABCD, "\\boxed{A} is wrong. It is B", "B"),
        (ABCD, "\\boxed{A} is wrong.", None),
        (ABCD, "I doubt it is A", None),
        (ABCD, "I doubt that the answer is A.", None),
        (ABCD, "The answer is A. I doubt it is B.", "A"),
        (ABCD, "There is no doubt that it is A.", "A"),
        (ABCD, "I refuse to choose A", None),
        (ABCD, "I refuse to choose A; it is B", "B"),
        (ABCD, '{"not": "A"}', None),
        (ABCD, '{"not": "A", "answer": "B"}', "B"),
        (ABCD, '{"answer": "A"}', "A"),
        (ABCD, "The answer is A, but that is incorrect", None),
        (ABCD, "The answer is A. Actually, no.", None),
    ],
)
def test_a_label_that_is_denied_is_not_stated(labels: list[str], text: str, label: str | None) -> None:
    for one in labels:
        right = grade({"choice": {"labels": labels}}, [text], {"answer": one}).metrics["success_vote"] == 1
        assert right == (one == label)
