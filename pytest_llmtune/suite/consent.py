"""What in a suite's keys would run code: functions that it names, and the grader that runs what a model writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_llmtune._util.functions import is_function_path

__all__ = ["code_in"]


_TEMPLATES = ("prompt", "messages", "baselines")
_RUNS_CODE = "python"


def code_in(keys: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, what it says) of everything in a YAML suite that would run code.

    Whatever looks like a function counts: what is no such thing after all is refused by its own key.
    """
    for key in ("dataset", "aggregate"):
        if is_function_path(str(keys.get(key))):
            yield key, keys[key]
    for key in _TEMPLATES:
        for function in _callables(keys.get(key)):
            yield key, function
    for grader in _graders(keys.get("grader")):
        if ":" in grader or grader == _RUNS_CODE:
            yield "grader", grader


def _callables(data: Any) -> Iterator[Any]:
    if isinstance(data, Mapping):
        if "callable" in data:
            yield data["callable"]
        for value in data.values():
            yield from _callables(value)
    elif isinstance(data, list):
        for item in data:
            yield from _callables(item)


def _graders(data: Any) -> Iterator[str]:
    """The names of graders: of one, or of each in a list, with options or without."""
    if isinstance(data, list):
        for item in data:
            yield from _graders(item)
    elif isinstance(data, Mapping):
        yield from map(str, data)
    elif data is not None:
        yield str(data)
