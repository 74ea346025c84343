"""Stopping early: bounds that hold at every moment, and verdicts that are those of all rows, by simulation."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from scipy.stats import betabinom

from pytest_llmtune.guard.sequential import EarlyStop, HitBounds
from pytest_llmtune.guard.verdict import Criteria, Limit
from pytest_llmtune.types import Example, ExampleGrade, ExampleResult

ERROR = 0.05


def looked_at(hits: int, rows: int, rng: random.Random) -> bool:
    """Whether bounds over a population were ever wrong."""
    population = [True] * hits + [False] * (rows - hits)
    rng.shuffle(population)
    bounds = HitBounds(rows, ERROR)
    for hit in population:
        bounds.add(hit=hit)
        if not bounds.low <= hits <= bounds.high:
            return True
    assert (bounds.low, bounds.high) == (hits, hits)
    return False


@pytest.mark.parametrize("hits", [0, 1, 6, 30, 60])
def test_bounds_are_ever_wrong_with_the_error_rate_at_most(hits: int) -> None:
    """Over all moments together: 200 populations of 60 rows; 5 % is 10, and 19 is 3 standard deviations more."""
    rng = random.Random(hits)
    assert sum(looked_at(hits, 60, rng) for _ in range(200)) <= 19


def test_bounds_are_those_of_the_definition() -> None:
    """The counts whose prior is less than 1/error times their posterior, found one by one."""
    for seen, every in [(5, 99), (12, 4), (30, 1), (39, 2)]:
        bounds, low, high = HitBounds(40, ERROR), 0, 40
        for place in range(seen):
            bounds.add(hit=(place + 1) % every == 0)
            now = (place + 1) // every
            posterior = betabinom(40 - place - 1, 1 + now, 1 + place + 1 - now)
            possible = [n for n in range(41) if posterior.pmf(n - now) / ERROR > (1 / 41)]
            low, high = max(low, min(possible)), min(high, max(possible))
        assert (bounds.low, bounds.high) == (low, high)


def result(row: str, value: float | None) -> ExampleResult:
    grade = None if value is None else ExampleGrade({"success_vote": value})
    return ExampleResult(Example(row, int(row), {}), "ok" if grade else "unknown", grade)


def stopped(now: list[float], stop: EarlyStop) -> tuple[int, dict[str, bool]]:
    """After how many rows, and what was decided."""
    for place, row in enumerate(stop.order, 1):
        stop.see(result(row, now[int(row)]))
        if stop.over:
            return place, stop.decided
    return len(stop.order), stop.decided


def early(before: list[float], criteria: Criteria, seed: int = 0) -> EarlyStop:
    order = [str(row) for row in range(len(before))]
    random.Random(seed).shuffle(order)
    return EarlyStop(criteria, {str(row): value for row, value in enumerate(before)}, order, ERROR)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (4, 3), (12, 2), (40, 0)])
def test_the_verdict_is_that_of_all_rows(lost: int, gained: int) -> None:
    """Its error rate is at most the one stated; clear cases need a part of the rows."""
    criteria = Criteria(max_drop=0.1, alpha=0.05, limits=(Limit("success_vote", "min", Decimal("0.7")),))
    before = [1.0] * 90 + [0.0] * 10
    wrong = rows = 0
    for seed in range(60):
        now = [0.0] * lost + [1.0] * (90 - lost) + [1.0] * gained + [0.0] * (10 - gained)
        stop = early(before, criteria, seed)
        count, decided = stopped(now, stop)
        rows += count
        full = early(before, criteria, seed)
        for row in full.order:
            full.see(result(row, now[int(row)]))
        assert full.decided.keys() == {"max_drop", "min_success_vote"}
        wrong += any(full.decided[name] != passed for name, passed in decided.items())
    assert wrong <= 8  # 5 % of 60 is 3, and 3 standard deviations more
    assert rows / 60 < {0: 80, 40: 40}.get(lost, 101)


def test_results_count_in_the_order_of_the_rows() -> None:
    """What comes first is often what is right first: a result waits for those before it."""
    stop = early([1.0] * 40, Criteria(alpha=0.05))
    for row in reversed(stop.order[1:]):
        stop.see(result(row, 1.0))
    assert not stop.over
    stop.see(result(stop.order[0], 1.0))
    assert stop.decided == {"max_drop": True}


@pytest.mark.parametrize("value", [0.5, None])
def test_what_is_not_yes_or_no_is_asked_to_the_end(value: float | None) -> None:
    """A fraction, or a row without an answer, and why is said."""
    stop = early([1.0] * 20, Criteria(alpha=0.05))
    stop.see(result(stop.order[0], value))
    assert not stop.over
    assert "all rows were asked" in stop.note
    assert early([0.25] * 20, Criteria()).why_not.startswith("success_vote is not yes or no")


def test_only_gates_on_the_metric_over_all_rows_are_decided() -> None:
    """Not those of a group, of another metric, or from above; without one that can be, all rows are needed."""
    least = Limit("success_vote", "min", Decimal("0.5"))
    others = (
        Limit("success_vote", "min", Decimal("0.9"), group="hard"),
        Limit("success", "min", Decimal("0.9")),
        Limit("success_vote", "max", Decimal(1)),
    )
    stop = early([1.0] * 60, Criteria(limits=(*others, least)))
    assert stopped([1.0] * 60, stop)[1] == {"min_success_vote": True}
    assert stop.ended
    stop = early([1.0] * 60, Criteria(limits=others))
    assert stopped([1.0] * 60, stop) == (60, {})
    assert stop.note == "--llm-stop-early: all rows were needed"


def test_with_other_rows_than_the_baselines_nothing_is_decided() -> None:
    """The bounds are of the baseline's rows; for others they say nothing."""
    stop = EarlyStop(Criteria(alpha=0.05), {"0": 1.0, "1": 1.0}, ["0", "2"], ERROR)
    assert stop.why_not == "rows and baseline are not the same"
    stop.see(result("0", 1.0))
    assert stop.decided == {}
    assert not stop.over
