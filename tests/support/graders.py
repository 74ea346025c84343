"""Graders that tests share: one with a worker of its own in each case would import sympy hundreds of times."""

from __future__ import annotations

from typing import Any

from pytest_llmtune.grading.math import Math
from pytest_llmtune.grading.registry import resolve

__all__ = ["math", "shared"]

_MADE: dict[str, Any] = {}


def math(**options: Any) -> Math:
    """``Math`` with these options, made at first use."""
    return _MADE.setdefault(f"Math {options}", Math(**options))  # no worker starts before it is needed


def shared(spec: Any) -> Any:
    """The grader that a suite declares so, made at first use."""
    return _MADE.setdefault(repr(spec), resolve(spec))
