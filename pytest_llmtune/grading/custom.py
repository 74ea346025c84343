"""Graders that users write: functions, classes, and several at once."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_llmtune._util.functions import qualified_name, source_of
from pytest_llmtune._util.text import listed, shown
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.grading.base import Elsewhere, Grader, digest, metric_names
from pytest_llmtune.types import Answer, ExampleGrade, Row

__all__ = ["CompositeGrader", "Function", "GradeFunction", "grade_with"]


GradeFunction = Callable[..., Mapping[str, Any] | ExampleGrade]


@dataclass(frozen=True)
class Function:
    """A function of all responses of an example, as in AutoGen: it names its own metrics."""

    function: GradeFunction

    def __post_init__(self) -> None:
        if inspect.iscoroutinefunction(self.function):
            raise SuiteError(
                f"the grader {self.name} is async; a grader is a plain function (to ask a model, use `judge`)"
            )

    @property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @property
    def fingerprint(self) -> str:
        return digest({"kind": "function", "name": qualified_name(self.function), "source": source_of(self.function)})

    @property
    def per_response(self) -> bool:
        return False

    def reference(self, row: Row) -> str:
        """Checks only that the row has every column that the function asks for by name."""
        self._arguments(row)
        return ""

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:  # noqa: ARG002
        raise TypeError(f"the grader {self.name} judges all responses together")

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        arguments = self._arguments(row)
        try:
            result = self.function(list(responses), **arguments)
        except LLMTuneError:
            raise
        except Exception as error:
            raise SuiteError(
                f"the grader {self.name} raised {type(error).__name__}: {error}; on the row {shown(dict(row))}"
            ) from error
        return result if isinstance(result, ExampleGrade) else self._grade_of(result)

    def _arguments(self, row: Row) -> Mapping[str, Any]:
        """The columns that the function takes, all of them where it has ``**row``."""
        try:
            parameters = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):  # a builtin without a signature
            return row
        named = [p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        missing = [p.name for p in named if p.default is p.empty and p.name not in row]
        if missing or not parameters:
            what = f"asks for {', '.join(map(repr, missing))}" if missing else "takes no argument"
            raise SuiteError(
                f"the grader {self.name} {what}; it is called as {self.name}(responses, **row), "
                f"and the columns are {listed(row)}"
            )
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return {key: value for key, value in row.items() if key != parameters[0].name}
        return {p.name: row[p.name] for p in named if p.name in row}

    def _grade_of(self, result: object) -> ExampleGrade:
        if not isinstance(result, Mapping):
            raise SuiteError(f"the grader {self.name} returned {result!r:.60}; expected a dict of metrics to numbers")
        metrics = {
            str(key): self._number(key, value) for key, value in result.items() if key not in ("voted_answer", "votes")
        }
        voted = result.get("voted_answer")
        return ExampleGrade(metrics, self._votes(result.get("votes"), voted), None if voted is None else str(voted))

    def _votes(self, votes: object, voted: object) -> tuple[tuple[str, int], ...]:
        """AutoGen's graders return the number of votes of the elected answer; pairs are taken as they are."""
        if isinstance(votes, (int, float)) and voted is not None:
            return ((str(voted), int(votes)),)
        if isinstance(votes, Mapping):
            votes = list(votes.items())
        if isinstance(votes, Sequence) and all(isinstance(pair, Sequence) and len(pair) == 2 for pair in votes):
            counted = [(str(answer), int(count)) for answer, count in votes]
            return tuple(sorted(counted, key=lambda pair: -pair[1]))  # stable: of equals the first seen leads
        return ()

    def _number(self, key: object, value: object) -> float:
        if hasattr(value, "item"):  # numpy's and torch's scalars
            value = value.item()
        if not isinstance(value, numbers.Real) or not math.isfinite(float(value)):
            raise SuiteError(f"the grader {self.name} returned {key}={value!r:.60}; a metric is a finite number")
        return float(value)


@dataclass(frozen=True)
class CompositeGrader:
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
