"""JSON inside a response: found, read strictly, and brought to one form so that equal values have equal keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_llmtune.errors import SuiteError

__all__ = ["NOTHING", "canonical", "check_path", "pick", "read_last"]


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
