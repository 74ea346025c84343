"""JSON Schema of ``--llm-json`` results, generated from the types."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Union

from pytest_llmtune.guard.result import SuiteReport, Total
from pytest_llmtune.guard.results_file import FORMAT, VERSION
from pytest_llmtune.types import TestCalls

PATH = Path(__file__).with_name("results.schema.json")

_MONEY = {"type": "string", "pattern": r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$", "description": "USD, with all digits."}
_PLAIN: dict[Any, dict[str, Any]] = {
    Any: {},
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]},
    str: {"type": "string"},
    Decimal: _MONEY,
}


def schema() -> dict[str, Any]:
    """The schema as JSON data; unknown fields are allowed, because a version may get new optional ones."""
    known: dict[str, Any] = {}
    properties = {
        "format": {"const": FORMAT},
        "version": {"const": VERSION},
        "generator": {"type": "string"},
        "verdicts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "spent": _MONEY,
        "spent_by_killed_runs": _MONEY,
        "tests": _of(tuple[TestCalls, ...], known),
        "migrations": _of(tuple[Total, ...], known),
        "suites": _of(tuple[SuiteReport, ...], known),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Results of pytest-llmtune, version {VERSION}",
        "type": "object",
        "properties": properties,
        "required": ["format", "version", "generator", "verdicts", "spent", "suites"],
        "$defs": dict(sorted(known.items())),
    }


def _of(kind: Any, known: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; those of dataclasses are added to ``known``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(each, known) for each in arguments]}
    if origin is tuple and Ellipsis not in arguments:
        return {"type": "array", "prefixItems": [_of(each, known) for each in arguments], "minItems": len(arguments)}
    if origin in (tuple, Sequence):
        return {"type": "array", "items": _of(arguments[0], known)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _of(arguments[1], known)}
    return _PLAIN[kind] if kind in _PLAIN else _defined(kind, known)


def _defined(kind: Any, known: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a dataclass."""
    if kind.__name__ not in known:
        known[kind.__name__] = {}  # a type may be recursive
        hints = typing.get_type_hints(kind)
        names = [each.name for each in dataclasses.fields(kind)]
        known[kind.__name__] = {
            "type": "object",
            "properties": {name: _of(hints[name], known) for name in names},
            "required": names,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}


def text() -> str:
    """The text of the shipped file."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
