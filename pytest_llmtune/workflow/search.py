"""Search a suite's space, and evaluate the winner on the test rows."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.aio import run_async
from pytest_llmtune.completions.cache import Cache
from pytest_llmtune.completions.source import ReplaySource
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.guard.evaluation import Collector
from pytest_llmtune.guard.gates import conclusive
from pytest_llmtune.guard.lockfile import StudySummary, TrialSummary
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.recording import Gathered, Recording
from pytest_llmtune.tuning import Judged, Study, StudyLog, affordable, compare, dry_run, study_digest, tune
from pytest_llmtune.tuning.reuse import AnswerReuse
from pytest_llmtune.tuning.study import INTERRUPTED, best_so_far, check_payable
from pytest_llmtune.types import Evaluation, Finished, Started

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_llmtune.data.split import Split
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.guard.result import Compared
    from pytest_llmtune.guard.staleness import RequestPlan
    from pytest_llmtune.suite import Config, Suite
    from pytest_llmtune.workflow.services import SuiteServices


@dataclass(frozen=True, slots=True)
class TuneMode:
    """The search of one suite."""

    suite: Suite
    split: Split
    grader: Grader
    services: SuiteServices
    ledger: Ledger
    """The suite's ledger, within the run's, limited by ``--llm-max-spend``."""
    log: Path
    """Path of the study's log, from which a killed run resumes."""
    recording: Path | None = None
    """Path of the suite's recording."""

    def dry_run(self) -> str:
        """A few lines on the maximum cost of a search and what is cached; sends no request."""
        suite, prices = self.suite, self.services.prices
        check_payable(suite, self.split, self.grader, prices)
        if suite.task is not None:
            from pytest_llmtune.capture.tariff import Tariff
            from pytest_llmtune.tasks.estimate import estimate

            recording = Recording.load(self.recording, torn=True) if self.recording else Recording(self.log)
            nothing = Recording(recording.path)
            source = self.services.source_for(ReplaySource(nothing), recording=nothing)
            return run_async(estimate(suite, self.split, Tariff(prices), recording, source))
        if (only := self._without_choice()) is not None:
            return f"{suite.name}: nothing to choose: {only.winner.label}; no row to tune on, and no search"
        cache = Cache(self.services.cache, seed=str(suite.seed)) if self.services.cache.is_dir() else None
        log = StudyLog.peek(self.log, self._digest)
        return run_async(dry_run(suite, self.split, prices=prices, cache=cache, grader=self.grader, log=log))

    def _without_choice(self) -> Study | None:
        """The only configuration, if there are no tuning rows; None if there is a search.

        Raises:
            SuiteError: there is something to choose, but no tuning rows.
        """
        suite = self.suite
        if self.split.tune:
            return None
        if not suite.space.is_constant:
            raise SuiteError(
                f"{suite.at('tune_size')}: tune_size={suite.tune_size} leaves none of {len(self.split.test)} rows to tune on, "
                "and there is something to choose; give more rows to tune on"
            )
        config, nothing = suite.space.first(), Decimal(0)
        trial = TrialSummary(1, config.to_lock(), None, None, nothing, "done")
        budgets = suite.optimization_budget, suite.inference_budget
        return Study(config, StudySummary((trial,), nothing, "nothing to choose", *budgets, 1, suite.seed, 1))

    async def search(self) -> Study:
        """Run only the search, which writes just the cache and the study's log."""
        suite, prices = self.suite, self.services.prices
        check_payable(suite, self.split, self.grader, prices)
        if (only := self._without_choice()) is not None:
            return only
        own = Ledger(suite.optimization_budget, parent=self.ledger, name="optimization_budget")
        live = self.services.live(own, cached=str(suite.seed))
        log = StudyLog.open(self.log, self._digest)
        live.journal = log.note
        source = self.services.source_for(live, live=live, remembers=True)
        self.services.listen(Started(suite.name, "tune", suite.num_samples, suite.optimization_budget))
        try:
            return await tune(
                suite,
                self.split,
                grader=self.services.grading(self.grader),
                source=source,
                prices=prices,
                ledger=own,
                listen=self.services.listen,
                concurrency=self.services.round_size,
                log=log,
                reuse=AnswerReuse() if suite.task else AnswerReuse.of(live.cache, suite.space),
            )
        finally:
            await source.aclose()
            self.services.listen(Finished(suite.name, own.spent - log.spent_earlier))

    async def tuned(
        self, rows: Callable[[Config], RequestPlan], record: Callable[[Gathered, RequestPlan], None]
    ) -> tuple[Study, Evaluation, tuple[Compared, ...]]:
        """Run the search, then record the winner and evaluate the baselines on the test rows; ``paid`` is the total."""
        suite, study = self.suite, await self.search()
        live = self.services.live(self.ledger, cached=str(suite.seed))
        source = self.services.source_for(live, live=live)
        self.services.listen(Started(suite.name, "record", len(self.split.test)))

        async def judge(config: Config) -> Judged:
            collector = Collector(source)
            return Judged(await self.services.evaluate(rows(config), self.grader, collector), collector.gathered)

        live.ask = study.summary.stopped_by != INTERRUPTED  # after Ctrl-C no further requests
        try:
            if live.ask:
                study, judged = await affordable(study, suite.inference_budget, judge)
            else:
                judged = await judge(study.winner)
                if not conclusive(judged.evaluation, suite.max_unknown):
                    raise asyncio.CancelledError(best_so_far(suite, study))
            compared, notes = await compare(
                study,
                suite,
                self.split.test,
                grader=self.services.grading(self.grader),
                source=source,
                prices=self.services.prices,
                concurrency=self.services.concurrency,
            )
        finally:
            await source.aclose()
            self.services.listen(Finished(suite.name, live.account.paid))
        if conclusive(judged.evaluation, suite.max_unknown):  # last: the lock file follows at once
            record(judged.gathered, rows(study.winner))
        study = replace(study, notes=(*study.notes, *notes), paid=study.paid + live.account.paid)
        return study, judged.evaluation, compared

    @property
    def _digest(self) -> str:
        return study_digest(self.suite, self.split, self.grader)
