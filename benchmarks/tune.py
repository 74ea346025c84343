"""The tuner on the arena's two tasks, beside the ancestor's figures.

    python benchmarks/tune.py ARENA_DIR [--seeds 1 2 3] [--tasks A B] [--share 1.0] [--latency-ms 0]

ARENA_DIR holds server.py, bank.jsonl.gz and exam.jsonl. *True* is the majority vote over many draws from the bank on the 60 problems
held out of tuning; without the directory the benchmark says so and ends.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmtune import Suite, lograndint, randint, tune
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.settings import Settings

if TYPE_CHECKING:
    from pytest_llmtune.suite import Config

PRICES = {
    "gpt-35-turbo": (0.5, 1.5),
    "gpt-4": (30, 60),
    "gemini-1.0-pro": (0.5, 1.5),
    "gemini-1.5-pro-preview-0409": (7, 21),
    "cohere-command-r-plus": (3, 15),
    "mistral-large": (8, 24),
    "llama-2-70b-chat": (0.65, 2.75),
    "llama-2-7b-chat": (0.05, 0.25),
}
A_MODELS = [
    "gpt-35-turbo",
    "gpt-4",
    "gemini-1.5-pro-preview-0409",
    "cohere-command-r-plus",
    "mistral-large",
    "llama-2-70b-chat",
]
B_MODELS = ["gpt-35-turbo", "gemini-1.0-pro", "llama-2-70b-chat", "llama-2-7b-chat", "cohere-command-r-plus"]
TASKS = {"A": (A_MODELS, 0.008, 3.0, 0.609), "B": (B_MODELS, 0.004, 1.0, 0.630)}
STYLES = ("baseline", "chain_of_thought", "composite")


class Bank:
    """The recorded answers, as the referee sees them."""

    def __init__(self, arena: Path) -> None:
        self.rows: dict[tuple[str, str, int], dict[float, dict]] = defaultdict(dict)
        with gzip.open(arena / "bank.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                self.rows[row["model"], row["style"], row["id"]][row["temperature"]] = row

    def true(self, config: Config, exam: list[dict], draws: int = 200) -> tuple[float, float]:
        """True success_vote and USD per instance on these problems."""
        style = str(config.template.source).split("[style:")[1].split("]")[0]
        heat = config.params.get("temperature", config.params.get("top_p", 1.0))
        limit, rng, right, cost = config.params.get("max_tokens", 10**9), random.Random(0), 0, 0.0
        price = PRICES[config.model]
        for problem in exam:
            key = (config.model, style, problem["id"])
            by_heat = self.rows[key if key in self.rows else (config.model, "chain_of_thought", problem["id"])]
            row = by_heat[min(by_heat, key=lambda known: abs(known - heat))]
            for _ in range(draws):
                picked = rng.sample(row["samples"], config.n)
                votes = Counter(letter for letter, tokens in picked if letter and tokens <= limit)
                right += bool(votes) and max(votes, key=lambda letter: votes[letter]) == problem["answer"]
                out = sum(min(tokens, limit) for _, tokens in picked)
                cost += (row["prompt_tokens"] * price[0] + out * price[1]) / 1e6
        return right / draws / len(exam), cost / draws / len(exam)


def run(arena: Path, bank: Bank, task: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """One search over real HTTP."""
    models, inference, total, _ = TASKS[task]
    exam = [json.loads(line) for line in (arena / "exam.jsonl").read_text(encoding="utf-8").splitlines()]
    ids = list(range(1, 101))
    random.Random(seed).shuffle(ids)
    by_id = {row["id"]: row for row in exam}
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
            suite = Suite(
                name="arena",
                dataset=[by_id[number] for number in ids],
                prompt=[f"[style:{style}]\n{{question}}" for style in STYLES],
                model=models,
                max_tokens=lograndint(50, 1000),
                n=randint(1, 11),
                grader={"regex": {"pattern": r"Answer: \[([A-E])\]"}},
                shuffle=False,
                tune_size=40,
                duplicates="allow",
                seed=seed,
                inference_budget=inference,
                optimization_budget=total * options.share,
                num_samples=-1,
                prices={model: {"input": PRICES[model][0], "output": PRICES[model][1]} for model in models},
            )
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
    true, cost = bank.true(winner, [by_id[number] for number in ids[40:]])
    held = study.summary.heldout
    covered = held is not None and held.low is not None and held.high is not None and held.low <= true <= held.high
    print(f"{task} seed {seed}: true {true:.3f}, ${cost:.5f} an instance, {winner.label}", flush=True)
    return {
        "true": true,
        "spent": spent,
        "requests": stats["requests"],
        "wall": wall,
        "over": cost > inference,
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
    if not (options.arena / "server.py").exists():
        sys.exit(f"skipped: {options.arena} holds no arena (server.py, bank.jsonl.gz, exam.jsonl)")
    bank = Bank(options.arena)
    for task in options.tasks:
        found = []
        for seed in options.seeds:
            try:
                found.append(run(options.arena, bank, task, seed, options))
            except LLMTuneError as error:
                print(f"{task} seed {seed}: {error}")
        if not found:
            continue
        print(
            f"task {task}: {len(found)} of {len(options.seeds)} seeds, median true {statistics.median(r['true'] for r in found):.3f} "
            f"(ancestor {TASKS[task][3]}), spent at most ${max(r['spent'] for r in found):.3f}, "
            f"requests {statistics.median(r['requests'] for r in found):.0f}, wall {statistics.median(r['wall'] for r in found):.1f} s "
            f"({statistics.median(r['requests'] * options.latency_ms / 1000 / r['wall'] for r in found):.1f} x one by one), "
            f"over budget {sum(r['over'] for r in found)}, covered {sum(r['covered'] for r in found)} of {len(found)}"
        )


if __name__ == "__main__":
    main()
