"""Run one suite in each mode: tune, record, replay, accept."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.aio import run_async
from pytest_llmtune._util.files import check_writable, exclusive, relative_to_cwd
from pytest_llmtune._util.functions import never_skipped
from pytest_llmtune._util.text import counted, dollars, quoted
from pytest_llmtune.completions.source import LiveSource, ReplaySource
from pytest_llmtune.errors import LockError, RecordingError, SuiteError
from pytest_llmtune.grading import (
    Grader,
    awaits,
    cautions_of,
    check,
    check_named,
    grader_of,
    judges_of,
    with_reliability,
)
from pytest_llmtune.guard import staleness
from pytest_llmtune.guard.evaluation import Collector
from pytest_llmtune.guard.gates import conclusive
from pytest_llmtune.guard.lockfile import Lock, RecordedAnswers, StudySummary
from pytest_llmtune.guard.outcome import SuiteLocation, migrated, recording_facts, report_of
from pytest_llmtune.guard.rows import RowColumns
from pytest_llmtune.guard.staleness import BaselineConfig, RequestPlan
from pytest_llmtune.guard.verdict import criteria_of, match
from pytest_llmtune.recording import Gathered, Recording
from pytest_llmtune.recording.storage import Layout, files_of, read_all
from pytest_llmtune.settings import Mode, Settings
from pytest_llmtune.suite.task import CLIENTS
from pytest_llmtune.types import Evaluation, Finished, Listener, Started
from pytest_llmtune.workflow.services import RecordedFirst, SuiteServices, record_cache, recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_llmtune.data.split import Split
    from pytest_llmtune.guard.result import RecordingFacts, SuiteReport
    from pytest_llmtune.guard.sequential import EarlyStop
    from pytest_llmtune.guard.shards import Shards
    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.recording.format import Interaction
    from pytest_llmtune.recording.housekeeping import RerecordSession
    from pytest_llmtune.redaction.redactor import Redactor
    from pytest_llmtune.suite import Config, Suite
    from pytest_llmtune.tasks.source import Miss
    from pytest_llmtune.workflow.search import TuneMode


@dataclass(eq=False)
class SuiteRun:
    """A suite in a run. Everything is computed once, on first use."""

    suite: Suite
    settings: Settings
    location: SuiteLocation
    ledger: Ledger
    """The run's ledger, limited by ``--llm-max-spend``."""
    redactor: Redactor
    listen: Listener = field(default=lambda _: None)
    gather: Callable[[SuiteRun], Shards] | None = None
    """Returns the results of shards to merge, instead of replaying."""
    at_end: Callable[[Callable[[], None]], object] = field(default=lambda _: None)
    """Registers a callback for the end of the run."""
    others: Callable[[], Collection[str]] = field(default=tuple)
    """Returns the names of all suites of the run."""
    _early: EarlyStop | None = None
    """With ``--llm-stop-early``, what decides when a live run is over."""
    _misses: dict[str, Miss] = field(default_factory=dict)
    """For a task: unrecorded calls by row."""
    _unchecked: dict[str, None] = field(default_factory=dict)
    """For a task: why its recording was not replayed in other processes too."""

    @cached_property
    def own(self) -> Ledger:
        """This suite's ledger, within the run's."""
        from pytest_llmtune.money.ledger import Ledger

        return Ledger(parent=self.ledger, name=self.suite.name)

    @property
    def spent(self) -> Decimal:
        """USD billed for this suite so far."""
        return self.own.billed

    @property
    def lock_path(self) -> Path:
        return self.location.directory / f"{self.suite.name}.lock.yaml"

    @property
    def recording_path(self) -> Path:
        return self.location.directory / f"{self.suite.name}.cassette.json"

    @cached_property
    def split(self) -> Split:
        return self.suite.load(offline=not self.settings.mode.online, max_bytes=int(self.settings.max_data * 1_000_000))

    @cached_property
    def grader(self) -> Grader:
        """The suite's grader, checked with every row before anything is spent."""
        suite = self.suite
        grader = grader_of(suite)
        rows = self.split.test if self.split.reused else (*self.split.tune, *self.split.test)
        metric, where = suite.metric, suite.where_declared
        check(grader, rows, allow_vacuous=suite.allow_vacuous, metric=metric, mode=suite.mode, where=where)
        try:
            grader = with_reliability(grader, [metric, *(gate.metric for gate in suite.thresholds)])
        except SuiteError as error:
            raise SuiteError(f"{suite.at('grader')}: {error}") from None
        check_named(suite, grader, self.split)
        return grader

    @cached_property
    def services(self) -> SuiteServices:
        """Completion source, grader and prices of this suite."""
        return SuiteServices(
            self.suite, self.settings, self.redactor, self.listen, self.at_end, lambda: self._needs_endpoint
        )

    @property
    def _needs_endpoint(self) -> bool:
        """Whether requests go to the suite's endpoints: all but those of a task that has clients of its own."""
        task = self.suite.task
        return task is None or any(name in task.parameters for name in CLIENTS) or bool(judges_of(self.grader))

    @property
    def prices(self) -> PriceBook:
        return self.services.prices

    @cached_property
    def report(self) -> SuiteReport:
        """Run the suite in this run's mode.

        Raises:
            LLMTuneError: it failed; the message says what to do next.
        """
        try:
            with never_skipped(self.suite.where_declared), ExitStack() as held:
                if self.settings.writes:
                    held.enter_context(
                        exclusive(self.recording_path, directory=self.settings.root / ".llmtune" / "locks")
                    )
                    self._check_writable()
                report = self._tuned() if self.settings.mode is Mode.TUNE else self._guarded()
        except KeyboardInterrupt as stopped:
            answers = f"What was answered, for {dollars(self.spent)}, is kept:" if self.spent else "Go on:"
            text = f"{self.suite.name}: interrupted, and nothing was written. {answers} pytest {self.settings.options}"
            raise KeyboardInterrupt(*(stopped.args or (text,))) from None
        notes = (
            *report.notes,
            *cautions_of(self.grader),
            *self._unchecked,
            *self.services.account,
            *_notes(report.evaluation),
        )
        if self.gather is not None:  # the shards' spending
            return replace(report, notes=notes)
        return replace(report, notes=notes, spent=self.spent, by_model=self.services.by_model)

    def _check_writable(self) -> None:
        """Check before the first request that results can be saved."""
        try:
            check_writable(self.location.directory)
        except OSError as error:
            raise RecordingError(
                f"{self.location.directory} cannot be written to: {error.strerror or error}; lock file and recording go there: "
                "make the directory writable, and run again"
            ) from None

    @property
    def evaluation(self) -> Evaluation:
        """The evaluation of the current configuration over the test rows.

        Raises:
            StaleRecordingError: requests have no recording.
        """
        from pytest_llmtune.errors import StaleRecordingError

        if self.report.evaluation is None:
            what = "; ".join(stale.what for stale in self.report.verdict.stale)
            following = f". Run: {self.report.commands[0][0]}" if self.report.commands else ""
            raise StaleRecordingError(f"{self.suite.name}: {what}{following}")
        return self.report.evaluation

    @cached_property
    def config(self) -> Config:
        """The current configuration: just tuned, or locked."""
        if self.settings.mode is Mode.TUNE:
            self.evaluation  # noqa: B018  # tunes and writes the lock file
        return BaselineConfig.of(self.suite, self._baseline()).config

    def searching(self, log: Path | None = None, suite: Suite | None = None) -> TuneMode:
        """The search of this suite.

        Args:
            log: the study's log, if not in the default location.
            suite: the same suite with a smaller space.
        """

        from pytest_llmtune.workflow.search import TuneMode  # a guard needs no numpy

        log = log or self.settings.root / ".llmtune" / "studies" / f"{self.suite.name}.jsonl"
        suite = suite or self.suite
        return TuneMode(suite, self.split, self.grader, self.services, self.own, log, self.recording_path)

    # -- the modes

    def _guarded(self) -> SuiteReport:
        """Run a mode that starts from a lock file."""
        lock, choose = self._baseline(), self.settings.choose
        if choose is not None:
            lock = staleness.chosen(self.suite, lock, choose)
        locked = BaselineConfig.of(self.suite, lock)
        config, mode = locked.config, self.settings.mode
        now = staleness.fingerprints_of(self.suite, config, self.split, self.grader)
        rows = replace(self._rows(config), unknown=lock.unknown)
        state = staleness.state_of(now, self.lock_path, self.prices_now(config))
        if self.gather is not None:
            return self._merged(self.gather(self), locked, lock, now, state)
        recording = recorded(mode, self.recording_path, self.redactor)
        missing, detail = rows.missing(recording) if mode.replays else (0, "")
        stale = locked.stale(self.suite, now, lock, missing, len(rows.examples), grader=self.grader, detail=detail)
        void = mode.online and any(each.option == Mode.TUNE.option for each in stale)  # do not pay for a void verdict
        if mode is Mode.LIVE and self.settings.stop_early is not None:
            rows = self._until_decided(rows, lock, self.settings.stop_early)
        # nothing that a replay with our own graders does needs an event loop, before it reads a long response
        at_once = mode.replays and self.suite.task is None and self.services.engine is None and not awaits(self.grader)
        evaluation = None if missing or void else run_async(self._evaluated(rows, recording), loop=not at_once)
        if self._misses:  # for a task, known only after its runs
            evaluation, missing, detail = None, len(self._misses), next(iter(self._misses.values())).detail
            stale = locked.stale(self.suite, now, lock, missing, len(rows.examples), grader=self.grader, detail=detail)
        if evaluation is not None and mode.replays:
            recording.refuse_conflicts()
        facts, shard = self._facts(recording, missing), rows.facts(state)
        accepts = mode is Mode.ACCEPT or choose is not None
        if accepts and evaluation is not None and conclusive(evaluation, self.suite.max_unknown):
            migrated_to = {name: value for name, value in lock.fingerprints.items() if name == staleness.MIGRATED}
            accepted = self._lock(config, evaluation, {**now, **migrated_to}, lock.study)
            accepted.write(self.lock_path)
            stale = locked.stale(self.suite, now, accepted, 0, len(rows.examples), grader=self.grader)
            report = report_of(self, evaluation, lock, facts, config=config, stale=stale, accepted=True)
            return replace(report, baseline=accepted)
        if choose is not None:  # the command must choose again
            stale = tuple(replace(each, option=f"--llm-choose={choose} --llm-record=missing") for each in stale)
            if evaluation is None:  # the rows are the baseline's, though the point has no results on them
                lock = replace(lock, examples=self._baseline().examples)
        if mode is Mode.MIGRATE and evaluation is not None and not stale:
            return self._migrated(config, evaluation, lock, facts)
        notes = () if stale else locked.notes(now, lock)
        return report_of(
            self, evaluation, lock, facts, config=config, stale=stale, notes=notes, shard=shard, early=self._early
        )

    def _until_decided(self, rows: RequestPlan, lock: Lock, error: float) -> RequestPlan:
        """The rows in random order, evaluated until the verdict on all of them is decided."""
        from pytest_llmtune.guard.sequential import EarlyStop

        population = match(rows.examples, lock, self.columns(rows.config).key)
        criteria = criteria_of(self.suite, reused=self.split.reused)
        self._early = EarlyStop.of(criteria, population, rows.examples, error, self.suite.seed)
        if self.suite.aggregate != "mean":
            self._early.why_not = "aggregate is not the mean"
        rank = {row: number for number, row in enumerate(self._early.order)}
        return replace(rows, all=sorted(rows.all, key=lambda example: rank.get(example.id, len(rank))))

    def _migrated(self, config: Config, before: Evaluation, lock: Lock, facts: RecordingFacts | None) -> SuiteReport:
        """Other models against the recording; the cheapest that keeps the quality is locked, if the run writes files."""
        from pytest_llmtune.workflow.migrate import MigrateMode, best_of

        criteria, settings = criteria_of(self.suite, reused=self.split.reused), self.settings
        moves = run_async(
            MigrateMode(
                self.suite,
                self.split.test,
                self.grader,
                self.services,
                self.own,
                criteria,
                self.columns(config),
                self._rows,
                config,
                before,
                self.location.nodeid,
                self.searching if settings.tune else None,
            ).all(settings.migrate)
        )
        best = best_of(moves)
        shown = best or next((each for each in moves if each.evaluation is not None), None)
        notes: tuple[str, ...] = ()
        if best is not None and best.config is not None and best.evaluation is not None and settings.writes:
            self._record(best.gathered, self._rows(best.config))
            now = staleness.fingerprints_of(self.suite, best.config, self.split, self.grader)
            now[staleness.MIGRATED] = self.suite.space.admission(best.config)
            lock = self._lock(best.config, best.evaluation, now, best.study)
            lock.write(self.lock_path)
            facts = self._facts(Recording.load(self.recording_path, self.redactor))
            if (outside := self.suite.space.why_not(best.config)) is not None:
                advice = "add it there, so that a search considers it"
                notes = (f"locked outside of the search space ({outside}): {advice}",)
        found = [replace(each.migration, accepted=each is best and settings.writes) for each in moves]
        evaluation = before if shown is None or shown.evaluation is None else shown.evaluation
        problems = [each.problem for each in moves]
        return migrated(self, found, evaluation, lock, facts, config=config, notes=notes, problems=problems)

    def _merged(
        self, shards: Shards, locked: BaselineConfig, lock: Lock, now: dict[str, str], state: dict[str, str]
    ) -> SuiteReport:
        """The verdict over all shards."""
        from pytest_llmtune.guard.shards import merged

        rows, config = self.split.test, locked.config
        all_rows = merged(shards.of(self.suite.name), rows, state, config, self.suite.aggregator)
        missing, detail = all_rows.missing, all_rows.detail
        stale = locked.stale(self.suite, now, lock, missing, len(rows), grader=self.grader, detail=detail)
        notes = () if stale else locked.notes(now, lock)
        report = report_of(self, all_rows.evaluation, lock, all_rows.facts, config=config, stale=stale, notes=notes)
        return replace(report, mode=all_rows.mode, spent=all_rows.spent, by_model=all_rows.by_model)

    def _tuned(self) -> SuiteReport:
        try:
            study, evaluation, compared = run_async(self.searching().tuned(self._rows, self._record))
        finally:
            self.own.set_aside()
        now = staleness.fingerprints_of(self.suite, study.winner, self.split, self.grader)
        lock, facts, notes = self._lock(study.winner, evaluation, now, study.summary), None, study.notes
        if conclusive(evaluation, self.suite.max_unknown):
            lock.write(self.lock_path)
            facts = self._facts(Recording(self.recording_path))
        else:
            notes = (*notes, "neither lock file nor recording was written; what was paid for is kept for the next run")
        return report_of(self, evaluation, lock, facts, config=study.winner, notes=notes, compared=compared)

    async def evaluate_live(self, config: Config, *, cached: bool = True) -> Evaluation:
        """Evaluate a configuration over the test rows, from the endpoints or the cache."""
        self.prices_now(config)
        live = self.services.live(self.own, cached=str(self.suite.seed) if cached else None)
        source = self.services.source_for(live, live=live)
        try:
            return await self.services.evaluate(self._rows(config), self.grader, source)
        finally:
            await source.aclose()

    async def _evaluated(self, rows: RequestPlan, recording: Recording) -> Evaluation:
        mode = self.settings.mode
        if mode.replays:
            replay = ReplaySource(recording, excused=rows.excused(recording))
            source = self.services.source_for(replay, recording=recording, excused=rows.unknown)
            try:
                return await self.services.evaluate(rows, self.grader, source)
            finally:
                await source.aclose()
                self._misses = _in_order(getattr(source, "misses", {}), rows)
        live = self.services.live(self.own, cached=record_cache(mode, self.suite, self._rerecord))
        if mode is Mode.LIVE:
            evaluation = await self._evaluate(rows, self.services.source_for(live, live=live), "live")
            if not evaluation.unknown:  # else the next run resumes with the answers so far
                self._rerecord.end()
            return evaluation
        if mode is Mode.RECORD_MISSING:
            source = self.services.source_for(RecordedFirst(recording, live), recording=recording, live=live)
        else:
            source = self.services.source_for(live, live=live)
        collector = Collector(source)
        evaluation = await self._evaluate(rows, collector, "record")
        lost = {result.example.id for result in evaluation.unknown} - rows.unknown
        if not lost and conclusive(evaluation, self.suite.max_unknown):  # else paid answers stay in the cache
            self._record(collector.gathered, rows)
        return evaluation

    # -- the steps

    def _baseline(self) -> Lock:
        """Read the suite's lock file.

        Raises:
            LockError: unreadable or missing; the message suggests one of a renamed suite.
        """
        try:
            return Lock.read(self.lock_path)
        except LockError as error:
            if self.lock_path.exists() or not (old := self._renamed()):
                raise
            lock, cassette = (self.location.directory / f"{old}.{end}" for end in ("lock.yaml", "cassette.json"))
            moves = [
                f"git mv {quoted(relative_to_cwd(file))} "
                f"{quoted(relative_to_cwd(file.with_name(self.suite.name + file.name.removeprefix(old))))}"
                for file in (lock, *files_of(cassette))
            ]
            raise LockError(
                f"{error}\nThe lock file of {old!r} is of the same data, grader and space, and no suite of that name was "
                f"declared; if this suite was renamed: {' && '.join(moves)}"
            ) from None

    def _renamed(self) -> str:
        """The name of a lock file in the same directory with equal fingerprints; empty if there is none."""
        same = {
            "dataset": self.split.dataset.fingerprint if self.split.dataset else "",
            "grader": self.grader.fingerprint,
            "space": self.suite.space.fingerprint,
        }
        for path in sorted(self.location.directory.glob("*.lock.yaml")):
            name = path.name.removesuffix(".lock.yaml")
            with suppress(LockError):
                if name not in self.others() and same.items() <= Lock.read(path).fingerprints.items():
                    return name
        return ""

    async def _evaluate(
        self, rows: RequestPlan, source: LiveSource | Collector, task: Literal["live", "record"]
    ) -> Evaluation:
        self.prices.check(self.suite.space.models_of(rows.config))
        self.listen(Started(self.suite.name, task, len(rows.examples)))
        try:
            return await self.services.evaluate(rows, self.grader, source, self._early)
        finally:
            await source.aclose()
            self.listen(Finished(self.suite.name, self.own.spent))

    def _record(self, gathered: Gathered, rows: RequestPlan) -> None:
        from pytest_llmtune.recording.writer import stable_runs

        calls = tuple(stable_runs(gathered.runs, self.redactor))
        if self.suite.task is not None:
            self._check_repeatable(calls, rows)
        Recording.write(self.recording_path, gathered.exchanges, self.redactor, Layout.of(self.settings), calls)
        if self.settings.mode is Mode.RECORD_ALL:
            self.at_end(self._rerecord.end)
        else:
            self._rerecord.end()

    def _check_repeatable(self, calls: Sequence[Interaction], rows: RequestPlan) -> None:
        """Check now, and not in the next guard, that a task's recording can be replayed."""
        from pytest_llmtune.tasks.verify import check_repeatable, recorded_steps, replay_elsewhere, replay_misses

        recording = Recording.of(self.recording_path, calls, self.redactor)
        source = self.services.source_for(ReplaySource(recording), recording=recording)
        recorded = recording.rows_with_runs()
        requests = [request for example, request in rows.pairs() if example.id in recorded]
        steps = [*recorded_steps(requests, recording)]
        misses = run_async(replay_misses(source, steps, self.services.concurrency))
        misses = misses or replay_elsewhere(steps, calls, self.prices, self._unchecked.setdefault)
        check_repeatable(_in_order(misses, rows), len(requests))

    @property
    def _rerecord(self) -> RerecordSession:
        from pytest_llmtune.recording.housekeeping import RerecordSession

        live = self.settings.mode is Mode.LIVE
        return RerecordSession.of(self.recording_path, self.settings.root, today=live)

    def _rows(self, config: Config) -> RequestPlan:
        return RequestPlan(config, self.split.test, self.settings.shard)

    def columns(self, config: Config) -> RowColumns:
        """The columns for matching and displaying rows."""
        dataset = self.split.dataset
        return RowColumns.of(self.suite, config.template, dataset.columns if dataset else ())

    def prices_now(self, config: Config) -> dict[str, dict[str, Decimal]]:
        """Today's prices of every model that the suite pays for."""
        found = {model: self.prices.price(model) for model in self.suite.space.models_of(config)}
        judges = [model for model in judges_of(self.grader) if model not in found]
        found |= {model: self.prices.price(model, input_only=True) for model in judges}
        return {model: {kind: Decimal(usd) for kind, usd in price.to_plain().items()} for model, price in found.items()}

    def _lock(
        self, config: Config, evaluation: Evaluation, fingerprints: dict[str, str], study: StudySummary | None
    ) -> Lock:
        return Lock.of(
            self.suite.name,
            evaluation,
            prices=self.prices_now(config),
            fingerprints=fingerprints,
            study=study,
            key=self.columns(config).key,
            recording=RecordedAnswers.of(read_all(self.recording_path)),
        )

    def _facts(self, recording: Recording, missing: int = 0) -> RecordingFacts | None:
        return recording_facts(self.recording_path, self.settings, recording, missing)


def _notes(evaluation: Evaluation | None) -> Iterator[str]:
    """Notes on the last step of a cascade, on a task that makes no call, and on rows on which it raised."""
    if evaluation is None:
        return
    results, rows = evaluation.results, counted(len(evaluation.results), "row")
    if (share := evaluation.metrics.get("escalated")) is not None:
        yield f"the last step of the cascade answered {share:.0%} of {rows}"
    runs = [run for result in results for run in result.runs]
    failed = [result for result in results if result.grade and result.error]
    if failed:
        yield (
            f"the task raised on {len(failed)} of {rows}, which count as wrong answers; the first: row "
            f"{failed[0].example.index}: {failed[0].error}"
        )
    elif runs and not any(len(run.calls) for run in runs):
        yield (
            "the task makes no call that can be recorded, so that its cost is 0 and a replay asks whatever it asks; "
            "calls over gRPC, or of another process, are not seen"
        )


def _in_order(misses: Mapping[str, Miss], rows: RequestPlan) -> dict[str, Miss]:
    """Misses in the order of rows."""
    return {example.id: misses[example.id] for example in rows.examples if example.id in misses}
