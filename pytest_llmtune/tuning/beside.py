"""Beside the search: baselines over the same rows as the winner, and a winner that is within its budget there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmtune.evaluation import evaluate
from pytest_llmtune.lock import Measured
from pytest_llmtune.report.suite_report import Compared
from pytest_llmtune.statistics import bootstrap_mean

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from decimal import Decimal

    from pytest_llmtune.completions.pricing import PriceBook
    from pytest_llmtune.completions.recording import Gathered
    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.model import Evaluation, Example
    from pytest_llmtune.suite import Config, Suite
    from pytest_llmtune.tuning.study import Study

__all__ = ["Judged", "affordable", "compare"]

_MOST_JUDGED = 5
"""Configurations that are judged on the test rows for one within the inference budget."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A configuration over the test rows."""

    evaluation: Evaluation
    gathered: Gathered
    """What its recording is written from."""


async def affordable(
    study: Study, budget: Decimal | None, judge: Callable[[Config], Awaitable[Judged]]
) -> tuple[Study, Judged]:
    """The winner over the test rows, or the best runner-up where it is over the inference budget there.

    Only costs decide: to choose by the scores of the test rows would make them worthless as a test. What was found out
    about one configuration corrects what is expected of others with the same model and prompt. Where no runner-up that
    is judged is within the budget the winner stays, and the guard fails.
    """
    first = judged = await judge(study.winner)
    found, tried = study, 1
    longer: dict[tuple[str, str], float] = {}
    for other in study.others:
        cost = judged.evaluation.inference_cost
        if budget is None or cost <= budget:
            return found, judged
        if found.cost:
            longer[_region(found.winner)] = float(cost) / found.cost
        if other.cost is not None and other.cost * longer.get(_region(other.config), 1.0) > budget:
            continue
        if tried == _MOST_JUDGED:
            break
        why = f"trial {found.summary.winner} costs {cost:.6f} USD per instance on the test rows: the next best won"
        found = found.won_by(other, why)
        judged = await judge(found.winner)
        tried += 1
    return (found, judged) if budget is None or judged.evaluation.inference_cost <= budget else (study, first)


def _region(config: Config) -> tuple[str, str]:
    return config.model, config.template.fingerprint


async def compare(
    suite: Suite,
    rows: Sequence[Example],
    *,
    grader: Grader,
    source: LiveSource,
    prices: PriceBook,
    concurrency: int,
) -> tuple[Compared, ...]:
    """Every baseline of the suite over the rows that the winner was judged on."""
    found = []
    for baseline in suite.baselines:
        evaluation = await evaluate(
            baseline,
            rows,
            grader=grader,
            source=source,
            prices=prices,
            concurrency=concurrency,
            aggregate=suite.aggregator,
        )
        found.append(_compared(baseline.label, evaluation, suite.metric))
    return tuple(found)


def _compared(label: str, evaluation: Evaluation, metric: str) -> Compared:
    costs = [float(result.cost) for result in evaluation.results if result.grade is not None]
    score = Measured.of(evaluation.metrics.get(metric, 0.0), evaluation.intervals.get(metric))
    return Compared(
        label, evaluation.config, score, evaluation.inference_cost, bootstrap_mean(costs) if costs else None
    )
