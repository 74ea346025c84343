"""Graders that are sent to another machine, after they were at work here: nothing goes along but their options."""

from __future__ import annotations

import pickle

import pytest

from pytest_llmtune.grading import resolve

CASES = {
    "math": ({"math": {"symbolic": True}}, "\\boxed{x+x}", {"answer": "\\boxed{2x}"}),
    "exact": ("exact", "Yes", {"answer": "Yes"}),
    "choice": ({"choice": {"labels": ["good", "bad"]}}, "good", {"answer": "good"}),
    "numeric": ("numeric", "It is 4.", {"answer": "4"}),
    "contains": ("contains", "It is four.", {"answer": "four"}),
    "regex": ("regex", "It is four.", {"answer": "fo.r"}),
    "json": ({"json": {"schema": {"type": "object"}}}, '{"a": 1}', {"answer": '{"a": 1}'}),
    "several": (["exact", "contains"], "Yes", {"answer": "Yes"}),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_grader_that_was_used(kind: str) -> None:
    """It grades there as here, and is the same grader to every fingerprint."""
    if kind == "math":
        pytest.importorskip("math_verify")
    if kind == "json":
        pytest.importorskip("jsonschema")
    spec, response, row = CASES[kind]
    grader = resolve(spec)
    here = grader.grade([response], row)
    assert here.metrics["success_vote"] == 1
    there = pickle.loads(pickle.dumps(grader))  # noqa: S301  # our own
    assert there.grade([response], row) == here
    assert there.fingerprint == grader.fingerprint
