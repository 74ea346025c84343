"""Find the columns that a suite needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

REFERENCE_COLUMNS = ("answer", "solution", "label", "target", "reference", "expected")
"""Default reference columns: the first that the data have is used if the grader names none."""

_WITHOUT = ("judge", "python", "tools", "calls")
"""Graders that do not require a reference."""


def reference_columns(grader: Any, columns: Sequence[str]) -> frozenset[str]:
    """The columns that a grader reads its reference from, as far as its declaration shows."""
    if isinstance(grader, (list, tuple)):
        return frozenset(name for item in grader for name in reference_columns(item, columns))
    if isinstance(grader, Mapping) and len(grader) == 1:
        [(word, options)] = grader.items()
        named = options.get("reference") if isinstance(options, Mapping) else None
        if isinstance(named, str):
            return frozenset({named})
        return frozenset() if word in _WITHOUT else _first(columns)
    if callable(grader):
        named = _named(grader)
        return frozenset(name for name in named if name in columns) if named else _first(columns)
    return frozenset() if grader in _WITHOUT else _first(columns)


def _first(columns: Sequence[str]) -> frozenset[str]:
    return frozenset([name for name in REFERENCE_COLUMNS if name in columns][:1])


def _named(function: Callable[..., Any]) -> Iterable[str]:
    """The columns that a grading function requires; its first argument is the responses."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):  # a builtin without a signature
        return ()
    return [p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
