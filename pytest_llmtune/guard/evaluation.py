"""Evaluate a configuration on examples: request, grade, aggregate."""

from __future__ import annotations

import json
import statistics
from array import array
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.aio import has_loop
from pytest_llmtune._util.files import Spool
from pytest_llmtune._util.stats import bootstrap, bootstrap_mean, wilson
from pytest_llmtune.errors import BudgetExhaustedError, CompletionError, EndpointError, LLMTuneError, SuiteError
from pytest_llmtune.grading import Grader, accepts
from pytest_llmtune.grading.base import JUDGED, LABELLED
from pytest_llmtune.recording import Gathered
from pytest_llmtune.suite.keys import ROW_RATE
from pytest_llmtune.types import (
    Answer,
    Completion,
    CompletionRequest,
    Evaluation,
    Example,
    ExampleGrade,
    ExampleResult,
    Interval,
    TaskRun,
    Usage,
)
from pytest_llmtune.wire.response import choices_of, fault_of, wants_embedding

if TYPE_CHECKING:
    from pytest_llmtune.completions.source import Source
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.suite import Config


_write = json.JSONEncoder(separators=(",", ":"), default=float).encode  # ASCII, to preserve lone surrogates
_read = json.JSONDecoder().decode


class SpilledResults(Sequence[ExampleResult]):
    """Like a tuple of results, one per example, but stored on disk; each access builds a new object."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        self._numbers = array("L", [0]) * len(examples)
        self._spool = Spool()

    def __setitem__(self, index: int, result: ExampleResult) -> None:
        """Store the result of the example at this index; each must be set before it is read."""
        self._numbers[index] = self._spool.put(_write(_plain(result)))

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> ExampleResult: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ExampleResult, ...]: ...
    def __getitem__(self, index: int | slice) -> ExampleResult | tuple[ExampleResult, ...]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(*index.indices(len(self))))
        return _result(self._examples[index], _read(self._spool.get(self._numbers[index])))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, (tuple, SpilledResults)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as its rows

    def __repr__(self) -> str:
        return repr(tuple(self))


def _plain(result: ExampleResult) -> tuple[Any, ...]:
    grade, usage = result.grade, result.usage
    return (
        result.status,
        grade and (grade.metrics, grade.votes, grade.voted_answer, [(a.key, a.text, a.correct) for a in grade.answers]),
        tuple(result.responses),
        (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.estimated, usage.cache_write_tokens),
        str(result.cost),
        result.latency,
        result.error,
    )


def _result(example: Example, data: Any) -> ExampleResult:
    status, grade, responses, usage, cost, latency, error = data
    if grade is not None:
        metrics, votes, voted, answers = grade
        grade = ExampleGrade(metrics, tuple(map(tuple, votes)), voted, tuple(Answer(*each) for each in answers))
    return ExampleResult(example, status, grade, tuple(responses), Usage(*usage), Decimal(cost), latency, error)


_MANY = 10_000  # examples above which results are stored on disk

Aggregate = Callable[[Sequence[float]], float]
PERCENTILES = (50, 90, 95, 99)
"""Percentiles of the latency that are metrics, such as ``latency_p95``."""
mean: Aggregate = statistics.fmean


@dataclass(slots=True)
class Collector:
    """A source that collects all completions passed through, to write a recording from them."""

    source: Source
    gathered: Gathered = field(default_factory=Gathered)

    async def complete(self, request: CompletionRequest) -> Completion:
        completion = await self.source.complete(request)
        self.gathered.add(request, completion)
        return completion

    async def aclose(self) -> None:
        await self.source.aclose()


class Completer(Protocol):
    """The half of a ``Source`` that evaluation needs."""

    async def complete(self, request: CompletionRequest) -> Completion: ...


def cost_of(request: CompletionRequest, completion: Completion, prices: PriceBook) -> Decimal:
    """USD of a completion at current prices, whoever paid it."""
    if completion.cost is not None:
        return completion.cost
    price = prices.price(str(request.body["model"]), input_only=wants_embedding(request.body))
    return price.cost(completion.usage)


@dataclass(slots=True)
class _Meter:
    """Adds up cost and usage of one example: its own completion and those of a judge."""

    source: Completer
    prices: PriceBook
    cost: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    latency: float = 0.0
    runs: tuple[TaskRun, ...] = ()
    """Of the suite's task, in all steps of a cascade."""

    async def ask(self, request: CompletionRequest) -> Completion:
        completion = await self.source.complete(request)
        self.cost += cost_of(request, completion, self.prices)
        self.paid += completion.paid
        self.usage += completion.usage
        self.latency += completion.latency
        self.runs += tuple(choice.run for choice in completion.choices if choice.run is not None)
        for exchange in completion.exchanges:  # live sources check this; a recording may be older than the check
            if fault := next(filter(None, map(fault_of, choices_of(exchange))), ""):
                raise CompletionError(f"the recorded answer is a provider error: {fault}; it must be requested again")
        return completion


async def _graded(
    example: Example, request: CompletionRequest, grader: Grader, meter: _Meter
) -> tuple[Completion, ExampleGrade]:
    """A completion and its grade; for a cascade, those of the first step that accepts its answers, else of the last.

    A cascade's grade has the metric ``escalated``: 1 if the first step was not enough.
    """
    first = request
    while True:
        completion = await meter.ask(request)
        texts = [choice.judged for choice in completion.choices]
        grade = await grader.agrade(texts, example.row, meter.ask)
        following = request.escalation
        if following is None or accepts(following.accept, [count for _, count in grade.votes], texts):
            break
        request = following.request
    if first.escalation is not None:
        grade = replace(grade, metrics={**grade.metrics, "escalated": float(request is not first)})
    return completion, grade


async def _evaluate_one(example: Example, request: CompletionRequest, grader: Grader, meter: _Meter) -> ExampleResult:
    try:
        completion, grade = await _graded(example, request, grader, meter)
    except (EndpointError, BudgetExhaustedError):
        raise  # no other example can succeed
    except CompletionError as error:
        return ExampleResult(example, "unknown", None, cost=meter.cost, error=str(error))
    runs = tuple(choice.run for choice in completion.choices if choice.run is not None)
    raised = next((run.error for run in runs if run.error), None)
    if grade.voted_answer is None and raised:
        grade = replace(grade, voted_answer=f"({raised})")  # shown instead of an answer
    refused = all(choice.finish_reason == "content_filter" for choice in completion.choices)
    status: Literal["refused", "ok"] = "refused" if refused else "ok"
    texts = tuple(choice.text for choice in completion.choices)
    spent = meter.usage, meter.cost, meter.latency
    return ExampleResult(example, status, grade, texts, *spent, raised, meter.runs)


def interval_of_mean(values: Sequence[float]) -> Interval:
    """Wilson's interval if all values are 0 or 1, else a bootstrap."""
    if all(value in (0.0, 1.0) for value in values):
        return wilson(round(sum(values)), len(values))
    return bootstrap_mean(values)


class _Intervals(Mapping[str, Interval]):
    """Intervals by metric, computed on first access: resampling takes longer than grading, and a passing guard shows only one."""

    def __init__(self, columns: Mapping[str, Sequence[float]], costs: Sequence[float], aggregate: Aggregate) -> None:
        self._columns = {name: values for name, values in columns.items() if name != ROW_RATE}
        self._costs, self._aggregate = costs, aggregate
        self._known: dict[str, Interval | None] = {}

    def __getitem__(self, name: str) -> Interval:
        if name not in self._known:
            if name == "inference_cost" and self._costs:
                self._known[name] = bootstrap_mean(self._costs)
            elif self._aggregate is mean:
                self._known[name] = interval_of_mean(self._columns[name])
            else:
                self._known[name] = bootstrap(self._columns[name], self._aggregate)
        if (found := self._known[name]) is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys([*self._columns, *(["inference_cost"] if self._costs else [])])
        return (name for name in names if self.get(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:  # the aggregate may be a lambda
        return dict, (dict(self),)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """By nearest rank, of sorted values: so many per cent of them are at most this."""
    return ordered[-(-percent * len(ordered) // 100) - 1]


def evaluation_of(
    config: Mapping[str, object],
    results: Sequence[ExampleResult],
    *,
    paid: Decimal = Decimal(0),
    aggregate: Aggregate = mean,
) -> Evaluation:
    """Results as an evaluation; ``paid``: USD actually spent, ``aggregate``: from a metric's values to the suite's value."""
    columns: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
    costs, cost = array("d"), Decimal(0)
    for result in results:  # one pass: they may be on disk
        if result.grade is not None:
            cost += result.cost
            costs.append(float(result.cost))
            figures = {**result.grade.metrics, "latency": result.latency, "refused": result.status == "refused"}
            for name, value in figures.items():
                columns[name].append(value)
    latencies = sorted(columns.get("latency", ()))
    return Evaluation(
        config=config,
        results=results if isinstance(results, SpilledResults) else tuple(results),
        metrics={
            name: _aggregated(min if name == ROW_RATE else aggregate, name, values) for name, values in columns.items()
        }
        | _agreement(columns)
        | {f"latency_p{percent}": percentile(latencies, percent) for percent in PERCENTILES if latencies},
        intervals=_Intervals(columns, costs, aggregate),
        inference_cost=cost / len(costs) if costs else Decimal(0),
        cost=paid,
    )


def _aggregated(aggregate: Aggregate, name: str, values: array[float]) -> float:
    """A metric's value for the suite; SuiteError if somebody's own aggregate raises, or gives no number."""
    found: Any = None
    try:
        found = aggregate(values.tolist())
        return float(found)
    except LLMTuneError:
        raise
    except Exception as error:
        gave = f"raised {type(error).__name__}: {error}" if found is None else f"gave {found!r:.60}, not a number"
        raise SuiteError(f"aggregate of {name} over {len(values)} rows {gave}") from error


def _agreement(columns: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """``kappa`` and ``base_rate`` of each judge with hand-labelled rows, under the judge's prefix.

    Cohen's kappa (1960) is the agreement beyond what two raters with these rates would reach by chance: 1 is full agreement,
    0 no more than chance. If both always give the same label, it is 0. The base rate is the agreement of always giving the
    more common label.
    """
    found: dict[str, float] = {}
    for name, labels in columns.items():
        prefix = name.removesuffix(LABELLED)
        if prefix == name or not labels:
            continue
        passes, label = statistics.fmean(columns[prefix + JUDGED]), statistics.fmean(labels)
        agreed = statistics.fmean(columns[prefix + "agreement"])
        chance = passes * label + (1 - passes) * (1 - label)
        found[prefix + "kappa"] = (agreed - chance) / (1 - chance) if chance < 1 else 0.0
        found[prefix + "base_rate"] = max(label, 1 - label)
    return found


def requests_of(config: Config, examples: Sequence[Example]) -> Iterator[CompletionRequest]:
    """One request per example, in order; equal ones get different draws."""
    repeats: Counter[bytes] = Counter()
    for example in examples:
        request = config.request_for(example)
        key = bytes.fromhex(request.key)  # half the size: all of them are kept
        yield replace(request, sample_index=repeats[key]) if repeats[key] else request
        repeats[key] += 1


async def evaluate(
    config: Config,
    examples: Sequence[Example],
    *,
    grader: Grader,
    source: Completer,
    prices: PriceBook,
    concurrency: int = 32,
    aggregate: Aggregate = mean,
    on_result: Callable[[int, ExampleResult, Decimal], None] | None = None,
    requests: Iterable[CompletionRequest] | None = None,
    over: Callable[[], bool] | None = None,
) -> Evaluation:
    """Complete and grade every example, with ``concurrency`` examples in flight.

    Args:
        on_result: called with (number done, result, USD spent so far) as each example finishes.
        requests: one per example, if these are only some of the rows; default: ``requests_of`` the examples.
        over: whether no further example needs a request; the evaluation then covers those requested so far.

    Raises:
        EndpointError: no request can succeed (wrong key, unknown model).
        BudgetExhaustedError: the next request might exceed a budget.
        StaleRecordingError: in replay, an example has no recording.
    """
    spilled = len(examples) > _MANY and over is None
    results: dict[int, ExampleResult] | SpilledResults = SpilledResults(examples) if spilled else {}
    requested = requests_of(config, examples) if requests is None else requests
    todo = enumerate(zip(examples, requested, strict=True))
    paid, done = Decimal(0), 0

    async def work(*, until: Callable[[], bool] = lambda: False) -> None:
        nonlocal paid, done
        for index, (example, request) in todo:  # shared: each worker takes the next example
            meter = _Meter(source, prices)
            results[index] = result = await _evaluate_one(example, request, grader, meter)
            paid, done = paid + meter.paid, done + 1
            if on_result is not None:
                on_result(done, result, paid)
            if until() or (over is not None and over()):
                return

    if not has_loop():  # a replay waits for nothing, or only for what reads a long response
        await work(until=has_loop)
    if has_loop():
        await all_of(work() for _ in range(min(concurrency, len(examples))))
    found = results if isinstance(results, SpilledResults) else [results[index] for index in sorted(results)]
    return evaluation_of(config.to_lock(), found, paid=paid, aggregate=aggregate)


async def all_of(jobs: Iterable[Awaitable[None]]) -> None:
    """Run jobs concurrently; the first error cancels the others, waits for them, and is raised unchanged."""
    import asyncio

    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            if not task.cancelling():  # cancelled once, it stores answers in flight; twice, it would drop them
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
