"""The marker ``llmtune`` with type annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, Unpack

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmtune.suite.typed import SuiteKeys


Test = TypeVar("Test", bound="Callable[..., object]")


def mark(**keys: Unpack[SuiteKeys]) -> Callable[[Test], Test]:
    """Same as ``pytest.mark.llmtune(...)``, with completion in editors and type checking."""
    return pytest.mark.llmtune(**keys)
