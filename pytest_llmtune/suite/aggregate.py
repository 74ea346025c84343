"""How the examples' values of a metric become the suite's value."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.functions import is_function_path, load_function
from pytest_llmtune._util.invalid import InvalidError, meant, shown

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["AGGREGATES", "Aggregate", "aggregator"]


Aggregate = Callable[[Sequence[float]], float]

AGGREGATES: Mapping[str, Aggregate] = {"mean": statistics.fmean, "median": statistics.median}


def aggregator(raw: Any, base_dir: Path, root: Path | None = None) -> Aggregate:
    """The function that ``aggregate`` names.

    Raises:
        SuiteError: no such function.
    """
    if callable(raw):
        return raw  # type: ignore[no-any-return]
    if raw in AGGREGATES:
        return AGGREGATES[raw]
    if is_function_path(str(raw)):
        return load_function(str(raw), base_dir, root)
    raise InvalidError(
        f"is {shown(raw)}{meant(raw, AGGREGATES)}; valid: {', '.join(AGGREGATES)}, 'module:function', a function"
    )
