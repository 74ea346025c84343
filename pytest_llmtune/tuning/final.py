"""Evaluate the winner and its baselines on the test rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.text import per_thousand, shown
from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError
from pytest_llmtune.guard.evaluation import evaluate
from pytest_llmtune.guard.lockfile import Measured
from pytest_llmtune.guard.result import Compared
from pytest_llmtune.tuning.study import INTERRUPTED, Study

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from decimal import Decimal

    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.recording import Gathered
    from pytest_llmtune.suite import Config, Suite
    from pytest_llmtune.types import Evaluation, Example


MOST_JUDGED = 5
"""Maximum number of configurations judged on the test rows to find one within the inference budget."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An evaluation on the test rows."""

    evaluation: Evaluation
    gathered: Gathered
    """Its completions, for the recording."""


async def affordable(
    study: Study, budget: Decimal | None, judge: Callable[[Config], Awaitable[Judged]]
) -> tuple[Study, Judged]:
    """The winner on the test rows, or the best runner-up if it exceeds the inference budget there.

    Only costs decide: selecting by test scores would invalidate the test. Costs measured for one configuration correct the
    estimates of others with the same model and prompt. If no judged runner-up is within the budget, the winner stays, and
    the guard fails.
    """
    first = judged = await judge(study.winner)
    found, tried = study, 1
    longer: dict[tuple[tuple[str, str], ...], float] = {}
    for other in study.others:
        cost = judged.evaluation.inference_cost
        if budget is None or cost <= budget:
            return found, judged
        if found.cost:
            longer[_region(found.winner)] = float(cost) / found.cost
        if other.cost is not None and other.cost * longer.get(_region(other.config), 1.0) > budget:
            continue
        if tried == MOST_JUDGED:
            break
        why = f"trial {found.summary.winner} costs {per_thousand(cost)} on the test rows: the next best won"
        found = found.won_by(other, why)
        try:
            judged = await judge(found.winner)
        except BudgetExhaustedError:  # of the run: the winner stays, and the guard says that it is over
            return study, first
        tried += 1
    return (found, judged) if budget is None or judged.evaluation.inference_cost <= budget else (study, first)


def _region(config: Config) -> tuple[tuple[str, str], ...]:
    return tuple((step.model, step.template.fingerprint) for step in config.steps)


async def compare(
    study: Study,
    suite: Suite,
    rows: Sequence[Example],
    *,
    grader: Grader,
    source: LiveSource,
    prices: PriceBook,
    concurrency: int,
) -> tuple[tuple[Compared, ...], tuple[str, ...]]:
    """Evaluate the suite's baselines on the winner's test rows; returns them with notes.

    A baseline that cannot be evaluated gives a note and is left out, so that the search is not lost.
    """
    if suite.baselines and study.summary.stopped_by == INTERRUPTED:
        return (), ("the baselines were not evaluated",)
    found, notes = [], []
    for baseline in suite.baselines:
        label = _label(baseline, suite.space.first())
        try:
            evaluation = await evaluate(
                baseline,
                rows,
                grader=grader,
                source=source,
                prices=prices,
                concurrency=concurrency,
                aggregate=suite.aggregator,
            )
        except LLMTuneError as error:
            notes.append(f"the baseline {label} was not evaluated: {error}")
            continue
        if unknown := evaluation.unknown:
            missing = f"{len(unknown)} of {len(rows)} examples have no answer; the first: {unknown[0].error}"
            notes.append(f"the baseline {label}: {missing}")
        if len(unknown) < len(rows):
            score = Measured.of(evaluation.metrics[suite.metric], evaluation.intervals.get(suite.metric))
            cost = evaluation.inference_cost, evaluation.intervals.get("inference_cost")
            found.append(Compared(label, evaluation.config, score, *cost))
    return tuple(found), tuple(notes)


def _label(baseline: Config, untuned: Config) -> str:
    """How a baseline differs from the untuned configuration."""
    params = {name: value for name, value in baseline.params.items() if untuned.params.get(name) != value}
    omitted = [f"no {name}" for name in untuned.params if name not in baseline.params]
    other = baseline.template.fingerprint != untuned.template.fingerprint
    prompt = [f"{baseline.template.kind}={shown(baseline.template.label, 40)}"] if other else []
    parameters = [f"{name}={shown(value, 40) if name != 'model' else value}" for name, value in params.items()]
    return ", ".join([*parameters, *omitted, *prompt]) or "untuned"
