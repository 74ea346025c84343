"""Checks before anything is spent: the grader can use every row, and rejects empty answers."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from pytest_llmtune._util.text import did_you_mean
from pytest_llmtune.errors import MissingToolError, SuiteError
from pytest_llmtune.grading.base import Grader, QuestionError, blamed, checked, reference_value
from pytest_llmtune.suite.keys import METRICS, SCORES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_llmtune.data.split import Split
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.types import Example


PROBES = {
    "an empty answer": "",
    "white space": " \n\t ",
    '"I don\'t know"': "I don't know.",
    "nonsense": "Lorem ipsum xyzzy; quux frobnicate?",
}
"""Answers without content."""

_SUCCESS = ("success", "success_vote", "expected_success")
_OTHERS = 3
_LISTED = 5


def check(
    grader: Grader,
    examples: Sequence[Example],
    *,
    allow_vacuous: bool = False,
    metric: str = "success_vote",
    mode: Literal["max", "min"] = "max",
    where: str = "",
) -> None:
    """Check every row's reference, and that answers without content fail.

    A probe succeeds if the grader gives it any of success, success_vote, expected_success, or the best value of ``metric``:
    1.0 if maximised, 0.0 if minimised. References of other rows are tried too: if three different ones all succeed on a
    row, the grader is vacuous.

    Args:
        grader: as resolved; graders in a list are checked separately.
        examples: all rows, tuning and test.
        allow_vacuous: skip the probes; unusable references are still refused.
        metric: the tuned metric.
        mode: whether to maximise or minimise it.
        where: prefix of messages.

    Raises:
        MissingToolError: this machine lacks what a grader needs.
        SuiteError: lists the rows and what is wrong with each.
    """
    prefix = f"{where}: " if where else ""
    examples = sorted(examples, key=lambda example: example.index)
    for one in grader.parts:
        try:
            one.ready()
        except MissingToolError as error:
            raise MissingToolError(f"{prefix}the grader {one.name}: {error}") from None
        faults, lacks_question = [], False
        for example in examples:
            try:
                with blamed(one, example.row):
                    one.reference(example.row)
            except SuiteError as error:
                faults.append(f"row {example.index + 1}: {error}")
                lacks_question = lacks_question or isinstance(error, QuestionError)
        if lacks_question:
            raise SuiteError(
                f"{prefix}the grader {one.name} finds no question in {len(faults)} of {len(examples)} rows:\n{_listed(faults)}\n"
                f"name its column with the grader's option `question_column`"
            )
        if faults:
            count = len(faults)
            if count == len(examples) > 1 and len({fault.partition(": ")[2] for fault in faults}) == 1:
                faults = [faults[0], f"... and the same in {count - 1} more"]
            raise SuiteError(
                f"{prefix}the grader {one.name} cannot use the reference of {count} of {len(examples)} rows:\n"
                f"{_listed(faults)}\nfix the data, name the right column with the grader's option `reference`, "
                f"or drop the rows with `where`"
            )
        if allow_vacuous:
            continue
        most = one.probe_rows
        few = len(examples) <= most
        tried = examples if few else [examples[index * len(examples) // most] for index in range(most)]
        faults = [fault for example in tried if (fault := _probe_fault(one, example, examples, metric, mode))]
        if faults:
            raise SuiteError(
                f"{prefix}the grader {one.name} is vacuous: answers that say nothing count as success:\n{_listed(faults)}\n"
                f"fix the grader, or set allow_vacuous=True if this is intended"
            )


def judges_of(grader: Grader) -> tuple[str, ...]:
    """The models that the grader sends requests to."""
    return tuple(model for one in grader.parts for model in one.models)


def cautions_of(grader: Grader) -> tuple[str, ...]:
    """Cautions about grading for every report."""
    return tuple(one.caution for one in grader.parts if one.caution)


def _listed(faults: Sequence[str]) -> str:
    more = [f"  ... and {len(faults) - _LISTED} more"] if len(faults) > _LISTED else []
    return "\n".join([*(f"  {fault}" for fault in faults[:_LISTED]), *more])


def _probe_fault(grader: Grader, example: Example, examples: Sequence[Example], metric: str, mode: str) -> str:
    reference = " ".join(grader.reference(example.row).casefold().strip(" .").split())
    for what, text in PROBES.items():
        if reference != text.casefold().strip(" .") and (metric_hit := _succeeds(grader, text, example, metric, mode)):
            return f"row {example.index + 1}: {what} has {metric_hit}"
    others = list(itertools.islice(_other_references(grader, example, examples), _OTHERS))
    if others and all(_succeeds(grader, text, example, metric, mode) for text in others):
        return f"row {example.index + 1}: the reference of another row, {others[0]!r:.60}, is a success"
    return ""


def _succeeds(grader: Grader, text: str, example: Example, metric: str, mode: str) -> str:
    """The metric by which ``text`` succeeds, with its value; empty if none."""
    with blamed(grader, example.row):
        metrics = checked(grader.grade([text], example.row), grader.name).metrics
    for name in _SUCCESS:
        if metrics.get(name, 0.0) > 0 and (mode == "max" or name != metric):
            return f"{name} {metrics[name]:g}"
    if mode == "min" and metric in _SUCCESS:  # the suite looks for wrong answers
        return ""
    best = 1.0 if mode == "max" else 0.0
    return f"{metric} {best:g}" if metrics.get(metric) == best else ""


def _other_references(grader: Grader, example: Example, examples: Sequence[Example]) -> Iterator[str]:
    """The different references of other rows, as raw text."""
    with suppress(SuiteError):  # a function without a known reference column
        column = grader.reference_column
        seen = {str(reference_value(example.row, column)), grader.reference(example.row)}
        for offset in range(1, min(len(examples), 200)):
            row = examples[(example.index + offset) % len(examples)].row
            text, read = str(reference_value(row, column)), grader.reference(row)
            if text not in seen and (read not in seen or not read):
                seen |= {text, read}
                yield text


_MEASURED = tuple(name for name in METRICS if name not in SCORES)
"""Metrics of every suite that are not from graders."""
_AGGREGATED = tuple(name for name in _MEASURED if not name.endswith("cost"))
"""Those that are aggregated over examples."""


def check_named(suite: Suite, grader: Grader, split: Split) -> None:
    """Raise SuiteError, with the metrics there are, if the suite's ``metric`` or a gate uses another one, as far as known."""
    if (names := _names(grader, split.tune or split.test)) is not None and suite.metric not in names:
        raise _missing(grader, suite.metric, names, f"{suite.at('metric')}: metric")
    if (names := _names(grader, split.test)) is None:
        return
    for gate in suite.thresholds:
        known = {*names, *(("inference_cost",) if gate.groups else _MEASURED)}
        if gate.metric not in known:
            raise _missing(grader, gate.metric, known, f"{suite.at(gate.key)}: {gate.key}")


def check_aggregated(grader: Grader, examples: Sequence[Example], metrics: Iterable[str], *, where: str = "") -> None:
    """Raise SuiteError, with the metrics there are, if one with its own aggregate does not exist, as far as known."""
    if (names := _names(grader, examples)) is None:
        return
    for metric in metrics:
        if metric not in (known := {*names, *_AGGREGATED}):
            raise _missing(grader, metric, known, f"{where}: aggregate")


def check_metric(grader: Grader, examples: Sequence[Example], metric: str, *, where: str = "") -> None:
    """Raise SuiteError if a grader with unknown metrics does not give the tuned one; not tried where grading costs money."""
    if judges_of(grader) or not examples or _names(grader, examples) is not None:
        return
    row = examples[0].row
    texts = [PROBES['"I don\'t know"']]
    with suppress(SuiteError):  # a function's rows may have no column that is known to be a reference
        texts.append(str(reference_value(row, grader.reference_column)))
    with blamed(grader, row):
        names = {name for text in texts for name in checked(grader.grade([text], row), grader.name).metrics}
    if metric not in names:
        raise _missing(grader, metric, names, f"{where}: metric")


def _names(grader: Grader, examples: Sequence[Example]) -> frozenset[str] | None:
    return grader.metric_names([example.row for example in examples])


def _missing(grader: Grader, metric: str, known: Iterable[str], where: str) -> SuiteError:
    names = sorted(known)
    return SuiteError(
        f"{where}: the grader {grader.name} gives no metric {metric!r}{did_you_mean(metric, names)}; "
        f"there are {', '.join(names)}: name one of these"
    )
