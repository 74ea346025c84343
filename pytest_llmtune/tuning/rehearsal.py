"""What a search may cost at most, and what of it the cache holds: the search itself, but nothing is asked."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune.completions.ledger import Ledger
from pytest_llmtune.completions.usage import answers_in, completion_of
from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError
from pytest_llmtune.evaluation import requests_of
from pytest_llmtune.tuning.arms import LENGTHS
from pytest_llmtune.tuning.study import tune

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.completions.cache import Cache
    from pytest_llmtune.completions.pricing import PriceBook
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.model import Completion, CompletionRequest, Example
    from pytest_llmtune.suite import Config, Split, Suite

__all__ = ["dry_run"]


async def dry_run(suite: Suite, split: Split, *, prices: PriceBook, cache: Cache | None, grader: Grader) -> str:
    """What a search may cost at most, in USD, and how far the cache reaches, in two lines.

    Args:
        cache: None: there is none yet.
    """
    dearest = max(_dearest(suite, model, split.tune, prices) for model in suite.space.models)
    trials = suite.num_samples if suite.num_samples > 0 else None
    bounds = [bound for bound in (suite.optimization_budget, trials and trials * len(split.tune) * dearest) if bound]
    return (
        f"{suite.name}: {'any number of' if trials is None else f'at most {trials}'} trials on {len(split.tune)} rows "
        f"cost at most {min(bounds):.6f} USD; then the winner on {len(split.test)} rows costs at most "
        f"{len(split.test) * dearest:.6f} USD (grader: {grader.name}).\n"
        f"{suite.name}: {await _cached(suite, split, prices, cache, grader)}"
    )


async def _cached(suite: Suite, split: Split, prices: PriceBook, cache: Cache | None, grader: Grader) -> str:
    """The search asks what it would ask, until the first answer that is not there."""
    if cache is None:
        return "there is no cache yet: all of it has to be asked."
    source = _Cached(cache)
    winner: Config | None = None
    ledger = Ledger(suite.optimization_budget, parent=source.allowance)
    with suppress(LLMTuneError):  # too few answers for an end
        winner = (await tune(suite, split, grader=grader, source=source, prices=prices, ledger=ledger)).winner
    rows = [] if winner is None else [source.holds(request) for request in requests_of(winner, split.test)]
    cache.close()
    worth = sum((prices.price(str(r.body["model"])).cost(c.usage) for r, c in source.held.values()), Decimal(0))
    held = f"{len(source.held)} requests of the search ({worth:.6f} USD) are cached and cost nothing"
    if source.missed or winner is None:
        return f"the first {held}; what comes after them has to be asked."
    return f"all {held}; it chooses {winner.label}, and {sum(rows)} of {len(rows)} test rows are cached."


@dataclass(slots=True, eq=False)
class _Cached:
    """Answers from the cache alone; after the first one that is not there, the search has no money any more."""

    cache: Cache
    allowance: Ledger = field(default_factory=Ledger)
    held: dict[str, tuple[CompletionRequest, Completion]] = field(default_factory=dict)
    """By key, the most answers that were wanted."""
    missed: bool = False

    async def complete(self, request: CompletionRequest) -> Completion:
        exchanges = self.cache.get(request.key)
        if sum(map(answers_in, exchanges)) < (request.draw + 1) * request.n:
            self.missed, self.allowance.limit = True, Decimal(0)
            raise BudgetExhaustedError("it is not cached")
        found = completion_of(exchanges, request.n, skip=request.draw * request.n)
        self.held[request.key] = request, found
        return found

    def holds(self, request: CompletionRequest) -> bool:
        return sum(map(answers_in, self.cache.get(request.key))) >= (request.draw + 1) * request.n


def _dearest(suite: Suite, model: str, rows: Sequence[Example], prices: PriceBook) -> Decimal:
    """USD of one instance at worst: the longest prompt, the most answers, each of the greatest length."""
    domains = suite.space.for_model(model)
    n = _top(domains.get("n"), 1)
    length = max((_top(domains.get(name), 0) for name in LENGTHS), default=0) or 16_384
    prompt = max(
        (
            sum(len(str(message["content"]).encode()) + 16 for message in template.render(row.row))
            for template in suite.space.templates
            for row in rows
        ),
        default=0,
    )
    return prices.price(model).worst(prompt, n * length)


def _top(domain: object, default: int) -> int:
    if domain is None:
        return default
    options = getattr(domain, "options", None) or (getattr(domain, "value", getattr(domain, "top", default)),)
    return max(int(option) for option in options if option is not None)
