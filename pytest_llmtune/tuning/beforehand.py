"""What can be known to go wrong in a search, found before anything is paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmtune.grading import check_metric, judges_of

if TYPE_CHECKING:
    from pytest_llmtune.data.split import Split
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.suite import Suite

__all__ = ["check_payable"]


def check_payable(suite: Suite, split: Split, grader: Grader, prices: PriceBook) -> None:
    """Every model that will be asked has a price, judges and baselines included, and the grader gives the tuned metric.

    Raises:
        SuiteError: one of these is missing.
    """
    baselines = (baseline.model for baseline in suite.baselines)
    prices.check([*suite.space.models, *baselines, *judges_of(grader)])
    check_metric(grader, split.tune or split.test, suite.metric, where=suite.where_declared)
