"""The search's parts: stages, cost bounds, regions, proposals and the choice of the winner."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_llmtune.tuning.budget import Regions, cost_bounds, stages
from pytest_llmtune.tuning.trial import Trial

from pytest_llmtune.model import Example, ExampleGrade, ExampleResult
from pytest_llmtune.suite import Config, Suite, Template, choice, lograndint, randint, uniform
from pytest_llmtune.tuning.blendsearch import BlendSearch
from pytest_llmtune.tuning.choosing import affordable, choose, leaders

TEMPLATE = Template.prompt("{q}")


def config(model: str = "m", **params: Any) -> Config:
    return Config({"model": model, "n": 1, "max_tokens": 100, **params}, TEMPLATE)


def trial(number: int, scores: list[float], cost: str = "0.001", **params: Any) -> Trial:
    results = tuple(
        ExampleResult(
            Example(str(index), index, {"q": "?"}),
            "ok",
            ExampleGrade({"success_vote": score}),
            cost=Decimal(cost),
        )
        for index, score in enumerate(scores)
    )
    return Trial(number, config(**params), results)


@given(st.integers(1, 500))
def test_stages_grow_to_all_rows(rows: int) -> None:
    """Each stage is larger than the one before, and the last is everything."""
    sizes = stages(rows)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == rows


@given(st.lists(st.decimals("0.0001", "1", places=4), min_size=1, max_size=40), st.integers(0, 100))
def test_cost_bounds_hold_the_mean_and_close_at_the_end(costs: list[Decimal], more: int) -> None:
    """The mean lies between the bounds, which meet when every row was seen."""
    low, high = cost_bounds(costs, len(costs) + more)
    mean = float(sum(costs)) / len(costs)
    assert low <= mean + 1e-9
    assert mean <= high + 1e-9
    if more == 0:
        assert low == high == pytest.approx(mean)


def test_a_larger_neighbour_of_what_is_too_dear_is_too_dear() -> None:
    """Pruning reaches as many or more answers of that length or longer, of that model, prompt and stop alone."""
    regions = Regions()
    regions.mark_invalid(config(n=4, max_tokens=100))
    assert regions.is_invalid(config(n=4, max_tokens=100))
    assert regions.is_invalid(config(n=9, max_tokens=200))
    assert not regions.is_invalid(config(n=3, max_tokens=200))
    assert not regions.is_invalid(config(n=9, max_tokens=50))
    assert not regions.is_invalid(config("other", n=9, max_tokens=200))
    assert not regions.is_invalid(config(n=9, max_tokens=200, stop=["x"]))


@pytest.mark.filterwarnings("ignore")
def test_proposals_lie_in_the_space_and_repeat_with_the_seed() -> None:
    """BlendSearch draws only what the suite allows; the same seed draws the same."""
    suite = Suite(
        name="s",
        dataset=[{"q": "1", "answer": "1"}],
        prompt=["{q}", "{q}!"],
        model=["a", "b"],
        temperature=uniform(0, 1),
        n=randint(1, 9),
        max_tokens=lograndint(50, 1000),
        stop=choice(["x", ["y", "z"]]),
        grader="exact",
        prices={"a": {"input": 1, "output": 1}, "b": {"input": 1, "output": 1}},
    )

    def drawn() -> list[str]:
        search = BlendSearch(suite.space, "max", seed=3)
        found = []
        for _ in range(12):
            suggested = search.suggest()
            assert suggested is not None
            assert suite.space.why_not(suggested[1]) is None
            search.tell(suggested[0], 0.5, 0.01)
            found.append(suggested[1].key)
        return found

    assert drawn() == drawn()


def test_a_trial_over_the_inference_budget_never_leads() -> None:
    """However good its score, in both modes."""
    good, dear = trial(1, [1.0, 0.0] * 10), trial(2, [1.0] * 20, cost="0.009", temperature=0.9)
    assert not affordable(dear, Decimal("0.005"))
    assert leaders([good, dear], "success_vote", "max", Decimal("0.005"), 5) == [good]
    worst = trial(3, [0.0] * 20, cost="0.009")
    assert leaders([good, worst], "success_vote", "min", Decimal("0.005"), 5) == [good]


def test_the_cheapest_of_equals_wins_and_success_is_not_given_away() -> None:
    """Equal scores: the cheaper one; a clear lead: the dearer one."""
    cheap = trial(1, [1.0] * 16 + [0.0] * 4, cost="0.001")
    dear = trial(2, [1.0] * 16 + [0.0] * 4, cost="0.003", n=2)
    assert choose([dear, cheap], [dear, cheap], "success_vote", "max") is cheap
    better = trial(3, [1.0] * 20, cost="0.003", n=2, model="other")
    assert choose([cheap, better], [cheap, better], "success_vote", "max") is better


def test_mode_min_takes_the_lowest() -> None:
    """For a metric to be minimised the lowest score leads."""
    low, high = trial(1, [0.0] * 18 + [1.0] * 2), trial(2, [1.0] * 20, model="other")
    assert leaders([high, low], "success_vote", "min", None, 1) == [low]
