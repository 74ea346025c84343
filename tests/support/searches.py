"""Searches over real HTTP: models of different skill that add two numbers, and what the server billed for them."""

from __future__ import annotations

import re
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from support.llm_server import LLMServer, prompt_tokens, tokens

from pytest_llmtune import Suite, randint, tune, uniform
from pytest_llmtune.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.api import Tuned

__all__ = ["PRICES", "ROWS", "SKILL", "answers", "billed", "search", "settings", "suite"]

ROWS = [{"q": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(8) for b in range(5)]
SKILL = {"strong": 0.9, "weak": 0.3}
PRICES = {"strong": 8, "weak": 1}
"""USD per 1M tokens of a prompt; an answer's cost four times as much."""


def answers(body: dict[str, Any]) -> list[str]:
    """Right as often as the model's skill says; the same request, the same answers."""
    a, b = map(int, re.findall(r"\d+", str(body["messages"][-1]["content"]))[:2])
    found = []
    for choice in range(body.get("n") or 1):
        luck = zlib.crc32(f"{body['model']} {a} {b} {choice}".encode()) % 1000 / 1000
        found.append(f"It is {a + b if luck < SKILL[body['model']] else 777}." + " word" * (a % 5))
    return found


def suite(**keys: Any) -> Suite:
    """Two models, sixteen rows to tune on; a key whose value is ``...`` is left out."""
    given = {
        "name": "sums",
        "dataset": ROWS,
        "prompt": "{q}",
        "model": list(SKILL),
        "temperature": uniform(0, 1),
        "n": randint(1, 4),
        "max_tokens": 40,
        "grader": "numeric",
        "prices": {model: {"input": usd, "output": 4 * usd} for model, usd in PRICES.items()},
        "tune_size": 16,
        "num_samples": 6,
        "optimization_budget": 1,
    }
    return Suite(**{name: value for name, value in (given | keys).items() if value is not ...})


def settings(server: LLMServer, root: Path, **fields: Any) -> Settings:
    return Settings(root=root, base_url=server.base_url, **fields)


def search(server: LLMServer, root: Path, **keys: Any) -> Tuned:
    """The suite with some keys changed, tuned."""
    return tune(suite(**keys), settings=settings(server, root, concurrency=16))


def billed(server: LLMServer) -> Decimal:
    """USD for everything that the server answered."""
    total = Decimal(0)
    for body in server.answered:
        answered = sum(tokens(choice.text) for choice in server.choices(body))
        total += (prompt_tokens(body["messages"]) + 4 * answered) * Decimal(PRICES[body["model"]]) / 1_000_000
    return total
