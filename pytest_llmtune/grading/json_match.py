"""The ``json`` grader: find the document in a response, compare it, validate it."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, reference_value
from pytest_llmtune.grading.workers import WorkerPool, off_thread
from pytest_llmtune.suite.columns import REFERENCE_COLUMNS
from pytest_llmtune.types import Answer, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NOTHING", "JsonAnswer", "canonical", "check_path", "pick", "read_last"]


NOTHING = object()
"""No JSON was found; None is JSON's null."""

_FENCE = re.compile(
    r"^[ \t]*```[ \t]*(?:json5?|jsonc)?[ \t]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL | re.IGNORECASE
)
_MOST_STARTS = 200  # places where a value may start; more are no answer
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def read_last(text: str) -> Any:
    """The whole text, else the last fenced block, else the last object or array in it; NOTHING where none is JSON."""
    for candidate in (text, *reversed(_FENCE.findall(text))):
        value = _read(candidate)
        if value is not NOTHING:
            return value
    found = NOTHING
    for found in _embedded(text):  # noqa: B007 - the last one
        pass
    return found


def _embedded(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_constant=_refuse)
    place, starts = 0, 0
    while (match := re.compile(r"[{\[]").search(text, place)) and starts < _MOST_STARTS:
        starts += 1
        try:
            value, place = decoder.raw_decode(text, match.start())
            yield value
        except (ValueError, RecursionError):
            place = match.start() + 1


def _read(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return NOTHING


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def canonical(value: Any, *, any_order: bool) -> str:
    """Text that is the same for equal values: keys sorted, 1.0 as 1, and with ``any_order`` arrays sorted too."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (int, float)):
        return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)
    if isinstance(value, Mapping):
        pairs = sorted(
            (json.dumps(str(key), ensure_ascii=False), canonical(item, any_order=any_order))
            for key, item in value.items()
        )
        return "{" + ", ".join(f"{key}: {item}" for key, item in pairs) + "}"
    items = [canonical(item, any_order=any_order) for item in value]
    return "[" + ", ".join(sorted(items) if any_order else items) + "]"


def check_path(path: object) -> str:
    """A path such as ``user.tags[0]``; raises SuiteError where it is none."""
    if not isinstance(path, str) or not re.fullmatch(r"[^.\[\]]+(?:\.[^.\[\]]+|\[\d+\])*", path):
        raise SuiteError(f"fields: {path!r} is no path such as 'name' or 'user.tags[0]'")
    return path


def pick(value: Any, path: str) -> Any:
    """What stands at ``path``; NOTHING where the value has no such place."""
    for name, index in _STEP.findall(path):
        if name and isinstance(value, Mapping) and name in value:
            value = value[name]
        elif index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        else:
            return NOTHING
    return value


@dataclass(frozen=True, kw_only=True)
class JsonAnswer(BuiltIn):
    """The order of keys never matters; 1 is 1.0, but true is not 1. With a schema and no reference, fitting is all."""

    schema: Mapping[str, Any] | None = None
    """A JSON schema (the package jsonschema holds the value against it, in a worker process)."""
    fields: Sequence[str] | None = None
    """Paths such as ``user.tags[0]`` that are compared; default: everything."""
    any_order: bool = False
    """Whether the order of arrays does not matter."""
    time_limit: float = 5.0
    """Seconds the schema may take for one answer, which does not fit past them."""

    kind: ClassVar[str] = "json"

    def __post_init__(self) -> None:
        fields = (self.fields,) if isinstance(self.fields, str) else self.fields
        object.__setattr__(self, "fields", None if fields is None else tuple(check_path(path) for path in fields))
        if self.schema is not None:
            _check_schema(self.schema)

    def reference(self, row: Row) -> str:
        if self.schema is not None and not self._has_reference(row):
            return "any JSON that fits the schema"
        value = reference_value(row, self.reference_column)
        found = _from_text(value) if isinstance(value, str) else value
        if found is NOTHING:
            raise SuiteError(f"the reference {value!r:.60} is not JSON")
        missing = next((path for path in self.fields or () if pick(found, path) is NOTHING), None)
        if missing is not None:
            raise SuiteError(f"the reference has no field {missing!r}")
        return self._key(found)

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        wanted = self.reference(row) if self.schema is None or self._has_reference(row) else None
        return tuple(self._answer(read_last(text), wanted) for text in responses)

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:  # noqa: ARG002
        if self.schema is None:
            return self.answers(responses, row)
        return await off_thread(self.answers, responses, row)

    def _has_reference(self, row: Row) -> bool:
        names = REFERENCE_COLUMNS if self.reference_column is None else (self.reference_column,)
        return any(row.get(name) not in (None, "") for name in names)

    def _answer(self, value: Any, wanted: str | None) -> Answer:
        if value is NOTHING:
            return Answer(None, "", correct=False)
        key = self._key(value)
        fault = self._fault(value) if wanted is None or key == wanted else None
        return Answer(key, fault or key, fault is None and (wanted is None or key == wanted))

    def _key(self, value: Any) -> str:
        if self.fields is None:
            return canonical(value, any_order=self.any_order)
        parts = {path: pick(value, path) for path in self.fields}
        present = {path: part for path, part in parts.items() if part is not NOTHING}
        return canonical(present, any_order=self.any_order)

    def _fault(self, value: Any) -> str | None:
        """What the schema says against a value."""
        return None if self.schema is None else self._validate(json.dumps(value))

    @cached_property
    def _pool(self) -> WorkerPool:
        return WorkerPool(Path(__file__).parent / "workers" / "json_job.py")

    @cached_property
    def _validate(self) -> Any:
        def validate(text: str) -> str | None:
            found = self._pool.call({"schema": self.schema, "value": json.loads(text)}, self.time_limit)
            return "the schema took too long" if found is None else found["error"]

        return lru_cache(maxsize=10_000)(validate)


def _from_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return NOTHING


def _check_schema(schema: object) -> None:
    if importlib.util.find_spec("jsonschema") is None:
        raise SuiteError("a schema needs the package jsonschema: pip install 'pytest-llmtune[json]'")
    if not isinstance(schema, Mapping):
        raise SuiteError(f"schema={schema!r:.60}; expected a mapping, the JSON schema itself")
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise SuiteError(f"the schema is not a JSON schema: {error.json_path}: {error.message:.120}") from None
