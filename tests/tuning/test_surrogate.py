"""What the surrogate learns: that dearer is not better here, that prompts differ, that scores are hardly noisy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pytest_llmtune.tuning.surrogate import Kernel, Points, Scored, Surrogate, learned


def scored(means: np.ndarray, costs: np.ndarray, rows: int = 20) -> Scored:
    """One model a point, each on one block of its own rows."""
    size = len(means)
    points = Points(
        np.array([[model, size + 1] for model in range(size)]),
        np.zeros((size, 0)),
        np.zeros(size),
        np.arange(size),
        costs,
    )
    return Scored(points, np.zeros(size, dtype=np.int64), np.full(size, float(rows)), np.ones(size), means)


def test_a_price_prior_that_the_data_contradict_is_given_up() -> None:
    """Each doubling of the price makes a model worse: the cheapest is expected to be the best all the same."""
    costs = np.linspace(-4, 4, 9)
    seen = scored(0.5 - 0.06 * costs, costs)
    kernel = learned(seen, 0.25)
    assert kernel.slope_spread > Kernel().slope_spread
    means = Surrogate.of(seen, 0.25, kernel).means(seen.points)
    assert means.argmax() == 0
    wanted = Points(np.array([[100, 10]]), np.zeros((1, 0)), np.zeros(1), np.array([100]), np.array([-5.0]))
    cheaper = Surrogate.of(seen, 0.25, kernel).means(wanted)[0]
    assert cheaper > means.max()
    assert cheaper > Surrogate.of(seen, 0.25, Kernel()).means(wanted)[0] + 0.1


def test_what_is_usual_stays_where_nothing_speaks_against_it() -> None:
    """Scores as the usual kernel expects them: a few more points change nothing."""
    rng = np.random.default_rng(0)
    costs = np.linspace(-2, 2, 9)
    seen = scored(0.5 + 0.1 * costs + rng.normal(0, 0.05, 9), costs)
    assert learned(seen, 0.25) == Kernel()


@pytest.mark.parametrize("spread", [0.02, 0.2])
def test_the_strength_of_models_is_learnt(spread: float) -> None:
    """Forty models that differ much, or hardly, at one price."""
    rng = np.random.default_rng(1)
    seen = scored(0.5 + rng.normal(0, spread, 40), np.zeros(40), rows=200)
    assert (learned(seen, 0.25).model > Kernel().model) == (spread == 0.2)


def test_flaml_says_nothing_on_standard_error() -> None:
    """It tells its own Optuna of a trial twice, and would complain of that outside pytest."""
    program = """
import warnings
from pytest_llmtune import Suite, uniform
from pytest_llmtune.tuning.proposals import BlendSearch, arm_space
suite = Suite(name="s", dataset=[{"q": "1", "answer": "1"}], prompt="{q}", model=["a", "b"], temperature=uniform(0, 1),
              grader="exact", prices={m: {"input": 1, "output": 1} for m in "ab"})
search = BlendSearch(arm_space(suite.space), "max")
trial, _ = search.suggest()
search.report(trial, 0.5, 0.1)
optuna = search._search._gs
optuna.on_trial_complete(trial, {"score": 0.5}) if trial in getattr(optuna, "_ot_trials", {}) else None
from flaml.tune.searcher.suggestion import logger
logger.warning("Received additional completion for trial x")
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert run.stderr == ""
