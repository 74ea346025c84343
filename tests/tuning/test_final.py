"""The winner on the test rows: one that exceeds the inference budget there yields to the best runner-up that does not."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune import Suite
from pytest_llmtune.errors import BudgetExhaustedError
from pytest_llmtune.guard.lockfile import StudySummary
from pytest_llmtune.recording import Gathered
from pytest_llmtune.tuning.final import MOST_JUDGED, Judged, affordable
from pytest_llmtune.tuning.study import Contender, Study

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.suite import Config

SUITE = Suite(
    name="sums",
    dataset=[{"q": "1?", "answer": "1"}],
    prompt=["{q}", "Please: {q}"],
    model=[f"m{number}" for number in range(10)],
    grader="numeric",
)


def config(model: str, prompt: int = 0) -> Config:
    return SUITE.space.config({"model": model}, SUITE.space.templates[prompt])


def study_of(winner: tuple[str, float], *others: tuple[str, float | None, int]) -> Study:
    """A winner with its estimated cost, and runners-up: model, estimated cost, index of the prompt."""
    summary = StudySummary((), Decimal(0), "converged", None, Decimal(1), 9, 0, 1)
    contenders = (Contender(config(m, prompt), number, (0.5,), c) for number, (m, c, prompt) in enumerate(others, 2))
    return Study(config(winner[0]), summary, winner[1], tuple(contenders))


def chosen(
    study: Study, costs: Mapping[str, float], budget: Decimal | None = Decimal(1)
) -> tuple[Study, Any, list[str]]:
    """The study that is locked, the cost of its evaluation, and the models that were judged; one without a cost cannot be paid."""
    judged: list[str] = []

    async def judge(each: Config) -> Judged:
        judged.append(each.model)
        if each.model not in costs:
            raise BudgetExhaustedError("--llm-max-spend is used up")
        evaluation: Any = SimpleNamespace(inference_cost=Decimal(str(costs[each.model])))
        return Judged(evaluation, Gathered())

    found, last = asyncio.run(affordable(study, budget, judge))
    return found, last.evaluation.inference_cost, judged


@pytest.mark.parametrize(("cost", "budget"), [(1, Decimal(1)), (99, None)])
def test_a_winner_within_the_budget_stays(cost: float, budget: Decimal | None) -> None:
    """Exactly at the budget, or without one: nothing else is judged."""
    study = study_of(("m0", 0.9), ("m1", 0.1, 0))
    found, usd, judged = chosen(study, {"m0": cost}, budget)
    assert (found, usd, judged) == (study, cost, ["m0"])


def test_the_next_that_is_within_the_budget_wins_and_it_is_noted() -> None:
    found, usd, judged = chosen(
        study_of(("m0", 0.9), ("m1", 0.8, 0), ("m2", 0.1, 0)), {"m0": 1.2, "m1": 1.1, "m2": 0.4}
    )
    assert (found.winner.model, found.summary.winner, found.cost, usd) == ("m2", 3, 0.1, Decimal("0.4"))
    assert judged == ["m0", "m1", "m2"]
    assert [note.split(":")[0] for note in found.notes] == [
        "trial 1 costs $1200.00 per 1,000 instances on the test rows",
        "trial 2 costs $1100.00 per 1,000 instances on the test rows",
    ]


def test_what_was_measured_corrects_the_estimates_of_the_same_model_and_prompt() -> None:
    """Twice as expensive as estimated: so is the next of the same kind, which is not judged; another prompt's estimate holds."""
    study = study_of(("m0", 0.9), ("m0", 0.6, 0), ("m0", 0.6, 1), ("m1", 1.01, 0))
    found, usd, judged = chosen(study, {"m0": 1.8})
    assert judged == ["m0", "m0"]
    assert (found, usd) == (study, Decimal("1.8"))


def test_one_of_unknown_cost_is_judged() -> None:
    found, _, judged = chosen(study_of(("m0", 0.9), ("m1", None, 0)), {"m0": 2, "m1": 0.5})
    assert (found.winner.model, judged) == ("m1", ["m0", "m1"])


def test_at_most_five_are_judged_and_the_winner_stays() -> None:
    """The guard then says that it is over the budget."""
    study = study_of(("m0", 0.9), *((f"m{number}", 0.5, 0) for number in range(1, 9)))
    found, usd, judged = chosen(study, {f"m{number}": 2 + number for number in range(9)})
    assert (found, usd, len(judged)) == (study, 2, MOST_JUDGED)


def test_the_winner_stays_where_the_run_cannot_pay_for_judging_another() -> None:
    study = study_of(("m0", 0.9), ("m1", 0.5, 0), ("m2", 0.5, 0))
    assert chosen(study, {"m0": 2, "m2": 0.5}) == (study, 2, ["m0", "m1"])
