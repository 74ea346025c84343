"""Build what a suite needs in a run: completion source, grader, prices."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util import plugins
from pytest_llmtune.completions.stats import RequestStats
from pytest_llmtune.errors import LLMTuneError, MissingKeyError, RecordingError, SuiteError
from pytest_llmtune.guard.evaluation import Completer, evaluate
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.recording import Recording
from pytest_llmtune.settings import Mode, Settings
from pytest_llmtune.types import (
    Completion,
    CompletionRequest,
    Evaluation,
    ExampleResult,
    InFlight,
    Listener,
    ModelUsage,
    RowsDone,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal
    from pathlib import Path

    from pytest_llmtune.completions.endpoints import Endpoint
    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.guard.sequential import EarlyStop
    from pytest_llmtune.guard.staleness import RequestPlan
    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.recording.housekeeping import RerecordSession
    from pytest_llmtune.redaction.redactor import Redactor
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.workflow.live import Engine


@dataclass(frozen=True, slots=True)
class RecordedFirst:
    """Answers from a recording if it has them, else from a live source."""

    recording: Recording
    beyond: LiveSource

    async def complete(self, request: CompletionRequest) -> Completion:
        return self.recording.lookup(request) or await self.beyond.complete(request)

    async def aclose(self) -> None:
        await self.beyond.aclose()


def record_cache(mode: Mode, suite: Suite, session: RerecordSession) -> str | None:
    """The cache seed of a mode; modes that re-record everything use a new seed, kept so that a killed run can resume.

    Raises:
        RecordingError: the cache directory is not writable.
    """
    if mode is Mode.RECORD_ALL:
        return session.begin()
    if mode is Mode.LIVE:
        with suppress(RecordingError):  # go on without a cache
            return session.begin()
    return str(suite.seed) if mode is Mode.RECORD_MISSING else None


def recorded(mode: Mode, path: Path, redactor: Redactor) -> Recording:
    """The recording for a mode; empty for modes that request everything, which must not fail on a damaged one.

    Raises:
        RecordingError: the recording is damaged.
    """
    if mode in (Mode.LIVE, Mode.RECORD_ALL):
        return Recording(path, (), redactor)
    return Recording.load(path, redactor, torn=mode is Mode.RECORD_MISSING)


_BATCHED = 10_000
"""Examples in flight if requests, or grading, are batched."""
_ROUND = 512
"""Requests per round of a search if they are batched."""


@dataclass(eq=False)
class SuiteServices:
    """Completion source, grader and prices of a suite in a run."""

    suite: Suite
    settings: Settings
    redactor: Redactor
    listen: Listener
    at_end: Callable[[Callable[[], None]], object]
    """Registers a function to call after the run's report."""
    needs_endpoint: Callable[[], bool] = lambda: True
    """Whether requests are sent to the suite's endpoints."""
    live_sources: list[LiveSource] = field(default_factory=list)
    """All live sources so far."""
    _began: float | None = None
    """When the first source with a deadline was created, on the monotonic clock."""

    def __post_init__(self) -> None:
        if self.suite.task is None:
            return
        for option, value in (("--llm-batch", self.settings.batch), ("--llm-engine", self.settings.engine)):
            if value:
                raise SuiteError(
                    f"{self.suite.where_declared}: the suite {self.suite.name!r} runs the task {self.suite.task.name}, "
                    f"which does not support {option} yet; leave the option out"
                )

    @cached_property
    def prices(self) -> PriceBook:
        """Prices by the suite's own address, not the environment's, so that a replay elsewhere uses the same prices."""
        own = {**self.settings.prices, **self.suite.prices}
        return PriceBook(own, (self.suite.base_url,) if self.suite.base_url else ())

    @cached_property
    def engine(self) -> Engine | None:
        """The engine that ``--llm-engine=NAME://ADDRESS`` names, which sends requests and grades; None: this process.

        Raises:
            LLMTuneError: no package registers it, or no connection.
        """
        if self.settings.engine is None:
            return None
        name, _, address = self.settings.engine.partition("://")
        found: type[Engine] | None = plugins.load("engines", name)
        if found is None:
            raise LLMTuneError(f"--llm-engine={name}: no package registers this engine (pytest_llmtune.engines)")
        engine = found.connect(address)
        self.at_end(engine.close)
        return engine

    @property
    def cache(self) -> Path:
        return self.settings.root / ".llmtune" / "cache"

    @property
    def concurrency(self) -> int:
        """Examples in flight."""
        return _BATCHED if self.settings.batch or self.engine else self._requests

    @property
    def round_size(self) -> int:
        """Requests per round of a search."""
        return _ROUND if self.settings.batch else self._requests

    def source_for(
        self,
        source: Any,
        *,
        recording: Recording | None = None,
        live: LiveSource | None = None,
        remembers: bool = False,
        excused: frozenset[str] = frozenset(),
    ) -> Any:
        """The source for a suite's requests: ``source`` itself, or, for a suite with a task, runs of it.

        Args:
            source: answers requests of judges.
            recording: recorded runs, which are not repeated.
            live: pays for the calls of runs; None: the network is blocked.
            remembers: whether a repeated request reuses the same run.
            excused: IDs of rows that need no recording.
        """
        if self.suite.task is None:
            return source
        from pytest_llmtune.capture.tariff import Tariff
        from pytest_llmtune.capture.traffic import traffic_of
        from pytest_llmtune.tasks.source import TaskSource

        return TaskSource(
            source,
            Tariff(self.prices),
            self.redactor if live is None else live.redactor,
            recording,
            live,
            concurrency=self._requests,
            traffic=traffic_of(self.settings),
            remembers=remembers,
            excused=excused,
        )

    @property
    def _requests(self) -> int:
        return int(self.settings.pick("concurrency", self.suite.concurrency))

    @property
    def _stats(self) -> RequestStats:
        total = RequestStats()
        for source in self.live_sources:
            total.add(source.account)
        return total

    @property
    def account(self) -> tuple[str, ...]:
        """Notes on the requests so far; with all counts if any request failed."""
        total = self._stats
        return total.lines() if total.eventful else tuple(total.notes)

    @property
    def by_model(self) -> dict[str, ModelUsage]:
        """Usage and cost so far, by model."""
        return self._stats.by_model

    def grading(self, grader: Grader) -> Grader:
        """The grader, on the engine if there is one."""
        return grader if self.engine is None else self.engine.grader(grader, self.settings.root)

    def live(self, ledger: Ledger, *, cached: str | None) -> LiveSource:
        """A live source: the suite's effective endpoints, or what the engine or ``--llm-source`` puts in their place.

        Answers are redacted immediately, including the endpoints' own keys, so that a replay judges the same text.

        Args:
            cached: the cache's seed; None: no cache.

        Raises:
            SuiteError: an endpoint is invalid, no key is found, or a YAML suite gives an untrusted address.
            LLMTuneError: no package registers ``--llm-source``.
        """
        from pytest_llmtune.completions.batch_api import Batching
        from pytest_llmtune.completions.cache import Cache
        from pytest_llmtune.completions.source import LiveSource
        from pytest_llmtune.workflow.live import endpoints_for

        suite, settings = self.suite, self.settings
        remote = None if self.engine is None else self.engine.requester
        if remote is None and settings.source is not None:  # a registered requester that replaces HTTP
            remote = plugins.load("sources", settings.source)
            if remote is None:
                raise LLMTuneError(
                    f"--llm-source={settings.source}: no package registers this source (pytest_llmtune.sources)"
                )
        endpoints: tuple[Endpoint, ...] = ()
        if not settings.source:
            try:
                endpoints = endpoints_for(suite, settings)
            except MissingKeyError:
                if self.needs_endpoint():
                    raise
        deadline = settings.pick("deadline", suite.deadline)
        if deadline is not None:  # shared by all sources
            self._began = self._began or time.monotonic()
            deadline = max(0.0, deadline - (time.monotonic() - self._began))
        batching = Batching(settings.root / ".llmtune" / "batches", settings.batch_price) if settings.batch else None
        source = LiveSource(
            endpoints,
            self.prices,
            ledger=ledger,
            cache=None if cached is None else Cache(self.cache, seed=cached),
            concurrency=batching.most if batching else self._requests,
            timeout=settings.pick("timeout", suite.timeout),
            deadline=deadline,
            batching=batching,
            account=RequestStats(listen=self._on_request),
            redactor=self.redactor,
            remote=remote,
        )
        self.live_sources.append(source)
        return source

    def _on_request(self, account: RequestStats) -> None:
        """Tell the listener that a request was sent or answered."""
        self.listen(InFlight(self.suite.name, account.in_flight, account.paid, account.retrying, account.answered))

    async def evaluate(
        self, rows: RequestPlan, grader: Grader, source: Completer, early: EarlyStop | None = None
    ) -> Evaluation:
        """Evaluate a configuration over rows; raises as ``evaluation.evaluate``."""
        examples = rows.examples

        def on_result(done: int, result: ExampleResult, paid: Decimal) -> None:
            if early is not None:
                early.see(result)
            self.listen(RowsDone(self.suite.name, done, len(examples), paid))

        return await evaluate(
            rows.config,
            examples,
            grader=self.grading(grader),
            source=source,
            prices=self.prices,
            concurrency=self.concurrency,
            aggregate=self.suite.aggregator,
            on_result=on_result if self.settings.mode.online else None,
            requests=rows.requests(),
            over=None if early is None else lambda: early.over,
        )
