"""Allocate requests among trials, by posterior sampling within two budgets."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune.suite.keys import SCORES
from pytest_llmtune.tuning.surrogate import Encoder, Kernel, Points, Posterior, Scored, Surrogate, learned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_llmtune.suite import Config
    from pytest_llmtune.tuning.constraints import Constraint
    from pytest_llmtune.tuning.costs import Cost, Costs
    from pytest_llmtune.tuning.proposals import Arm
    from pytest_llmtune.tuning.samples import Pool


def blocks_of(rows: int) -> list[range]:
    """Rows in blocks of growing size: each about doubles the number seen."""
    edges = sorted({0, *(math.ceil(rows / share) for share in (8, 4, 2, 1))})
    return [range(low, high) for low, high in itertools.pairwise(edges)]


def thin(counts: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of the counts, including both ends, spaced by equal factors."""
    if len(counts) <= most:
        return list(counts)
    low, high = math.log(counts[0]), math.log(counts[-1])
    targets = [math.exp(low + (high - low) * step / (most - 1)) for step in range(most)]
    return sorted({min(counts, key=lambda n: abs(math.log(n / target))) for target in targets})


_DRAWS = 64
"""Posterior samples per plan."""
_TRIED = 12
"""Best candidates of a posterior sample that get a step."""
_AT_ONCE = 300
"""Maximum number of candidates in a plan."""
_LISTED = 60
"""Trials whose candidates have an exact posterior."""
_OBSERVED = 700
"""Observations of other trials that such a posterior is conditioned on."""
_SIZES = 10
"""Numbers of answers with which an arm is a candidate."""
_LEVELS = 3
"""Numbers of answers with which an arm is scored."""
_SURE = 2.0
"""Standard errors above the inference budget that eliminate an arm."""
_HOPE = -1.0
"""Standard errors that a candidate's cost may exceed the inference budget by and still get requests."""
_MOST_LOST = 0.5
"""Success that a length limit may cost."""
_BEATEN = 3.0
"""Standard errors that a candidate may be behind the best and still get requests."""
_FIRST_ROWS = 2
"""Initial number of rows for an arm among very many."""
_DEEPER = 3
"""Growth factor of answers per row from step to step."""


@dataclass(slots=True, eq=False)
class Trial:
    """An arm in the search, with its state."""

    arm: Arm
    cell: tuple[int, ...]
    continuous: tuple[float, ...]
    index: int
    """Index in the allocator's list."""
    number: int = 0
    """Number of the trial, from 1; 0: no requests yet."""
    answers: dict[int, int] = field(default_factory=dict)
    """Row (position in the order) to number of answers."""
    out: str = ""
    """Why it was eliminated; empty if it was not."""
    spent: Decimal = Decimal(0)
    """USD."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible winner."""

    trial: Trial
    n: int
    cost: Cost | None
    limit: int | None = None
    """A reduced length limit that makes an arm affordable."""
    loss: float = 0.0
    """Loss of score from answers that the limit truncates."""

    @property
    def config(self) -> Config:
        return self.trial.arm.config(self.n, self.limit)


@dataclass(frozen=True, slots=True)
class CellRequest:
    """A request to fill one cell."""

    trial: Trial
    row: int
    """Position in the order."""
    answers: int
    """Target number of answers."""


@dataclass(frozen=True, slots=True)
class _Observation:
    """Mean of the metric over rows of a block."""

    block: int
    n: int
    rows: int
    repeats: float
    """Number of independent samples averaged in a row's score."""
    mean: float


@dataclass(slots=True)
class Allocator:
    """Trials, their posterior, and the next requests."""

    pool: Pool
    costs: Costs
    encoder: Encoder
    order: Sequence[int]
    """Tuning rows in the order of requests."""
    sign: float
    """1: maximise; -1: minimise."""
    budget: float | None
    """USD per instance."""
    rng: np.random.Generator
    within: float | None = None
    """How far below the best the winner's score may be, for a lower cost; None: the best wins."""
    constraints: tuple[Constraint, ...] = ()
    kernel: Kernel = field(default_factory=Kernel)
    trials: list[Trial] = field(default_factory=list)
    blocks: list[range] = field(default_factory=list)
    _observed: dict[int, list[_Observation]] = field(default_factory=dict)
    """By trial, until it has new answers."""
    _surrogates: dict[tuple[frozenset[int], frozenset[int]], Surrogate] = field(default_factory=dict)
    _sizes: dict[int, list[int]] = field(default_factory=dict)
    """Numbers of answers of each family's candidates."""
    _scale: float | None = None
    _meets: dict[int, bool] = field(default_factory=dict)
    """By trial, until it has new answers."""
    _learned: int = 0
    """Number of observations that the kernel was fitted to."""

    def __post_init__(self) -> None:
        self.blocks = blocks_of(len(self.order))

    def enter(self, arm: Arm) -> Trial:
        """Add an arm."""
        trial = Trial(arm, self.encoder.cell(arm), self.encoder.continuous(arm), len(self.trials))
        self.trials.append(trial)
        return trial

    # -- beliefs

    def posterior(self, candidates: Sequence[Candidate], without: frozenset[int] = frozenset()) -> Posterior:
        """Posterior of the candidates' scores; higher is better.

        Args:
            without: rows (positions in the order) to ignore.
        """
        target = self._points([(c.trial, c.n, c.cost) for c in candidates])
        indices = {c.trial.index for c in candidates}
        found = self._surrogate(without, indices).posterior(target)
        return Posterior(found.mean - np.array([c.loss for c in candidates]), found.covariance)

    def invalidate(self, trial: Trial) -> None:
        """Discard cached results after new answers of a trial."""
        self._observed.pop(trial.index, None)
        self._meets.pop(trial.index, None)
        self._surrogates.clear()
        self._scale = None

    def shortlist(self, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates of the most promising trials: an exact posterior of thousands would take minutes."""
        largest = {candidate.trial.index: candidate for candidate in candidates}  # numbers of answers grow
        if len(largest) <= _LISTED:
            return candidates
        ones = list(largest.values())
        means = self._surrogate(frozenset(), None).means(self._points([(c.trial, c.n, c.cost) for c in ones]))
        rows = np.array([len(c.trial.answers) for c in ones], dtype=float)
        hope = np.sqrt(self.scale() * self.kernel.own / (1 + rows * self.kernel.own / self.kernel.single))
        best = np.argsort(-(means - np.array([c.loss for c in ones]) + hope), kind="stable")[:_LISTED]
        indices = {ones[int(index)].trial.index for index in best}
        return [candidate for candidate in candidates if candidate.trial.index in indices]

    def _surrogate(self, without: frozenset[int], indices: set[int] | None) -> Surrogate:
        """A surrogate given the observations; if very many, those of the trials at ``indices`` and a sample of the rest."""
        seen = self._scored(without)
        if len(seen.mean) > 1.25 * self._learned:  # 25 % more observations: fit the kernel again
            self._learned = len(seen.mean)
            self.kernel = learned(seen, self.scale())
        if indices is None or len(seen.mean) <= _OBSERVED:
            indices = set()
        key = without, frozenset(indices)
        if key not in self._surrogates:
            if indices:
                own = np.isin(seen.points.arm, list(indices))
                step = -(-int((~own).sum()) // max(1, _OBSERVED - int(own.sum())))
                own[np.flatnonzero(~own)[::step]] = True
                seen = seen.take(np.flatnonzero(own))
            self._surrogates[key] = Surrogate.of(seen, self.scale(), self.kernel)
        return self._surrogates[key]

    def _points(self, configs: Sequence[tuple[Trial, int, Cost | None]]) -> Points:
        first, unit = self.trials[0], self.budget or 0.01  # costs are relative to the inference budget, or to a cent
        cells, dimensions = len(first.cell), len(first.continuous)  # also where there are no configs yet
        costs = (0.0 if cost is None or cost.mean <= 0 else math.log2(cost.mean / unit) for _, _, cost in configs)
        return Points(
            np.array([trial.cell for trial, _, _ in configs], dtype=np.int64).reshape(len(configs), cells),
            np.array([trial.continuous for trial, _, _ in configs], dtype=float).reshape(len(configs), dimensions),
            np.array([math.log2(n) for _, n, _ in configs], dtype=float),
            np.array([trial.index for trial, _, _ in configs], dtype=np.int64),
            np.array([*costs], dtype=float),
        )

    def _scored(self, without: frozenset[int]) -> Scored:
        found: list[tuple[Trial, _Observation]] = []
        for trial in self.trials:
            seen = None if without else self._observed.get(trial.index)
            if seen is None and trial.answers:
                seen = list(self._observations(trial, without))
                if not without:
                    self._observed[trial.index] = seen
            found += [(trial, one) for one in seen or ()]
        return Scored(
            self._points([(trial, one.n, self.costs.estimate(trial.arm, one.n)) for trial, one in found]),
            np.array([one.block for _, one in found], dtype=np.int64),
            np.array([one.rows for _, one in found], dtype=float),
            np.array([one.repeats for _, one in found], dtype=float),
            np.array([one.mean for _, one in found], dtype=float),
        )

    def _observations(self, trial: Trial, without: frozenset[int]) -> Iterator[_Observation]:
        """Means of a trial's scores per block, for some of the numbers of answers that all its rows have."""
        for index, span in enumerate(self.blocks):
            rows = (self.pool.cell(trial.arm, self.order[row]) for row in span if row not in without)
            cells = [cell for cell in rows if cell.scores]
            if not cells:
                continue
            for n in thin([n for n in cells[0].scores if all(n in cell.scores for cell in cells)], _LEVELS):
                repeats = max(1.0, sum(len(cell.samples) for cell in cells) / len(cells) / n)
                mean = self.sign * sum(cell.scores[n] for cell in cells) / len(cells)
                yield _Observation(index, n, len(cells), repeats, mean)

    def scale(self) -> float:
        """Variance of the metric over rows, from all cells at the smallest n."""
        if self._scale is None:
            self._scale = self._variance()
        return self._scale

    def _variance(self) -> float:
        cells = [self.pool.cell(trial.arm, self.order[row]) for trial in self.trials for row in trial.answers]
        values = [cell.scores[min(cell.scores)] for cell in cells if cell.scores]
        if not values:
            return 0.25
        variance, mean = float(np.var(values)), float(np.mean(values))
        if self.pool.scorer.metric in SCORES:  # 0 or 1: as for a rate of one half, while the cells are few
            return max((variance * len(values) + 4 * 0.25) / (len(values) + 4), 0.05)
        return max(variance * (1 + 4 / len(values)), 1e-6 * mean * mean + 1e-12)

    # -- candidates

    def candidates(self, z: float, *, min_rows: int = 0) -> list[Candidate]:
        """Possible winners: trials with every n (thinned) whose cost is ``within`` the budget by ``z`` standard errors.

        Args:
            min_rows: minimum number of rows with answers. From 1 on those that do not meet the constraints are left out,
                unless none does.
        """
        trials = [trial for trial in self.trials if not trial.out]
        if min_rows and self.constraints:
            meeting = [trial for trial in trials if trial.answers and self.meets(trial)]
            trials = meeting or trials or [trial for trial in self.trials if trial.out == "constraint"]
        return [one for trial in trials if len(trial.answers) >= min_rows for one in self._candidates_of(trial, z)]

    def meets(self, trial: Trial) -> bool:
        """Whether a trial meets the constraints on its evaluated rows."""
        if trial.index not in self._meets:
            self._meets[trial.index] = all(one.met(self.limited(trial, one)) for one in self.constraints)
        return self._meets[trial.index]

    def limited(self, trial: Trial, constraint: Constraint) -> list[float]:
        """The values that a constraint limits, on a trial's evaluated rows."""
        cells = (self.pool.cell(trial.arm, self.order[row]) for row in sorted(trial.answers))
        return [cell.gated[constraint.metric] for cell in cells if constraint.metric in cell.gated]

    def _candidates_of(self, trial: Trial, z: float) -> list[Candidate]:
        arm = trial.arm
        counts = self._sizes.setdefault(id(arm.family), thin(arm.family.counts, _SIZES))
        costs = self.costs.estimates(arm, counts)
        fit = [Candidate(trial, n, cost) for n, cost in zip(counts, costs, strict=True) if self._affordable(cost, z)]
        if fit or not trial.answers or arm.family.counts[0] != 1 or self.sign < 0:
            return fit
        return self._shorter(trial, z)

    def _affordable(self, cost: Cost | None, z: float) -> bool:
        return self.budget is None or cost is None or cost.within(self.budget, z)

    def _shorter(self, trial: Trial, z: float) -> list[Candidate]:
        """One answer with the largest affordable length limit, unless too many answers would be truncated."""
        cells = [self.pool.cell(trial.arm, self.order[row]) for row in trial.answers]
        longest = self.costs.longest(trial.arm)
        for limit in trial.arm.family.shorter:
            cost = self.costs.estimate(trial.arm, 1, limit)
            if limit < longest and self._affordable(cost, z):
                cut = [self.pool.scorer.cut(cell.samples, limit) for cell in cells]
                losses = [cell.scores[1] - s for cell, s in zip(cells, cut, strict=True) if s is not None]
                loss = sum(losses) / len(losses) if losses else math.inf
                return [Candidate(trial, 1, cost, limit, loss)] if loss < _MOST_LOST else []
        return []

    def drop_out(self) -> None:
        """Eliminate trials over the inference budget even with the fewest and shortest answers, or over another limit."""
        for trial in self.trials:
            if not trial.out and self.budget is not None and not self._candidates_of(trial, -_SURE):
                trial.out = "over_budget"
            if not trial.out and any(one.hopeless(self.limited(trial, one)) for one in self.constraints):
                trial.out = "constraint"

    # -- what to ask next

    def plan(self, size: int, curiosity: float = 1.0) -> Iterable[list[CellRequest]]:
        """The next steps, most useful first, with at most ``size`` requests in total.

        Args:
            curiosity: from 1, each candidate by its probability of being the best, to 0, the currently best.
        """
        candidates = self.shortlist(self.candidates(_HOPE))
        if not candidates:
            return
        posterior = self.posterior(candidates)
        behind = posterior.behind(_BEATEN)
        best = np.argsort(behind, kind="stable")[: min(_AT_ONCE, int((behind <= 0).sum()))]
        candidates, posterior = [candidates[int(index)] for index in best], posterior.take(best)
        busy: set[int] = set()
        planned = 0
        for values in posterior.mean + curiosity * (posterior.draws(_DRAWS, self.rng) - posterior.mean):
            for index in np.argsort(-values, kind="stable")[:_TRIED]:
                candidate = candidates[int(index)]
                if candidate.trial.index in busy:
                    continue
                if jobs := self._step(candidate):
                    if planned and planned + len(jobs) > size:
                        return
                    busy.add(candidate.trial.index)
                    planned += len(jobs)
                    yield jobs
                    break
            if planned >= size:
                return

    def _step(self, candidate: Candidate) -> list[CellRequest]:
        """The smallest useful step for a candidate: more answers to the rows seen, or the next block."""
        trial, few = candidate.trial, len(self.trials) <= _LISTED
        if not trial.answers:
            rows = self.blocks[0] if few else self.blocks[0][:_FIRST_ROWS]
            return [CellRequest(trial, row, trial.arm.family.counts[0]) for row in rows]
        count = depth = max(trial.answers.values())
        seen = len(trial.answers)
        if seen >= self.blocks[min(2 if few else 1, len(self.blocks) - 1)].stop:
            # at most the n of the vote: more would reduce its variance, but most variance is between rows
            count = max(depth, min(candidate.n, depth * _DEEPER))
        if min(trial.answers.values()) < count:
            return [CellRequest(trial, row, count) for row, have in trial.answers.items() if have < count]
        block: Sequence[int] = next((block for block in self.blocks if block.stop > seen), ())
        return [CellRequest(trial, row, depth) for row in block if row not in trial.answers]
