"""The tuner on the arena in one process: many searches in minutes, to compare rules.

    OPENBLAS_NUM_THREADS=1 python benchmarks/simulate.py ARENA_DIR [--tasks A B] [--seeds 40] [--share 0.3333333] [--processes 2]

The arena's own server code answers, called as a function: no HTTP, no cache, no faults; everything else is the package's. *Regret* is the
distance of the winner's true success_vote from that of the best configuration within the inference budget, on the same problems.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
from dataclasses import dataclass, field, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena import TASKS, TUNED, Bank, bank_of

from pytest_llmtune.completions.billing import worst_case
from pytest_llmtune.data.split import Split
from pytest_llmtune.grading.registry import resolve
from pytest_llmtune.money.ledger import Ledger, closing_reservation
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.tuning import tune
from pytest_llmtune.types import Completion, CompletionRequest, Example, Exchange
from pytest_llmtune.wire.response import answers_in
from pytest_llmtune.wire.tokens import completion_of

if TYPE_CHECKING:
    from types import ModuleType


@dataclass
class Simulated:
    """The arena as a source."""

    arena: Any
    prices: PriceBook
    ledger: Ledger
    held: dict[str, list[Exchange]] = field(default_factory=dict)

    async def complete(self, request: CompletionRequest) -> Completion:
        held, paid = self.held.setdefault(request.key, []), self.ledger.spent
        if missing := request.n - sum(map(answers_in, held)):
            price = self.prices.price(str(request.body["model"]))
            reserved = self.ledger.reserve_now(worst_case(price, request.body, missing))
            with closing_reservation(reserved, self.ledger.close) as reservation:
                body = {**request.body, "n": missing}
                _, reply = self.arena.complete(body)
                exchange = Exchange("POST", "", body, reply)
                reservation.settle(price.cost(completion_of([exchange], missing).usage))
            held.append(exchange)
        return replace(completion_of(held, request.n), paid=self.ledger.spent - paid)


@cache
def _server(arena: Path) -> tuple[ModuleType, Any]:
    """The arena's server.py, and its bank."""
    spec = importlib.util.spec_from_file_location("arena_server", arena / "server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.Bank(arena / "bank.jsonl.gz", arena / "exam.jsonl")


@cache
def _bank(arena: Path) -> Bank:
    return bank_of(arena)


@dataclass(frozen=True)
class Found:
    """What one search came to."""

    task: str
    seed: int
    label: str
    true: float
    regret: float
    usd: float
    """Per instance."""
    spent: float
    requests: int
    over: bool
    covered: bool


def search(job: tuple[str, int], arena: Path, share: float) -> Found:
    """One search, judged."""
    name, seed = job
    task, bank = TASKS[name], _bank(arena)
    module, recorded = _server(arena)
    suite = task.suite(bank.problems(seed), seed, share)
    rows = [Example(str(place), place, row) for place, row in enumerate(bank.problems(seed))]
    server = module.Arena(recorded, argparse.Namespace(seed=seed, max_n=128, fail_429=0, fail_5xx=0))
    ledger, prices = Ledger(suite.optimization_budget), PriceBook(suite.prices)
    study = asyncio.run(
        tune(
            suite,
            Split(tuple(rows[:TUNED]), tuple(rows[TUNED:])),
            grader=resolve(suite.grader),
            source=Simulated(server, prices, ledger),
            prices=prices,
            ledger=ledger,
        )
    )
    true, usd = bank.true(study.winner, seed)
    held = study.summary.heldout
    covered = held is not None and held.low is not None and held.high is not None and held.low <= true <= held.high
    regret, over = bank.best(task, seed) - true, usd > task.inference_budget
    label = f"{study.winner.label}, {str(study.winner.template.source).splitlines()[0]}"
    return Found(name, seed, label, true, regret, usd, float(ledger.spent), server.stats["requests"], over, covered)


def main() -> None:
    """A line for each task, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arena", type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=40, help="how many, from 1")
    parser.add_argument("--share", type=float, default=1.0, help="of the task's dollars")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each search")
    options = parser.parse_args()
    bank_of(options.arena)
    jobs = [(name, seed) for name in options.tasks for seed in range(1, options.seeds + 1)]
    with get_context("spawn").Pool(options.processes) as pool:
        found = pool.map(partial(search, arena=options.arena, share=options.share), jobs, chunksize=5)
    if options.verbose:
        for one in found:
            flag = "over" if one.over else ""
            print(
                f"{one.task} {one.seed}: {one.true:.3f} ({one.regret:.3f} below the best), ${one.usd:.5f} {flag} {one.label}"
            )
    for name in [*options.tasks, "together"]:
        mine = [one for one in found if name in (one.task, "together")]
        true = [one.true for one in mine]
        print(
            f"{name:8} {len(mine):4} searches: true, median {statistics.median(true):.3f}, mean {statistics.fmean(true):.3f}; "
            f"regret, mean {statistics.fmean(one.regret for one in mine):.4f}; "
            f"over the inference budget {sum(one.over for one in mine)}; "
            f"covered {sum(one.covered for one in mine) / len(mine):.0%}; "
            f"spent at most ${max(one.spent for one in mine):.3f}; "
            f"requests {statistics.median(one.requests for one in mine):.0f}"
        )


if __name__ == "__main__":
    main()
