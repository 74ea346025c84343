"""Disable gates on a judge's metrics if it agrees too little with hand labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import replace
from pytest_llmtune.guard.verdict import Gate, Verdict

if TYPE_CHECKING:
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.types import Evaluation


_MEASURED = ("inference_cost", "cost", "latency", "refused", "unknown")


def held_to_agreement(verdict: Verdict, evaluation: Evaluation | None, grader: Grader) -> Verdict:
    """The verdict, with gates on a judge's metrics inconclusive if the judge agrees too little with hand labels."""
    if evaluation is None:
        return verdict
    for index, judge in enumerate(grader.parts):
        least = judge.min_agreement
        if least is None:
            continue
        prefix = f"{judge.name}_" if index else ""
        value = evaluation.metrics.get(f"{prefix}agreement")
        beside = "".join(
            f"; {word} {evaluation.metrics[prefix + name]:.2f}"
            for name, word in (("kappa", "Cohen's kappa"), ("base_rate", "base rate"))
            if prefix + name in evaluation.metrics
        )
        if value is None:
            sentence = f"no row has a hand label, so that the agreement of {judge.name} is unknown; min_agreement asks for {least:g}"
        else:
            sentence = (
                f"{judge.name} agrees with {value:.4g} of the hand labels{beside}; min_agreement asks for {least:g}"
            )
        gate = Gate(
            f"{prefix}min_agreement", f"{prefix}agreement", (value or 0.0) >= least, value or 0.0, least, sentence
        )
        verdict = _with(verdict, gate, prefix, first=not index)
    return verdict


def _with(verdict: Verdict, gate: Gate, prefix: str, *, first: bool) -> Verdict:
    if gate.passed:
        return replace(verdict, gates=(*verdict.gates, gate))
    gate = replace(gate, conclusive=False)
    gates = tuple(_doubted(one) if _is_its(one, prefix, first=first) else one for one in verdict.gates)
    failed = any(not one.passed and one.conclusive for one in gates)
    status = verdict.status if verdict.status in ("stale", "error") else "failed" if failed else "inconclusive"
    return replace(verdict, gates=(*gates, gate), status=status)


def _is_its(gate: Gate, prefix: str, *, first: bool) -> bool:
    """Whether a gate is on a metric of this judge; those of a list's first grader have no prefix."""
    if prefix:
        return gate.metric.startswith(prefix)
    return first and not gate.metric.startswith(_MEASURED)


def _doubted(gate: Gate) -> Gate:
    return replace(
        gate, passed=False, conclusive=False, sentence=f"{gate.sentence}; not judged: the judge is not trusted"
    )
