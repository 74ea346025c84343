"""The search loop: rounds of requests, then confirming the winner's cost."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.guard.evaluation import all_of
from pytest_llmtune.tuning.allocation import Allocator, CellRequest, Trial
from pytest_llmtune.tuning.selection import SAFE, Ranked, observed, ranked
from pytest_llmtune.types import Listener, TrialDone

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.suite import Space, Suite
    from pytest_llmtune.tuning.allocation import Candidate
    from pytest_llmtune.tuning.proposals import Arm, Proposals

__all__ = ["Search", "kept", "settle"]


_FRESH = 6
"""Arms that wait unasked: something new is always among the candidates."""
_PILOT = 2
"""Rows that every model is asked first, then every model with every prompt, to learn their costs."""
_PILOT_SHARE = Decimal("0.25")
"""Of the dollars, that the prompts' first rows may cost."""
_ROUND = 32
"""Requests that are decided on together, at least."""
_PART = 16
"""Of very many arms, one request for so many makes a round: each round thinks of all of them."""
_REST = Decimal("0.08")
"""Part of the optimization budget that may stay unspent where it pays for the worst of a few requests only."""
_TRICKLE = 1
"""Requests that are worth a round, whatever was asked."""
_WORTH = 64
"""So many that were asked make one more request needed for a round to be worth the waiting."""
_LEAST = 0.1
"""Curiosity at the end."""
_MOST = 200
"""Arms that BlendSearch may add to one for every model with every prompt."""


@dataclass(slots=True)
class Search:
    """One search, and how far it has come."""

    suite: Suite
    space: Space
    """The suite's, with examples in its prompts where it has such."""
    race: Allocator
    proposals: Proposals
    ledger: Ledger
    listen: Listener
    concurrency: int
    kept: Decimal = Decimal(0)
    """USD of the optimization budget that are not for the race."""
    aside: Decimal = Decimal(0)
    """USD of it that are for the steps of cascades."""
    later: Decimal = Decimal(0)
    """USD of it that are for prompts that are not written yet."""
    reserved: int = 0
    """Trials that are for those."""
    final: Decimal | None = None
    """USD of the run's dollars that the leader's rows for the guard will take; None: nothing is known yet."""
    spent: Decimal = Decimal(0)
    """USD, those of a killed run before it included."""
    trials: list[Trial] = field(default_factory=list)
    """In the order in which they were begun."""
    _at_first: Decimal | None = None
    """USD that the run might have spent when the search began."""
    _asked: int = 0
    """Requests that were decided on."""
    _poor: bool = False
    """Whether something useful did not fit into the budget."""
    _told: set[int] = field(default_factory=set)

    async def run(self) -> str:
        """Rounds until a bound is reached; returns which."""
        self._enter(min(self.room(), self._pairs + _FRESH))
        await self.round(self._pilot(lambda arm: arm.model, self.left()))
        self.race.drop_out()
        await self.look(_PILOT_SHARE)
        return await self.go_on()

    async def go_on(self) -> str:
        """Rounds, after the first look at everything, until a bound is reached; returns which."""
        while True:
            self.race.drop_out()
            self._keep_for_guard()
            fresh = sum(not entrant.number and not entrant.out for entrant in self.race.entrants)
            self._enter(min(1, _FRESH - fresh, self.room()))
            jobs = self._affordable_jobs()
            if not jobs and await self.look(Decimal(1)):
                continue
            if not jobs or (self._poor and self._used_up and len(jobs) < self.worthwhile(_WORTH)):
                if (
                    self._poor
                    and self.kept
                    and _doubtful(self.race, SAFE) is None
                    and _doubtful(self.race, 0.0) is None
                ):
                    self.kept = Decimal(0)  # nobody's cost needs confirming: the race may have it
                    continue
                return self._why_ended()
            if not await self.round(jobs):
                return self.bound
            self._tell()

    async def look(self, share: Decimal) -> bool:
        """Ask every model with every prompt its first rows, for a part of what is left; returns whether any was asked."""
        left, before = self.left(), self.spent
        looked = False
        while jobs := self._pilot(lambda arm: arm.region, left and left * share - (self.spent - before)):
            if not await self.round(jobs):
                break
            looked = True
            self.race.drop_out()
        return looked

    @property
    def _used_up(self) -> bool:
        """Whether so little of the optimization budget is left that a few more requests change nothing."""
        budget, left = self.suite.optimization_budget, self.left()
        return budget is None or left is None or left <= _REST * budget

    def worthwhile(self, parts: int) -> int:
        """Requests that a round must have, of those asked one in so many: the budget that pays for fewer is as good as used."""
        return max(_TRICKLE, self._asked // parts)

    def room(self) -> int:
        """New arms that may still enter."""
        most = self._pairs + _MOST
        if self.suite.num_samples >= 0:
            most = min(most, self.suite.num_samples - self.reserved)
        return max(0, most - len(self.race.entrants))

    @property
    def _pairs(self) -> int:
        """Every model with every prompt."""
        return len(self.space.models) * len(self.space.templates)

    def _enter(self, count: int) -> None:
        for _ in range(count):
            if (arm := self.proposals.next()) is None:
                return
            self.race.enter(arm)

    def _pilot(self, kind: Callable[[Arm], Hashable], left: Decimal | None) -> list[CellRequest]:
        """The first arm of each kind on its first rows, as far as so many USD reach."""
        first: dict[Hashable, Trial] = {}
        for entrant in self.race.entrants:
            if not entrant.out:
                first.setdefault(kind(entrant.arm), entrant)
        rows = range(min(_PILOT, len(self.race.order)))
        jobs = [CellRequest(e, row, e.arm.family.counts[0]) for e in first.values() if not e.asked for row in rows]
        if len(jobs) <= _ROUND:  # where the money does not reach all: each kind once, the cheapest first
            jobs.sort(key=lambda job: (job.row, self._worst(job)))
        return self.fitting(jobs, left, skip=True)

    def _affordable_jobs(self) -> list[CellRequest]:
        """The next round: what the plan holds, as far as its worst case fits into the budget."""
        found: list[CellRequest] = []
        left = self.left()
        self._poor = False
        size = max(_ROUND, self.concurrency, len(self.race.entrants) // _PART)
        for step in self.race.plan(size, self._curiosity()):
            fitting = self.fitting(step, left)
            self._poor = self._poor or len(fitting) < len(step)
            found += fitting
            if left is not None:
                left -= sum((self._worst(job) for job in fitting), Decimal(0))
        return found

    def _curiosity(self) -> float:
        """What is left of the budget is spent more and more on telling the leaders apart."""
        budget = self.suite.optimization_budget
        return 1.0 if not budget else max(_LEAST, 1 - float(self.spent / budget))

    def fitting(self, jobs: Iterable[CellRequest], left: Decimal | None, *, skip: bool = False) -> list[CellRequest]:
        """As many of the jobs as are paid for whatever they cost: from the first on, or with gaps (``skip``)."""
        found = []
        for job in jobs:
            if left is not None and self._worst(job) > left:
                if skip:
                    continue
                break
            if left is not None:
                left -= self._worst(job)
            found.append(job)
        return found

    def left(self) -> Decimal | None:
        """USD that may still be spent."""
        return min((value for value in (self._own, self._above) if value is not None), default=None)

    @property
    def bound(self) -> str:
        """Whose dollars end first: the suite's or the run's."""
        run = self.ledger.parent
        if run is None or self._above is None or (self._own is not None and self._own <= self._above):
            return "optimization_budget"
        return run.chain()[-1].name

    @property
    def _own(self) -> Decimal | None:
        """USD that are left of the suite's budget; what requests that broke off may have cost is not."""
        budget = self.suite.optimization_budget
        return (
            None
            if budget is None
            else budget - self.kept - self.aside - self.later - self.spent - self.ledger.uncertain
        )

    @property
    def _above(self) -> Decimal | None:
        """USD that are left of the run's, less what the winner's rows for the guard will take: at first, half of it."""
        left = self.run_left
        return None if left is None else left - (left / 2 if self.final is None else self.final)

    @property
    def run_left(self) -> Decimal | None:
        """USD that the run may still spend; None: it has no limit."""
        return None if self.ledger.parent is None else self.ledger.parent.free

    def _keep_for_guard(self) -> None:
        """The leader's rows for the guard are kept for; with as few answers as may be, where those take more than half."""
        if self.run_left is None or not (best := ranked(self.race, 0.0)):
            return
        leader, self._at_first = best[0].candidate, self._at_first or self.run_left + self.spent
        n = leader.entrant.arm.family.counts[0]
        fewest = replace(leader, n=n, cost=self.race.costs.estimate(leader.entrant.arm, n, leader.limit))
        self.final = min(self.for_guard(leader), max(self._at_first / 2, self.for_guard(fewest)))
        self.ledger.keep(self.final)

    def for_guard(self, candidate: Candidate) -> Decimal:
        """USD that a candidate's rows for the guard will take, as far as is known, the last request at its worst."""
        race, cost = self.race, candidate.cost
        rows = race.costs.guard or race.costs.tune
        worst = race.pool.worst(candidate.entrant.arm, rows[-1], candidate.n)
        return worst if cost is None else worst + Decimal(cost.high(SAFE) * len(rows))

    def _worst(self, job: CellRequest) -> Decimal:
        """USD that a job may cost at most."""
        return self.race.pool.worst(job.entrant.arm, self.race.order[job.row], job.answers)

    async def round(self, jobs: list[CellRequest]) -> bool:
        """Ask for all of it together; returns whether anything came of it."""
        self._asked += len(jobs)
        for job in jobs:
            if not job.entrant.number:
                self.trials.append(job.entrant)
                job.entrant.number = len(self.trials)
        try:
            await self.ask([(job.entrant, self.race.order[job.row], job.answers) for job in jobs])
        finally:  # interrupted, it leaves what was answered
            noted = [self._note(job) for job in jobs]
        return any(noted)

    async def ask(self, cells: Iterable[tuple[Trial, int, int]]) -> None:
        """Bring cells (entrant, row of the pool) to a number of answers, with all the concurrency there is."""
        wanted = list(cells)
        todo = iter(wanted)

        async def work() -> None:
            for entrant, row, answers in todo:  # shared: each worker takes the next
                paid = await self.race.pool.fill(entrant.arm, row, answers)
                self.spent += paid
                entrant.spent += paid

        await all_of(work() for _ in range(min(self.concurrency, len(wanted))))

    def _note(self, job: CellRequest) -> bool:
        """What came of a job, in the order of the plan and not of arrival; False: it did not fit into the budget."""
        entrant, pool = job.entrant, self.race.pool
        cell = pool.cell(entrant.arm, self.race.order[job.row])
        self.race.noted(entrant)
        before = entrant.asked.get(job.row, 0)
        if cell.samples:
            entrant.asked[job.row] = len(cell.samples)
            self.race.costs.note(entrant.arm, self.race.order[job.row])
            pool.measure(entrant.arm, self.race.order[job.row])
        elif cell.error:
            entrant.asked[job.row] = job.answers
            failed = sum(pool.cell(entrant.arm, self.race.order[row]).error is not None for row in entrant.asked)
            if failed > len(entrant.asked) / 2:
                entrant.out = entrant.out or "failed"
        return entrant.asked.get(job.row, 0) > before

    def _tell(self) -> None:
        """BlendSearch and the listener hear of every trial that was asked about a quarter of the rows."""
        quarter = self.race.blocks[min(1, len(self.race.blocks) - 1)].stop
        new = [
            entrant
            for entrant in self.trials
            if entrant.place not in self._told and (entrant.out or len(entrant.asked) >= quarter)
        ]
        if not new:
            return
        best = ranked(self.race, 0.0)
        for entrant in new:
            self._told.add(entrant.place)
            own = next((found for found in best if found.candidate.entrant is entrant), None)
            self.proposals.tell(entrant.arm, own.score if own else None, float(entrant.spent))
            self._announce(entrant, own, best[0] if best else None)

    def _announce(self, entrant: Trial, own: Ranked | None, best: Ranked | None) -> None:
        cost = own.candidate.cost if own else None
        self.listen(
            TrialDone(
                self.suite.name,
                entrant.number,
                (own.candidate.config if own else entrant.arm.config()).label,
                observed(self.race, own.candidate) if own else None,
                None if cost is None else Decimal(f"{cost.mean:.8g}"),
                self.spent,
                observed(self.race, best.candidate) if best else None,
                entrant.out or "done",
            )
        )

    def _why_ended(self) -> str:
        if self._poor:
            return self.bound
        if len(self.trials) == self.suite.num_samples - self.reserved:
            return "num_samples"
        if self.space.is_constant:
            return "constant space"
        if len(self.race.entrants) >= self._pairs + _MOST:
            return "most_configurations"
        return "converged"

    @property
    def unseen(self) -> int:
        """Pairs of model and prompt that were never asked anything, though nothing was known against them."""
        told = {entrant.arm.region[:2] for entrant in self.race.entrants if entrant.asked or entrant.out}
        told = {pair for pair in told if pair[1] in {template.fingerprint for template in self.space.templates}}
        return self._pairs - len(told)


_Cell = tuple["Trial", int, int]
"""Of the pool: entrant, row and how many answers there shall be."""

_CLEAR = 3.0
"""Standard errors of its cost below the inference budget that leave no doubt."""
_KEPT = Decimal("0.1")
"""Part of the optimization budget that the race leaves for it."""

_BILLED_TWICE = 1 / 3
"""Part of a row's cost that the prompt may be, for one answer alone to be asked now and the others by the guard."""
_TWO = 2
"""Answers that are asked together all the same: one and one look like a server's limit, and the prompt would count twice."""
_CONFIRM_WORTH = 128
"""As the search's own, yet more patient: whether a winner is within its budget matters more than a few more rows."""


def kept(suite: Suite, race: Allocator) -> Decimal:
    """USD of the optimization budget that the race does not get."""
    doubt = suite.inference_budget is not None and race.costs.guard
    return _KEPT * suite.optimization_budget if doubt and suite.optimization_budget else Decimal(0)


async def settle(search: Search) -> None:
    """Ask test rows until the likely winner is surely within the inference budget, or surely not, or money ends."""
    search.kept = Decimal(0)
    while wanted := _wanted(search)[: search.concurrency]:
        cells = _affordable(search, wanted)
        if len(cells) < min(search.worthwhile(_CONFIRM_WORTH), len(wanted)):
            return
        before = [len(search.race.pool.cell(entrant.arm, row).samples) for entrant, row, _ in cells]
        await search.ask(cells)
        after = []
        for entrant, row, _ in cells:
            if samples := search.race.pool.cell(entrant.arm, row).samples:
                search.race.costs.note(entrant.arm, row)
            after.append(len(samples))
        if before == after:
            return


def _wanted(search: Search) -> list[_Cell]:
    """Test rows to ask: of the best candidate that is probably within the budget, else of the one that would win now."""
    leaders = (_doubtful(search.race, errors) for errors in (0.0, SAFE))
    return next(filter(None, (_unasked(search, leader) for leader in leaders if leader)), [])


def _doubtful(race: Allocator, errors: float) -> Candidate | None:
    """The best candidate that is within the inference budget by so many errors, where that is not sure."""
    best = ranked(race, errors)
    if race.budget is None or not best or (cost := best[0].candidate.cost) is None or cost.high(_CLEAR) <= race.budget:
        return None
    return best[0].candidate


def _unasked(search: Search, leader: Candidate) -> list[_Cell]:
    """Every test row that has no answer of the leader's.

    One answer tells nearly as much of a row's lengths as all that the leader gives, and more rows can be asked. Where the
    prompt is much of the cost all are asked in one request, as the guard asks: of two, it would be billed twice.
    """
    entrant, race = leader.entrant, search.race
    cheap = leader.cost is not None and race.costs.prompt(entrant.arm) <= _BILLED_TWICE * leader.cost.mean
    answers = 1 if cheap and leader.n > _TWO else leader.n
    cells = {row: race.pool.cell(entrant.arm, row) for row in race.costs.guard}
    return [(entrant, row, answers) for row, cell in cells.items() if not cell.samples and cell.error is None]


def _affordable(search: Search, cells: Sequence[_Cell]) -> list[_Cell]:
    left, found = search.left(), []
    for entrant, row, answers in cells:
        if left is not None and (left := left - search.race.pool.worst(entrant.arm, row, answers)) < 0:
            break
        found.append((entrant, row, answers))
    return found
