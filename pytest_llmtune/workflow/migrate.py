"""Hold other models against the committed recording: ``--llm-migrate``."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.jsonhash import text_digest
from pytest_llmtune._util.stats import drop_bounds, rows_needed
from pytest_llmtune._util.text import apart, cost_change, counted, did_you_mean, listed, number, quoted
from pytest_llmtune.completions.failures import refused_parameter
from pytest_llmtune.errors import CompletionError, EndpointError, LLMTuneError, SuiteError
from pytest_llmtune.grading import Grader, judges_of
from pytest_llmtune.guard.evaluation import Collector
from pytest_llmtune.guard.gates import conclusive, held_to_agreement, judge
from pytest_llmtune.guard.lockfile import Lock, Measured, StudySummary
from pytest_llmtune.guard.result import Migration
from pytest_llmtune.guard.verdict import ALPHA, Comparison, Criteria, compare, match, named
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.recording import Gathered
from pytest_llmtune.suite.domains import TEMPERATURE_OR_TOP_P, Choice, Constant, Domain, Models, OneOf, Range, Uniform
from pytest_llmtune.suite.space import overlaid
from pytest_llmtune.types import Evaluation, Example, Finished, Interval, Started
from pytest_llmtune.wire.billing import model_asked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_llmtune.guard.rows import RowColumns
    from pytest_llmtune.guard.staleness import RequestPlan
    from pytest_llmtune.suite import Config, Suite
    from pytest_llmtune.workflow.search import TuneMode
    from pytest_llmtune.workflow.services import SuiteServices


MARGIN = 0.05
"""The drop that is allowed where a suite sets no ``max_drop``."""
_MOST_CHANGES = 8
"""Maximum number of parameters translated for one model."""
_LENGTHS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_RANDOM = ("temperature", "top_p")

Change = str | float | None
"""The replacement of a refused parameter: another name, the maximum accepted, or None to omit it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The result for one candidate model, with what is needed to lock it."""

    migration: Migration
    config: Config | None = None
    evaluation: Evaluation | None = None
    gathered: Gathered = field(default_factory=Gathered)
    study: StudySummary | None = None
    problem: str = ""
    """Why no request to the model succeeded."""


def best_of(moves: Sequence[Moved]) -> Moved | None:
    """The cheapest model that keeps quality, the best of equally cheap ones; None if there is none."""
    passed = [(each.migration, each) for each in moves if each.migration.passed]
    first = min(passed, key=lambda pair: (pair[0].cost, pair[0].drop and pair[0].drop.value), default=None)
    return first and first[1]


@dataclass(frozen=True)
class MigrateMode:
    """Evaluates candidate models of a suite on the guard's rows."""

    suite: Suite
    examples: Sequence[Example]
    grader: Grader
    services: SuiteServices
    ledger: Ledger
    """The suite's ledger, within the run's, limited by ``--llm-max-spend``."""
    criteria: Criteria
    columns: RowColumns
    rows: Callable[[Config], RequestPlan]
    config: Config
    """The locked configuration."""
    before: Evaluation
    """The evaluation of the recording."""
    nodeid: str
    search: Callable[[Path, Suite], TuneMode] | None = None
    """Tunes a suite before judging it; None: use the locked configuration unchanged."""

    async def all(self, targets: Sequence[str]) -> list[Moved]:
        """Evaluate each model in turn; an error with one does not stop the others."""
        return [await self._one(target) for target in targets]

    async def _one(self, target: str) -> Moved:
        ledger = Ledger(parent=self.ledger, name="--llm-migrate")
        try:
            config, notes = self._moved(target)
            try:
                self.services.prices.check([*self.suite.space.models_of(config), *judges_of(self.grader)])
            except SuiteError as error:  # its requests would have an unknown cost
                return Moved(Migration(target, "inconclusive", f"{target} is inconclusive: {error}"))
            found = await (self._evaluated if self.search is None else self._tuned)(target, config, notes, ledger)
        except LLMTuneError as error:
            problem = str(error)
            if isinstance(error, EndpointError):
                problem += f". Next: {self._another(target)}, with a model that the server has"
            sentence = f"{target} is inconclusive: {problem}"
            return Moved(Migration(target, "inconclusive", sentence, spent=ledger.billed), problem=problem)
        return replace(found, migration=replace(found.migration, spent=ledger.billed))

    @property
    def _model_parameters(self) -> list[str]:
        """The locked configuration's parameters that are models."""
        own = [name for name, domain in self.suite.space.parameters.items() if isinstance(domain, Models)]
        return [name for name in ("model", *own) if name in self.config.steps[-1].params]

    def _named(self, target: str) -> tuple[str, str]:
        """(parameter, model) of ``MODEL`` or ``PARAMETER=MODEL``."""
        name, mark, model = target.partition("=")
        if mark and name.isidentifier():
            return name, model
        only = self._model_parameters
        return (only[0] if len(only) == 1 else "model", target)

    def _another(self, target: str) -> str:
        """The command for another model, in the place that the target names."""
        name, model = self._named(target)
        return self._command("MODEL" if model == target else f"{name}=MODEL")

    def _command(self, target: str) -> str:
        return f"pytest {quoted(f'--llm-migrate={target}')} {quoted(self.nodeid)}"

    # -- requests

    def _moved(self, target: str) -> tuple[Config, tuple[str, ...]]:
        """The locked configuration with another model, and notes on other changes.

        Raises:
            SuiteError: no such parameter, or the model is already used.
        """
        config = self.config.steps[-1]
        name, model = self._named(target)
        notes = [] if config is self.config else ["the locked configuration is a cascade; its last step is asked alone"]
        known = self._model_parameters
        if name not in known:
            raise SuiteError(
                f"the suite {self.suite.name!r} has no parameter {name!r} that is a model{did_you_mean(name, known)}; it has "
                f"{listed(known)}. Next: {self._command(f'{known[0]}={model}')}"
            )
        if config.params[name] == model and not notes:
            raise SuiteError(f"{model!r} is the locked model already. Next: {self._another(target)}, with another one")
        params = {**config.params, name: model}
        for each, domain in self.suite.space.conditions.get(model, {}).items() if name == "model" else ():
            value = domain.value if isinstance(domain, Constant) else params.get(each)
            if each != TEMPERATURE_OR_TOP_P and value != params.get(each):
                notes.append(f"{each}={value!r}, as the suite declares for this model")
                domains = overlaid({key: Constant(old) for key, old in params.items()}, {each: Constant(value)})
                params = {key: old.to_plain() for key, old in domains.items()}
        return replace(config, params=params), tuple(notes)

    async def _evaluated(self, target: str, config: Config, notes: tuple[str, ...], ledger: Ledger) -> Moved:
        """Evaluate on the guard's rows, translating parameters that the model refuses."""
        live = self.services.live(ledger, cached=str(self.suite.seed))
        source = self.services.source_for(live, live=live)
        self.services.listen(Started(self.suite.name, "live", len(self.examples)))
        changes: dict[str, Change] = {}
        try:
            while True:
                config, notes = await self._probed(live, config, notes, changes)
                collector = Collector(source)
                evaluation = await self.services.evaluate(self.rows(config), self.grader, collector)
                lost = evaluation.unknown
                change = _change(config, lost[0].error or "", changes) if len(lost) == len(evaluation.results) else None
                if change is None:  # with batches, refusals are only seen here
                    break
                config, notes = _changed(config, notes, *change, changes)
        finally:
            await source.aclose()
            self.services.listen(Finished(self.suite.name, ledger.spent))
        return self._judged(target, config, notes, evaluation, collector.gathered)

    async def _probed(
        self, live: Any, config: Config, notes: tuple[str, ...], changes: dict[str, Change]
    ) -> tuple[Config, tuple[str, ...]]:
        """Request one row first, to detect a refusal before sending all; its answer is cached.

        Raises:
            EndpointError: no such model.
        """
        if config.runs_task or self.services.settings.batch:  # a task sends its own requests; a batch takes hours
            return config, notes
        while True:
            try:
                await live.complete(next(self.rows(config).requests()))
            except EndpointError:
                raise
            except CompletionError as error:
                if (change := _change(config, str(error), changes)) is None:
                    return config, notes
                config, notes = _changed(config, notes, *change, changes)
            else:
                return config, notes

    async def _tuned(self, target: str, config: Config, notes: tuple[str, ...], ledger: Ledger) -> Moved:
        """Search the suite with only this model, within its budgets, then evaluate the winner on the guard's rows."""
        assert self.search is not None  # noqa: S101  # ``_one`` has looked
        live, changes = self.services.live(ledger, cached=str(self.suite.seed)), dict[str, Change]()
        try:
            config, notes = await self._probed(live, config, notes, changes)
        finally:
            await live.aclose()
        suite = _restricted(self.suite, *self._named(target), changes)
        recorded: list[Gathered] = []
        log = self.services.settings.root / ".llmtune" / "studies" / f"{suite.name}.{text_digest(target)[:8]}.jsonl"
        mode = replace(self.search(log, suite), ledger=ledger)
        study, evaluation, _ = await mode.tuned(self.rows, lambda gathered, _: recorded.append(gathered))
        gathered = recorded[0] if recorded else Gathered()
        found = self._judged(target, study.winner, (*notes, *study.notes), evaluation, gathered)
        return replace(found, study=study.summary)

    # -- how it is judged

    def _judged(
        self, target: str, config: Config, notes: tuple[str, ...], evaluation: Evaluation, gathered: Gathered
    ) -> Moved:
        suite, criteria = self.suite, self.criteria
        model = self._named(target)[1]
        never_called = config.runs_task and not calls_model(gathered, model)
        base = Migration(
            target,
            "inconclusive",
            "",
            evaluation.config,
            notes,
            margin=MARGIN if criteria.max_drop is None else criteria.max_drop,
            cost_before=self.before.inference_cost,
            cost=evaluation.inference_cost,
            latency_before=_latency(self.before),
            latency=_latency(evaluation),
            confidence=1 - (criteria.alpha or ALPHA),
        )
        lock = Lock.of(suite.name, self.before, prices={}, fingerprints={}, key=self.columns.key)
        comparison = compare(
            evaluation,
            match(self.examples, lock, self.columns.key),
            metric=criteria.metric,
            mode=criteria.mode,
            aggregate=suite.aggregator,
            columns=self.columns,
            fresh=True,
        )
        if never_called or comparison is None or not conclusive(evaluation, criteria.max_unknown):
            why = f"no call of the task asked {model}; name the parameter: {self._command('PARAMETER=MODEL')}"
            if not never_called:
                base = replace(base, cost=None if comparison is None else base.cost)
                error = next((result.error for result in evaluation.unknown if result.error), "no row has the metric")
                why = f"{len(evaluation.unknown)} of {counted(len(evaluation.results), 'row')} have no answer: {error}"
            return Moved(replace(base, sentence=f"{target} is inconclusive: {why}"), config, evaluation, gathered)
        if lapsed := comparison.lapsed.get(criteria.metric):
            why = f"the grader gives no {criteria.metric} for {named(lapsed)}, which the recorded answers have"
            return Moved(replace(base, sentence=f"{target} is inconclusive: {why}"), config, evaluation, gathered)
        verdict = judge(evaluation, criteria.against_nothing(), aggregate=suite.aggregator)
        broken = [gate.sentence for gate in held_to_agreement(verdict, evaluation, self.grader).failed_gates]
        found = self._verdict(base, comparison, evaluation)
        money = cost_change(found.cost_before, found.cost, " per 1,000 instances")
        words = [found.sentence, *(f"but {sentence}" for sentence in broken), money, _seconds(found)]
        found = replace(found, sentence="; ".join(filter(None, words)), broken=bool(broken))
        return Moved(found, config, evaluation, gathered)

    def _verdict(self, base: Migration, comparison: Comparison, evaluation: Evaluation) -> Migration:
        """On which side of the margin the drop is, with a confidence."""
        shared, metric = comparison.shared, self.criteria.metric
        old = {each.example.id: each.grade.metrics for each in self.before.results if each.grade}
        pairs = [
            (round(old[each.example.id][metric], 6), round(each.grade.metrics[metric], 6))
            for each in evaluation.results
            if each.grade and metric in each.grade.metrics and metric in old.get(each.example.id, ())
        ]
        sides = [before for before, _ in pairs], [now for _, now in pairs]
        worse_first = sides if self.criteria.mode == "max" else sides[::-1]
        bounds = drop_bounds(*worse_first, self.suite.aggregator, base.confidence)
        found = replace(
            base,
            before=Measured.of(shared.before, self.before.intervals.get(metric)),
            now=Measured.of(shared.now, evaluation.intervals.get(metric)),
            rows=shared.rows,
            drop=Measured.of(shared.drop, bounds),
            lost=shared.lost,
            gained=shared.gained,
            p_value=shared.p_value,
            flips=comparison.flips,
        )
        was, now = apart(shared.before, shared.now)
        figures = (
            f"{metric} {was} -> {now} over {counted(shared.rows, 'row')} ({shared.lost} lost, {shared.gained} gained, exact "
            f"McNemar p = {number(shared.p_value)}); with {100 * base.confidence:.3g} % confidence it is "
        )
        allowed = f"max_drop allows {number(base.margin)}"
        if self.criteria.max_drop is None:
            allowed = f"{number(base.margin)} is allowed (no max_drop is set)"
        if bounds.high <= base.margin:
            sentence = f"{base.model} keeps quality: {figures}{_at_most(bounds)}, and {allowed}"
            return replace(found, verdict="keeps quality", sentence=sentence)
        if bounds.low > base.margin:
            sentence = f"{base.model} is worse: {figures}worse by {number(bounds.low)} at least, and {allowed}"
            return replace(found, verdict="worse", sentence=sentence)
        needed = rows_needed(*worse_first, shared.drop, base.margin, base.confidence)
        would = f"{needed:,} would do" if needed else "more would hardly do, for the drop is about what is allowed"
        rows = f"inconclusive with {counted(shared.rows, 'row')}"
        sentence = f"{base.model} is {rows}; {would}: {figures}{_at_most(bounds)}, and {allowed}"
        return replace(found, sentence=sentence, needed=needed)


def calls_model(gathered: Gathered, model: str) -> bool:
    """Whether a run of the task called a model."""
    return any(model_asked(call.uri, call.body) == model for run in gathered.runs.values() for call in run)


def _latency(evaluation: Evaluation) -> tuple[float, float] | None:
    found = [evaluation.metrics.get(f"latency_p{part}") for part in (50, 95)]
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _at_most(bounds: Interval) -> str:
    if bounds.high > 0:
        return f"at most {number(bounds.high)} worse"
    return f"better by {number(-bounds.high)} at least" if bounds.high < 0 else "no worse"


def _seconds(found: Migration) -> str:
    if found.latency is None or found.latency_before is None:
        return ""
    parts = zip(("p50", "p95"), found.latency_before, found.latency, strict=True)
    return "latency " + ", ".join(f"{name} {number(before, 2)} -> {number(now, 2)} s" for name, before, now in parts)


# -- parameters that a model refuses


def _change(config: Config, message: str, changes: Mapping[str, Change]) -> tuple[str, Change] | None:
    """How to respond to a refusal; None if it is not about a parameter, or that was tried."""
    sent = {name: value for name, value in config.params.items() if name not in ("model", "n")}
    found = refused_parameter(message, sent)
    if found is None or len(changes) >= _MOST_CHANGES:
        return None
    name, most = found
    value = sent[name]
    if most is not None and isinstance(value, (int, float)) and most < value and not isinstance(value, bool):
        return name, most
    if name not in _LENGTHS:
        return name, None
    return None if _LENGTHS[name] in changes else (name, _LENGTHS[name])  # keep the answer's length limited


def _changed(
    config: Config, notes: tuple[str, ...], name: str, change: Change, changes: dict[str, Change]
) -> tuple[Config, tuple[str, ...]]:
    """The configuration that the model accepts, with notes."""
    changes[name] = change
    params = dict(config.params)
    value = params.pop(name)
    if change is None:
        note = f"{name}={value} was left out: the model refuses it"
    elif isinstance(change, str):
        params[change] = value
        note = f"{name}={value} was sent as {change}: the model refuses the name"
    else:
        params[name] = int(change) if isinstance(value, int) else change
        note = f"{name}={value} was lowered to {params[name]}: the model takes no more"
    return replace(config, params=params), (*notes, note)


def _restricted(suite: Suite, name: str, model: str, changes: Mapping[str, Change]) -> Suite:
    """The suite restricted to one model, without what it refuses."""
    space = suite.space
    if name == "model":
        own = dict(space.conditions.get(model, {}))
        for each, change in changes.items():
            own |= _domains(space.for_model(model), each, change)
        space = replace(space, models=(model,), conditions={model: own} if own else {})
    else:
        space = replace(space, parameters={**space.parameters, name: Models((model,))})
    restricted = copy.copy(suite)
    object.__setattr__(restricted, "space", space)
    return restricted


def _domains(domains: Mapping[str, Domain], name: str, change: Change) -> dict[str, Domain]:
    """Replacement for a refused parameter's domain."""
    if change is None:
        return {each: Constant(None) for each in (_RANDOM if name in _RANDOM else (name,))}
    if isinstance(change, str):
        return {change: domains[name]} if name in domains else {}
    if name in domains:
        return {name: _limited(domains[name], change)}
    either = domains.get(TEMPERATURE_OR_TOP_P)
    if not isinstance(either, OneOf):
        return {}
    branches = [
        {each: _limited(domain, change) if each == name else domain for each, domain in branch.items()}
        for branch in either.branches
    ]
    return {TEMPERATURE_OR_TOP_P: OneOf(tuple(branches))}


def _limited(domain: Domain, most: float) -> Domain:
    if isinstance(domain, Range):
        if domain.top <= most:
            return domain
        if domain.whole:
            return replace(domain, high=int(most) + 1) if domain.low <= most else Constant(int(most))
        return Uniform(domain.low, most) if domain.low < most else Constant(most)
    options = domain.options if isinstance(domain, Choice) else (domain.to_plain(),)
    allowed = [option for option in options if not isinstance(option, (int, float)) or option <= most]
    return Choice(tuple(allowed)) if allowed else Constant(most)
