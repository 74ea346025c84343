"""The results of many examples, on disk: hundreds of thousands of them are held at once."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, overload

from pytest_llmtune._util.spool import Spool
from pytest_llmtune.types import Answer, ExampleGrade, ExampleResult, Usage

if TYPE_CHECKING:
    from pytest_llmtune.types import Example

__all__ = ["Results"]


_write = json.JSONEncoder(separators=(",", ":"), default=float).encode  # ASCII: lone surrogates are kept
_read = json.JSONDecoder().decode


class Results(Sequence[ExampleResult]):
    """As a tuple of results, one for each example; each is made anew, of what is on disk, when it is looked at."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        self._numbers = array("L", [0]) * len(examples)
        self._spool = Spool()

    def __setitem__(self, place: int, result: ExampleResult) -> None:
        """The result of the example at this place; each is set before it is looked at."""
        self._numbers[place] = self._spool.put(_write(_plain(result)))

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, place: int) -> ExampleResult: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[ExampleResult, ...]: ...
    def __getitem__(self, place: int | slice) -> ExampleResult | tuple[ExampleResult, ...]:
        if isinstance(place, slice):
            return tuple(self[each] for each in range(*place.indices(len(self))))
        return _result(self._examples[place], _read(self._spool.get(self._numbers[place])))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, (tuple, Results)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as its rows

    def __repr__(self) -> str:
        return repr(tuple(self))


def _plain(result: ExampleResult) -> tuple[Any, ...]:
    grade, usage = result.grade, result.usage
    return (
        result.status,
        grade and (grade.metrics, grade.votes, grade.voted_answer, [(a.key, a.text, a.correct) for a in grade.answers]),
        tuple(result.responses),
        (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.estimated),
        str(result.cost),
        result.latency,
        result.error,
    )


def _result(example: Example, data: Any) -> ExampleResult:
    status, grade, responses, usage, cost, latency, error = data
    return ExampleResult(
        example,
        status,
        grade and _grade(*grade),
        tuple(responses),
        Usage(*usage),
        Decimal(cost),
        latency,
        error,
    )


def _grade(metrics: dict[str, float], votes: Any, voted_answer: str | None, answers: Any) -> ExampleGrade:
    return ExampleGrade(
        metrics, tuple(map(tuple, votes)), voted_answer, tuple(Answer(key, text, right) for key, text, right in answers)
    )
