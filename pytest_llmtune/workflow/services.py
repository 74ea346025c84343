"""How a suite's examples are asked and graded in a run: by whom, at what prices, how many at once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_llmtune import events
from pytest_llmtune.completions.cache import Cache
from pytest_llmtune.completions.stats import Account
from pytest_llmtune.guard.evaluation import evaluate
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.workflow.asked_of import live_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal
    from pathlib import Path

    from pytest_llmtune.cluster import Engine
    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.guard.asked_rows import AskedRows
    from pytest_llmtune.guard.evaluation import Asking
    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.redaction.redactor import Redactor
    from pytest_llmtune.settings import Settings
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.types import Evaluation, ExampleResult

__all__ = ["Means"]


_BATCHED = 10_000
"""Examples in flight where they are asked, or graded, in batches."""
_ROUND = 512
"""Requests of a search that are decided on together, where they are asked in batches."""


@dataclass(eq=False)
class Means:
    """Those of one suite in one run."""

    suite: Suite
    settings: Settings
    redactor: Redactor
    listen: events.Listener
    at_end: Callable[[Callable[[], None]], object]
    """Takes what is to be done when the whole run was told."""
    asked_of: list[LiveSource] = field(default_factory=list)
    """All sources so far."""
    _began: float | None = None
    """When the first source with a deadline was made, on the monotonic clock."""

    @cached_property
    def prices(self) -> PriceBook:
        return PriceBook({**self.settings.prices, **self.suite.prices})

    @cached_property
    def engine(self) -> Engine | None:
        """The cluster that asks and grades; None: this process does.

        Raises:
            LLMTuneError: it cannot be joined.
        """
        if self.settings.engine is None:
            return None
        from pytest_llmtune.cluster import Engine

        engine = Engine.connect(self.settings.engine)
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
    def together(self) -> int:
        """Requests of a search that are decided on together."""
        return _ROUND if self.settings.batch else self._requests

    @property
    def _requests(self) -> int:
        return int(self.settings.pick("concurrency", self.suite.concurrency))

    @property
    def account(self) -> tuple[str, ...]:
        """What is to be said of the requests so far: events on the way; all counts where any request failed."""
        whole = Account()
        for source in self.asked_of:
            whole.add(source.account)
        return whole.lines() if whole.eventful else tuple(whole.notes)

    def grading(self, grader: Grader) -> Grader:
        """The grader, at work where this run's graders work."""
        return grader if self.engine is None else self.engine.grader(grader, self.settings.root)

    def live(self, ledger: Ledger, *, cached: str | None) -> LiveSource:
        """The endpoints in force.

        Args:
            cached: the cache's seed; None: no cache.
        """
        source = live_source(
            self.suite,
            self.settings,
            self.prices,
            ledger,
            None if cached is None else Cache(self.cache, seed=cached),
            redactor=self.redactor,
            listen=self.listen,
            engine=self.engine,
        )
        if source.deadline is not None:  # for all sources together
            self._began = self._began or time.monotonic()
            source.deadline = max(0.0, source.deadline - (time.monotonic() - self._began))
        self.asked_of.append(source)
        return source

    async def evaluate(self, rows: AskedRows, grader: Grader, source: Asking) -> Evaluation:
        """A configuration over rows; raises as ``evaluation.evaluate``."""
        examples = rows.examples

        def on_result(done: int, _: ExampleResult, paid: Decimal) -> None:
            self.listen(events.Asked(self.suite.name, done, len(examples), paid))

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
        )
