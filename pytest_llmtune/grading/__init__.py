"""Graders: from the n responses of an example to metrics, without ever paying for an answer that says nothing."""

from pytest_llmtune.grading.base import Grader, metric_names
from pytest_llmtune.grading.named import check_aggregated, check_metric, check_named
from pytest_llmtune.grading.preflight import check, judges_of
from pytest_llmtune.grading.registry import BUILT_IN, resolve
from pytest_llmtune.grading.votes import VOTES, check_vote, grade_answers

__all__ = [
    "BUILT_IN",
    "VOTES",
    "Grader",
    "check",
    "check_aggregated",
    "check_metric",
    "check_named",
    "check_vote",
    "grade_answers",
    "judges_of",
    "metric_names",
    "resolve",
]
