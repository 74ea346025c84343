"""Text that is not equal but good: likeness to one or several references."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import resolve

GOOD = ["저도 그 기분 이해해요. 많이 힘드시죠?", "그럴 때는 잠은 잘 잤는지 체크해보는 것도 좋아요."]


def likeness(text: str, references: Any, **options: Any) -> float:
    grade = resolve({"similarity": {"threshold": 0.5, **options}}).grade([text], {"answer": references})
    assert (grade.metrics["success_vote"] == 1) is (grade.metrics["similarity"] >= 0.5)
    return grade.metrics["similarity"]


@pytest.mark.parametrize("measure", ["chrf", "rouge_l"])
def test_good_text_is_near_and_other_text_is_far(measure: str) -> None:
    """The best of several references counts; what the model thought does not."""
    assert likeness(GOOD[1], GOOD, measure=measure) == pytest.approx(1)
    assert likeness("많이 힘드시죠? 저도 그 기분 이해해요.", GOOD, measure=measure) > 0.6
    assert likeness("오늘 날씨가 좋네요.", GOOD, measure=measure) < 0.2
    assert likeness(f"<think>{GOOD[0]}</think> 글쎄요.", GOOD, measure=measure) < 0.2
    assert likeness("", GOOD, measure=measure) == 0


@pytest.mark.parametrize(
    ("text", "reference", "value"),
    [
        ("police killed the gunman", "police kill the gunman", 3 / 4),
        ("the gunman kill police", "police kill the gunman", 2 / 4),
        ("police", "police kill the gunman", 2 * 1 / 5),
        ("我喜欢猫", "我喜欢狗", 3 / 4),
    ],
)
def test_rouge_l_is_lins(text: str, reference: str, value: float) -> None:
    """Lin 2004's examples, as F1; scripts without spaces count characters."""
    assert likeness(text, reference, measure="rouge_l") == pytest.approx(value)


@given(st.text("abc 가나", min_size=1, max_size=30), st.text("abc 가나", min_size=1, max_size=30))
def test_a_text_is_most_like_itself(one: str, other: str) -> None:
    """And every likeness is between 0 and 1."""
    for measure in ("chrf", "rouge_l"):
        if one.strip() and other.strip():
            assert likeness(other, other, measure=measure) == pytest.approx(1)
            assert 0 <= likeness(one, other, measure=measure) <= 1 + 1e-9


def test_its_metric_can_be_gated_and_tuned() -> None:
    """It is known beforehand, the mean over the responses."""
    grader = resolve({"similarity": {"threshold": 0.5}}, vote="medoid")
    assert "similarity" in (grader.metric_names([]) or ())
    grade = grader.grade([GOOD[0], "오늘"], {"answer": GOOD[0]})
    assert grade.metrics["similarity"] == pytest.approx((1 + likeness("오늘", GOOD[0])) / 2)


@pytest.mark.parametrize("options", [{}, {"threshold": 0}, {"threshold": 1.5}, {"threshold": 0.5, "measure": "bleu"}])
def test_a_threshold_must_be_given(options: dict[str, Any]) -> None:
    """What is good enough depends on the data."""
    with pytest.raises(SuiteError, match=r"similarity: (threshold|measure)="):
        resolve({"similarity": options})


@pytest.mark.parametrize("reference", [[], ["", "x"], "?!"])
def test_a_reference_without_words_is_refused(reference: Any) -> None:
    """Everything would be as far from it."""
    with pytest.raises(SuiteError):
        resolve({"similarity": {"threshold": 0.5}}).reference({"answer": reference})
