"""The shapes of values whose meaning other rooms know: filters, graders, endpoints, baselines, free parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_llmtune._util.invalid import InvalidError, shown
from pytest_llmtune.data.where import compile_condition

__all__ = ["baselines", "condition", "endpoints", "grader", "mapping"]


def condition(raw: Any) -> Any:
    """A function, or an expression that compiles."""
    if callable(raw):
        return raw
    if isinstance(raw, str) and raw.strip():
        compile_condition(raw)
        return raw
    example = "level >= 3 and topic == 'algebra'"
    raise InvalidError(f"is {shown(raw)}; valid: an expression such as {example!r}, or a function of the row")


def mapping(raw: Any) -> Mapping[str, Any]:
    """Names to values."""
    if not isinstance(raw, Mapping) or not all(isinstance(name, str) for name in raw):
        raise InvalidError(f"is {shown(raw)}; valid: a mapping of names to values")
    return raw


def grader(raw: Any) -> Any:
    """Only its shape; which graders and options there are, the graders know."""
    several = raw if isinstance(raw, (list, tuple)) else [raw]
    for index, one in enumerate(several):
        named = isinstance(one, str) and one.strip()
        with_options = isinstance(one, Mapping) and len(one) == 1 and all(isinstance(name, str) for name in one)
        if not (named or with_options or callable(one) or hasattr(one, "grade")):
            raise InvalidError(
                f"is {shown(one)}; valid: a grader's name, {{name: {{option: value}}}}, 'module:function', a function",
                *([index] if several is raw else []),
            )
    if not several:
        raise InvalidError("is an empty list; valid: a grader, or a list of graders")
    return raw


def endpoints(raw: Any) -> Any:
    """Its entries may hold keys, and are shown to nobody."""
    if isinstance(raw, str) and raw.strip():
        return raw
    if isinstance(raw, (list, tuple)) and raw and all(isinstance(item, Mapping) for item in raw):
        return tuple(raw)
    raise InvalidError("is not usable; valid: the path of a YAML or JSON file, or a list of mappings, one an endpoint")


def baselines(raw: Any) -> tuple[Mapping[str, Any], ...]:
    """One configuration or a list of them."""
    several = [raw] if isinstance(raw, Mapping) else raw
    if not isinstance(several, (list, tuple)) or not all(isinstance(item, Mapping) for item in several):
        raise InvalidError(
            f"is {shown(raw)}; valid: a list of configurations, as in [{{'model': 'gpt-4o', 'temperature': 1, 'n': 1}}]"
        )
    return tuple(several)
