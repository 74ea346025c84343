"""What keys of a suite say together, and must not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.invalid import meant
from pytest_llmtune.suite.threshold import COSTS, METRICS, SCORES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.suite.declaration import Problems
    from pytest_llmtune.suite.threshold import Threshold

__all__ = ["check_whole"]


def check_whole(values: Mapping[str, Any], problems: Problems) -> None:
    """Find contradictions between keys that are right by themselves."""
    if values["name"] is None and not any(problem.path == ("name",) for problem in problems.found):
        problems.add("is missing", "name")
    if values["base_url"] is not None and values["endpoints"] is not None:
        problems.add("cannot be given together with endpoints; put the URL into the list", "base_url")
    _check_search(values, problems)
    _check_split(values, problems)
    _check_thresholds(values["thresholds"], values["group_by"], problems)


def _check_search(values: Mapping[str, Any], problems: Problems) -> None:
    metric = values["metric"] or ""
    if metric not in METRICS and (near := meant(metric, METRICS, cutoff=0.85)):
        problems.add(f"is {metric!r}{near}; there are {', '.join(SCORES)}, and what the grader returns", "metric")
    if metric in METRICS and metric not in SCORES:
        limit = "inference_budget=..." if metric in COSTS else f"max_{metric}=..."
        advice = f"nothing would weigh against it; tune a score ({', '.join(SCORES)}, or what the grader returns)"
        if metric in (*COSTS, "latency") and values["mode"] == "max":
            problems.add(f"is 'max', which makes {metric} as high as can be; {advice}, and limit it: {limit}", "mode")
        else:
            problems.add(f"is {metric!r}: {advice}, and limit this one: {limit}", "metric")
    searches = values["space"] is not None and not values["space"].is_constant
    if searches and values["num_samples"] == -1 and values["optimization_budget"] is None:
        problems.add(
            "is -1 (no limit), so that optimization_budget must limit the search; give it in USD", "num_samples"
        )
    if searches and values["tune_size"] == 0:
        problems.add("is 0, but there is something to choose; give rows to tune on", "tune_size")


def _check_split(values: Mapping[str, Any], problems: Problems) -> None:
    if values["split"] == "hash" and values["stratify"] is not None and not isinstance(values["tune_size"], float):
        problems.add(
            "with split='hash' takes tune_size as a share, as in tune_size=0.2: a count cannot stay fair", "stratify"
        )


def _check_thresholds(thresholds: tuple[Threshold, ...], group_by: str | None, problems: Problems) -> None:
    for gate in thresholds:
        if gate.groups and group_by is None:
            problems.add("has a limit for each group; give group_by, the column of the groups", gate.key)
    for low in (gate for gate in thresholds if gate.direction == "min"):
        for high in (gate for gate in thresholds if gate.direction == "max" and gate.metric == low.metric):
            for group in {None, *low.groups, *high.groups}:
                floor, ceiling = low.of_group(group), high.of_group(group)
                if floor is not None and ceiling is not None and floor > ceiling:
                    problems.add(f"is {floor}, above {high.key}={ceiling}; no value passes both", low.key)
