"""The `tools` and `calls` graders: judge the model and tool calls of a task's run."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import listed, shown
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, grade_answers, run_of
from pytest_llmtune.grading.json_match import check_schema, schema_fault
from pytest_llmtune.grading.workers import off_thread
from pytest_llmtune.suite.prompts import fill
from pytest_llmtune.types import Answer

if TYPE_CHECKING:
    from pytest_llmtune.types import ExampleGrade, ModelCall, Row, TaskRun, ToolCall


_COLUMN = lazy_regex(r"\{([^{}\[\].!:]+)\}")
_ORDERS = ("any", "in_order", "exact")


@dataclass(frozen=True, kw_only=True)
class _Trace(BuiltIn):
    """Judges runs; a response without a run, or a run that raised, is wrong."""

    probe_rows: ClassVar[int] = 1
    longest_in_process: ClassVar[int | None] = None  # reads the run, not its text

    def reference(self, row: Row) -> str:  # noqa: ARG002 - a subclass checks that the row has the columns of its options
        return ""

    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        return tuple(self._answer(run_of(response), row) for response in responses)

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        grade = grade_answers(self.answers(responses, row), self.vote)
        runs = [run for response in responses if (run := run_of(response)) is not None]
        counts = {name: sum(values) / len(values) for name, values in self._counts(runs).items() if values}
        return replace(grade, metrics={**grade.metrics, **counts})

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:  # noqa: ARG002
        return await off_thread(self.grade, responses, row)  # a schema is held against arguments by a worker

    def metric_names(self, rows: Sequence[Row]) -> frozenset[str]:
        return super().metric_names(rows) | self._counts([]).keys()

    def _answer(self, run: TaskRun | None, row: Row) -> Answer:
        if run is None:
            return Answer(None, "not a run of a task", correct=False)
        if run.error is not None:
            return Answer(None, run.error, correct=False)
        why = self._why_not(run, row)
        return Answer("wrong" if why else "right", why or "as expected", correct=not why)

    @abstractmethod
    def _why_not(self, run: TaskRun, row: Row) -> str:
        """Why a run is wrong; empty if it is right."""

    @abstractmethod
    def _counts(self, runs: Sequence[TaskRun]) -> Mapping[str, list[float]]:
        """Metric to its value in each run."""


@dataclass(frozen=True, kw_only=True)
class Tools(_Trace):
    """Judges which tools the models called, in what order, and with which arguments.

    ``include``, ``exclude`` and ``args`` may name columns, as in ``include="{tools}"``.
    """

    include: Any = ()
    """Tools that must be called; one that is named twice, twice."""
    exclude: Any = ()
    """Tools that must not be called."""
    order: str = "any"
    """Order of ``include``: ``any``; ``in_order``, with others in between; ``exact``, these calls and no others."""
    args: Any = None
    """Tool to its arguments: ``{"lookup": {"id": "{order}"}}`` (equal), or ``{"lookup": {"schema": {...}}}`` (JSON Schema)."""
    max_calls: int | None = None
    """Maximum number of tool calls in a run."""

    kind: ClassVar[str] = "tools"

    def __post_init__(self) -> None:
        if self.order.replace(" ", "_") not in _ORDERS:
            raise SuiteError(f"order={shown(self.order)}; valid: {', '.join(_ORDERS)}")
        if self.max_calls is not None and (isinstance(self.max_calls, bool) or self.max_calls < 0):
            raise SuiteError(f"max_calls={shown(self.max_calls)}; expected a whole number from 0")
        if not (self.include or self.exclude or self.args) and self.max_calls is None:
            raise SuiteError("needs one of include, exclude, args and max_calls: else every run is right")
        if self.args is not None and not isinstance(self.args, (Mapping, str)):
            raise SuiteError(
                f"args={shown(self.args)}; expected a mapping of tools to arguments, or a column in braces"
            )
        for option in ("include", "exclude"):
            if not isinstance(value := getattr(self, option), str):
                _names(option, value)
        for tool, expected in (self.args if isinstance(self.args, Mapping) else {}).items():
            if (schema := _schema(expected)) is not None:
                try:
                    check_schema(schema)
                except SuiteError as error:
                    raise SuiteError(f"args: {tool}: {error}") from None

    def reference(self, row: Row) -> str:
        self._names("include", row)
        self._names("exclude", row)
        self._args(row)
        return super().reference(row)

    def _why_not(self, run: TaskRun, row: Row) -> str:
        tool_calls = [tool for call in run.calls for tool in call.tool_calls]
        names = [tool.name for tool in tool_calls]
        include, order = self._names("include", row), self.order.replace(" ", "_")
        if missing := list((Counter(include) - Counter(names)).elements()):
            return f"{', '.join(missing)} not asked for; asked: {', '.join(names) or 'no tool'}"
        if wrong := [name for name in names if name in self._names("exclude", row)]:
            return f"{wrong[0]} must not be asked for"
        if order == "exact" and names != include:
            return f"asked: {', '.join(names)}; exactly expected: {', '.join(include)}"
        rest = iter(names)
        if order == "in_order" and not all(name in rest for name in include):
            return f"asked: {', '.join(names)}; expected in this order: {', '.join(include)}"
        if self.max_calls is not None and len(names) > self.max_calls:
            return f"{len(names)} calls of tools, more than {self.max_calls}"
        return self._wrong_arguments(tool_calls, row)

    def _wrong_arguments(self, tool_calls: Sequence[ToolCall], row: Row) -> str:
        """Why no call of a tool in ``args`` matches; with a schema, all calls must match."""
        for tool, expected in self._args(row).items():
            calls = [call for call in tool_calls if call.name == tool]
            schema = _schema(expected)
            if not calls:
                return f"{tool} not asked for"
            if schema is None and not any(_same(call.arguments, expected) for call in calls):
                return f"{tool} asked with {_json(calls[-1].arguments)}; expected {_json(expected)}"
            for call in calls if schema is not None else ():
                arguments = json.dumps(call.arguments, default=str)
                why = schema_fault(json.dumps(schema), arguments, self.time_allowed)
                if why:
                    return f"{tool}: {why}"
        return ""

    def _names(self, option: str, row: Row) -> list[str]:
        return _names(option, _filled(getattr(self, option), row))

    def _args(self, row: Row) -> Mapping[str, Any]:
        found = _filled(self.args, row)
        if isinstance(found, str):
            try:
                found = json.loads(found)
            except (ValueError, RecursionError):
                raise SuiteError(f"args: {shown(found)} is no JSON") from None
        if found is not None and not isinstance(found, Mapping):
            raise SuiteError(f"args: {shown(found)}; expected a mapping of tools to arguments")
        return cast("Mapping[str, Any]", found or {})

    def _counts(self, runs: Sequence[TaskRun]) -> Mapping[str, list[float]]:
        return {"per_run": [float(sum(len(call.tool_calls) for call in run.calls)) for run in runs]}


@dataclass(frozen=True, kw_only=True)
class Calls(_Trace):
    """Judges the number of model calls of a run."""

    max_calls: int | None = None
    """Maximum number of model calls in a run."""
    max_turns: int | None = None
    """Maximum number of a model's messages in one conversation."""
    no_repeats: bool = False
    """Whether a repeated request, or a repeated tool call with the same arguments, is wrong."""

    kind: ClassVar[str] = "calls"

    def __post_init__(self) -> None:
        for name in ("max_calls", "max_turns"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise SuiteError(f"{name}={shown(value)}; expected a whole number from 0")
        if self.max_calls is None and self.max_turns is None and not self.no_repeats:
            raise SuiteError("needs one of max_calls, max_turns and no_repeats: else every run is right")

    def _why_not(self, run: TaskRun, row: Row) -> str:  # noqa: ARG002
        calls = [call for call in run.calls if call.model]
        if self.max_calls is not None and len(calls) > self.max_calls:
            return f"{len(calls)} calls of models, more than {self.max_calls}"
        if self.max_turns is not None and (turns := _turns(calls)) > self.max_turns:
            return f"{turns} turns, more than {self.max_turns}"
        return _repeated(calls) if self.no_repeats else ""

    def _counts(self, runs: Sequence[TaskRun]) -> Mapping[str, list[float]]:
        requests = [[call for call in run.calls if call.model] for run in runs]
        return {
            "per_run": [float(len(calls)) for calls in requests],
            "turns": [float(_turns(calls)) for calls in requests],
        }


def _turns(calls: Sequence[ModelCall]) -> int:
    """Number of the model's messages in the longest conversation: those sent with a call, and its answer."""
    roles = ("assistant", "model")
    return max((1 + sum(message.get("role") in roles for message in call.messages) for call in calls), default=0)


def _repeated(calls: Sequence[ModelCall]) -> str:
    seen: set[str] = set()
    for call in calls:
        for what, request in [
            (f"the request of call {call.number}", [call.path, call.model, call.messages or call.digest]),
            *((f"{tool.name} with {_json(tool.arguments)}", [tool.name, tool.arguments]) for tool in call.tool_calls),
        ]:
            text = json.dumps(request, sort_keys=True, default=str)
            if text in seen:
                return f"{what} is made twice"
            seen.add(text)
    return ""


def _filled(value: Any, row: Row) -> Any:
    """The value with ``{column}`` replaced by the row's cells; a string that is only a field becomes the cell itself."""
    if isinstance(value, str):
        if match := _COLUMN.fullmatch(value):
            if match[1] not in row:
                raise SuiteError(f"names the column {match[1]!r}; the columns are {listed(row)}")
            return row[match[1]]
        return fill(value, row) if "{" in value else value
    if isinstance(value, Mapping):
        return value if _schema(value) is not None else {name: _filled(item, row) for name, item in value.items()}
    return [_filled(item, row) for item in value] if isinstance(value, (list, tuple)) else value


def _names(option: str, value: Any) -> list[str]:
    """Tool names from a list, or from a comma-separated string."""
    if isinstance(value, str):
        return [name for part in value.split(",") if (name := part.strip())]
    if value is None:
        return []
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise SuiteError(f"{option}={shown(value)}; expected a list of tools' names")
    return list(value)


def _schema(expected: Any) -> Mapping[str, Any] | None:
    """The JSON Schema of the arguments; None if they must be equal."""
    if not isinstance(expected, Mapping):
        return None
    if expected.keys() == {"schema"} and isinstance(expected["schema"], Mapping):
        return cast("Mapping[str, Any]", expected["schema"])
    of_an_object = expected.get("type") == "object" and bool(expected.keys() & {"properties", "required"})
    return expected if "$schema" in expected or of_an_object else None


def _same(one: Any, other: Any) -> bool:
    """Equality as JSON: ``1`` equals ``1.0``, but not true."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return text if len(text) <= 200 else text[:200] + "..."
