"""The marker ``llmtune`` with types, for editors and type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, Unpack

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmtune.suite.typed import SuiteKeys

__all__ = ["mark"]

Test = TypeVar("Test", bound="Callable[..., object]")


def mark(**keys: Unpack[SuiteKeys]) -> Callable[[Test], Test]:
    """The same as ``pytest.mark.llmtune(...)``; editors complete its keys, and type checkers know their values."""
    return pytest.mark.llmtune(**keys)
