"""What ``--llm-tune`` does with a suite: the search, the winner over the test rows, the baselines beside it.

Apart from the other modes, because it needs numpy and FLAML: a guard imports neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_llmtune import events
from pytest_llmtune._util.aio import run_async
from pytest_llmtune.completions.cache import Cache
from pytest_llmtune.guard.evaluation import Collector
from pytest_llmtune.guard.gates import conclusive
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.tuning import Judged, Study, StudyLog, affordable, compare, dry_run, study_digest, tune
from pytest_llmtune.tuning.arms import families_of
from pytest_llmtune.tuning.beforehand import check_payable
from pytest_llmtune.tuning.reuse import Lender

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_llmtune.data.split import Split
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.guard.asked_rows import AskedRows
    from pytest_llmtune.guard.result import Compared
    from pytest_llmtune.recording import Gathered
    from pytest_llmtune.suite import Config, Suite
    from pytest_llmtune.types import Evaluation
    from pytest_llmtune.workflow.services import Means

__all__ = ["Searching"]


@dataclass(frozen=True, slots=True)
class Searching:
    """The search of one suite, before it is begun."""

    suite: Suite
    split: Split
    grader: Grader
    means: Means
    ledger: Ledger
    """The run's, which ``--llm-max-spend`` limits."""
    listen: events.Listener
    log: Path
    """Of the study, which a killed run goes on from."""

    def dry_run(self) -> str:
        """What a search may cost at most and what is cached, in a few lines; nothing is asked."""
        suite, prices = self.suite, self.means.prices
        check_payable(suite, self.split, self.grader, prices)
        cache = Cache(self.means.cache, seed=str(suite.seed)) if self.means.cache.is_dir() else None
        log = StudyLog.peek(self.log, self._digest)
        return run_async(dry_run(suite, self.split, prices=prices, cache=cache, grader=self.grader, log=log))

    async def search(self) -> Study:
        """The search alone: nothing is written but the cache and the study's log."""
        suite, prices = self.suite, self.means.prices
        check_payable(suite, self.split, self.grader, prices)
        own = Ledger(suite.optimization_budget, parent=self.ledger, name="optimization_budget")
        source = self.means.live(own, cached=str(suite.seed))
        log = StudyLog.open(self.log, self._digest)
        source.journal = log.note
        self.listen(events.Started(suite.name, "tune", suite.num_samples, suite.optimization_budget))
        try:
            return await tune(
                suite,
                self.split,
                grader=self.means.grading(self.grader),
                source=source,
                prices=prices,
                ledger=own,
                listen=self.listen,
                concurrency=self.means.together,
                log=log,
                lender=Lender.of(source.cache, families_of(suite.space).values()),
            )
        finally:
            await source.aclose()
            self.listen(events.Finished(suite.name, own.spent - log.spent_earlier))

    async def tuned(
        self, rows: Callable[[Config], AskedRows], record: Callable[[Gathered], None]
    ) -> tuple[Study, Evaluation, tuple[Compared, ...]]:
        """The search, then the winner, recorded, and the baselines over the test rows; ``paid`` is for all of it."""
        suite, study = self.suite, await self.search()
        source = self.means.live(self.ledger, cached=str(suite.seed))
        self.listen(events.Started(suite.name, "record", len(self.split.test)))

        async def judge(config: Config) -> Judged:
            collector = Collector(source)
            return Judged(await self.means.evaluate(rows(config), self.grader, collector), collector.gathered)

        try:
            study, judged = await affordable(study, suite.inference_budget, judge)
            if conclusive(judged.evaluation, suite.max_unknown):
                record(judged.gathered)
            compared, notes = await compare(
                study,
                suite,
                self.split.test,
                grader=self.means.grading(self.grader),
                source=source,
                prices=self.means.prices,
                concurrency=self.means.concurrency,
            )
        finally:
            await source.aclose()
            self.listen(events.Finished(suite.name, source.account.paid))
        study = replace(study, notes=(*study.notes, *notes), paid=study.paid + source.account.paid)
        return study, judged.evaluation, compared

    @property
    def _digest(self) -> str:
        return study_digest(self.suite, self.split, self.grader)
