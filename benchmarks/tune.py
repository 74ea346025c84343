"""The tuner on the arena's two tasks, beside the ancestor's figures.

    python benchmarks/tune.py ARENA_DIR [--seeds 1 2 3] [--tasks A B] [--share 1.0] [--latency-ms 0]

ARENA_DIR holds server.py, bank.jsonl.gz and exam.jsonl. *True* is the majority vote over many draws from the bank on the 60 problems
held out of tuning; without the directory the benchmark says so and ends.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from arena import PRICES, TASKS, arena_world
from worlds import Referee, World

from pytest_llmtune import tune
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.settings import Settings


def run(arena: Path, world: World, task: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """One search over real HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(arena / "server.py"), "--port", str(port), "--seed", str(seed)]
    server = subprocess.Popen(
        [
            *command,
            "--latency-ms",
            str(options.latency_ms),
            "--fail-429",
            str(options.fail_429),
            "--fail-5xx",
            str(options.fail_5xx),
        ]
    )
    try:
        with tempfile.TemporaryDirectory() as root:
            order = TASKS[task].order(world, seed)
            suite = TASKS[task].suite(world.problems(order), seed, options.share)
            url = f"http://127.0.0.1:{port}"
            for _ in range(100):
                try:
                    urllib.request.urlopen(f"{url}/stats").read()
                    break
                except OSError:
                    time.sleep(0.1)
            begun = time.monotonic()
            winner, study = tune(suite, settings=Settings(root=Path(root), base_url=f"{url}/v1"))
            wall = time.monotonic() - begun
            stats = json.loads(urllib.request.urlopen(f"{url}/stats").read())
    finally:
        server.terminate()
        server.wait()
    spent = sum(
        (used["prompt_tokens"] * PRICES[model][0] + used["completion_tokens"] * PRICES[model][1]) / 1e6
        for model, used in stats["models"].items()
    )
    true, cost = Referee(TASKS[task], world, seed).true(winner)
    held = study.summary.heldout
    covered = held is not None and held.low is not None and held.high is not None and held.low <= true <= held.high
    print(f"{task} seed {seed}: true {true:.3f}, ${cost:.5f} an instance, {winner.label}", flush=True)
    return {
        "true": true,
        "spent": spent,
        "requests": stats["requests"],
        "wall": wall,
        "over": cost > TASKS[task].inference_budget,
        "covered": covered,
    }


def main() -> None:
    """Print a table, a line for each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arena", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)))
    parser.add_argument("--tasks", nargs="+", default=["A", "B"], choices=["A", "B"])
    parser.add_argument("--share", type=float, default=1.0, help="of the task's dollars")
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--fail-429", type=float, default=0)
    parser.add_argument("--fail-5xx", type=float, default=0)
    options = parser.parse_args()
    world = arena_world(options.arena)
    for task in options.tasks:
        found = []
        for seed in options.seeds:
            try:
                found.append(run(options.arena, world, task, seed, options))
            except LLMTuneError as error:
                print(f"{task} seed {seed}: {error}")
        if not found:
            continue
        print(
            f"task {task}: {len(found)} of {len(options.seeds)} seeds, median true {statistics.median(r['true'] for r in found):.3f} "
            f"(ancestor {TASKS[task].ancestor}), spent at most ${max(r['spent'] for r in found):.3f}, "
            f"requests {statistics.median(r['requests'] for r in found):.0f}, wall {statistics.median(r['wall'] for r in found):.1f} s "
            f"({statistics.median(r['requests'] * options.latency_ms / 1000 / r['wall'] for r in found):.1f} x one by one), "
            f"over budget {sum(r['over'] for r in found)}, covered {sum(r['covered'] for r in found)} of {len(found)}"
        )


if __name__ == "__main__":
    main()
