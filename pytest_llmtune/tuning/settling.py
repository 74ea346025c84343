"""Whether the winner is within the inference budget: asked of the rows that it is going to be judged on.

Costs of the tuning rows say too little where it is about as dear as is allowed. So a part of the optimization budget is
kept for some answers to the test rows; of these the lengths alone are looked at. A recording asks for them anyway.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune.tuning.selection import SAFE, ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.suite import Suite
    from pytest_llmtune.tuning.allocation import Candidate, Entrant, Race
    from pytest_llmtune.tuning.loop import Search

__all__ = ["kept", "settle"]


_Cell = tuple["Entrant", int, int]
"""Of the pool: entrant, row and how many answers there shall be."""

_CLEAR = 3.0
"""Standard errors of its cost below the inference budget that leave no doubt."""
_KEPT = Decimal("0.1")
"""Part of the optimization budget that the race leaves for it."""

_BILLED_TWICE = 1 / 3
"""Part of a row's cost that the prompt may be, for one answer alone to be asked now and the others by the guard."""
_TWO = 2
"""Answers that are asked together all the same: one and one look like a server's limit, and the prompt would count twice."""
_WORTH = 128
"""As the search's own, yet more patient: whether a winner is within its budget matters more than a few more rows."""


def kept(suite: Suite, race: Race) -> Decimal:
    """USD of the optimization budget that the race does not get."""
    doubt = suite.inference_budget is not None and race.costs.guard
    return _KEPT * suite.optimization_budget if doubt and suite.optimization_budget else Decimal(0)


async def settle(search: Search) -> None:
    """Ask test rows until the likely winner is surely within the inference budget, or surely not, or money ends."""
    search.kept = Decimal(0)
    while wanted := _wanted(search)[: search.concurrency]:
        cells = _affordable(search, wanted)
        if len(cells) < min(search.worthwhile(_WORTH), len(wanted)):
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


def _doubtful(race: Race, errors: float) -> Candidate | None:
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
