"""The `choice` grader: which label a response states, in a dozen languages; and several accepted references."""

from __future__ import annotations

from typing import Any

import pytest
from support.graders import shared

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import resolve

LETTERS = ["A", "B", "C", "D"]
MOODS = ["positive", "negative", "neutral"]

STATES_C = """
C because it boils | In conclusion, C. | C fits best. | \\text{C} | $\\text{C}$ | \\mathbf{C} | Only C is correct. | C is the answer.
Antwort C ist richtig. | Je choisis C. | La réponse est donc C. | L'option correcte est C. | La opción correcta es C. | Elijo la opción C.
选 C 项 | 正确的是C | Cです。 | C입니다. | 옳은 것은 C이다. | सही उत्तर C है
C | c | (c) | C. | **C** | Option C | C) Rome | C Rome | C - Rome | **C. Rome** | "C" | <answer>C</answer>
Answer: C | answer: C) Rome | ANSWER: C | Answer is C | Answer (C) | answer - C | Answer: The answer is C
The answer is C because it boils. | The answer is C as it boils. | The answer is **C** since A is too small.
The correct answer is C, which is Rome. | So the answer is option (C). | My answer would be C. | The answer is 'C'.
**C** is correct. | C is the right answer. | Choice C is the best answer. | Thus, C is correct. | The right one is C!
The correct letter is C. | The best option is C | I choose C. | I'd pick C | I would go with (C). | So it must be C. | Therefore C.
It's C. | After eliminating A, B and D, we are left with C. | I'm confident it's C. | C – because it boils. | Is it B? No. It's C.
Let's see. (A) is tempting, but I would go with (C). | Between A and C, I choose C. | The answer could be A or B, but I'd go with C.
The answer is B. Wait, no, the answer is C. | The answer is B? No, wait: it's C. | Answer: A. However, on reflection, C is correct.
The answer is C, not A. | The answer is not B but C. | Answer: this rules out B, leaving C | A is wrong. B is wrong. So C.
The answer is C.\\nOption A is what many choose. | C\\n\\nExplanation: A is wrong because it is B. | The answer is C\\nbecause of gravity.
\\boxed{C} | $\\boxed{\\text{(C)}}$ | \\boxed{\\textbf{(C)}\\ 42} | #### C | ### Answer\\n#### C | #### Answer\\nC | #### The answer is C
#### Option B looks good\\nbut no.\\n\\nThe answer is C
Die richtige Antwort ist C. | Die Antwort lautet C) Rom | La réponse correcte est C. | La bonne réponse est la C. | Respuesta: C
La respuesta correcta es la C.
A resposta correta é a letra C. | Risposta: C | Ответ: C | الإجابة الصحيحة هي C | الجواب: C
答案是C | 正确答案是：C。 | 综上所述，选C。 | A不对，B也不对。故选：C
因此选项C正确。 | 正确的选项是C
C seems right. | The solution is C. | The correct response is C. | Definitely C. | The answer is probably C | **Final Answer**\\n\\n**C**
Answer: B. Correction: C | Answer: B. Sorry, I meant C. | Answer: B. On second thought, C. | Answer: B. No, C. | Therefore \\fbox{C}
Richtig ist C. | C'est la réponse C. | A alternativa correta é a C. | Letra C. | Opción C | الخيار الصحيح هو C
答えはＣです。 | 正解はCです。 | Cが正解です。 | 정답은 C입니다. | 답: C | C가 정답입니다.
"""
STATES_NONE = """
The answer is A and/or C. | The answer is A as well as C. | Answer: (A)(C) | Answer: A C | Answer: A–C | 答えはAまたはCです
\\boxed{A}, \\boxed{C} | \\boxed{A} or \\boxed{C}
Answer: A, B | The answer is (A) or (B). | The answer is (A)/(C). | Answer: A) or C) | \\boxed{A,C} | \\boxed{A \\text{ or } C}
#### A, C | Answer: A - C | The answer is A. Or C. | Answer: A. Alternatively, C. | The answer is C. It could also be A. | \\boxed{A \\lor C}
I don't know. C? | Maybe C? | Perhaps (C)? Hard to say. | 答案是A或C | 정답은 A 또는 C입니다. | Die Antwort ist nicht C. | I think C... no, B?
(C) looks good, but none of the options is correct. | I cannot answer this. C?
The answer is A, C and D. | The answer is either A or C. | Both A and C are correct. | Answer: C & D | Answer: CD | The answers are B and C.
ANSWER: None of the above | The answer is (None of the above). (C) is close. | (C) is tempting.\\nFinal answer: cannot be determined
None of these. | \\boxed{\\text{None}}
The answer is not C. | C is not correct. | Not C. | The answer is C? I am not sure. | (C) is tempting.\\nAnswer: Madrid | \\boxed{
(a) First, P = 3.\\n(b) Then, Q = 4.\\n(c) So that the power is | A. no\\nB. no\\nC. yes\\nD. no | I don't know.
The answer is a liquid. | <think>The answer is C
"""


def stated(labels: Any, response: str, *, options: list[str]) -> set[str]:
    grader = resolve({"choice": {"labels": labels}})
    return {name for name in options if grader.grade([response], {"answer": name}).metrics["success_vote"] == 1}


def listed(table: str) -> list[str]:
    return [text.strip().replace("\\n", "\n") for line in table.strip().splitlines() for text in line.split(" | ")]


@pytest.mark.parametrize("response", listed(STATES_C))
def test_the_letter_that_is_stated(response: str) -> None:
    """It, and no other, is right."""
    assert stated(LETTERS, response, options=LETTERS) == {"C"}


@pytest.mark.parametrize("response", listed(STATES_NONE))
def test_offers_denials_and_mentions_are_no_statement(response: str) -> None:
    """No letter is right, whichever the reference is."""
    assert stated(LETTERS, response, options=LETTERS) == set()


@pytest.mark.parametrize(
    ("response", "mood"),
    [
        ("Negative. The plot seemed positive at first.", "negative"),
        ("The answer is neutral since there's nothing positive.", "neutral"),
        ("The answer is neutral, neither positive nor negative.", "neutral"),
        ("At first it seems positive, but overall it is negative.", "negative"),
        ("The sentiment is positive, not negative.", "positive"),
        ("#### Final Answer: negative", "negative"),
        ("The sentiment is negative, despite some positive remarks.", "negative"),
        ("Overall: more negative than positive", "negative"),
        ("non-negative", None),
        ("Positive. Or neutral.", None),
        ("Answer: Negative, positive", None),
        ("#### Explanation\nIt is clear.\n\nOverall: negative", "negative"),
        ("It could be positive or negative.", None),
        ("The answer is neither positive nor negative.", None),
        ("The tone is positive at first. It is mixed: positive and negative.", None),
        ("The review is not negative.", None),
    ],
)
def test_words_as_labels(response: str, mood: str | None) -> None:
    """The same rules."""
    assert stated(MOODS, response, options=MOODS) == ({mood} if mood else set())


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("Yes, there is no doubt.", "yes"),
        ("No, because yes-men are rare.", "no"),
        ("Answer: Yes, there is no way.", "yes"),
        ("Yes and no.", None),
    ],
)
def test_a_label_that_opens_the_response(response: str, label: str | None) -> None:
    """What comes after it only explains it."""
    assert stated(["yes", "no"], response, options=["yes", "no"]) == ({label} if label else set())


def test_the_text_of_an_option_is_its_label() -> None:
    """As a synonym; digits are labels too."""
    assert stated({"A": ["Paris"], "B": ["London"]}, "The capital is London.", options=["A", "B"]) == {"B"}
    assert stated(["1", "2", "3"], "The answer is 3.", options=["1", "2", "3"]) == {"3"}
    assert stated(["1", "2", "3"], "The answer is 3.5", options=["1", "2", "3"]) == set()


@pytest.mark.parametrize(
    ("grader", "good", "bad"),
    [
        ("exact", ["Oslo", "Christiania"], ["Bern", "['Oslo', 'Christiania']", "Oslo, Christiania"]),
        ("contains", ["It is Oslo.", "Christiania, of old"], ["It is Bern."]),
        (
            {"choice": {"labels": ["Oslo", "Christiania", "Bern"]}},
            ["Answer: Oslo", "Answer: Christiania"],
            ["Answer: Bern"],
        ),
        ("choice", ["Oslo", "christiania"], ["Bern"]),
    ],
)
def test_a_list_of_references_means_any_of_them(grader: Any, good: list[str], bad: list[str]) -> None:
    """And those that are right vote together."""
    made, row = shared(grader), {"answer": ["Oslo", "Christiania"]}
    for text in good:
        assert made.grade([text], row).metrics["success_vote"] == 1
    for text in bad:
        assert made.grade([text], row).metrics["success_vote"] == 0
    if grader != "contains":
        assert made.grade([bad[0], *good, bad[0], good[0]], row).metrics["success_vote"] == 1
    for empty in ([], ["Oslo", " "]):
        with pytest.raises(SuiteError):
            made.reference({"answer": empty})


@pytest.mark.parametrize(
    ("labels", "response", "stated"),
    [
        (LETTERS, "Is C correct? B is right.", "B"),
        (LETTERS, "Is C correct? The correct option: B", "B"),
        (LETTERS, "A and B is correct", None),
        (LETTERS, "Both A and B are possible; A or B is correct.", None),
        (LETTERS, "What is the answer? The answer is A?", None),
        (
            MOODS,
            "Sentiment: positive\nReason: it reads well, and nothing in it is bad, as far as one can tell",
            "positive",
        ),
        (["ดี", "แย่"], "หนังเรื่องนี้ดีมาก", "ดี"),
        (None, "I think that the author means Paris.\nOr not.", None),
        (None, "", None),
    ],
)
def test_questions_offers_and_labels_in_other_scripts(
    labels: list[str] | None, response: str, stated: str | None
) -> None:
    """A question states nothing, and two letters are no answer; a line of its own has a label before it."""
    [answer] = shared({"choice": {"labels": labels}}).answers([response], {"answer": labels[0] if labels else "Paris"})
    assert answer.key == stated
