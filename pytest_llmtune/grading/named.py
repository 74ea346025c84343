"""Metrics that a suite names, held against those that its grader gives: before anything is paid for."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_llmtune._util.invalid import meant
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import Grader, metric_names, reference_value
from pytest_llmtune.grading.preflight import PROBES, judges_of
from pytest_llmtune.suite.threshold import METRICS, SCORES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_llmtune.data.split import Split
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.types import Example

__all__ = ["check_aggregated", "check_metric", "check_named"]


_MEASURED = tuple(name for name in METRICS if name not in SCORES)
"""Metrics of every suite that no grader gives."""
_MEASURED_OF_A_GROUP = ("inference_cost",)
_ADDED_UP = tuple(name for name in _MEASURED if not name.endswith("cost"))
"""Those that are aggregated over examples."""


def check_named(suite: Suite, grader: Grader, split: Split) -> None:
    """The suite's ``metric`` and gates are on metrics that there will be, as far as the grader can tell.

    Raises:
        SuiteError: one is not; says which there are.
    """
    if (names := _names(grader, split.tune or split.test)) is not None and suite.metric not in names:
        raise _missing(grader, suite.metric, names, f"{suite.at('metric')}: metric")
    if (names := _names(grader, split.test)) is None:
        return
    for gate in suite.thresholds:
        known = {*names, *(_MEASURED_OF_A_GROUP if gate.groups else _MEASURED)}
        if gate.metric not in known:
            raise _missing(grader, gate.metric, known, f"{suite.at(gate.key)}: {gate.key}")


def check_aggregated(grader: Grader, examples: Sequence[Example], metrics: Iterable[str], *, where: str = "") -> None:
    """Metrics with an aggregate of their own are such that there will be, as far as the grader can tell.

    Raises:
        SuiteError: one is not; says which there are.
    """
    if (names := _names(grader, examples)) is None:
        return
    for metric in metrics:
        if metric not in (known := {*names, *_ADDED_UP}):
            raise _missing(grader, metric, known, f"{where}: aggregate")


def check_metric(grader: Grader, examples: Sequence[Example], metric: str, *, where: str = "") -> None:
    """Look for the tuned metric where the grader cannot tell what it gives, by grading; not where that would cost money.

    Raises:
        SuiteError: the grader does not give it; says what it gives.
    """
    if judges_of(grader) or not examples or _names(grader, examples) is not None:
        return
    row = examples[0].row
    column = getattr(grader, "reference_column", None)
    texts = [PROBES['"I don\'t know"']]
    with suppress(SuiteError):  # a function's rows may have no column that is known to be a reference
        texts.append(str(reference_value(row, column)))
    given = {name for text in texts for name in grader.grade([text], row).metrics}
    if metric not in given:
        raise _missing(grader, metric, given, f"{where}: metric")


def _names(grader: Grader, examples: Sequence[Example]) -> frozenset[str] | None:
    return metric_names(grader, [example.row for example in examples])


def _missing(grader: Grader, metric: str, known: Iterable[str], where: str) -> SuiteError:
    there = sorted(known)
    return SuiteError(
        f"{where}: the grader {grader.name} gives no metric {metric!r}{meant(metric, there)}; "
        f"there are {', '.join(there)}: name one of these"
    )
