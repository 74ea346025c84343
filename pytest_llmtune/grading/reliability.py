"""Reliability metrics over the n responses of a row: ``pass_at_k``, ``pass_hat_k`` and ``row_rate``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import GraderWrapper
from pytest_llmtune.suite.keys import RELIABILITY, ROW_RATE, reliability_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_llmtune.grading.base import Grader
    from pytest_llmtune.types import ExampleGrade, Row


def pass_at(n: int, right: int, k: int) -> float:
    """Probability that at least one of k responses drawn from n, of which ``right`` are correct, is correct.

    Unbiased for fresh responses (Chen et al. 2021, Evaluating Large Language Models Trained on Code, equation 1).
    """
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def pass_hat(n: int, right: int, k: int) -> float:
    """Probability that all of k responses drawn from n, of which ``right`` are correct, are correct.

    Unbiased for fresh responses (Yao et al. 2024, tau-bench, section 3).
    """
    return math.comb(right, k) / math.comb(n, k)


def with_reliability(grader: Grader, metrics: Iterable[str]) -> Grader:
    """Wrap a grader to add the requested reliability metrics; SuiteError if it judges all responses together."""
    names = reliability_names(metrics)
    if not names:
        return grader
    if not grader.reads_answers:
        raise SuiteError(
            f"the grader {grader.name} judges all responses of a row together, so that {names[0]} cannot be counted; "
            "use a grader that judges each response"
        )
    return Reliability(grader, names)


@dataclass(frozen=True)
class Reliability(GraderWrapper):
    """Adds metrics to those of a grader."""

    names: tuple[str, ...]

    def metric_names(self, rows: Sequence[Row]) -> frozenset[str] | None:
        known = self.inner.metric_names(rows)
        return None if known is None else known | {*self.names}

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        return self._counted(self.inner.grade(responses, row))

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:
        return self._counted(await self.inner.agrade(responses, row, ask))

    def _counted(self, grade: ExampleGrade) -> ExampleGrade:
        n, right = len(grade.answers), sum(answer.correct for answer in grade.answers)
        found = {name: value for name in self.names if (value := _value(name, n, right)) is not None}
        return replace(grade, metrics={**grade.metrics, **found})


def _value(name: str, n: int, right: int) -> float | None:
    """None if there are too few responses."""
    if name == ROW_RATE:
        return right / n if n else None
    match = RELIABILITY.fullmatch(name)
    assert match is not None  # noqa: S101  # ``reliability_names`` chose it
    k = int(match[2])
    if n < k:
        return None
    return (pass_at if match[1] == "at" else pass_hat)(n, right, k)
