"""A list of graders as one: the first names the metrics, the others add theirs under ``<name>_<metric>``."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import Elsewhere, Grader, digest, metric_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.types import Answer, ExampleGrade, Row

__all__ = ["Several", "grade_with"]


@dataclass(frozen=True)
class Several:
    """Votes, voted answer and answers are the first grader's."""

    graders: tuple[Grader, ...]

    def __post_init__(self) -> None:
        if not self.graders:
            raise SuiteError("an empty list of graders")
        names = [grader.name for grader in self.graders]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SuiteError(f"the grader {twice!r} is listed twice; tell them apart with the option `name`")

    @property
    def name(self) -> str:
        return "+".join(grader.name for grader in self.graders)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint([grader.fingerprint for grader in self.graders])

    def _fingerprint(self, graders: Sequence[str]) -> str:
        return digest({"kind": "several", "graders": graders})

    @property
    def elsewhere(self) -> Elsewhere | None:
        found: list[Elsewhere | None] = [getattr(grader, "elsewhere", None) for grader in self.graders]
        why = next((other.why for other in found if other), None)
        if why is None:
            return None
        return Elsewhere(
            self._fingerprint(
                [
                    other.fingerprint if other else grader.fingerprint
                    for grader, other in zip(self.graders, found, strict=True)
                ]
            ),
            why,
        )

    @property
    def per_response(self) -> bool:
        return self.graders[0].per_response

    def metric_names(self, rows: Sequence[Row]) -> frozenset[str] | None:
        """None where one of them cannot tell."""
        found: set[str] = set()
        for place, grader in enumerate(self.graders):
            if (names := metric_names(grader, rows)) is None:
                return None
            found |= {f"{grader.name}_{name}" if place else name for name in names}
        return frozenset(found)

    def reference(self, row: Row) -> str:
        references = [grader.reference(row) for grader in self.graders]  # each must be usable
        return references[0]

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        return self.graders[0].answers(responses, row)

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        return self._joined([grader.grade(responses, row) for grader in self.graders])

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:
        first: Any = self.graders[0]
        found = first.aanswers(responses, row, ask) if hasattr(first, "aanswers") else first.answers(responses, row)
        return tuple(await found if inspect.isawaitable(found) else found)

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:
        return self._joined([await grade_with(grader, responses, row, ask) for grader in self.graders])

    def _joined(self, grades: Sequence[ExampleGrade]) -> ExampleGrade:
        first, *others = grades
        metrics: dict[str, float] = dict(first.metrics)
        for grader, grade in zip(self.graders[1:], others, strict=True):
            metrics |= {f"{grader.name}_{name}": value for name, value in grade.metrics.items()}
        return replace(first, metrics=metrics)


async def grade_with(grader: Grader, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:
    """``agrade`` where the grader has it, else ``grade``."""
    agrade = getattr(grader, "agrade", None)
    graded = grader.grade(responses, row) if agrade is None else agrade(responses, row, ask)
    return await graded if inspect.isawaitable(graded) else graded
