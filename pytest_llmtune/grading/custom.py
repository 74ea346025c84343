"""Graders that users write: functions, classes, and several at once."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.functions import qualified_name, source_of
from pytest_llmtune._util.text import listed, shown
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.grading.base import (
    Grader,
    GraderWrapper,
    OtherExtras,
    blamed,
    digest,
    of_inner,
    raised_is_wrong,
    regraded,
    run_of,
)
from pytest_llmtune.types import Answer, ExampleGrade, Row, RunText

if TYPE_CHECKING:
    from pytest_llmtune.grading.reasoning import Marks


_TRACES = ("calls", "data")
"""Parameters of a grader that runs of a task fill, where no column has the name."""

GradeFunction = Callable[..., Mapping[str, Any] | ExampleGrade]


@dataclass(frozen=True)
class Function(Grader):
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

    def reference(self, row: Row) -> str:
        """Checks only that the row has every column that the function asks for by name."""
        self._arguments(row)
        return ""

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        arguments = {**self._arguments(row), **self._traces(responses, row)}
        try:
            result = self.function(list(responses), **arguments)
        except (LLMTuneError, KeyboardInterrupt):
            raise
        except BaseException as error:  # pytest.skip and sys.exit raise no Exception
            raise SuiteError(
                f"the grader {self.name} raised {type(error).__name__}: {error}; on the row {shown(dict(row))}"
            ) from error
        return result if isinstance(result, ExampleGrade) else self._grade_of(result)

    def _parameters(self) -> list[inspect.Parameter] | None:
        """None for a builtin without a signature."""
        try:
            return list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):
            return None

    def _arguments(self, row: Row) -> Mapping[str, Any]:
        """The columns that the function takes, all of them where it has ``**row``."""
        parameters = self._parameters()
        if parameters is None:
            return row
        named = [p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        missing = [p.name for p in named if p.default is p.empty and p.name not in (*row, *_TRACES)]
        if missing or not parameters:
            what = f"asks for {', '.join(map(repr, missing))}" if missing else "takes no argument"
            raise SuiteError(
                f"the grader {self.name} {what}; it is called as {self.name}(responses, **row), "
                f"and the columns are {listed(row)}"
            )
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return {key: value for key, value in row.items() if key != parameters[0].name}
        return {p.name: row[p.name] for p in named if p.name in row}

    def _traces(self, responses: Sequence[str], row: Row) -> dict[str, Any]:
        """What the function asks for of a task's runs: for each response its calls, and the ``data`` of its ``Outcome``."""
        runs = list(map(run_of, responses))
        found: dict[str, Any] = {
            "calls": [list(run.calls) if run else [] for run in runs],
            "data": [run.data if run else None for run in runs],
        }
        named = [p.name for p in self._parameters() or ()]
        return {name: found[name] for name in _TRACES if name in named and name not in row}

    def _grade_of(self, result: object) -> ExampleGrade:
        if isinstance(result, numbers.Real) or (hasattr(result, "item") and getattr(result, "ndim", 0) == 0):
            result = {"success": result, "success_vote": result}  # right or not, all responses taken together
        if not isinstance(result, Mapping):
            raise SuiteError(
                f"the grader {self.name} returned {result!r:.60}; expected True, False, a number, or a dict of metrics to numbers"
            )
        metrics = {
            str(key): self._number(key, value) for key, value in result.items() if key not in ("voted_answer", "votes")
        }
        voted = result.get("voted_answer")
        return ExampleGrade(metrics, self._votes(result.get("votes"), voted), None if voted is None else str(voted))

    def _votes(self, votes: object, voted: object) -> tuple[tuple[str, int], ...]:
        """AutoGen's graders return the number of votes of the elected answer; pairs are taken as they are."""
        if isinstance(votes, (int, float)) and voted is not None:
            return ((str(voted), round(self._number("votes", votes))),)
        if isinstance(votes, Mapping):
            votes = list(votes.items())
        if isinstance(votes, Sequence) and all(isinstance(pair, Sequence) and len(pair) == 2 for pair in votes):
            counted = [(str(answer), round(self._number("votes", count))) for answer, count in votes]
            return tuple(sorted(counted, key=lambda pair: -pair[1]))  # stable: of equals the first seen leads
        return ()

    def _number(self, key: object, value: object) -> float:
        if hasattr(value, "item"):  # numpy's and torch's scalars
            value = value.item()
        try:
            number = float(value) if isinstance(value, numbers.Real) else math.nan
        except OverflowError:  # a whole number or a fraction that no float holds
            number = math.inf
        if not math.isfinite(number):
            printed = f"{value!r:.60}" if not isinstance(value, int) else f"a number of {value.bit_length()} bits"
            raise SuiteError(f"the grader {self.name} returned {key}={printed}; a metric is a finite number")
        return number


@dataclass(frozen=True)
class CompositeGrader(Grader):
    """A list of graders; votes, voted answer and answers are the first one's."""

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
    def with_other_extras(self) -> OtherExtras | None:
        others = [grader.with_other_extras for grader in self.graders]
        why = next((other.why for other in others if other), None)
        if why is None:
            return None
        return OtherExtras(
            self._fingerprint([(other or one).fingerprint for one, other in zip(self.graders, others, strict=True)]),
            why,
        )

    @property
    def inner(self) -> Grader:
        """The first, which reads the answers of all."""
        return self.graders[0]

    per_response = of_inner()
    reads_answers = of_inner()
    answers = of_inner()
    aanswers = of_inner()

    @property
    def parts(self) -> tuple[Grader, ...]:
        return self.graders

    def metric_names(self, rows: Sequence[Row]) -> frozenset[str] | None:
        """None if unknown for one of them."""
        found: set[str] = set()
        for index, grader in enumerate(self.graders):
            if (names := grader.metric_names(rows)) is None:
                return None
            found |= {f"{grader.name}_{name}" if index else name for name in names}
        return frozenset(found)

    def reference(self, row: Row) -> str:
        references = [grader.reference(row) for grader in self.graders]  # each must be usable
        return references[0]

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        grades = []
        for grader in self.graders:
            with blamed(grader, row):
                grades.append(grader.grade(responses, row))
        return self._joined(grades, responses)

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:
        grades = []
        for grader in self.graders:
            with blamed(grader, row):
                grades.append(await grader.agrade(responses, row, ask))
        return self._joined(grades, responses)

    def _joined(self, grades: Sequence[ExampleGrade], responses: Sequence[str]) -> ExampleGrade:
        pairs = zip(self.graders, grades, strict=True)
        first, *others = [regraded(grade, responses, grader) for grader, grade in pairs]
        metrics: dict[str, float] = dict(first.metrics)
        for grader, grade in zip(self.graders[1:], others, strict=True):
            metrics |= {f"{grader.name}_{name}": value for name, value in grade.metrics.items()}
        return replace(first, metrics=metrics)


class ShapedGrader(Grader):
    """Wraps a duck-typed grader (``name``, ``fingerprint``, ``reference``, ``grade``).

    Missing attributes default to those of the base class; its ``agrade`` and ``aanswers`` may be plain functions.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    vote = of_inner("equivalence")
    reference_column = of_inner(None)
    caution = of_inner("", convert=str)
    probe_rows = of_inner(50, convert=int)
    name = of_inner(convert=str)
    fingerprint = of_inner(convert=str)
    per_response = of_inner(False, convert=bool)
    with_other_extras = of_inner(None)
    ready = of_inner(tuple)
    grade = of_inner()

    @property
    def reads_answers(self) -> bool:
        return self.per_response or hasattr(self.inner, "aanswers")

    @property
    def models(self) -> tuple[str, ...]:
        model = getattr(self.inner, "model", None)
        return (model,) if isinstance(model, str) else ()

    def metric_names(self, rows: Sequence[Row]) -> frozenset[str] | None:
        names = getattr(self.inner, "metric_names", None)
        return frozenset(names(rows) or ()) or None if callable(names) else None

    def reference(self, row: Row) -> str:
        return str(self.inner.reference(row))

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        return tuple(self.inner.answers(responses, row))

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:
        own = getattr(self.inner, "agrade", None)
        found: Any = self.grade(responses, row) if own is None else own(responses, row, ask)
        graded: ExampleGrade = await found if inspect.isawaitable(found) else found
        return graded

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:
        own = getattr(self.inner, "aanswers", None)
        found: Any = self.answers(responses, row) if own is None else own(responses, row, ask)
        return tuple(await found if inspect.isawaitable(found) else found)


@dataclass(frozen=True)
class AnswerGrader(GraderWrapper):
    """Removes the reasoning from responses before another grader reads them."""

    marks: Marks

    @property
    def fingerprint(self) -> str:
        return self._marked(self.inner.fingerprint)

    def _marked(self, fingerprint: str) -> str:
        """The inner grader's fingerprint, with the marks if they are not the built-in ones."""
        return digest({"grader": fingerprint, "reasoning": self.marks.key}) if self.marks.key else fingerprint

    @property
    def with_other_extras(self) -> OtherExtras | None:
        other = self.inner.with_other_extras
        return OtherExtras(self._marked(other.fingerprint), other.why) if other else None

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        with blamed(self.inner, row):
            grade = self.inner.grade(self._answers(responses), row)
        return regraded(grade, responses, self.inner)

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        return raised_is_wrong(self.inner.answers(self._answers(responses), row), responses)

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:
        with blamed(self.inner, row):
            grade = await self.inner.agrade(self._answers(responses), row, ask)
        return regraded(grade, responses, self.inner)

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:
        with blamed(self.inner, row):
            return raised_is_wrong(await self.inner.aanswers(self._answers(responses), row, ask), responses)

    def _answers(self, responses: Sequence[str]) -> list[str]:
        """The responses without reasoning, still with the runs that produced them."""
        pairs = [(self.marks.answer(response), run_of(response)) for response in responses]
        return [answer if run is None else RunText(answer, run) for answer, run in pairs]
