"""The search loop: rounds of requests, then confirming the winner's cost."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.guard.evaluation import all_of
from pytest_llmtune.tuning.allocation import Allocator, Candidate, CellRequest, Trial
from pytest_llmtune.tuning.selection import SAFE, observed, ranked
from pytest_llmtune.types import Listener, TrialDone

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.suite import Space, Suite
    from pytest_llmtune.tuning.proposals import Arm, Proposals


_FRESH = 6
"""Number of new arms without requests kept among the candidates."""
_FIRST_ROWS = 2
"""Initial rows for every model, then for every model with every prompt, to learn their costs."""
_FIRST_SHARE = Decimal("0.25")
"""Fraction of the budget for the prompts' initial rows."""
_ROUND = 32
"""Minimum number of requests per round."""
_TRIALS_PER_REQUEST = 16
"""With very many arms, a round has one request per this many, because each round considers all."""
_REST = Decimal("0.08")
"""Fraction of the optimization budget that may stay unspent if it covers only a few requests in the worst case."""
_WORTH = 64
"""A round needs one more request per this many already sent to be worth the wait."""
_LEAST = 0.1
"""Final value of the curiosity."""
_MOST = 200
"""Arms that BlendSearch may add besides one for every model with every prompt."""


@dataclass(slots=True)
class Search:
    """A search and its state."""

    suite: Suite
    space: Space
    """The suite's, with examples in its prompts where it has such."""
    race: Allocator
    proposals: Proposals
    ledger: Ledger
    listen: Listener
    concurrency: int
    for_confirming: Decimal = Decimal(0)
    """USD of the optimization budget reserved to confirm the winner's cost."""
    for_cascades: Decimal = Decimal(0)
    """USD of it reserved for steps of cascades."""
    for_prompts: Decimal = Decimal(0)
    """USD of it reserved for prompts that are not written yet."""
    prompt_trials: int = 0
    """Trials reserved for those."""
    for_guard: Decimal | None = None
    """USD of the run's budget that the leader's rows for the guard will take; None: unknown yet."""
    spent: Decimal = Decimal(0)
    """USD, including those of a killed earlier run."""
    trials: list[Trial] = field(default_factory=list)
    """In order of start."""
    _initial: Decimal | None = None
    """USD that the run could spend when the search began."""
    _requested: int = 0
    """Number of requests decided so far."""
    _unaffordable: bool = False
    """Whether a useful request exceeded the budget."""
    _reported: set[int] = field(default_factory=set)

    async def begin(self) -> None:
        """Send the initial requests of every model, and of every model with every prompt."""
        self._enter(min(self.free_trials(), self._pairs + _FRESH))
        await self.round(self._first_cells(lambda arm: arm.model, self.remaining()))
        self.race.drop_out()
        await self.try_all(_FIRST_SHARE)

    async def resume(self) -> str:
        """Run rounds after the initial requests until a limit is reached; returns which."""
        while True:
            self.race.drop_out()
            self._reserve_for_guard()
            fresh = sum(not trial.number and not trial.out for trial in self.race.trials)
            self._enter(min(1, _FRESH - fresh, self.free_trials()))
            jobs = self._affordable_jobs()
            if not jobs and await self.try_all(Decimal(1)):
                continue
            budget, remaining = self.suite.optimization_budget, self.remaining()
            # for too few requests to matter
            used_up = budget is None or remaining is None or remaining <= _REST * budget
            if not jobs or (self._unaffordable and used_up and len(jobs) < self.worthwhile(_WORTH)):
                # the reserve is of use if it pays for a request where a cost is uncertain
                spare = None if remaining is None else remaining + self.for_confirming
                if self._unaffordable and self.for_confirming and not _affordable(self, _unconfirmed(self), spare):
                    self.for_confirming = Decimal(0)
                    continue
                return self._why_ended()
            if not await self.round(jobs):
                return self.bound
            self._report()

    async def try_all(self, share: Decimal) -> bool:
        """Send every model with every prompt its initial rows, for a fraction of the rest; returns whether any was sent."""
        remaining, before = self.remaining(), self.spent
        looked = False
        while jobs := self._first_cells(
            lambda arm: arm.region, remaining and remaining * share - (self.spent - before)
        ):
            if not await self.round(jobs):
                break
            looked = True
            self.race.drop_out()
        return looked

    def worthwhile(self, parts: int) -> int:
        """Minimum requests of a round, one per ``parts`` already sent; a budget for fewer counts as used up."""
        return max(1, self._requested // parts)

    def free_trials(self) -> int:
        """Number of arms that may still be added."""
        most = self._pairs + _MOST
        if self.suite.num_samples >= 0:
            most = min(most, self.suite.num_samples - self.prompt_trials)
        return max(0, most - len(self.race.trials))

    @property
    def _pairs(self) -> int:
        """Number of models times number of prompts."""
        return len(self.space.models) * len(self.space.templates)

    def _enter(self, count: int) -> None:
        for _ in range(count):
            if (arm := self.proposals.next()) is None:
                return
            self.race.enter(arm)

    def _first_cells(self, kind: Callable[[Arm], Hashable], remaining: Decimal | None) -> list[CellRequest]:
        """The first arm of each kind on its initial rows, as far as the USD allow."""
        first: dict[Hashable, Trial] = {}
        for trial in self.race.trials:
            if not trial.out:
                first.setdefault(kind(trial.arm), trial)
        rows = range(min(_FIRST_ROWS, len(self.race.order)))
        jobs = [CellRequest(e, row, e.arm.family.counts[0]) for e in first.values() if not e.answers for row in rows]
        if len(jobs) <= _ROUND:  # where the money does not reach all: each kind once, the cheapest first
            jobs.sort(key=lambda job: (job.row, self.worst(job)))
        return fitting(jobs, self.worst, remaining, skip=True)

    def _affordable_jobs(self) -> list[CellRequest]:
        """The next round: the plan, as far as its worst case fits into the budget."""
        found: list[CellRequest] = []
        remaining = self.remaining()
        self._unaffordable = False
        size = max(_ROUND, self.concurrency, len(self.race.trials) // _TRIALS_PER_REQUEST)
        budget = self.suite.optimization_budget
        # the curiosity decreases with the budget, so that the rest goes to distinguishing the leaders
        curiosity = 1.0 if not budget else max(_LEAST, 1 - float(self.spent / budget))
        for step in self.race.plan(size, curiosity):
            jobs = fitting(step, self.worst, remaining)
            self._unaffordable = self._unaffordable or len(jobs) < len(step)
            found += jobs
            if remaining is not None:
                remaining -= sum(map(self.worst, jobs), Decimal(0))
        return found

    def remaining(self) -> Decimal | None:
        """Remaining USD."""
        return min((value for value in (self._own, self._above) if value is not None), default=None)

    @property
    def bound(self) -> str:
        """The tighter budget: the suite's or the run's."""
        run = self.ledger.parent
        if run is None or self._above is None or (self._own is not None and self._own <= self._above):
            return "optimization_budget"
        return run.chain()[-1].name

    @property
    def _own(self) -> Decimal | None:
        """Remaining USD of the suite's budget, less what interrupted requests may have cost."""
        if (budget := self.suite.optimization_budget) is None:
            return None
        reserved = self.for_confirming + self.for_cascades + self.for_prompts
        return budget - reserved - self.spent - self.ledger.uncertain

    @property
    def _above(self) -> Decimal | None:
        """USD remaining of the run's budget, less what the winner's rows for the guard will take: at first, half of it."""
        remaining = self.run_remaining
        return None if remaining is None else remaining - (remaining / 2 if self.for_guard is None else self.for_guard)

    @property
    def run_remaining(self) -> Decimal | None:
        """USD that the run may still spend; None: it has no limit."""
        return None if self.ledger.parent is None else self.ledger.parent.free

    def _reserve_for_guard(self) -> None:
        """Reserve the USD of the leader's rows for the guard; with the fewest answers, if they take more than half."""
        if self.run_remaining is None or not (best := ranked(self.race, 0.0)):
            return
        leader, self._initial = best[0].candidate, self._initial or self.run_remaining + self.spent
        n = leader.trial.arm.family.counts[0]
        fewest = replace(leader, n=n, cost=self.race.costs.estimate(leader.trial.arm, n, leader.limit))
        self.for_guard = min(self.guard_usd(leader), max(self._initial / 2, self.guard_usd(fewest)))
        self.ledger.set_aside(self.for_guard)

    def guard_usd(self, candidate: Candidate) -> Decimal:
        """Estimated USD of a candidate's rows for the guard, with the last request at its worst."""
        race, cost = self.race, candidate.cost
        rows = race.costs.guard or race.costs.tune
        worst = race.pool.worst(candidate.trial.arm, rows[-1], candidate.n)
        return worst if cost is None else worst + Decimal(cost.high(SAFE) * len(rows))

    def worst(self, job: CellRequest) -> Decimal:
        """Worst-case USD of a job."""
        return self.race.pool.worst(job.trial.arm, self.race.order[job.row], job.answers)

    async def round(self, jobs: list[CellRequest]) -> bool:
        """Run all jobs concurrently; returns whether any gave answers."""
        self._requested += len(jobs)
        for job in jobs:
            if not job.trial.number:
                self.trials.append(job.trial)
                job.trial.number = len(self.trials)
        try:
            await self.ask([(job.trial, self.race.order[job.row], job.answers) for job in jobs])
        finally:  # if interrupted, keep the answers so far
            noted = [self._note(job) for job in jobs]
        return any(noted)

    async def ask(self, cells: Iterable[tuple[Trial, int, int]]) -> None:
        """Fill cells (trial, row of the pool) to a number of answers, concurrently."""
        todo = list(cells)
        queue = iter(todo)

        async def work() -> None:
            for trial, row, answers in queue:  # shared: each worker takes the next
                paid = await self.race.pool.fill(trial.arm, row, answers)
                self.spent += paid
                trial.spent += paid

        await all_of(work() for _ in range(min(self.concurrency, len(todo))))

    def _note(self, job: CellRequest) -> bool:
        """Record a job's result, in the order of the plan, not of arrival; False: it exceeded the budget."""
        trial, pool = job.trial, self.race.pool
        cell = pool.cell(trial.arm, self.race.order[job.row])
        self.race.invalidate(trial)
        before = trial.answers.get(job.row, 0)
        if cell.samples:
            trial.answers[job.row] = len(cell.samples)
            self.race.costs.note(trial.arm, self.race.order[job.row])
            pool.measure(trial.arm, self.race.order[job.row])
        elif cell.error:
            trial.answers[job.row] = job.answers
            failed = sum(pool.cell(trial.arm, self.race.order[row]).error is not None for row in trial.answers)
            if failed > len(trial.answers) / 2:
                trial.out = trial.out or "failed"
        return trial.answers.get(job.row, 0) > before

    def _report(self) -> None:
        """Report trials with about a quarter of the rows to BlendSearch and the listener."""
        quarter = self.race.blocks[min(1, len(self.race.blocks) - 1)].stop
        known = [trial for trial in self.trials if trial.out or len(trial.answers) >= quarter]
        if not (new := [trial for trial in known if trial.index not in self._reported]):
            return
        best = ranked(self.race, 0.0)
        for trial in new:
            self._reported.add(trial.index)
            own = next((found for found in best if found.candidate.trial is trial), None)
            self.proposals.report(trial.arm, own.score if own else None, float(trial.spent))
            cost = own.candidate.cost if own else None
            self.listen(
                TrialDone(
                    self.suite.name,
                    trial.number,
                    (own.candidate.config if own else trial.arm.config()).label,
                    observed(self.race, own.candidate) if own else None,
                    None if cost is None else Decimal(f"{cost.mean:.8g}"),
                    self.spent,
                    observed(self.race, best[0].candidate) if best else None,
                    trial.out or "done",
                )
            )

    def _why_ended(self) -> str:
        if self._unaffordable:
            return self.bound
        if len(self.trials) == self.suite.num_samples - self.prompt_trials:
            return "num_samples"
        if self.space.is_constant:
            return "constant space"
        if len(self.race.trials) >= self._pairs + _MOST:
            return "most_configurations"
        return "converged"

    @property
    def unseen(self) -> int:
        """Number of pairs of model and prompt that got no request, without having been eliminated."""
        own = {template.fingerprint for template in self.space.templates}
        seen = {trial.arm.region[:2] for trial in self.race.trials if trial.answers or trial.out}
        return self._pairs - sum(prompt in own for _, prompt in seen)


_Item = TypeVar("_Item")


def fitting(
    items: Iterable[_Item], worst: Callable[[_Item], Decimal], remaining: Decimal | None, *, skip: bool = False
) -> list[_Item]:
    """The items whose worst-case USD fit into what is remaining: a prefix, or with gaps (``skip``)."""
    if remaining is None:
        return list(items)
    found = []
    for item in items:
        if (usd := worst(item)) <= remaining:
            remaining -= usd
            found.append(item)
        elif not skip:
            break
    return found


# -- confirming the winner's cost

_Cell = tuple["Trial", int, int]
"""A cell of the pool: trial, row and target number of answers."""

_CLEAR = 3.0
"""Standard errors below the inference budget at which a cost counts as certain."""
_CONFIRM_SHARE = Decimal("0.1")
"""Fraction of the optimization budget reserved for confirming."""
_BILLED_TWICE = 1 / 3
"""Maximum share of the prompt in a row's cost for requesting one answer now, and the others in the guard."""
_TOGETHER = 2
"""Answers always requested together: one plus one looks like a server's limit, and the prompt would be billed twice."""
_CONFIRM_WORTH = 128
"""Like the search's own, but more patient: whether a winner is within budget matters more than a few rows."""


def confirm_reserve(suite: Suite, race: Allocator) -> Decimal:
    """USD of the optimization budget reserved to confirm the winner's cost on the test rows."""
    doubt = suite.inference_budget is not None and race.costs.guard
    return _CONFIRM_SHARE * suite.optimization_budget if doubt and suite.optimization_budget else Decimal(0)


async def confirm_cost(search: Search) -> None:
    """Request test rows until it is certain whether the likely winner is within the inference budget, or money ends."""
    search.for_confirming, pool = Decimal(0), search.race.pool
    while missing := _unconfirmed(search)[: search.concurrency]:
        cells = _affordable(search, missing, search.remaining())
        if len(cells) < min(search.worthwhile(_CONFIRM_WORTH), len(missing)):
            return
        before = [pool.cell(trial.arm, row).samples for trial, row, _ in cells]
        await search.ask(cells)
        after = [pool.cell(trial.arm, row).samples for trial, row, _ in cells]
        for (trial, row, _), samples in zip(cells, after, strict=True):
            if samples:
                search.race.costs.note(trial.arm, row)
        if list(map(len, before)) == list(map(len, after)):
            return


def _unconfirmed(search: Search) -> list[_Cell]:
    """Test rows without an answer of the best candidate that is probably within the budget, else of the current winner.

    One answer shows nearly as much about a row's lengths as all of them, and allows more rows. If the prompt is a large part
    of the cost, all are requested at once, as in the guard: two requests would bill it twice.
    """
    race = search.race
    for errors in (0.0, SAFE):
        leader = best[0].candidate if (best := ranked(race, errors)) else None
        if leader is None or leader.cost is None or race.budget is None or leader.cost.high(_CLEAR) <= race.budget:
            continue
        cheap = race.costs.prompt(leader.trial.arm) <= _BILLED_TWICE * leader.cost.mean
        answers = 1 if cheap and leader.n > _TOGETHER else leader.n
        cells = {row: race.pool.cell(leader.trial.arm, row) for row in race.costs.guard}
        unknown = [row for row, cell in cells.items() if not cell.samples and cell.error is None]
        if unknown:
            return [(leader.trial, row, answers) for row in unknown]
    return []


def _affordable(search: Search, cells: Iterable[_Cell], remaining: Decimal | None) -> list[_Cell]:
    return fitting(cells, lambda cell: search.race.pool.worst(cell[0].arm, cell[1], cell[2]), remaining)
