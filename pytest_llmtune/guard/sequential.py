"""Stop a live run once the verdict on all rows is decided: ``--llm-live --llm-stop-early=ERROR``.

Rows are evaluated in random order. After each, confidence sequences bound how many of all rows are lost and gained since the
baseline; both hold at every moment at once, so that looking after each row costs nothing. Source: Waudby-Smith and Ramdas,
"Confidence sequences for sampling without replacement" (NeurIPS 2020), section 2: the prior-posterior-ratio martingale of
the hypergeometric distribution, here with a uniform prior, and a union bound over the two counts.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.stats import mcnemar_exact
from pytest_llmtune._util.text import counted, number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_llmtune.guard.verdict import Criteria, Population
    from pytest_llmtune.types import Example, ExampleResult


_TOLERANCE = 1e-9


@dataclass(slots=True)
class HitBounds:
    """Bounds on how many of a finite number of rows are hits, while they are looked at one by one, in random order."""

    rows: int
    error: float
    """The highest probability that the bounds are ever wrong."""
    seen: int = 0
    hits: int = 0
    low: int = 0
    high: int = field(default=-1)

    def __post_init__(self) -> None:
        self.high = self.rows

    def add(self, *, hit: bool) -> None:
        """One row more."""
        self.seen += 1
        self.hits += hit
        self.low = max(self.low, self.hits)
        self.high = min(self.high, self.rows - self.seen + self.hits)
        if self.low > self.high:  # what was thought impossible: the bounds were wrong, and only what was seen is sure
            self.low, self.high = self.hits, self.rows - self.seen + self.hits
        # the ratio of prior and posterior falls towards its mode, from both ends
        mode = min(max(self.low, round(self.hits + (self.rows - self.seen) * self.hits / self.seen)), self.high)
        if self._possible(mode):
            self.low = _first(self.low, mode, self._possible)
            self.high = -_first(-self.high, -mode, lambda count: self._possible(-count))

    def _possible(self, count: int) -> bool:
        """Whether so many hits in all rows are still possible, given those seen."""
        unseen, more = self.rows - self.seen, count - self.hits
        choose = math.lgamma(unseen + 1) - math.lgamma(more + 1) - math.lgamma(unseen - more + 1)
        after, before = (1 + count, 1 + self.rows - count), (1 + self.hits, 1 + self.seen - self.hits)
        posterior = choose + _log_beta(*after) - _log_beta(*before)
        return -math.log(self.rows + 1) - posterior < -math.log(self.error) - _TOLERANCE


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first whole number from ``low`` for which it holds; it holds for ``high``, and from the first on."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@dataclass(slots=True, eq=False)
class EarlyStop:
    """Which of a suite's gates on its metric are decided so far; for yes-or-no metrics where more is better."""

    criteria: Criteria
    before: Mapping[str, float]
    """Each row's outcome in the baseline, by the row's id."""
    order: Sequence[str]
    """Rows in the order of evaluation; results count in this order, not as they arrive."""
    error: float
    """The highest probability that all rows would give another verdict."""
    why_not: str = ""
    """Why nothing can be decided early."""
    _lost: HitBounds = field(init=False)
    _gained: HitBounds = field(init=False)
    _results: dict[str, ExampleResult] = field(default_factory=dict)
    _next: int = 0

    def __post_init__(self) -> None:
        right = sum(1 for value in self.before.values() if value == 1.0)
        self._lost = HitBounds(right, self.error / 2)
        self._gained = HitBounds(len(self.before) - right, self.error / 2)
        if self.criteria.mode != "max" or any(value not in (0.0, 1.0) for value in self.before.values()):
            self.why_not = f"{self.criteria.metric} is not yes or no for each row, with more being better"
        elif set(self.before) != set(self.order):
            self.why_not = "rows and baseline are not the same"

    @classmethod
    def of(
        cls, criteria: Criteria, population: Population, examples: Sequence[Example], error: float, seed: int
    ) -> EarlyStop:
        """Assumes that rows are evaluated in random order."""
        metric = criteria.metric
        before = {row: one.metrics[metric] for row, one in population.pairs.items() if metric in one.metrics}
        order = [example.id for example in examples]
        random.Random(seed).shuffle(order)  # noqa: S311  # repeatable, no secret
        return cls(criteria, before, order, error)

    def see(self, result: ExampleResult) -> None:
        """Take in a row's result."""
        self._results[result.example.id] = result
        while not self.why_not and self._next < len(self.order):
            if (found := self._results.get(self.order[self._next])) is None:
                return
            self._next += 1
            value = found.grade.metrics.get(self.criteria.metric) if found.grade else None
            if found.grade is None:
                self.why_not = "a row has no answer"
            elif value not in (0.0, 1.0):
                self.why_not = f"{self.criteria.metric} is not yes or no"
            elif self.before[found.example.id]:
                self._lost.add(hit=not value)
            else:
                self._gained.add(hit=bool(value))

    @property
    def decided(self) -> dict[str, bool]:
        """By gate, as far as decided: whether it passes on all rows."""
        if self.why_not:
            return {}
        found = {}
        for name, fails in self._gates().items():
            best, worst = fails(self._lost.low, self._gained.high), fails(self._lost.high, self._gained.low)
            if best == worst:
                found[name] = not best
        return found

    @property
    def over(self) -> bool:
        """Whether no further row is needed: a gate fails, or all of these pass."""
        decided = self.decided
        return not all(decided.values()) or (bool(decided) and decided.keys() == self._gates().keys())

    @property
    def ended(self) -> bool:
        """Whether some rows were not evaluated."""
        return len(self._results) < len(self.order)

    @property
    def note(self) -> str:
        """For the verdict: whether and when it stopped."""
        if self.why_not:
            return f"--llm-stop-early: all rows were asked, for {self.why_not}"
        if not self.ended:
            return "--llm-stop-early: all rows were needed"
        return (
            f"stopped early, after {len(self._results)} of {counted(len(self.order), 'row')}: "
            f"{' and '.join(self.decided)} would be judged otherwise on all rows with a probability of at most "
            f"{number(self.error)}; cost and other metrics are of the rows that were asked"
        )

    def _gates(self) -> dict[str, Callable[[int, int], bool]]:
        """By gate: whether it fails on all rows, given how many are lost and gained."""
        criteria, rows = self.criteria, len(self.order)
        right = self._lost.rows
        found: dict[str, Callable[[int, int], bool]] = {}
        if criteria.judges_drops:
            found["max_drop"] = lambda lost, gained: _drops(criteria, lost, gained, rows)
        for limit in criteria.limits:
            if limit.metric == criteria.metric and limit.group is None and limit.direction == "min":
                least = float(limit.limit)
                found[limit.name] = lambda lost, gained, least=least: (  # type: ignore[misc]
                    (right - lost + gained) / rows < least - _TOLERANCE
                )
        return found


def _drops(criteria: Criteria, lost: int, gained: int, rows: int) -> bool:
    """Whether the drop gate fails: over what is allowed, or more than chance."""
    drop = (lost - gained) / rows
    if criteria.max_drop is not None and drop > criteria.max_drop + _TOLERANCE:
        return True
    return criteria.alpha is not None and drop > _TOLERANCE and mcnemar_exact(lost, gained) < criteria.alpha
