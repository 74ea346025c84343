"""What the tuner's benchmarks share: the arena's bank as the referee sees it, and the tasks.

An arena is a directory with server.py, bank.jsonl.gz (recorded answers) and exam.jsonl (100 problems).
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

from pytest_llmtune import Suite, lograndint, randint

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.suite import Config

__all__ = ["PRICES", "TASKS", "Bank", "Task", "bank_of"]

PRICES = {
    "gpt-35-turbo": (0.5, 1.5),
    "gpt-4": (30, 60),
    "claude-3-opus-20240229": (15, 75),
    "gemini-1.0-pro": (0.5, 1.5),
    "gemini-1.5-pro-preview-0409": (7, 21),
    "cohere-command-r-plus": (3, 15),
    "mistral-large": (8, 24),
    "llama-2-70b-chat": (0.65, 2.75),
    "llama-2-7b-chat": (0.05, 0.25),
}
"""USD per 1M tokens of input and output, from the arena's README."""
STYLES = ("baseline", "chain_of_thought", "composite")
ALL_STYLES = (*STYLES, "domain_expert", "self_recitation")
TUNED = 40
"""Problems to tune on; the other 60 are held out."""
_ORDERS = 64
"""Orders of the ten recorded answers that the best configuration's votes are averaged over."""


@dataclass(frozen=True)
class Task:
    """What is tuned, in USD per instance and in all."""

    models: tuple[str, ...]
    inference_budget: float
    optimization_budget: float
    styles: tuple[str, ...] = STYLES
    ancestor: float | None = None
    """Median true success_vote of pyautogen 0.1.14."""

    def suite(self, problems: list[dict[str, Any]], seed: int, share: float = 1.0) -> Suite:
        """As the arena's README says; ``share`` is the part of the optimization budget."""
        return Suite(
            name="arena",
            dataset=problems,
            prompt=[f"[style:{style}]\n{{question}}" for style in self.styles],
            model=list(self.models),
            max_tokens=lograndint(50, 1000),
            n=randint(1, 11),
            grader={"regex": {"pattern": r"Answer: \[([A-E])\]"}},
            shuffle=False,
            tune_size=TUNED,
            duplicates="allow",
            seed=seed,
            inference_budget=self.inference_budget,
            optimization_budget=self.optimization_budget * share,
            num_samples=-1,
            prices={model: {"input": PRICES[model][0], "output": PRICES[model][1]} for model in self.models},
        )


GPT_35, GEMINI_1, GEMINI_15 = "gpt-35-turbo", "gemini-1.0-pro", "gemini-1.5-pro-preview-0409"
COMMAND_R, MISTRAL, LLAMA_70B = "cohere-command-r-plus", "mistral-large", "llama-2-70b-chat"
TASKS = {
    "A": Task((GPT_35, "gpt-4", GEMINI_15, COMMAND_R, MISTRAL, LLAMA_70B), 0.008, 3.0, ancestor=0.609),
    "B": Task((GPT_35, GEMINI_1, LLAMA_70B, "llama-2-7b-chat", COMMAND_R), 0.004, 1.0, ancestor=0.630),
    # other cuts through the same bank: was the tuner fitted to those two?
    "one": Task((GPT_35,), 0.002, 0.5, ALL_STYLES),
    "cheap": Task((GPT_35, GEMINI_1, "llama-2-7b-chat"), 0.001, 0.25),
    "dear": Task(("gpt-4", "claude-3-opus-20240229", GEMINI_15, MISTRAL), 0.03, 10.0),
    "all": Task(tuple(PRICES), 0.006, 2.0, ALL_STYLES),
}


def bank_of(arena: Path) -> Bank:
    """The bank of an arena; without one the program ends and says so."""
    if not (arena / "server.py").exists():
        sys.exit(f"skipped: {arena} holds no arena (server.py, bank.jsonl.gz, exam.jsonl)")
    return Bank(arena)


class Bank:
    """The recorded answers, as the referee sees them."""

    def __init__(self, arena: Path) -> None:
        self.exam = {row["id"]: row for row in map(json.loads, (arena / "exam.jsonl").open(encoding="utf-8"))}
        self.rows: dict[tuple[str, str, int], dict[float, dict[str, Any]]] = defaultdict(dict)
        with gzip.open(arena / "bank.jsonl.gz", "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                self.rows[row["model"], row["style"], row["id"]][row["temperature"]] = row

    def problems(self, seed: int) -> list[dict[str, Any]]:
        """All of them in the seed's order: the first 40 are tuned on."""
        ids = list(range(1, 101))
        random.Random(seed).shuffle(ids)
        return [self.exam[number] for number in ids]

    def true(self, config: Config, seed: int, draws: int = 200) -> tuple[float, float]:
        """True success_vote and USD per instance on the seed's 60 held-out problems: a vote over many draws."""
        style = str(config.template.source).split("[style:")[1].split("]")[0]
        heat = config.params.get("temperature", config.params.get("top_p", 1.0))
        limit, rng, right, cost = config.params.get("max_tokens", 10**9), random.Random(0), 0, 0.0
        exam = self.problems(seed)[TUNED:]
        for problem in exam:
            row = self._row(config.model, style, problem["id"], heat)
            for _ in range(draws):
                picked = rng.sample(row["samples"], config.n)
                right += (
                    _elected([letter if tokens <= limit else None for letter, tokens in picked]) == problem["answer"]
                )
                cost += _usd(config.model, row["prompt_tokens"], sum(min(tokens, limit) for _, tokens in picked))
        return right / draws / len(exam), cost / draws / len(exam)

    def best(self, task: Task, seed: int) -> float:
        """The best true success_vote within the inference budget of all models, styles, temperatures and n on the seed's
        60 problems: a little optimistic, for it is chosen on them."""
        ids = [problem["id"] for problem in self.problems(seed)[TUNED:]]
        found = 0.0
        for model, style, tenths, n in product(task.models, task.styles, range(11), range(1, 11)):
            cells = [self._votes(model, style, number, tenths / 10)[n - 1] for number in ids]
            if sum(usd for _, usd in cells) <= task.inference_budget * len(ids):
                found = max(found, sum(right for right, _ in cells) / len(ids))
        return found

    def _row(self, model: str, style: str, problem: int, heat: float) -> dict[str, Any]:
        """The recorded row nearest in temperature; a model without the style answers with chain_of_thought."""
        key = (model, style, problem)
        by_heat = self.rows[key if key in self.rows else (model, "chain_of_thought", problem)]
        return by_heat[min(by_heat, key=lambda known: abs(known - heat))]

    @cache  # noqa: B019  # one bank lives as long as the program
    def _votes(self, model: str, style: str, problem: int, heat: float) -> list[tuple[float, float]]:
        """For n = 1 to 10: how often the vote is right, and USD."""
        row, rng, right = self._row(model, style, problem, heat), random.Random(0), [0] * 10
        for _ in range(_ORDERS):
            letters = [letter for letter, _ in rng.sample(row["samples"], 10)]
            for n in range(10):
                right[n] += _elected(letters[: n + 1]) == self.exam[problem]["answer"]
        length = sum(tokens for _, tokens in row["samples"]) / 10
        return [(right[n] / _ORDERS, _usd(model, row["prompt_tokens"], (n + 1) * length)) for n in range(10)]


def _elected(letters: list[str | None]) -> str | None:
    """The most frequent letter; of several, the first."""
    votes = Counter(letter for letter in letters if letter)
    return max(votes, key=lambda letter: votes[letter]) if votes else None


def _usd(model: str, asked: float, answered: float) -> float:
    price = PRICES[model]
    return (asked * price[0] + answered * price[1]) / 1e6
