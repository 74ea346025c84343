"""The pool: every answer that was paid for, by arm and row, serves every ``n`` and every smaller limit of length."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune.completions.billing import worst_case
from pytest_llmtune.errors import BudgetExhaustedError, CompletionError, EndpointError
from pytest_llmtune.tuning.reuse import Lender
from pytest_llmtune.wire.answers import answers_in
from pytest_llmtune.wire.tokens import completion_of, lengths_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_llmtune.guard.evaluation import Asking
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.tuning.arms import Arm
    from pytest_llmtune.tuning.journal import StudyLog
    from pytest_llmtune.tuning.samples import Sample, Scorer
    from pytest_llmtune.types import Completion, CompletionRequest, Example

__all__ = ["Cell", "Pool"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm on one row."""

    samples: tuple[Sample, ...] = ()
    prompt: float = 0.0
    """Tokens of the prompt."""
    extra: float = 0.0
    """USD that grading took for one answer: a judge's calls."""
    scores: Mapping[int, float] = field(default_factory=dict)
    """Number of answers to the metric's mean over draws of so many of the samples."""
    error: str | None = None
    """Why it could not be completed."""


_NOTHING = Cell()


@dataclass(slots=True)
class Pool:
    """Answers by arm and row."""

    rows: Sequence[Example]
    source: Asking
    prices: PriceBook
    scorer: Scorer
    log: StudyLog
    seed: int = 0
    lender: Lender = field(default_factory=Lender)
    cells: dict[tuple[str, int], Cell] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    """The most answers that one request brings, by model, where it was found out."""

    def cell(self, arm: Arm, row: int) -> Cell:
        return self.cells.get((arm.key, row), _NOTHING)

    async def fill(self, arm: Arm, row: int, count: int) -> Decimal:
        """Bring a cell to ``count`` answers; returns USD paid by this study for them and for grading them.

        What does not fit into the budget is left as it was.

        Raises:
            EndpointError: no request of this model can succeed.
        """
        meter = _Meter(self.source, self.prices, self.log)
        try:
            completion = await self._complete(arm, row, count, meter)
            self.cells[arm.key, row] = await self._cell(arm, row, completion, meter)
        except EndpointError:
            raise
        except BudgetExhaustedError:
            return meter.paid
        except CompletionError as error:
            if not self.cell(arm, row).samples:  # else what is there still counts
                self.cells[arm.key, row] = Cell(error=str(error))
        return meter.paid

    def worst(self, arm: Arm, row: int, count: int) -> Decimal:
        """USD that bringing a cell to ``count`` answers may cost at most."""
        missing = count - len(self.cell(arm, row).samples)
        request = arm.config(missing).request(self.rows[row].row)
        return worst_case(self.prices.price(arm.model), request.body, missing)

    async def _complete(self, arm: Arm, row: int, count: int, meter: _Meter) -> Completion:
        """``count`` answers, first those that other limits of length lend."""
        example = self.rows[row].row
        request = arm.config(count).request(example)
        lent = self.lender.lent(arm, example, request)
        missing = count - sum(map(answers_in, lent))
        if not lent or missing == count:
            return await meter.complete(request)
        if missing <= 0:
            return completion_of(lent, count)
        own = await meter.complete(arm.config(missing).request(example))
        return replace(completion_of([*lent, *own.exchanges], count), paid=own.paid)

    async def _cell(self, arm: Arm, row: int, completion: Completion, meter: _Meter) -> Cell:
        self._learn_most(arm, completion)
        first = completion.exchanges[0]
        prompt = completion_of([first], answers_in(first)).usage.prompt_tokens
        lengths = lengths_of(completion.exchanges)[: len(completion.choices)]
        before = meter.cost
        example = self.rows[row].row
        samples = await self.scorer.read(completion.choices, lengths, example, meter.complete)
        draw = random.Random(f"{self.seed}/{arm.key}/{row}")  # noqa: S311  # repeatable, no secret
        scores = await self.scorer.scores(samples, arm.family.counts, example, draw, meter.complete)
        return Cell(samples, prompt, float(meter.cost - before) / len(samples), scores)

    def _learn_most(self, arm: Arm, completion: Completion) -> None:
        """A server that answers one request with several exchanges of less than were asked for has a limit."""
        if completion.paid and len(completion.exchanges) > 1:
            asked = completion.exchanges[-2]
            if answers_in(asked) < int(asked.request.get("n") or 1):
                self.most[arm.model] = answers_in(asked)


@dataclass(slots=True)
class _Meter:
    """Adds up what one cell asks: its own answers and those of a judge."""

    source: Asking
    prices: PriceBook
    log: StudyLog
    cost: Decimal = Decimal(0)
    """USD at the prices in force, whoever paid."""
    paid: Decimal = Decimal(0)
    """USD that this study paid, now or before it was interrupted."""

    async def complete(self, request: CompletionRequest) -> Completion:
        completion = await self.source.complete(request)
        self.cost += self.prices.price(str(request.body["model"])).cost(completion.usage)
        self.paid += self.log.paid(request, completion)
        return completion
