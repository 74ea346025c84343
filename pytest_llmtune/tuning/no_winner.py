"""What is told of a search that has no winner."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune._util.figures import counted, dollars

if TYPE_CHECKING:
    from pytest_llmtune.tuning.journal import StudyLog
    from pytest_llmtune.tuning.loop import Search

__all__ = ["nothing_yet", "why_none"]


def nothing_yet(search: Search, log: StudyLog) -> str:
    """What is told after Ctrl-C where there is nothing to choose from."""
    paid = search.ledger.spent - search.ledger.uncertain - log.spent_earlier
    kept = f"What was answered, for {dollars(paid)}, is kept: " if paid else ""
    return (
        f"{search.suite.name}: the search was interrupted before any configuration could be chosen, and nothing was "
        f"written. {kept}pytest --llm-tune goes on"
    )


def why_none(search: Search) -> str:
    """Why no configuration can win, and what to change."""
    suite, race = search.suite, search.race
    if not any(entrant.asked for entrant in search.trials):
        own = search.bound == "optimization_budget"
        what = f"what is left of {search.bound}"
        if own and suite.optimization_budget is not None:
            what = f"the optimization budget of {suite.optimization_budget:f} USD"
        arms = (entrant.arm for entrant in race.entrants)
        least = min((race.pool.worst(arm, race.order[0], arm.family.counts[0]) for arm in arms), default=Decimal(0))
        return (
            f"{suite.name}: {what} does not pay for one request at its worst, {least:.6f} USD; raise it: "
            f"{search.bound}=..., or allow shorter answers: max_tokens=..."
        )
    if all(entrant.out == "failed" for entrant in search.trials):
        errors = (cell.error for cell in race.pool.cells.values() if cell.error)
        return f"{suite.name}: no configuration could be completed; the first error: {next(errors, 'none')}"
    costs = [race.costs.estimate(entrant.arm, entrant.arm.family.counts[0]) for entrant in search.trials]
    cheapest = min((cost.mean for cost in costs if cost is not None), default=0.0)
    return (
        f"{suite.name}: none of {counted(len(search.trials), 'configuration')} tried is within the inference budget of "
        f"{suite.inference_budget:f} USD per instance (the cheapest costs about {cheapest:.6f}); raise the budget or "
        "widen the space"
    )
