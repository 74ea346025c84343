"""The ``json`` grader: find a JSON document in a response, compare and validate it."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.serialize import strict_decoder
from pytest_llmtune._util.text import shown
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, reference_names, reference_value
from pytest_llmtune.grading.math.extract import untagged
from pytest_llmtune.grading.math.retracted import DENIED_AFTER, IS_WRONG
from pytest_llmtune.grading.workers import WorkerPool, off_thread
from pytest_llmtune.types import Answer, Row

if TYPE_CHECKING:
    from collections.abc import Sequence


NOTHING = object()
"""Returned if no JSON was found; None is JSON's null."""

_FENCE = lazy_regex(
    r"^[ \t>]*(?:[-*+][ \t]+|\d+[.)][ \t]+)?(?P<mark>`{3,}+|~{3,}+)[ \t]*(?P<tag>json5?|jsonc)?[ \t]*(?:\r?\n)"
    r"(?P<body>.*?)(?:^[ \t>]*(?P=mark)|(?P<cut>\Z))",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_QUOTED = lazy_regex(r"^[ \t]*>[ \t>]*", re.MULTILINE)
_MOST_STARTS = 200  # maximum number of positions at which a value may start
_STEP = lazy_regex(r"([^.\[\]]+)|\[(\d+)\]")


def read_last(text: str, like: type | None = None) -> Any:
    """Parse the whole text, else the last fenced block, else the last object or array in it.

    A citation such as ``[1]`` or an empty ``[]`` in a remark is ignored if there is another value.

    Args:
        like: ``dict`` or ``list`` if the answer must be one.

    Returns:
        NOTHING if there is no JSON, or the last document is truncated, has a duplicate key or an invalid number (1e400).
    """
    value = read(text)
    if value is not NOTHING:
        return value
    found: list[Any] = []
    end = 0
    for fence in _FENCE.finditer(text):
        value = read(_QUOTED.sub("", fence["body"]))
        if fence["cut"] is not None and value is NOTHING and fence["body"].lstrip()[:1] in ("{", "["):
            return NOTHING  # cut off
        if value is not NOTHING or fence["tag"]:
            end = text.find("\n", fence.end())
            end = len(text) if end < 0 else end
            if not _is_denied(text, fence.start(), fence.end()):
                found.append(value)
    if end:
        corrected = _corrected(text[end:], type(found[-1]) if found else like)
        return corrected if corrected is not None else (found[-1] if found else NOTHING)
    found = list(_embedded(text))
    if not found or found[-1] is NOTHING:
        return NOTHING
    found = [value for value in found if value is not NOTHING]
    found = [value for value in found if like is None or isinstance(value, like)] or found
    for value in reversed(found):
        is_footnote = isinstance(value, list) and len(value) == 1 and type(value[0]) is int
        if value and not is_footnote:
            return value
    return found[-1]


def _embedded(text: str) -> Iterator[Any]:
    """The outermost objects and arrays of a text; NOTHING at the end if the text ends inside one."""
    position, starts = 0, 0
    while (match := _OPENING.search(text, position)) and starts < _MOST_STARTS:
        starts += 1
        try:
            value, position = _DECODER.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            end = _closing(text, match.start())
            if _BEGUN.match(text, match.start()):
                yield NOTHING  # no JSON, or cut off: its parts are not the answer
                if end < 0:
                    return
            position = end + 1 if end >= 0 else match.start() + 1
        else:
            if not _is_denied(text, match.start(), position):
                yield value


def _is_denied(text: str, start: int, end: int) -> bool:
    """Whether the text says that the document between the positions is not the answer."""
    return (
        _DENIED_BEFORE.search(text[max(0, start - 40) : start]) is not None
        or DENIED_AFTER.match(text, end) is not None
        or _TAKEN_BACK.match(text, end) is not None
    )


def _corrected(tail: str, kind: type | None) -> Any:
    """The document that takes the place of the fenced one before: "Correction: {}"; None if there is none."""
    match = _CORRECTION.search(tail)
    if match is None:
        return None
    found = list(_embedded(tail[match.end() :]))
    if found and found[-1] is NOTHING:
        return NOTHING
    return next((value for value in reversed(found) if kind is None or isinstance(value, kind)), None)


def _closing(text: str, start: int) -> int:
    """Position at which the bracket at ``start`` closes, outside strings; -1 if it does not."""
    depth, position = 0, start
    while (match := _PIECE.search(text, position)) is not None:
        position = match.end()
        if match[0] in ("{", "["):
            depth += 1
        elif match[0] in ("}", "]"):
            depth -= 1
            if not depth:
                return match.start()
    return -1


def read(text: str) -> Any:
    """Parse a text that is entirely JSON; NOTHING if it is not."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return NOTHING


_DENIED_BEFORE = lazy_regex(
    r"(?:\bnot|n['\u2019]t|\bnever|\brather\s+than|\binstead\s+of)\s{0,3}:?[\s`*(]{0,5}\Z", re.IGNORECASE
)
_TAKEN_BACK = lazy_regex(
    r"[\s`*.,;!)]{0,6}(?:(?:but|and|no|wait|however|actually|sorry|oops|although|though)[\s,.]{1,3}){0,3}"
    rf"(?:that|this|it|which){IS_WRONG}",
    re.IGNORECASE,
)
_CORRECTION = lazy_regex(
    r"\b(?:correction|corrected|actually|wait|sorry|oops|scratch\s+that|I\s+meant?|should\s+(?:be|have\s+been))\b"
    r"[^{\[\n]{0,60}\n?[ \t`]{0,5}(?=[{\[])",
    re.IGNORECASE,
)
_DECODER = strict_decoder()
_OPENING = lazy_regex(r"[{\[]")
_BEGUN = lazy_regex(r'\{\s*(?:"|\Z)|\[\s*(?:[{\["]|\Z)')
"""The beginning of an object or array, as opposed to a brace in prose or LaTeX."""
_PIECE = lazy_regex(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]]')


def canonical(value: Any, *, any_order: bool) -> str:
    """Canonical text of a value: keys sorted, 1.0 as 1, and with ``any_order`` arrays sorted too."""
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


def pick(value: Any, path: str) -> Any:
    """The value at ``path``; NOTHING if there is none."""
    for name, index in _STEP.findall(path):
        if name and isinstance(value, Mapping) and name in value:
            value = value[name]
        elif index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        else:
            return NOTHING
    return value


@cache
def _validators() -> WorkerPool:
    return WorkerPool("validate", "jsonschema")


@lru_cache(maxsize=10_000)
def schema_fault(schema: str, value: str, seconds: float) -> str | None:
    """The error of a value by a schema, both as JSON; None if it fits.

    In a worker process, because a schema's pattern may never finish: after ``seconds`` of CPU the value does not fit.
    """
    found = _validators().call({"schema": json.loads(schema), "value": json.loads(value)}, seconds)
    return "the schema took too long" if found is None else found["error"]


@dataclass(frozen=True, kw_only=True)
class JsonAnswer(BuiltIn):
    """Compares JSON: key order never matters; 1 equals 1.0, but not true. With a schema and no reference, only validates."""

    schema: Mapping[str, Any] | None = None
    """A JSON Schema, validated by the package jsonschema in a worker process."""
    fields: Sequence[str] | None = None
    """Paths to compare, such as ``user.tags[0]``; default: everything."""
    any_order: bool = False
    """Whether to ignore the order of arrays."""
    time_limit: float = 5.0
    """Seconds for validating one answer; after that it is invalid."""

    kind: ClassVar[str] = "json"

    def __post_init__(self) -> None:
        if self.fields is not None:
            fields = (self.fields,) if isinstance(self.fields, str) else tuple(self.fields)
            for path in fields:
                if not isinstance(path, str) or not re.fullmatch(r"[^.\[\]]+(?:\.[^.\[\]]+|\[\d+\])*", path):
                    raise SuiteError(f"fields: {path!r} is no path such as 'name' or 'user.tags[0]'")
            object.__setattr__(self, "fields", fields)
        if self.schema is not None:
            check_schema(self.schema)

    def reference(self, row: Row) -> str:
        if self.schema is not None and not self._has_reference(row):
            return "any JSON that fits the schema"
        value, found = self._reference(row)
        if found is NOTHING:
            raise SuiteError(f"the reference {value!r:.60} is not JSON, or has a key twice or a number past all bounds")
        missing = next((path for path in self.fields or () if pick(found, path) is NOTHING), None)
        if missing is not None:
            raise SuiteError(f"the reference has no field {missing!r}")
        try:
            return self._key(found)
        except RecursionError:
            raise SuiteError(f"the reference {shown(value, 60)} is nested too deeply") from None

    def _like(self, row: Row) -> type | None:
        """``dict`` or ``list`` if the reference or the schema requires one."""
        if not self._has_reference(row):
            kind = (self.schema or {}).get("type")
            return {"object": dict, "array": list}.get(kind) if isinstance(kind, str) else None
        return next((kind for kind in (dict, list) if isinstance(self._reference(row)[1], kind)), None)

    def _reference(self, row: Row) -> tuple[Any, Any]:
        """The cell, and the document in it."""
        cell = reference_value(row, self.reference_column)
        return cell, read(cell) if isinstance(cell, str) else cell

    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        expected = self.reference(row) if self.schema is None or self._has_reference(row) else None
        like = self._like(row)
        return tuple(self._answer(read_last(untagged(text), like), expected) for text in responses)

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:  # noqa: ARG002
        if self.schema is None and not self._waits(responses):
            return self.answers(responses, row)
        return await off_thread(self.answers, responses, row)

    def _has_reference(self, row: Row) -> bool:
        return any(row.get(name) not in (None, "") for name in reference_names(self.reference_column))

    def _answer(self, value: Any, expected: str | None) -> Answer:
        if value is NOTHING:
            return Answer(None, "", correct=False)
        key = self._key(value)
        correct, fault = expected is None or key == expected, None
        if correct and self.schema is not None:
            fault = schema_fault(json.dumps(self.schema), json.dumps(value), self.time_limit)
        return Answer(key, fault or key, correct and fault is None)

    def _key(self, value: Any) -> str:
        if self.fields is None:
            return canonical(value, any_order=self.any_order)
        present = {path: part for path in self.fields if (part := pick(value, path)) is not NOTHING}
        return canonical(present, any_order=self.any_order)


def check_schema(schema: object) -> None:
    """Raise SuiteError if it is not a JSON schema, refers to what is not in it, or the library for them is missing."""
    if importlib.util.find_spec("jsonschema") is None:
        raise SuiteError("a schema needs the package jsonschema: pip install 'pytest-llmtune[json]'")
    if not isinstance(schema, Mapping):
        raise SuiteError(f"schema={schema!r:.60}; expected a mapping, the JSON schema itself")
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft201909Validator, Draft202012Validator, validator_for
    from jsonschema_specifications import REGISTRY
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012, specification_with

    try:
        validator = validator_for(schema, default=Draft202012Validator)
        validator.check_schema(schema)
        # others ignore these words, and so accept anything
        known = {Draft201909Validator: "$recursiveRef", Draft202012Validator: "$dynamicRef"}.get(validator, "")
        resource = specification_with(str(schema.get("$schema")), DRAFT202012).create_resource(schema)
        _check_references(resource, REGISTRY.resolver_with_root(resource), known)
    except Unresolvable as error:
        raise SuiteError(
            f"the schema refers to {error.ref!r:.120}, which is not in it, and nothing is fetched"
        ) from None
    except SchemaError as error:
        raise SuiteError(f"the schema is not a JSON schema: {error.json_path}: {error.message:.120}") from None
    except RecursionError:
        raise SuiteError("the schema is nested too deeply, or a pattern in it") from None


def _check_references(resource: Any, resolver: Any, known: str) -> None:
    """``known`` is which of ``$recursiveRef`` and ``$dynamicRef`` the schema's draft has."""
    contents = resource.contents if isinstance(resource.contents, Mapping) else {}
    for word in ("$recursiveRef", "$dynamicRef"):
        if word in contents and word != known:
            raise SuiteError(f"the schema has {word!r}, which its draft does not know: use '$ref', or set '$schema'")
    if contents.get("$recursiveRef", "#") != "#":
        raise SuiteError(f"the schema's '$recursiveRef' is {contents['$recursiveRef']!r:.60}; it can only be '#'")
    for word in ("$ref", "$dynamicRef"):
        if isinstance(contents.get(word), str):
            resolver.lookup(contents[word])
    for inner in resource.subresources():
        _check_references(inner, resolver.in_subresource(inner), known)
