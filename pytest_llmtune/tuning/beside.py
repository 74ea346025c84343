"""Beside the search: baselines over the same rows as the winner, and what a search may cost."""

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
    from pathlib import Path

    from pytest_llmtune.completions.pricing import PriceBook
    from pytest_llmtune.completions.recording import Gathered
    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.model import Evaluation, Example
    from pytest_llmtune.suite import Config, Split, Suite
    from pytest_llmtune.tuning.study import Study

__all__ = ["Judged", "affordable", "compare", "dry_run"]

_MOST_JUDGED = 5
"""Configurations that are judged on the test rows for one within the inference budget."""
_LENGTHS = ("max_tokens", "max_completion_tokens")


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


def dry_run(suite: Suite, split: Split, *, prices: PriceBook, cache: Path, grader: Grader) -> str:
    """What a search may cost at most, in USD, and what the cache holds; nothing is asked."""
    dearest = max(_dearest(suite, model, split.tune, prices) for model in suite.space.models)
    trials = suite.num_samples if suite.num_samples > 0 else None
    bounds = [bound for bound in (suite.optimization_budget, trials and trials * len(split.tune) * dearest) if bound]
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if cache.is_dir() else 0
    return (
        f"{suite.name}: {'any number of' if trials is None else f'at most {trials}'} trials on {len(split.tune)} rows "
        f"cost at most {min(bounds):.6f} USD; then the winner on {len(split.test)} rows costs at most "
        f"{len(split.test) * dearest:.6f} USD (grader: {grader.name}).\n"
        f"{suite.name}: the cache holds {size:,} bytes of paid answers ({cache}); what it holds is not paid again."
    )


def _dearest(suite: Suite, model: str, rows: Sequence[Example], prices: PriceBook) -> Decimal:
    """USD of one instance at worst: the longest prompt, the most answers, each of the greatest length."""
    domains = suite.space.for_model(model)
    n = _top(domains.get("n"), 1)
    length = max((_top(domains.get(name), 0) for name in _LENGTHS), default=0) or 16_384
    prompt = max(
        (
            sum(len(str(message["content"]).encode()) + 16 for message in template.render(row.row))
            for template in suite.space.templates
            for row in rows
        ),
        default=0,
    )
    return prices.price(model).worst(prompt, n * length)


def _top(domain: object, default: int) -> int:
    if domain is None:
        return default
    options = getattr(domain, "options", None) or (getattr(domain, "value", getattr(domain, "top", default)),)
    return max(int(option) for option in options if option is not None)
