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
        prefix = f"{judge.name}_" if index else ""  # the metrics of a list's first grader have none
        value = evaluation.metrics.get(f"{prefix}agreement")
        if value is None:
            said = f"no row has a hand label, so that the agreement of {judge.name} is unknown"
        else:
            said = f"{judge.name} agrees with {value:.4g} of the hand labels"
            for name, word in (("kappa", "Cohen's kappa"), ("base_rate", "base rate")):
                if prefix + name in evaluation.metrics:
                    said += f"; {word} {evaluation.metrics[prefix + name]:.2f}"
        value = value or 0.0
        passed, sentence = value >= least, f"{said}; min_agreement asks for {least:g}"
        gate = Gate(f"{prefix}min_agreement", f"{prefix}agreement", passed, value, least, sentence, conclusive=passed)
        verdict = _with(verdict, gate, prefix)
    return verdict


def _with(verdict: Verdict, gate: Gate, prefix: str) -> Verdict:
    """The verdict with this gate; if it fails, those on the judge's metrics are not judged."""
    if gate.passed:
        return replace(verdict, gates=(*verdict.gates, gate))
    gates = list(verdict.gates)
    for index, one in enumerate(gates):
        if one.metric.startswith(prefix) if prefix else not one.metric.startswith(_MEASURED):
            sentence = f"{one.sentence}; not judged: the judge is not trusted"
            gates[index] = replace(one, passed=False, conclusive=False, sentence=sentence)
    failed = any(not one.passed and one.conclusive for one in gates)
    status = verdict.status if verdict.status in ("stale", "error") else "failed" if failed else "inconclusive"
    return replace(verdict, gates=(*gates, gate), status=status)
