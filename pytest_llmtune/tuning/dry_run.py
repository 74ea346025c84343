"""``--llm-tune-dry-run``: estimate what a search may cost."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.jsonhash import build, safe_json
from pytest_llmtune._util.text import counted, dollars
from pytest_llmtune.completions.billing import worst_case
from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError
from pytest_llmtune.guard.evaluation import cost_of, requests_of
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.suite.domains import n_bounds
from pytest_llmtune.tuning.final import MOST_JUDGED
from pytest_llmtune.tuning.proposals import LENGTHS, options_of
from pytest_llmtune.tuning.reuse import AnswerReuse
from pytest_llmtune.tuning.study import tune
from pytest_llmtune.wire.response import answers_in
from pytest_llmtune.wire.tokens import completion_of, prompt_bound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.completions.cache import Cache
    from pytest_llmtune.data.split import Split
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.suite import Config, Suite
    from pytest_llmtune.tuning.journal import StudyLog
    from pytest_llmtune.types import Completion, CompletionRequest, Example


async def dry_run(
    suite: Suite, split: Split, *, prices: PriceBook, cache: Cache | None, grader: Grader, log: StudyLog
) -> str:
    """Two lines: the maximum cost of a search in USD, and how much of it is cached.

    Args:
        cache: None: there is none yet.
        log: log of the search that would be resumed.
    """
    cached = "nothing is cached yet: every request has to be sent and paid for."
    if cache is not None:
        cached = await _cached(suite, split, prices=prices, cache=cache, grader=grader, log=log)
    return f"{suite.name}: {_bounds(suite, split, prices, grader)}\n{suite.name}: {cached}"


def _bounds(suite: Suite, split: Split, prices: PriceBook, grader: Grader) -> str:
    """Bounds for the search, and for winner and baselines on the test rows."""
    per_instance = max(
        _usd_per_instance(suite, model, [*split.tune, *split.test], prices) for model in suite.space.models
    )
    trials = 1 if suite.space.is_constant else suite.num_samples if suite.num_samples > 0 else None
    doubt = suite.inference_budget is not None and not split.reused  # then test rows are sent to estimate their cost
    rows = len(split.tune) + (len(split.test) if doubt else 0)
    most = None if trials is None else trials * rows * per_instance
    bounds = [bound for bound in (suite.optimization_budget, most) if bound is not None]
    winner = len(split.test) * per_instance
    baselines = (request for each in suite.baselines for request in requests_of(each, split.test))
    costs = sum((_worst(request, prices) for request in baselines), Decimal(0))
    further = f"; {counted(len(suite.baselines), 'baseline')} at most {dollars(costs, 6)}" if suite.baselines else ""
    if suite.inference_budget is not None:
        further += f"; up to {MOST_JUDGED - 1} runners-up as much each, if the winner turns out to be over the inference budget"
    asks = any(one.probe_rows == 0 for one in grader.parts)
    judging = ", whose own requests count only against the budgets" if asks else ""
    first = min(_usd_of_first_request(suite, model, split.tune, prices) for model in suite.space.models)
    prompts = (template.render(row.row) for template in suite.space.templates for row in split.tune)
    shortest = min((_size(message["content"]) for prompt in prompts for message in prompt), default=0)
    # without an answer, at eight bytes per token, a lower bound
    prompt = min(prices.price(model).worst(shortest // 8, 0) for model in suite.space.models)
    shortfall = ""
    if suite.optimization_budget is not None and suite.optimization_budget < first:
        shortfall = (
            f" The optimization budget of {dollars(suite.optimization_budget)} does not pay for one request, which may cost "
            f"{dollars(first)}: raise optimization_budget, or lower max_tokens."
        )
    elif suite.inference_budget is not None and suite.inference_budget < prompt:
        shortfall = (
            f" The inference budget of {dollars(suite.inference_budget)} does not pay for the shortest prompt alone, about "
            f"{dollars(prompt, 2)}: raise inference_budget, shorten the prompt, or add a cheaper model."
        )
    return (
        f"{'any number of' if trials is None else f'at most {trials}'} trials on {len(split.tune)} rows "
        f"cost at most {dollars(min(bounds), 6)}; then the winner on {len(split.test)} rows costs at most "
        f"{dollars(winner, 6)}{further} (grader: {grader.name}{judging}).{shortfall}"
    )


async def _cached(suite: Suite, split: Split, *, prices: PriceBook, cache: Cache, grader: Grader, log: StudyLog) -> str:
    """Simulate the search with cached answers, until the first missing one."""
    source = _Cached(cache)
    winner: Config | None = None
    ledger = Ledger(suite.optimization_budget, parent=source.allowance)
    with suppress(LLMTuneError):  # too few answers to finish
        reuse = AnswerReuse.of(cache, suite.space, writes=False)
        study = await tune(
            suite, split, grader=grader, source=source, prices=prices, ledger=ledger, log=log, reuse=reuse
        )
        winner = study.winner
    rows = [] if winner is None else [source.has(request) for request in requests_of(winner, split.test)]
    cache.close()
    worth = Decimal(0)
    for request, completion in source.held.values():  # each request was billed its prompt
        for one in completion.exchanges:
            worth += cost_of(request, completion_of([one], answers_in(one)), prices)
    held = f"{len(source.held)} requests of the search ({dollars(worth, 6)}) are cached and cost nothing"
    if source.missed or winner is None:
        return f"the first {held}; all others have to be sent and paid for."
    return f"all {held}; it chooses {winner.label}, and {sum(rows)} of {len(rows)} test rows are cached."


@dataclass(slots=True, eq=False)
class _Cached:
    """Answers only from the cache; at the first missing one, the budget is exhausted."""

    cache: Cache
    allowance: Ledger = field(default_factory=Ledger)
    held: dict[str, tuple[CompletionRequest, Completion]] = field(default_factory=dict)
    """By key, the largest request."""
    missed: bool = False

    async def complete(self, request: CompletionRequest) -> Completion:
        exchanges = self.cache.get(request.key)
        if sum(map(answers_in, exchanges)) < (request.sample_index + 1) * request.n:
            self.missed, self.allowance.limit = True, Decimal(0)
            raise BudgetExhaustedError("it is not cached")
        found = completion_of(exchanges, request.n, skip=request.sample_index * request.n)
        self.held[request.key] = request, found
        return found

    def has(self, request: CompletionRequest) -> bool:
        return sum(map(answers_in, self.cache.get(request.key))) >= (request.sample_index + 1) * request.n


def _usd_per_instance(suite: Suite, model: str, rows: Sequence[Example], prices: PriceBook) -> Decimal:
    """Worst-case USD per instance: the longest prompt, the most answers, each of maximum length."""
    domains = suite.space.for_model(model)
    _, n = n_bounds(domains.get("n"))
    body: dict[str, Any] = {"model": model}
    for name, domain in domains.items():
        options = options_of(domain)
        if name in LENGTHS:
            body |= {} if None in options else {name: int(max(options))}
        elif name != "n":
            body[name] = max(options, key=_size)
    shots = [{"role": "user", "content": safe_json(row.row)} for row in sorted(rows, key=lambda row: -_size(row.row))]
    shots = 2 * shots[: max(suite.space.shots)]  # a row's prompt and answer
    prompts = ([*shots, *template.render(row.row)] for template in suite.space.templates for row in rows)
    return _worst(build({**body, "messages": max(prompts, key=_size, default=[])}, n), prices)


def _usd_of_first_request(suite: Suite, model: str, rows: Sequence[Example], prices: PriceBook) -> Decimal:
    """Worst-case USD of the cheapest initial request: one prompt, the fewest answers."""
    domains = suite.space.for_model(model)
    lengths = {name: int(max(options)) for name in LENGTHS if None not in (options := options_of(domains.get(name)))}
    prompts = ([*template.render(row.row)] for template in suite.space.templates for row in rows)
    n, _ = n_bounds(domains.get("n"))
    return _worst(build({"model": model, **lengths, "messages": min(prompts, key=_size, default=[])}, n), prices)


def _worst(request: CompletionRequest, prices: PriceBook) -> Decimal:
    """Worst-case USD of the answers to a request, even if each is requested separately."""
    price, n = prices.price(str(request.body["model"])), request.n
    return worst_case(price, request.body, n) + (n - 1) * price.worst(prompt_bound(request.body), 0)


def _size(value: object) -> int:
    return len(safe_json(value).encode())
