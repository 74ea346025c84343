"""One configuration over a list of examples: ask, grade, price and add up."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from pytest_llmtune.completions.recording import Gathered
from pytest_llmtune.errors import BudgetExhaustedError, CompletionError, EndpointError
from pytest_llmtune.model import (
    Completion,
    CompletionRequest,
    Evaluation,
    Example,
    ExampleGrade,
    ExampleResult,
    Interval,
    Usage,
)
from pytest_llmtune.statistics import bootstrap_mean, wilson
from pytest_llmtune.texts import Texts

if TYPE_CHECKING:
    from pytest_llmtune.completions.pricing import PriceBook
    from pytest_llmtune.completions.source import Source
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.suite import Config

__all__ = ["Aggregate", "Asking", "Collector", "all_of", "evaluate", "evaluation_of", "mean", "requests_of"]

_MANY = 10_000  # examples, past which their texts are kept small

Aggregate = Callable[[Sequence[float]], float]
PERCENTILES = (50, 90, 95, 99)
"""Of the latency, which are metrics: ``latency_p95``."""
mean: Aggregate = statistics.fmean


@dataclass(slots=True)
class Collector:
    """A source that remembers every completion it passed on: what a recording is written from."""

    source: Source
    gathered: Gathered = field(default_factory=Gathered)

    async def complete(self, request: CompletionRequest) -> Completion:
        completion = await self.source.complete(request)
        self.gathered.add(request, completion)
        return completion

    async def aclose(self) -> None:
        await self.source.aclose()


class Asking(Protocol):
    """The half of a ``Source`` that evaluation needs."""

    async def complete(self, request: CompletionRequest) -> Completion: ...


@dataclass(slots=True)
class _Meter:
    """Adds up what one example asks: its own completion and those of a judge."""

    source: Asking
    prices: PriceBook
    cost: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    latency: float = 0.0

    async def ask(self, request: CompletionRequest) -> Completion:
        completion = await self.source.complete(request)
        self.cost += self.prices.price(str(request.body["model"])).cost(completion.usage)
        self.paid += completion.paid
        self.usage += completion.usage
        self.latency += completion.latency
        return completion


async def _grade(grader: Grader, completion: Completion, example: Example, meter: _Meter) -> ExampleGrade:
    responses = [choice.judged for choice in completion.choices]
    judge = getattr(grader, "agrade", None)
    if judge is not None:
        graded: ExampleGrade = await judge(responses, example.row, meter.ask)
        return graded
    return grader.grade(responses, example.row)


async def _evaluate_one(
    example: Example,
    request: CompletionRequest,
    grader: Grader,
    meter: _Meter,
    texts: Callable[[list[str]], Sequence[str]],
) -> ExampleResult:
    try:
        completion = await meter.ask(request)
        grade = await _grade(grader, completion, example, meter)
    except (EndpointError, BudgetExhaustedError):
        raise  # no other example can fare better
    except CompletionError as error:
        return ExampleResult(example, "unknown", None, cost=meter.cost, error=str(error))
    refused = all(choice.finish_reason == "content_filter" for choice in completion.choices)
    return ExampleResult(
        example,
        "refused" if refused else "ok",
        grade,
        texts([choice.text for choice in completion.choices]),
        meter.usage,
        meter.cost,
        meter.latency,
    )


def _interval(values: Sequence[float]) -> Interval:
    """Wilson's for outcomes of 0 and 1, else a bootstrap over examples."""
    if all(value in (0.0, 1.0) for value in values):
        return wilson(round(sum(values)), len(values))
    return bootstrap_mean(values)


def _values(results: Iterable[ExampleResult]) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {}
    for result in results:
        if result.grade is not None:
            for name, value in result.grade.metrics.items():
                columns.setdefault(name, []).append(float(value))
            columns.setdefault("latency", []).append(result.latency)
            columns.setdefault("refused", []).append(float(result.status == "refused"))
    return columns


def _percentiles(latencies: list[float]) -> dict[str, float]:
    """Of the latency, by nearest rank: so much or less did so many of a hundred examples take."""
    ordered = sorted(latencies)
    return {f"latency_p{part}": ordered[-(-part * len(ordered) // 100) - 1] for part in PERCENTILES if ordered}


def evaluation_of(
    config: Mapping[str, object],
    results: Sequence[ExampleResult],
    *,
    paid: Decimal = Decimal(0),
    aggregate: Aggregate = mean,
) -> Evaluation:
    """Add up per-example results.

    Args:
        config: OpenAI parameters and prompt, as in the lock file.
        results: one for each example.
        paid: USD really spent to get them.
        aggregate: from the values of one metric over examples to the suite's value.
    """
    known = [result for result in results if result.grade is not None]
    columns = _values(known)
    return Evaluation(
        config=config,
        results=tuple(results),
        metrics={name: aggregate(values) for name, values in columns.items()}
        | _percentiles(columns.get("latency", [])),
        intervals={name: _interval(values) for name, values in columns.items()},
        inference_cost=sum((r.cost for r in known), Decimal(0)) / len(known) if known else Decimal(0),
        cost=paid,
    )


def requests_of(config: Config, examples: Sequence[Example]) -> Iterator[CompletionRequest]:
    """One request for each example, in order; equal ones get draws of their own."""
    draws: Counter[str] = Counter()
    for example in examples:
        request = config.request(example.row)
        yield replace(request, draw=draws[request.key])
        draws[request.key] += 1


async def evaluate(
    config: Config,
    examples: Sequence[Example],
    *,
    grader: Grader,
    source: Asking,
    prices: PriceBook,
    concurrency: int = 32,
    aggregate: Aggregate = mean,
    on_result: Callable[[int, ExampleResult, Decimal], None] | None = None,
    requests: Iterable[CompletionRequest] | None = None,
) -> Evaluation:
    """Ask and grade every example, with ``concurrency`` examples in flight.

    Args:
        on_result: told (number done so far, the result, USD spent so far) as each example is finished.
        requests: one for each example, where these are only some of the rows; default: ``requests_of`` the examples.

    Raises:
        EndpointError: no request can succeed (wrong key, unknown model).
        BudgetExhaustedError: the next request might pass a budget.
        StaleRecordingError: replaying, and an example has no recording.
    """
    results: list[ExampleResult | None] = [None] * len(examples)
    asked = requests_of(config, examples) if requests is None else requests
    todo = enumerate(zip(examples, asked, strict=True))
    paid, done = Decimal(0), 0
    texts = Texts if len(examples) > _MANY else tuple

    async def work() -> None:
        nonlocal paid, done
        for index, (example, request) in todo:  # shared: each worker takes the next example
            meter = _Meter(source, prices)
            results[index] = result = await _evaluate_one(example, request, grader, meter, texts)
            paid, done = paid + meter.paid, done + 1
            if on_result is not None:
                on_result(done, result, paid)

    await all_of(work() for _ in range(min(concurrency, len(examples))))
    return evaluation_of(config.to_lock(), [r for r in results if r is not None], paid=paid, aggregate=aggregate)


async def all_of(jobs: Iterable[Awaitable[None]]) -> None:
    """Run jobs together; the first error cancels the others, waits for them, and is raised as it is."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
