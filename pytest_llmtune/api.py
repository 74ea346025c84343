"""Functions for use without pytest: ``tune``, ``evaluate``, ``complete`` and ``grade``."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from pytest_llmtune._dataclass import replace
from pytest_llmtune._util.aio import run_async
from pytest_llmtune._util.text import did_you_mean, dollars, number, shown
from pytest_llmtune.completions.stats import RequestStats
from pytest_llmtune.errors import CompletionError, SuiteError
from pytest_llmtune.grading import accepts, check_aggregated, judges_of, resolve
from pytest_llmtune.guard.evaluation import Aggregate, evaluation_of
from pytest_llmtune.guard.outcome import SuiteLocation
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.redaction.redactor import redactor_of
from pytest_llmtune.settings import Settings
from pytest_llmtune.suite import Config, Suite
from pytest_llmtune.suite.domains import PARAMETERS
from pytest_llmtune.suite.keys import aggregator
from pytest_llmtune.types import (
    Completion,
    Evaluation,
    Event,
    ExampleGrade,
    Finished,
    InFlight,
    Listener,
    ModelUsage,
    Started,
    TrialDone,
)
from pytest_llmtune.workflow.modes import SuiteRun

if TYPE_CHECKING:
    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.suite.typed import Parameters
    from pytest_llmtune.tuning import Study


_USED = RequestStats()
"""Of this process."""


def usage() -> dict[str, ModelUsage]:
    """Usage of ``tune``, ``evaluate`` and ``complete`` in this process, by model: ``usage()["gpt-4o"].cost``.

    Answers from the cache are not included.
    """
    return dict(_USED.by_model)


@contextmanager
def _counted(by_model: Callable[[], Mapping[str, ModelUsage]]) -> Iterator[None]:
    """Counts requests even if the call fails."""
    try:
        yield
    finally:
        for model, billed in by_model().items():
            _USED.bill(model, billed)


def _run(suite: Suite, settings: Settings | None) -> SuiteRun:
    settings = settings or Settings()
    location = SuiteLocation(suite.name, suite.where_declared, 1, Path(suite.base_dir) / "llmtune")
    return SuiteRun(suite, settings, location, _ledger(settings), redactor_of(settings), _listener())


def _ledger(settings: Settings) -> Ledger:
    """What one call may spend."""
    return Ledger(None if settings.max_spend is None else Decimal(str(settings.max_spend)), name="max_spend")


def _listener() -> Listener:
    """Listener that logs events, and shows progress: a bar in a terminal, lines in a notebook."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if not terminal and "ipykernel" not in sys.modules:
        return _log_event
    from pytest_llmtune.report.progress import Progress

    shown = Progress(sys.stderr, terminal=terminal)

    def both(event: Event) -> None:
        _log_event(event)
        shown(event)

    return both


_LOG = logging.getLogger("pytest_llmtune")


def _log_event(event: Event) -> None:
    """Log an event at INFO; ``logging.basicConfig(level="INFO")`` shows it."""
    match event:
        case Started():
            budget = f", at most {dollars(event.budget)}" if event.budget else ""
            _LOG.info("%s: %s begins%s", event.suite, event.task, budget)
        case TrialDone():
            best = "none yet" if event.best is None else number(event.best)
            score = "no score" if event.score is None else f"score {number(event.score)}"
            summary = f"{score} ({event.config}), {dollars(event.spent)} spent, best {best}"
            _LOG.info("%s: trial %d: %s", event.suite, event.trial, summary)
        case InFlight() if event.retrying:
            _LOG.info("%s: retrying: %s", event.suite, event.retrying)
        case Finished():
            _LOG.info("%s: done, %s spent", event.suite, dollars(event.spent))


class Tuned(NamedTuple):
    """Result of ``tune``: ``config, analysis = tune(suite)``."""

    config: Config
    """The best configuration within the budgets."""
    analysis: Study
    """``best_result``, ``trials``, and ``summary`` (scores with intervals, USD spent)."""


def tune(suite: Suite, *, log_file_name: str | Path | None = None, settings: Settings | None = None) -> Tuned:
    """Search the suite's space on its tuning rows; writes only the cache and the log below ``settings.root``.

    Args:
        log_file_name: JSON Lines log of the study, with spending and all trials, from which a killed search resumes.
            Default: ``.llmtune/studies/<suite>.jsonl``.

    Returns:
        ``config``, the best configuration within the budgets, and ``analysis``, with ``best_result``, ``trials`` and ``summary``.

    Raises:
        LLMTuneError: no configuration is within the inference budget, an endpoint fails, a grader is vacuous.
    """
    log = None if log_file_name is None else Path(log_file_name)
    run = _run(suite, settings)
    with _counted(lambda: run.services.by_model):
        study = run_async(run.searching(log).search())
    return Tuned(study.winner, study)


def evaluate(
    suite: Suite,
    config: Config | Mapping[str, Any] | None = None,
    *,
    aggregate: Any = None,
    use_cache: bool = True,
    settings: Settings | None = None,
) -> Evaluation:
    """Evaluate a configuration live on the suite's test rows; see ``.metrics``, ``.inference_cost``, ``.results``.

    Args:
        config: as in a lock file, or a ``Config``; None: the suite's untuned configuration.
        aggregate: instead of the suite's: ``mean``, ``median``, ``module:function``, a function of a list of numbers, or a
            mapping of metric to one of these.
        use_cache: False: send every request again.

    Raises:
        SuiteError: ``aggregate`` names an unknown function or metric.
        LLMTuneError: an endpoint fails, a grader is vacuous, or the next request might cost more than ``max_spend``.
    """
    run = _run(suite, settings)
    aggregates = _aggregates(suite, aggregate)
    check_aggregated(run.grader, run.split.test, filter(None, aggregates), where=suite.where_declared)
    if config is None:
        config = suite.space.first()
    if not isinstance(config, Config):
        config = Config.from_lock(config, suite.space.templates)
    with _counted(lambda: run.services.by_model):
        evaluation = run_async(run.evaluate_live(config, cached=use_cache))
    for metric, one in aggregates.items():
        evaluation = _aggregated(evaluation, metric, one)
    return evaluation


def _aggregates(suite: Suite, declared: Any) -> dict[str | None, Aggregate]:
    """Aggregate functions by metric, or None for all; checked before anything is spent."""
    named = declared if isinstance(declared, Mapping) else {} if declared is None else {None: declared}
    try:
        return {metric: aggregator(one, suite.base_dir, suite.root) for metric, one in named.items()}
    except SuiteError as error:
        raise SuiteError(f"{suite.where_declared}: aggregate {error}") from error.__cause__


def _aggregated(evaluation: Evaluation, metric: str | None, aggregate: Aggregate) -> Evaluation:
    found = evaluation_of(evaluation.config, evaluation.results, paid=evaluation.cost, aggregate=aggregate)
    if metric is None:
        return found
    if metric not in found.metrics:
        raise SuiteError(f"aggregate names the metric {metric!r}; there are {', '.join(sorted(found.metrics))}")
    intervals = {name: sure for name, sure in evaluation.intervals.items() if name != metric}
    own = {metric: found.intervals[metric]} if metric in found.intervals else {}
    metrics = {**evaluation.metrics, metric: found.metrics[metric]}
    return replace(evaluation, metrics=metrics, intervals=intervals | own)


def complete(
    config: Config | Mapping[str, Any] | Sequence[Config | Mapping[str, Any]],
    row: Mapping[str, Any] | None = None,
    *,
    accept: Callable[[Mapping[str, Any], Completion], bool] | None = None,
    cache_seed: int | None = None,
    settings: Settings | None = None,
    **params: Unpack[Parameters],
) -> Completion:
    """The answers of a configuration to a row: ``complete(config, row).texts``.

    Args:
        config: OpenAI parameters, and ``prompt`` or ``messages`` with ``{column}`` fields. From a list, the first that can
            be completed and is accepted is used, else the last.
        row: values of the template's fields.
        accept: called with the row and a completion; False: try the next configuration.
        cache_seed: cache answers under this seed, so that they are requested once; None: no cache.
        params: OpenAI parameters that override those of every configuration.

    A cascade tries its steps in turn until one has a clear vote; ``.paid`` is the total.

    Raises:
        SuiteError: the row lacks a column of the template, a parameter is unknown, or ``settings`` has ``batch``, ``engine`` or
            ``source``: a completion is sent at once, over HTTP.
        CompletionError: no endpoint could complete the last configuration; ``EndpointError`` if none ever can.
        BudgetExhaustedError: it might cost more than ``max_spend`` of ``settings``.
    """
    configs = []
    for one in config if isinstance(config, (list, tuple)) else [config]:
        if not isinstance(one, (Config, Mapping)):
            raise SuiteError(
                f"complete takes a configuration (a mapping of OpenAI parameters, or a Config), not {one!r:.60}"
            )
        configs.append(_with(one if isinstance(one, Config) else Config.from_lock(one), params))
    if not configs:
        raise SuiteError("complete takes a configuration, or a list of at least one; the list is empty")
    source = _source(settings or Settings(), cache_seed)
    with _counted(lambda: source.account.by_model):
        return run_async(_first_accepted(configs, row or {}, accept, source))


def grade(
    grader: Any,
    responses: str | Sequence[str],
    row: Mapping[str, Any],
    *,
    vote: Any = "equivalence",
    reasoning: Any = True,
) -> ExampleGrade:
    """Grade responses to a row as a suite would, for trying a grader in a REPL; sends no request.

        >>> grade("math", ["\\boxed{4}", "5"], {"answer": "4"}).metrics["success_vote"]
        1.0

    Args:
        grader: as the suite key ``grader``: a name, ``{name: {option: value}}``, ``module:function``, a function, a list.
        responses: one text, or n texts.
        row: column to value, including the reference.
        vote, reasoning: as the suite's keys.

    Returns:
        ``.metrics`` (name to value), ``.voted_answer``, ``.votes`` and ``.answers``.

    Raises:
        SuiteError: unknown grader or option, a row without its reference, or a judge, which needs an endpoint.
    """
    resolved = resolve(grader, vote=vote, reasoning=reasoning, where="grade()")
    if judges_of(resolved):
        raise SuiteError("grade() asks no model, so it cannot judge; use evaluate(suite)")
    return resolved.grade([responses] if isinstance(responses, str) else list(responses), row)


def _with(config: Config, params: Mapping[str, Any]) -> Config:
    for name in params:
        if name not in ("model", *PARAMETERS, *config.params):
            near = did_you_mean(name, PARAMETERS)
            raise SuiteError(
                f"complete(): unknown parameter {name!r}{near}; prompts, and parameters that only your server knows, belong in "
                "the configuration"
            )
    following = _with(config.following, params) if config.following else None
    return Config({**config.params, **params}, config.template, config.accept, following)


def _votes(grader: Any, texts: Sequence[str], row: Mapping[str, Any]) -> list[int]:
    """Counts of readable answers, most frequent first; the row need not have a reference.

    Raises:
        SuiteError: the grader cannot read answers individually.
    """
    if grader is None:
        return sorted(Counter(text.strip() for text in texts if text.strip()).values(), reverse=True)
    from pytest_llmtune.suite.yaml import code_in

    for _, what in code_in({"grader": grader} if isinstance(grader, (str, Mapping, list)) else {}):
        raise SuiteError(
            f"accept of a cascade's step: the grader {shown(what)} runs code, which complete() does not do for a name in a "
            "configuration: it may come from a file; give the grader as an object, or leave it out"
        )
    reader = resolve(grader, where="accept of a cascade's step")
    if judges_of(reader) or not reader.per_response:
        raise SuiteError(f"accept of a cascade's step: the grader {reader.name} does not read answers one by one")
    column = reader.reference_column or "answer"
    for stand_in in (None, *texts, "0", "A"):  # reading needs no reference, but graders require one
        try:
            found = reader.grade(texts, row if stand_in is None else {**row, column: stand_in})
        except SuiteError:
            continue
        return [count for _, count in found.votes]
    return []


async def _steps(source: LiveSource, config: Config, row: Mapping[str, Any]) -> Completion:
    """The completion of a configuration; for a cascade, of the first step whose answers are accepted."""
    request, paid = config.request(row), Decimal(0)
    while True:
        completion = await source.complete(request)
        paid += completion.paid
        texts, following = [choice.judged for choice in completion.choices], request.escalation
        if following is None or accepts(following.accept, _votes(following.accept.grader, texts, row), texts):
            return replace(completion, paid=paid)
        request = following.request


async def _first_accepted(
    configs: Sequence[Config],
    row: Mapping[str, Any],
    accept: Callable[[Mapping[str, Any], Completion], bool] | None,
    source: LiveSource,
) -> Completion:
    paid = Decimal(0)
    try:
        for config in configs[:-1]:
            try:
                completion = await _steps(source, config, row)
            except CompletionError:
                continue
            paid += completion.paid
            if accept is None or accept(row, completion):
                return replace(completion, paid=paid)
        completion = await _steps(source, configs[-1], row)
        return replace(completion, paid=paid + completion.paid)
    finally:
        await source.aclose()


def _source(settings: Settings, cache_seed: int | None) -> LiveSource:
    from pytest_llmtune.completions.cache import Cache
    from pytest_llmtune.completions.endpoint_files import endpoints_of
    from pytest_llmtune.completions.endpoints import Trust
    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.money.prices import PriceBook

    for name in ("batch", "engine", "source"):
        if getattr(settings, name):
            raise SuiteError(
                f"complete() sends at once, over HTTP: leave {name} out of its settings; tune and evaluate use it"
            )
    trust = Trust.of(hosts=settings.trust_hosts)
    return LiveSource(
        endpoints_of(settings.endpoints, base_url=settings.base_url, root=settings.root, trust=trust),
        PriceBook(settings.prices),
        ledger=_ledger(settings),
        cache=None if cache_seed is None else Cache(settings.root / ".llmtune" / "cache", seed=cache_seed),
        timeout=settings.timeout,
        deadline=settings.deadline,
        redactor=redactor_of(settings),
    )
