"""Graders: from the n responses of an example to metrics, without ever paying for an answer that says nothing."""

from pytest_llmtune.grading.grader import Grader
from pytest_llmtune.grading.resolve import BUILT_IN, resolve
from pytest_llmtune.grading.vacuous import check, check_metric, judges_of
from pytest_llmtune.grading.votes import VOTES, check_vote, grade_answers

__all__ = [
    "BUILT_IN",
    "VOTES",
    "Grader",
    "check",
    "check_metric",
    "check_vote",
    "grade_answers",
    "judges_of",
    "resolve",
]
