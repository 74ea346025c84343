"""Graders of the user's own: a function ``grade(responses, **row) -> dict``, given or named "module:function"."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_llmtune._util.functions import qualified_name, source_of
from pytest_llmtune._util.invalid import listed, shown
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.grading.base import digest
from pytest_llmtune.types import Answer, ExampleGrade, Row

__all__ = ["Function", "GradeFunction"]


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
