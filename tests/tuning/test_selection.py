"""The choice of the winner and the claim of its score, over a race whose beliefs and scores are given."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_llmtune._util.stats import bootstrap_mean, wilson
from pytest_llmtune.tuning.allocation import Candidate, Trial
from pytest_llmtune.tuning.costs import Cost
from pytest_llmtune.tuning.samples import Cell
from pytest_llmtune.tuning.selection import (
    Ranked,
    by_posterior,
    cross_fitted,
    front,
    measured,
    observed,
    predicted,
    ranked,
    scores_of,
)
from pytest_llmtune.tuning.surrogate import Posterior

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass
class Race:
    """What selection asks of a race: rows, cells, candidates and beliefs, all as told."""

    rows: int = 20
    sign: float = 1.0
    variance: float = 0.25
    budget: float = 1.0
    within: float | None = None
    shared: float = 0.0
    """Covariance of the first candidate with each other one."""
    all: list[Candidate] = field(default_factory=list)
    cells: dict[tuple[str, int], Cell] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)

    def add(
        self,
        name: str,
        mean: float = 0.5,
        *,
        n: int = 1,
        cost: float | None = 0.1,
        error: float = 0.0,
        limit: int | None = None,
    ) -> Candidate:
        """A candidate; those of one name are of one arm."""
        trial = self.trials.setdefault(name, Trial(name, (), (), len(self.trials)))
        candidate = Candidate(trial, n, None if cost is None else Cost(cost, error), limit)
        self.all.append(candidate)
        self.beliefs[candidate] = mean
        return candidate

    def __post_init__(self) -> None:
        self.beliefs: dict[Candidate, float] = {}
        self.means: Callable[[Candidate, frozenset[int]], float] = lambda candidate, _: self.beliefs[candidate]

    def ask(self, name: str, scores: Mapping[int, Mapping[int, float]]) -> None:
        """Row (place in the order) to the scores by n."""
        for place, by_n in scores.items():
            self.trials[name].answers[place] = max(by_n, default=1)
            self.cells[name, self.order[place]] = Cell(scores=by_n)

    # what selection uses

    @property
    def order(self) -> Sequence[int]:
        return range(self.rows)[::-1]

    @property
    def pool(self) -> Race:
        return self

    @property
    def scorer(self) -> Race:
        return self

    def cut(self, samples: Any, limit: int) -> float | None:
        return None if not samples or samples[0] is None else float(samples[0] >= limit)

    def cell(self, arm: Any, row: int) -> Cell:
        return self.cells.get((arm, row), Cell())

    def scale(self) -> float:
        return self.variance

    def shortlist(self, candidates: list[Candidate]) -> list[Candidate]:
        return candidates

    def candidates(self, z: float, *, min_rows: int = 0) -> list[Candidate]:
        return [
            one
            for one in self.all
            if len(one.trial.answers) >= min_rows and (one.cost is None or one.cost.within(self.budget, z))
        ]

    def posterior(self, candidates: Sequence[Candidate], without: frozenset[int] = frozenset()) -> Posterior:
        means = np.array([self.sign * self.means(one, without) for one in candidates])
        covariance = np.diag([0.01 * (place + 1) ** 2 for place in range(len(candidates))])
        covariance[0, 1:] = covariance[1:, 0] = self.shared
        return Posterior(means, covariance)


def names(found: Sequence[Ranked]) -> list[tuple[Any, int]]:
    return [(one.candidate.trial.arm, one.candidate.n) for one in found]


# by belief


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_best_comes_first_whichever_way_is_better(sign: float) -> None:
    """With the score in the metric's own unit, and the error of the belief."""
    race = Race(sign=sign)
    for name, score in (("middling", 0.5), ("high", 0.9), ("low", 0.1)):
        race.add(name, score)
    found = by_posterior(race, race.all)
    assert [one.score for one in found] == ([0.9, 0.5, 0.1] if sign > 0 else [0.1, 0.5, 0.9])
    assert {one.candidate.trial.arm: one.error for one in found} == pytest.approx(
        {"middling": 0.1, "high": 0.2, "low": 0.3}
    )
    assert by_posterior(race, []) == []


def test_of_indistinguishable_candidates_the_cheapest_wins() -> None:
    """Closer than a hundredth of the metric's deviation: here 0.005. What is unpriced costs nothing."""
    race = Race(variance=0.25)
    race.add("best", 0.8, cost=0.3)
    race.add("alike", 0.7951, cost=0.1)
    race.add("as alike, dearer", 0.7999, cost=0.2)
    race.add("told apart", 0.7949, cost=0.01)
    assert [arm for arm, _ in names(by_posterior(race, race.all))] == [
        "alike",
        "as alike, dearer",
        "best",
        "told apart",
    ]
    race.add("free", 0.7952, cost=None)
    assert names(by_posterior(race, race.all))[0] == ("free", 1)
    race.variance = 4.0
    assert [arm for arm, _ in names(by_posterior(race, race.all))][:2] == ["free", "told apart"]


def test_of_equals_the_first_wins() -> None:
    race = Race()
    for name in "cab":
        race.add(name, 0.5, cost=0.1)
    assert [arm for arm, _ in names(by_posterior(race, race.all))] == ["c", "a", "b"]


# who may win


def test_a_winner_was_asked_ten_rows_and_is_surely_affordable() -> None:
    """Otherwise one with one row, otherwise one that is probably affordable; None if there is no candidate."""
    race = Race(rows=20)
    race.add("unsure of its cost", 0.95, cost=0.9, error=0.15)
    race.add("nine rows", 0.9)
    race.add("ten rows", 0.8)
    race.add("never asked", 0.99)
    race.add("too dear", 0.99, cost=1.1, error=0.01)
    for name, rows in (("unsure of its cost", 20), ("nine rows", 9), ("ten rows", 10), ("too dear", 20)):
        race.ask(name, {place: {1: 0.5} for place in range(rows)})
    for name in ("ten rows", "nine rows", "unsure of its cost"):
        assert names(ranked(race)) == [(name, 1)]
        race.all = [one for one in race.all if one.trial.arm != name]
    assert ranked(race) == []


def test_where_there_are_fewer_than_ten_rows_all_of_them_are_enough() -> None:
    race = Race(rows=4)
    race.add("all rows", 0.5)
    race.add("three rows", 0.9)
    race.ask("all rows", {place: {1: 0.5} for place in range(4)})
    race.ask("three rows", {place: {1: 0.9} for place in range(3)})
    assert names(ranked(race)) == [("all rows", 1)]


# fewer answers, where they do as well


def votes(race: Race, one: float, nine: float, *, worse_at: int | None = None) -> None:
    """One arm with 1 and 9 answers, both seen on 20 rows; at one row a single answer does worse."""
    race.add("arm", 0.8, n=9, cost=0.9)
    race.add("arm", 0.7, n=1, cost=0.1)
    race.ask("arm", {place: {1: one - race.sign * (place == worse_at), 9: nine} for place in range(race.rows)})


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_answer_wins_where_it_did_no_worse_on_any_row(sign: float) -> None:
    """Whatever is believed of it: all answers say the same."""
    race = Race(sign=sign)
    votes(race, one=1.0, nine=1.0)
    race.beliefs = {one: 0.8 if (one.n == 9) == (sign > 0) else 0.7 for one in race.all}
    assert names(ranked(race)) == [("arm", 1), ("arm", 9)]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("row", [0, 7, 19])
def test_one_answer_that_did_worse_on_a_row_does_not_go_first(sign: float, row: int) -> None:
    race = Race(sign=sign)
    votes(race, one=1.0, nine=1.0, worse_at=row)
    race.beliefs = {one: 0.8 if (one.n == 9) == (sign > 0) else 0.7 for one in race.all}
    assert names(ranked(race)) == [("arm", 9), ("arm", 1)]
    assert names(ranked(race, without=frozenset([row])))[0] == ("arm", 1)


def test_the_fewest_of_several_that_did_as_well_goes_first() -> None:
    race = Race()
    for n, mean in ((9, 0.9), (5, 0.6), (3, 0.5), (1, 0.4)):
        race.add("arm", mean, n=n)
    race.ask("arm", {place: {1: 0.0, 3: 1.0, 5: 1.0, 9: 1.0} for place in range(20)})
    assert names(ranked(race)) == [("arm", 3), ("arm", 9), ("arm", 5), ("arm", 1)]


def test_fewer_answers_of_another_arm_or_another_limit_do_not_go_first() -> None:
    """They say other things."""
    race = Race()
    race.add("arm", 0.9, n=9)
    race.add("other", 0.5, n=1)
    race.add("arm", 0.5, n=1, limit=8)
    for name in ("arm", "other"):
        race.ask(name, {place: {1: 1.0, 9: 1.0} for place in range(20)})
    assert names(ranked(race))[0] == ("arm", 9)


@pytest.mark.parametrize(("seen", "first"), [(9, 9), (10, 1), (11, 1)])
def test_ten_rows_show_that_fewer_answers_do_as_well(seen: int, first: int) -> None:
    """Rows that both were seen on; of those left out none counts, and as many fewer are enough."""
    race = Race(rows=20)
    race.add("arm", 0.9, n=9)
    race.add("arm", 0.5, n=1)
    race.ask("arm", {place: {1: 1.0, 9: 1.0} if place < seen else {9: 1.0} for place in range(20)})
    assert names(ranked(race))[0] == ("arm", first)
    small = Race(rows=6)
    small.add("arm", 0.9, n=9)
    small.add("arm", 0.5, n=1)
    small.ask("arm", {place: {1: 1.0, 9: 1.0} if place > 1 else {9: 1.0} for place in range(6)})
    assert names(ranked(small))[0] == ("arm", 9)
    assert names(ranked(small, without=frozenset({0, 1})))[0] == ("arm", 1)


# the cheapest that is as good, where cost is preferred


def priced(race: Race, *, within: float, shared: float = 0.0) -> list[tuple[Any, int]]:
    """Who wins of a dear best and a cheaper one that is believed to be 0.25 worse."""
    race.within, race.shared = within, shared
    for name, mean, cost in (("best", 0.75, 0.9), ("cheaper", 0.5, 0.2), ("cheapest", 0.125, 0.1)):
        race.add(name, mean if race.sign > 0 else 1 - mean, cost=cost)
        race.ask(name, {place: {1: 0.5} for place in range(race.rows)})
    return names(ranked(race))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("shared", [0.0, 0.01, -0.01])
def test_a_cheaper_one_wins_within_the_tolerance_and_half_an_error(sign: float, shared: float) -> None:
    """Of the difference to the best: what both beliefs share says nothing of it."""
    lost = 0.25 + 0.5 * np.sqrt(0.01 + 0.04 - 2 * shared)
    assert priced(Race(sign=sign), within=lost + 1e-9, shared=shared) == [("cheaper", 1), ("best", 1), ("cheapest", 1)]
    assert priced(Race(sign=sign), within=lost - 1e-9, shared=shared) == [("best", 1), ("cheaper", 1), ("cheapest", 1)]


def test_a_difference_that_is_certain_is_compared_with_the_tolerance_itself() -> None:
    """A variance below 0 is one of rounding."""
    for shared in (0.025, 0.03):
        assert priced(Race(), within=0.25, shared=shared)[0] == ("cheaper", 1)
        assert priced(Race(), within=0.2499, shared=shared)[0] == ("best", 1)
    assert priced(Race(), within=0.0)[0] == ("best", 1)
    assert priced(Race(), within=9.0)[0] == ("cheapest", 1)


def test_a_cost_that_is_not_known_is_never_the_cheapest() -> None:
    race = Race(within=9.0)
    for name, mean, cost in (("best", 0.9, 0.5), ("unknown", 0.8, None)):
        race.add(name, mean, cost=cost)
        race.ask(name, {place: {1: 0.5} for place in range(20)})
    assert names(ranked(race)) == [("best", 1), ("unknown", 1)]


# scores that were seen


def test_a_row_counts_with_the_most_answers_that_are_not_too_many() -> None:
    """Of 1, 4 and 9 answers a vote of 5 is scored with 4; a row without a score is left out."""
    race = Race(rows=3)
    five, one = race.add("arm", n=5), race.add("arm", n=1)
    race.ask("arm", {0: {1: 0.1, 4: 0.4, 9: 0.9}, 1: {9: 0.9}, 2: {5: 0.5}})
    assert scores_of(race, five, [0, 1, 2]) == [0.4, 0.5]
    assert scores_of(race, one, [0, 1, 2]) == [0.1]
    assert scores_of(race, five, [2, 0]) == [0.5, 0.4]
    assert observed(race, five) == pytest.approx(0.45)


def test_rows_are_places_in_the_order_in_which_they_are_asked() -> None:
    """The first place is the last row here."""
    race = Race(rows=3)
    arm = race.add("arm")
    race.cells["arm", 2] = Cell(scores={1: 0.25})
    assert scores_of(race, arm, [0]) == [0.25]


def test_under_a_limit_of_length_answers_are_cut() -> None:
    """An answer that cannot be cut tells nothing."""
    race = Race(rows=3)
    limited, whole = race.add("arm", limit=5), race.add("arm")
    for place, length in enumerate((4, 5, None)):
        race.trials["arm"].answers[place] = 1
        race.cells["arm", race.order[place]] = Cell(samples=(length,), scores={1: 0.5})
    assert scores_of(race, limited, [0, 1, 2]) == [0.0, 1.0]
    assert scores_of(race, whole, [0, 1, 2]) == [0.5, 0.5, 0.5]
    race.cells["arm", race.order[0]] = Cell(scores={1: 0.5})  # no answer that could be cut
    assert scores_of(race, limited, [0, 1, 2]) == [1.0]


def test_what_was_never_seen_has_no_mean() -> None:
    race = Race()
    assert observed(race, race.add("arm")) is None


def test_a_mean_that_was_seen_has_the_interval_of_its_kind() -> None:
    """Wilson's where every score is 0 or 1, else the bootstrap's."""
    rate, mean = [1.0, 0.0, 1.0, 1.0], [0.5, 1.0, 0.0, 0.25]
    assert measured([]) is None
    for scores, interval in ((rate, wilson(3, 4)), (mean, bootstrap_mean(mean))):
        found = measured(scores)
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx(
            (statistics.fmean(scores), interval.low, interval.high)
        )


# the claim


def expected_claim(scores: list[float], rows: int, scale: float) -> tuple[float, float, float]:
    """The formula by numpy: Laplace's two rows for rates, what is known from elsewhere for other metrics."""
    rate = all(0 <= score <= 1 for score in scores)
    seen = np.array([*scores, 0, 1] if rate else scores)
    variance = seen.var() if rate else seen.var() + scale / len(scores)
    half = 2.25 * np.sqrt(variance / len(scores) + variance / max(rows, 1))
    low, high = seen.mean() - half, seen.mean() + half
    return float(np.mean(scores)), max(low, 0) if rate else low, min(high, 1) if rate else high


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20) | st.lists(st.floats(-50, 50), min_size=1, max_size=20),
    st.integers(0, 100),
    st.floats(0, 9),
)
@example([0.5, 1.5], 5, 1.0)  # no rate, although it could nearly be one
@example([-0.25, 0.5], 5, 1.0)
def test_the_claim_is_that_of_the_formula(scores: list[float], rows: int, scale: float) -> None:
    found = predicted(scores, rows, scale)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx(expected_claim(scores, rows, scale), abs=1e-9)


@pytest.mark.parametrize(("scores", "rows"), [([1.0] * 20, 40), ([0.0] * 20, 40), ([0.0, 1.0, 1.0], 5)])
def test_a_claim_of_a_rate_stays_between_0_and_1_and_is_never_certain(scores: list[float], rows: int) -> None:
    """That all of twenty rows are right does not make all of the next twenty right."""
    found = predicted(scores, rows, 0.25)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < found.high <= 1
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("rows", [20, 7, 3])
def test_each_fifth_is_scored_by_the_winner_of_the_others(rows: int) -> None:
    """The one that was lucky on a fifth is not chosen for that fifth."""
    race = Race(rows=rows)
    lucky, steady = race.add("lucky"), race.add("steady")
    race.ask("lucky", {place: {1: 0.25} for place in range(rows)})
    race.ask("steady", {place: {1: 0.75} for place in range(rows)})
    race.means = lambda one, without: 0.6 if one is steady else 0.5 if 1 in without else 0.7
    found = cross_fitted(race, guarded=30)
    fold = len([place for place in range(rows) if place % 5 == 1])
    claim = expected_claim([0.75] * fold + [0.25] * (rows - fold), 30, 0.25)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx(claim)
    assert lucky is not steady


def test_a_fifth_that_the_winner_never_saw_is_scored_by_the_next_that_did() -> None:
    """A fold that no candidate saw is scored by none."""
    race = Race(rows=10)
    race.add("best", 0.9)
    race.add("second", 0.5)
    race.ask("best", {place: {1: 1.0} for place in range(10) if place % 5 not in (2, 3)})
    race.ask("second", {place: {1: 0.5} for place in range(10) if place % 5 != 3})
    found = cross_fitted(race, guarded=10)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx(expected_claim([1.0] * 6 + [0.5] * 2, 10, 0.25))


def test_without_any_answer_there_is_no_claim() -> None:
    race = Race()
    race.add("arm")
    assert cross_fitted(race, guarded=10) is None


# the front


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_front_goes_from_the_best_to_the_cheapest(sign: float) -> None:
    """What is worse and no cheaper is left out, and so is what has no row."""
    race, best = Race(sign=sign), 0.9 if sign > 0 else 0.1
    for name, score, cost in (
        ("dear and best", best, 0.9),
        ("worse, no cheaper", 0.6 if sign > 0 else 0.4, 0.95),
        ("cheap", 0.5, 0.1),
        ("as good, dearer", 0.5, 0.2),
        ("cheapest and worst", 1 - best, 0.01),
        ("no row", best, 0.001),
    ):
        race.add(name, score, cost=cost)
        race.ask(name, {} if name == "no row" else {0: {1: score}})
    assert [name for name, _ in names(front(race))] == ["dear and best", "cheap", "cheapest and worst"]


def test_the_front_begins_with_the_winner() -> None:
    """A vote of fewer answers may win beside one that is believed to be better by a hair: that one is dearer."""
    race = Race(budget=2.0)
    for name, score, cost in (("believed better", 0.8, 1.0), ("winner", 0.79, 0.8), ("cheap", 0.5, 0.1)):
        race.add(name, score, cost=cost)
        race.ask(name, {0: {1: score}})
    winner = next(one for one in front(race) if one.usd == 0.8)
    assert [name for name, _ in names(front(race, winner))] == ["winner", "cheap"]


def test_a_vote_that_was_never_scored_is_not_on_the_front() -> None:
    """A grader of all answers together scores one and nine: five has no score of its own to be shown with."""
    race = Race()
    for n, score, cost in ((9, 0.9, 0.9), (5, 0.8, 0.5), (1, 0.6, 0.1)):
        race.add("arm", score, n=n, cost=cost)
    race.ask("arm", {0: {1: 0.5, 9: 1.0}, 1: {1: 0.5}})
    assert names(front(race)) == [("arm", 9), ("arm", 1)]


@pytest.mark.parametrize(("cost", "kept"), [(0.94, True), (0.95 * 1.0, False), (0.96, False), (None, False)])
def test_the_next_of_the_front_saves_more_than_a_twentieth(cost: float | None, kept: bool) -> None:
    """A cost that is not known saves nothing; one that is known saves all of an unknown one."""
    race = Race(budget=2.0)
    race.add("best", 0.9, cost=1.0)
    race.add("next", 0.5, cost=cost)
    for name in ("best", "next"):
        race.ask(name, {0: {1: 0.5}})
    assert [name for name, _ in names(front(race))] == ["best", "next"][: 1 + kept]


def test_of_equal_scores_the_known_cost_is_on_the_front() -> None:
    race = Race(budget=2.0)
    race.add("unknown", 0.5, cost=None)
    race.add("known", 0.5, cost=1.0)
    for name in ("unknown", "known"):
        race.ask(name, {0: {1: 0.5}})
    assert names(front(race)) == [("known", 1)]
    race.beliefs[race.all[0]] = 0.9
    assert names(front(race)) == [("unknown", 1), ("known", 1)]
