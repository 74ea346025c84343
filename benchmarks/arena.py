"""What the tuner's benchmarks share: the arena's bank as the referee sees it, and the tasks.

An arena is a directory with server.py, bank.jsonl.gz (recorded answers) and exam.jsonl (100 problems).
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from worlds import LETTERS, Samples, Task, World

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PRICES", "TASKS", "arena_world", "bank_of"]

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


GPT_35, GEMINI_1, GEMINI_15 = "gpt-35-turbo", "gemini-1.0-pro", "gemini-1.5-pro-preview-0409"
COMMAND_R, MISTRAL, LLAMA_70B = "cohere-command-r-plus", "mistral-large", "llama-2-70b-chat"


def arena_world(arena: Path) -> World:
    """The arena's bank as a world."""
    return ArenaWorld(bank_of(arena))


class ArenaWorld(World):
    """Recorded answers of nine models to a hundred problems."""

    def __init__(self, bank: Any) -> None:
        self.bank, self.rows = bank, 100
        self.right = np.array([LETTERS.index(bank.exam[row + 1]["answer"]) for row in range(100)])

    def question(self, row: int) -> str:
        return str(self.bank.exam[row + 1]["question"])

    @cache  # noqa: B019  # one world lives as long as the program
    def samples(self, model: str, style: str, row: int, heat: float) -> Samples:
        cell = self.bank.row(model, style, row + 1, heat)
        keys = [LETTERS.index(letter) if letter and letter in LETTERS else -1 for letter, _ in cell["samples"]]
        return Samples(np.array(keys), np.array([tokens for _, tokens in cell["samples"]]), cell["prompt_tokens"])


def _task(
    models: tuple[str, ...], per_instance: float, whole: float, styles: tuple[str, ...] = STYLES, **more: float
) -> Task:
    return Task(arena_world, {model: PRICES[model] for model in models}, per_instance, whole, styles, **more)


TASKS = {
    "A": _task((GPT_35, "gpt-4", GEMINI_15, COMMAND_R, MISTRAL, LLAMA_70B), 0.008, 3.0, ancestor=0.609),
    "B": _task((GPT_35, GEMINI_1, LLAMA_70B, "llama-2-7b-chat", COMMAND_R), 0.004, 1.0, ancestor=0.630),
    # other cuts through the same bank: was the tuner fitted to those two?
    "one": _task((GPT_35,), 0.002, 0.5, ALL_STYLES),
    "cheap": _task((GPT_35, GEMINI_1, "llama-2-7b-chat"), 0.001, 0.25),
    "dear": _task(("gpt-4", "claude-3-opus-20240229", GEMINI_15, MISTRAL), 0.03, 10.0),
    "all": _task(tuple(PRICES), 0.006, 2.0, ALL_STYLES),
    # budgets between the costs of two models: where a cascade may pay
    "gap": _task((GPT_35, "gpt-4"), 0.015, 3.0),
    "step": _task((GEMINI_1, GEMINI_15), 0.0045, 2.0),
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

    def row(self, model: str, style: str, problem: int, heat: float) -> dict[str, Any]:
        """The recorded row nearest in temperature; a model without the style answers with chain_of_thought."""
        key = (model, style, problem)
        by_heat = self.rows[key if key in self.rows else (model, "chain_of_thought", problem)]
        return by_heat[min(by_heat, key=lambda known: abs(known - heat))]
