"""Graders: turn the n responses of an example into metrics."""

from pytest_llmtune.grading.base import Grader, awaits, grade_answers
from pytest_llmtune.grading.preflight import cautions_of, check, check_aggregated, check_metric, check_named, judges_of
from pytest_llmtune.grading.registry import accepts, fits, grader_of, resolve
from pytest_llmtune.grading.reliability import with_reliability

__all__ = [
    "Grader",
    "accepts",
    "awaits",
    "cautions_of",
    "check",
    "check_aggregated",
    "check_metric",
    "check_named",
    "fits",
    "grade_answers",
    "grader_of",
    "judges_of",
    "resolve",
    "with_reliability",
]
