"""Reliability gates: ``pass_at_k``, ``pass_hat_k`` and ``min_row_rate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.suite.domains import Choice, Constant, Range
from pytest_llmtune.suite.keys import Threshold, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_llmtune.suite.declaration import Problems
    from pytest_llmtune.suite.space import Space


GATES = ("pass_at_k", "pass_hat_k")
"""Keys that map k to the minimum of ``pass_at_<k>`` or ``pass_hat_<k>``."""
ROW_RATE = "row_rate"
"""Fraction of a row's responses that are correct; for a suite, that of its worst row."""
RELIABILITY = lazy_regex(r"pass_(at|hat)_([1-9]\d{0,3})")


def reliability_names(metrics: Iterable[str]) -> tuple[str, ...]:
    """The metrics that are measured over the responses of each row."""
    return tuple(dict.fromkeys(name for name in metrics if name == ROW_RATE or RELIABILITY.fullmatch(name)))


def gates_of(values: Mapping[str, Any], problems: Problems) -> tuple[Threshold, ...]:
    """The thresholds declared by ``pass_at_k`` and ``pass_hat_k``."""
    found = [
        problems.attempt(parse, f"min_{key.removesuffix('k')}{k}", least, path=(key, str(k)))
        for key in GATES
        for k, least in (values[key] or {}).items()
    ]
    return tuple(gate for gate in found if gate is not None)


def check_enough(space: Space | None, metrics: Iterable[str], problems: Problems) -> None:
    """Check that every ``n`` that a search may choose gives enough responses for k."""
    needed = {name: int(match[2]) for name in metrics if (match := RELIABILITY.fullmatch(name))}
    if space is None or not needed:
        return
    least = min(_fewest(space.for_model(model).get("n")) for model in space.models)
    name, most = max(needed.items(), key=lambda item: item[1])
    if least < most:
        problems.add(
            f"may be {least}, but {name} needs {most} responses per row; give at least n={most}, "
            f"as in n=randint({most}, {most + 5})",
            "n",
        )


def _fewest(domain: Any) -> int:
    if isinstance(domain, Range):
        return int(domain.low)
    options = domain.options if isinstance(domain, Choice) else (domain.value,) if isinstance(domain, Constant) else ()
    return min((int(option or 1) for option in options), default=1)
