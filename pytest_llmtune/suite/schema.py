"""JSON Schema of suite files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pytest_llmtune.suite.domains import LISTS, PARAMETERS, TEMPERATURE_OR_TOP_P, WORDS, Bounds
from pytest_llmtune.suite.keys import GATE, KEYS, REQUIRED, Key, closed

PATH = Path(__file__).with_name("llmtune.schema.json")

_MODEL_AND_TEMPLATE = {
    "required": ["model"],
    "properties": {"model": {"not": {"type": "null"}}},
    "oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
}


def schema() -> dict[str, Any]:
    """The schema, as JSON data."""
    own = {key.name: _property(key) for key in KEYS}
    extends = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "YAML files with shared keys.",
    }
    required = [key.name for key in KEYS if key.default is REQUIRED]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A suite of pytest-llmtune",
        "type": "object",
        "properties": {"extends": extends, **own, **_parameters()},
        "patternProperties": {_gate(): {"$ref": "#/$defs/threshold"}, "^x-": {"description": "Ignored; for anchors."}},
        "additionalProperties": False,
        # required keys may come from the extended file
        "anyOf": [
            {"required": ["extends"]},
            {"required": required, "anyOf": [{"required": ["task"]}, _MODEL_AND_TEMPLATE]},
        ],
        "$defs": _definitions(),
    }


def _gate() -> str:
    """Pattern of thresholds, without keys that only look like one."""
    alike = [name for name in (*PARAMETERS, *(key.name for key in KEYS)) if re.match(GATE, name)]
    return f"^(?!({'|'.join(alike)})$){GATE.removeprefix('^')}"


def _property(key: Key) -> dict[str, Any]:
    form = key.form.schema
    if key.default is REQUIRED:
        return {**form, "description": key.doc}
    default = {} if key.default in (None, (), {}) else {"default": key.default}
    # null means not given
    return {"anyOf": [form, {"type": "null"}], "description": key.doc, **default}


def _parameters() -> dict[str, Any]:
    branches = {"type": "array", "items": {"type": "object"}, "minItems": 1}
    both = "A choice of branches; the default is a temperature from 0 to 2 or a top_p from 0 to 1."
    return {
        TEMPERATURE_OR_TOP_P: {"anyOf": [branches, {"type": "object"}, {"type": "null"}], "description": both},
        **{name: _parameter(name, bounds) for name, bounds in PARAMETERS.items()},
    }


def _parameter(name: str, bounds: Bounds | None) -> dict[str, Any]:
    if bounds is None or name in LISTS:
        return {"description": "A constant, a list to choose from, or a range."}
    plain: dict[str, Any] = {"type": "integer" if bounds.whole else "number", "minimum": bounds.low}
    if bounds.high != float("inf"):
        plain["maximum"] = bounds.high
    value: dict[str, Any] = {"anyOf": [plain, {"type": "null"}]}
    several = {"type": "array", "items": value, "minItems": 1}
    return {
        "anyOf": [*value["anyOf"], several, {"$ref": "#/$defs/range"}],
        "description": f"{str(bounds).capitalize()}: a constant, a list to choose from, or a range.",
    }


def _definitions() -> dict[str, Any]:
    function = closed({"callable": {"type": "string"}}, "callable")
    message = {"type": "object", "required": ["role", "content"]}
    column = {"type": "string", "pattern": r"^\{[^{}:!]+\}$"}
    lists = {"type": "array", "items": message, "minItems": 1}
    options = {"type": "object", "minProperties": 1, "maxProperties": 1}
    counts = {word: 3 if word == "quniform" else 2 for word in WORDS}
    ranges = {
        word: {"type": "array", "items": {"type": "number"}, "minItems": count, "maxItems": count}
        for word, count in counts.items()
    }
    return {
        "template": {"anyOf": [{"type": "string", "minLength": 1}, function]},
        "messages_choice": _one_or_several(lists, column, function),
        "model": {
            "type": "object",
            "properties": {"model": {"type": "string"}, **_parameters()},
            "required": ["model"],
        },
        "grader": _one_or_several({"type": "string"}, options),
        "range": {
            "type": "object",
            "properties": {**ranges, "choice": {"type": "array", "minItems": 1}},
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
        },
        "threshold": {
            "anyOf": [
                {"type": ["number", "string", "null"]},
                {"type": "object", "additionalProperties": {"type": ["number", "string"]}},
            ],
            "description": "Minimum or maximum of a metric, or a limit for each group of `group_by`.",
        },
    }


def _one_or_several(*kinds: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [*kinds, {"type": "array", "items": {"anyOf": list(kinds)}, "minItems": 1}]}


def text() -> str:
    """The text of the shipped file."""
    return json.dumps(schema(), ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
