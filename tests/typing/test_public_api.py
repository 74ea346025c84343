"""The public API as type checkers, ``dir()`` and a person who misspells see it."""

from __future__ import annotations

from decimal import Decimal

import pytest

import pytest_llmtune
from pytest_llmtune import Suite, complete, grade
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.suite.signature import PATH, text
from pytest_llmtune.types import Evaluation


def test_the_shipped_annotations_are_the_generated_ones() -> None:
    """After a change of the key table: python -m pytest_llmtune.suite.signature."""
    assert PATH.read_text(encoding="utf-8") == text()


def test_everything_public_can_be_imported_and_is_listed() -> None:
    assert set(pytest_llmtune.__all__) <= set(dir(pytest_llmtune))
    for name in pytest_llmtune.__all__:
        assert getattr(pytest_llmtune, name).__name__ == name
    kinds = [getattr(pytest_llmtune, name) for name in pytest_llmtune.__all__ if name.endswith("Error")]
    assert all(issubclass(kind, LLMTuneError) for kind in kinds)


def test_the_typed_marker_is_pytests() -> None:
    """With all its keys, and the function stays what it is."""

    @pytest_llmtune.mark(dataset="x.jsonl", model="m", grader="exact", prompt="{q}")
    def test_it() -> None: ...

    [marker] = test_it.pytestmark  # type: ignore[attr-defined]
    assert (marker.name, marker.args, sorted(marker.kwargs)) == (
        "llmtune",
        (),
        ["dataset", "grader", "model", "prompt"],
    )


def test_a_misspelled_name_gets_a_suggestion() -> None:
    with pytest.raises(SuiteError, match=r"datset: unknown key \(did you mean 'dataset'\?\)"):
        Suite(datset="x")  # type: ignore[call-arg]
    with pytest.raises(SuiteError, match=r"unknown parameter 'tempratur' \(did you mean 'temperature'\?\)"):
        complete({"model": "m", "prompt": "{q}"}, {"q": "1"}, tempratur=3)  # type: ignore[call-arg]
    evaluation = Evaluation({}, (), {"success_vote": 1.0}, {}, Decimal(0), Decimal(0))
    with pytest.raises(AttributeError, match="no metric 'sucess_vote'; did you mean 'success_vote'"):
        evaluation.sucess_vote  # type: ignore[attr-defined]  # noqa: B018


def test_thresholds_in_a_mapping_are_thresholds() -> None:
    keys = {"name": "s", "dataset": [{"q": "1", "answer": "2"}], "model": "m", "grader": "exact", "prompt": "{q}"}
    both = Suite(**keys, thresholds={"min_f1": 0.5}, max_latency=3)  # type: ignore[arg-type]
    assert [(gate.key, gate.limit) for gate in both.thresholds] == [
        ("max_latency", Decimal(3)),
        ("min_f1", Decimal("0.5")),
    ]
    with pytest.raises(SuiteError, match=r"thresholds\.min_f1 is given twice"):
        Suite(**keys, thresholds={"min_f1": 0.5}, min_f1=0.4)  # type: ignore[arg-type, call-arg]
    with pytest.raises(SuiteError, match="is not a threshold"):
        Suite(**keys, thresholds={"f1": 0.5})  # type: ignore[arg-type]


def test_grade_says_what_a_suite_would() -> None:
    found = grade("math", [r"\boxed{4}", "5", r"\boxed{4.0}"], {"answer": "4"})
    assert (found.metrics["success_vote"], found.votes[0][1]) == (1.0, 2)
    assert grade("exact", "b", {"answer": "a"}).metrics == {
        "success": 0.0,
        "success_vote": 0.0,
        "expected_success": 0.0,
    }
    assert (
        grade(lambda responses, **row: {"success": float(row["answer"] in responses)}, "a", {"answer": "a"}).metrics[
            "success"
        ]
        == 1
    )
    with pytest.raises(SuiteError, match="no grader 'mth'"):
        grade("mth", "4", {"answer": "4"})
    with pytest.raises(SuiteError, match="no reference column"):
        grade("math", "4", {"question": "4"})
    with pytest.raises(SuiteError, match="asks no model"):
        grade({"judge": {"model": "m", "rubric": "{response} {answer}"}}, "4", {"answer": "4"})
