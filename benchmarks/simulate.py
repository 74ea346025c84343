"""The tuner in one process: many searches in minutes, on tasks of several shapes, beside its peers with the same dollars.

    OPENBLAS_NUM_THREADS=1 python benchmarks/simulate.py [--arena ARENA_DIR] [--tasks A B] [--seeds 20] [--share 0.3333333]
        [--peers halving tpe dearest] [--set cascade=True] [--processes 2]
    OPENBLAS_NUM_THREADS=1 python benchmarks/simulate.py --growth      the search's own CPU time, by rows and by prompts

No HTTP, no cache, no faults; everything else is the package's. Without ``--arena`` there are the made tasks alone (worlds.py). *Regret* is the
distance of the winner's true score from that of the best configuration within the inference budget, on the same rows; *spent* is the
part of the optimization budget that was used.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import statistics
import time
from dataclasses import dataclass, field, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from arena import TASKS
from peers import PEERS, Desk
from worlds import Referee, Server, World, growing_tasks, made_tasks

from pytest_llmtune.completions.billing import worst_case
from pytest_llmtune.data.split import Split
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.grading.registry import resolve
from pytest_llmtune.money.ledger import Ledger, closing_reservation
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.tuning import tune
from pytest_llmtune.types import Completion, CompletionRequest, Example, Exchange
from pytest_llmtune.wire.response import answers_in
from pytest_llmtune.wire.tokens import completion_of


@dataclass
class Simulated:
    """A world as a source."""

    server: Server
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
                exchange = Exchange("POST", "", body, self.server.complete(body))
                reservation.settle(price.cost(completion_of([exchange], missing).usage))
            held.append(exchange)
        return replace(completion_of(held, request.n), paid=self.ledger.spent - paid)


@cache
def _tasks() -> dict[str, Any]:
    return {**TASKS, **made_tasks(), **growing_tasks()}


@cache
def _world(name: str, arena: Path | None) -> World:
    world = _tasks()[name].world
    return _arena(arena) if callable(world) else world  # type: ignore[no-any-return]


@cache
def _arena(arena: Path) -> World:
    from arena import arena_world

    return arena_world(arena)


@cache
def _best(name: str, seed: int, arena: Path | None) -> float:
    heats = tuple(tenth / 10 for tenth in range(11)) if callable(_tasks()[name].world) else (0.0, 0.5, 1.0)
    return Referee(_tasks()[name], _world(name, arena), seed).best(heats)


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
    """Part of the optimization budget."""
    requests: int
    over: bool
    covered: bool
    seconds: float
    """Of CPU."""


def search(  # noqa: PLR0917  # partial
    job: tuple[str, int], arena: Path | None, share: float, who: str, keys: dict[str, Any], best: bool = False
) -> Found:
    """One search, judged."""
    name, seed = job
    most = _best(name, seed, arena) if best else float("nan")
    task, world = _tasks()[name], _world(name, arena)
    order = task.order(world, seed)
    problems = world.problems(order)
    suite = task.suite(problems, seed, share, **keys)
    rows = [Example(str(place), place, row) for place, row in enumerate(problems)]
    server, prices, grader = Server(world, seed), PriceBook(suite.prices), resolve(suite.grader)
    referee, covered, begun = Referee(task, world, seed), True, time.process_time()
    ledger = Ledger(suite.optimization_budget)
    if who == "tuner":
        try:
            study = asyncio.run(
                tune(
                    suite,
                    Split(tuple(rows[: task.tuned]), tuple(rows[task.tuned :])),
                    grader=grader,
                    source=Simulated(server, prices, ledger),
                    prices=prices,
                    ledger=ledger,
                )
            )
        except LLMTuneError as error:
            return Found(
                name,
                seed,
                str(error)[:100],
                0.0,
                most,
                0.0,
                0.0,
                server.requests,
                False,
                False,
                0.0,
            )
        winner, spent, held = study.winner, float(ledger.spent), study.summary.heldout
        label = f"{study.summary.stopped_by}; {winner.label}"
    else:
        budget = float(suite.optimization_budget or 0)

        def complete(request: CompletionRequest) -> tuple[list[str], float]:
            body = {**request.body, "n": request.n}
            completion = completion_of([Exchange("POST", "", body, server.complete(body))], request.n)
            return list(completion.texts), float(prices.price(str(body["model"])).cost(completion.usage))

        desk = Desk(suite, problems[: task.tuned], grader, complete, budget)
        winner, held = PEERS[who](desk, seed), None
        spent = budget - desk.left
        label = winner.label if winner else "nothing"
    seconds = time.process_time() - begun
    true, usd = (0.0, 0.0) if winner is None else referee.true(winner)
    if held is not None:
        covered = held.low is not None and held.high is not None and held.low <= true <= held.high
    regret, over = most - true, usd > task.inference_budget
    if winner is not None:
        label += f" {str(winner.template.source).splitlines()[0]}"
    part = spent / float(suite.optimization_budget or 1)
    return Found(name, seed, label, true, regret, usd, part, server.requests, over, covered, seconds)


def main() -> None:
    """A line for each task and searcher, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arena", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS, *made_tasks()])
    parser.add_argument("--seeds", type=int, default=20, help="how many, from 1")
    parser.add_argument("--share", type=float, default=1.0, help="of the task's dollars")
    parser.add_argument("--peers", nargs="*", default=[], choices=list(PEERS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further keys of the suites")
    parser.add_argument(
        "--regret", action="store_true", help="also the distance from the best of the grid: takes minutes"
    )
    parser.add_argument("--growth", action="store_true", help="a table of CPU time by size, and nothing else")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each search")
    options = parser.parse_args()
    if options.growth:
        growth()
        return
    if recorded := [name for name in options.tasks or () if name in TASKS and not options.arena]:
        parser.error(f"needs --arena: {', '.join(recorded)}")
    keys = {name: ast.literal_eval(value) for name, _, value in (item.partition("=") for item in options.set)}
    names = options.tasks or [*(TASKS if options.arena else ()), *made_tasks()]
    jobs = [(name, seed) for name in names for seed in range(1, options.seeds + 1)]
    together: dict[str, list[Found]] = {}
    with get_context("spawn").Pool(options.processes) as pool:
        for name in names:
            for who in ["tuner", *options.peers]:
                mine = [job for job in jobs if job[0] == name]
                one = partial(
                    search,
                    arena=options.arena,
                    share=options.share,
                    who=who,
                    keys=keys if who == "tuner" else {},
                    best=options.regret,
                )
                found = pool.map(one, mine, chunksize=1)
                together.setdefault(who, []).extend(found)
                if options.verbose:
                    for each in found:
                        flag = "OVER " if each.over else ""
                        print(
                            f"  {each.seed}: {each.true:.3f} ({each.regret:.3f} below) ${each.usd:.5f} {flag}{each.spent:.0%} {each.label}"
                        )
                _print(name, who, found)
    if len(names) > 1:
        for who, found in together.items():
            _print("together", who, found)


def growth() -> None:
    """A line for each size: requests and CPU seconds of the search, of two seeds together, and how they compare with the first."""
    print("| search | requests | s of CPU | ratio of requests | ratio of CPU |")
    print("| --- | --- | --- | --- | --- |")
    first: tuple[int, float] | None = None
    for name in growing_tasks():
        found = [search((name, seed), None, 1.0, "tuner", {}) for seed in (1, 2)]
        requests, seconds = sum(one.requests for one in found), sum(one.seconds for one in found)
        first = first or (requests, seconds)
        more, longer = requests / first[0], seconds / first[1]
        print(f"| {name} | {requests:,} | {seconds:.2f} | {more:.1f} | {longer:.1f} |", flush=True)


def _print(name: str, who: str, found: list[Found]) -> None:
    print(
        f"{name:9} {who:8} {len(found):3}: true {statistics.fmean(one.true for one in found):.3f}, "
        f"regret {statistics.fmean(one.regret for one in found):.3f}, over budget {sum(one.over for one in found)}, "
        f"covered {sum(one.covered for one in found)}, spent {statistics.fmean(one.spent for one in found):.0%} "
        f"(at most {max(one.spent for one in found):.0%}), requests {statistics.median(one.requests for one in found):.0f}, "
        f"CPU {statistics.fmean(one.seconds for one in found):.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
