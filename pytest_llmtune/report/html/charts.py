"""Charts of the HTML report."""

from __future__ import annotations

import math
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.text import dollars, number, one_line, per_thousand
from pytest_llmtune.guard.result import Compared
from pytest_llmtune.report.tables import measured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from pytest_llmtune.guard.lockfile import Measured, StudySummary, TrialSummary
    from pytest_llmtune.guard.result import SuiteReport


Figure = dict[str, Any]


def _hover(title: str, config: Mapping[str, Any], score: Measured, cost: object) -> str:
    """Hover text for plotly, which interprets some HTML: everything is escaped."""
    lines = [title, f"{measured(score)} at {per_thousand(str(cost))}"]  # type: ignore[arg-type]
    lines += [f"{name}: {one_line(str(value), 80)}" for name, value in config.items()]
    return "<br>".join(escape(line) for line in lines)


def pareto(trials: Sequence[TrialSummary], mode: str) -> list[TrialSummary]:
    """The trials not dominated in both cost and score, by rising cost."""
    sign = 1 if mode == "max" else -1
    known = [trial for trial in trials if trial.score and trial.inference_cost is not None]
    front: list[TrialSummary] = []
    for trial in sorted(known, key=lambda t: (t.inference_cost, -sign * t.score.value if t.score else 0)):
        if not front or sign * _value(trial) > sign * _value(front[-1]):
            front.append(trial)
    return front


def _value(trial: TrialSummary) -> float:
    return trial.score.value if trial.score else 0.0


def _error_bars(scores: Sequence[Measured]) -> Figure:
    return {
        "type": "data",
        "symmetric": False,
        "array": [(score.high if score.high is not None else score.value) - score.value for score in scores],
        "arrayminus": [score.value - (score.low if score.low is not None else score.value) for score in scores],
        "thickness": 1,
        "width": 3,
        "color": "--line",
    }


def _trace(mode: str, name: str, x: Sequence[object], y: Sequence[float], **look: object) -> Figure:
    """One series of points or one line, as plotly names its parts."""
    return {"type": "scatter", "mode": mode, "name": name, "x": x, "y": y, **look}


def _axes(x: str, y: str) -> Figure:
    """A layout with titles on both axes."""
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}


def _points(name: str, tried: Sequence[TrialSummary | Compared], marker: Figure) -> Figure:
    """Trials, or baselines, with their scores."""
    known = [(one, one.score) for one in tried if one.score]
    titles = [one.label if isinstance(one, Compared) else f"trial {one.number} ({one.status})" for one, _ in known]
    hover = [
        _hover(title, one.config, score, one.inference_cost) for title, (one, score) in zip(titles, known, strict=True)
    ]
    costs, scores = [_thousand(one.inference_cost) for one, _ in known], [score for _, score in known]
    look = {"error_y": _error_bars(scores), "marker": marker, "hoverinfo": "text", "text": hover}
    return _trace("markers", name, costs, [score.value for score in scores], **look)


def quality(report: SuiteReport) -> Figure | None:
    """Score against USD per 1,000 instances: trials, Pareto front, winner, baselines and the inference budget."""
    study = report.study
    known = [t for t in study.trials if t.score and t.inference_cost is not None] if study else []
    if not study or not known:
        return None
    winner = [trial for trial in known if trial.number == study.winner]
    front = pareto(known, report.criteria.mode)
    dots = {"shape": "hv", "dash": "dot", "width": 1.5, "color": "--text"}
    x, y = [_thousand(trial.inference_cost) for trial in front], [_value(trial) for trial in front]
    data = [
        _trace("lines", "Pareto front", x, y, line=dots, hoverinfo="skip"),
        _points("trials", [t for t in known if t not in winner], {"size": 8, "color": "--accent"}),
    ]
    diamond = {"symbol": "diamond", "size": 10, "color": "--warn"}
    data += [_points("baselines", report.compared, diamond)] if report.compared else []
    data += [_points("winner", winner, {"symbol": "star", "size": 16, "color": "--good"})] if winner else []
    costs = [_thousand(trial.inference_cost) for trial in known]
    scale = "log" if min(costs) > 0 and max(costs) > 30 * min(costs) else "linear"
    layout = _axes("USD per 1,000 instances", one_line(report.criteria.metric))
    layout["xaxis"] |= {"tickprefix": "$", "type": scale}
    if study.inference_budget is not None:
        budget = _thousand(study.inference_budget)
        layout |= _bound("x", budget, f"inference budget {dollars(budget)}", max(costs))
        if scale == "log" and layout["shapes"]:
            layout["annotations"][0]["x"] = math.log10(budget)
    return {"data": data, "layout": layout}


def _thousand(cost: Decimal | None) -> float:
    """USD per 1,000 instances."""
    return float(1000 * (cost or 0))


_FAR = 3
"""A bound above so many times the greatest value is a mark at the edge: a line there would squeeze the points."""


def _bound(axis: str, value: float, text: str, most: float) -> Figure:
    """A dashed line at ``value`` of one axis, with its name; far above ``most``, the greatest value, only the name at the edge."""
    other = "y" if axis == "x" else "x"
    if value > _FAR * most:
        edge: Figure = {"xref": "paper", "yref": "paper", "x": 1 if axis == "x" else 0, "y": 1, "showarrow": False}
        edge |= {"xanchor": "right" if axis == "x" else "left", "yanchor": "bottom"}
        text = f"{text} \u2192" if axis == "x" else f"{text} \u2191"
        return {"shapes": [], "annotations": [edge | {"text": text, "font": {"size": 11, "color": "--bad"}}]}
    line = {"type": "line", f"{axis}0": value, f"{axis}1": value}
    line |= {f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    corner = {"x": {"y": 1, "xanchor": "right"}, "y": {"x": 0, "xanchor": "left"}}[axis]  # where points are rare
    anchor = {axis: value, f"{other}ref": "paper", "yanchor": "bottom", "showarrow": False} | corner
    return {
        "shapes": [line | {"line": {"dash": "dash", "width": 1, "color": "--bad"}}],
        "annotations": [anchor | {"text": text, "font": {"size": 11, "color": "--bad"}}],
    }


def progress(study: StudySummary | None, mode: str) -> Figure | None:
    """The score of each trial in their order, and the best so far."""
    known = [trial for trial in study.trials if trial.score] if study else []
    if not known:
        return None
    sofar = list(accumulate(map(_value, known), max if mode == "max" else min))
    numbers = [trial.number for trial in known]
    dots = {"marker": {"size": 8, "color": "--accent"}, "hovertemplate": "trial %{x}: %{y:.4f}<extra></extra>"}
    line = {"shape": "hv", "color": "--good"}
    data = [
        _trace("markers", "trials", numbers, [_value(trial) for trial in known], **dots),
        _trace("lines", "best so far", numbers, sofar, line=line, hoverinfo="skip"),
    ]
    return {"data": data, "layout": _axes("trial", "score")}


def spending(study: StudySummary | None) -> Figure | None:
    """USD spent after each trial, with the optimization budget."""
    if not study or not study.trials:
        return None
    sums = list(accumulate(float(trial.spent) for trial in study.trials))
    look = {"line": {"shape": "hv", "color": "--accent"}, "hovertemplate": "after trial %{x}: $%{y:.4f}<extra></extra>"}
    data = _trace("lines+markers", "spent", [trial.number for trial in study.trials], sums, **look)
    layout = _axes("trial", "USD spent")
    layout["yaxis"] |= {"tickprefix": "$", "rangemode": "tozero"}
    if (budget := study.optimization_budget) is not None:
        layout |= _bound("y", float(budget), f"optimization budget {dollars(budget)}", sums[-1])
    return {"data": [data], "layout": layout}


def timeline(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The score of each suite from commit to commit; None where no suite has two states."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for entry in history:
        if entry["score"]:
            lines.setdefault(entry["suite"], []).append(entry)
    data = [
        _trace(
            "lines+markers",
            escape(one_line(name, 60)),
            [entry["date"] for entry in entries],
            [entry["score"]["value"] for entry in entries],
            line={"shape": "hv"},
            hoverinfo="text",
            text=["<br>".join(escape(cell) for cell in state(entry)) for entry in entries],
        )
        for name, entries in lines.items()
        if len(entries) > 1
    ]
    layout = {"yaxis": {"title": {"text": "score"}}, "xaxis": {"type": "date"}}
    return {"data": data, "layout": layout} if data else None


def state(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """One state of a suite as a row: date, commit, suite, model, score, USD per 1,000, what the commit is about."""
    cost, score = entry["cost"], entry["score"]
    return (
        str(entry["date"])[:10],
        str(entry["commit"])[:8],
        one_line(entry["suite"], 60),
        one_line(entry["model"], 60),
        "-" if score is None else number(score["value"]),
        "-" if cost is None else dollars(cost, 3),
        one_line(entry["subject"], 80),
    )
