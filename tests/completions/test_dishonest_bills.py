"""Servers that bill more than was asked for: the limit is passed by no more than the first request, and it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.live import Live, request
from support.llm_server import LLMServer

from pytest_llmtune.errors import BudgetExhaustedError
from pytest_llmtune.money.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

Usage = Callable[[dict[str, Any]], dict[str, int]]


def hidden_reasoning(usage: dict[str, Any]) -> dict[str, int]:
    """Outside of ``completion_tokens``, as xAI: the total tells."""
    return {**usage, "total_tokens": usage["total_tokens"] + 500}


def ignored_limit(usage: dict[str, Any]) -> dict[str, int]:
    return {**usage, "completion_tokens": 700, "total_tokens": usage["prompt_tokens"] + 700}


def hidden_prompt(usage: dict[str, Any]) -> dict[str, int]:
    return {**usage, "prompt_tokens": 5000, "total_tokens": 5000 + usage["completion_tokens"]}


def honest(usage: dict[str, Any]) -> dict[str, int]:
    return usage


class Billed(LLMServer):
    """Counts what it bills, in USD at the prices of ``support.live``."""

    def __init__(self, change: Usage, **options: Any) -> None:
        super().__init__(answer="12345678", **options)
        self.change, self.bills = change, list[Decimal]()

    def usage_of(self, body: Any, answers: Any) -> Any:
        usage = self.change(super().usage_of(body, answers))
        out = usage["total_tokens"] - usage["prompt_tokens"]
        self.bills.append((Decimal(usage["prompt_tokens"]) + 10 * out) / 10**6)
        return usage


@pytest.mark.parametrize("concurrency", [1, 32, 256])
@pytest.mark.parametrize("change", [honest, hidden_reasoning, ignored_limit, hidden_prompt])
def test_the_limit_holds(tmp_path: Path, change: Usage, concurrency: int) -> None:
    """300 requests for a limit that fewer fill: ours and the server's accounting agree, and no round passes it."""
    live, limit = Live(tmp_path), Decimal("0.03")
    ledger = Ledger(limit, name="--llm-max-spend")

    async def run(source: Any) -> list[Any]:
        asked = (source.complete(request(f"question {number}")) for number in range(300))
        try:
            return await asyncio.gather(*asked, return_exceptions=True)
        finally:
            await source.aclose()

    with Billed(change, latency=0.02 if concurrency > 1 else 0) as server:  # side by side, where they can be
        source = live.source(server, ledger=ledger, concurrency=concurrency)
        results = asyncio.run(run(source))
        refused = [result for result in results if isinstance(result, BudgetExhaustedError)]
        assert ledger.spent - ledger.uncertain == sum(server.bills)
        assert (ledger.reserved, ledger.uncertain) == (0, 0)
        assert ledger.spent <= limit
    live.close()
    dishonest = change is not honest
    assert any("bills more for m than its requests allow" in note for note in source.account.notes) == dishonest
    assert bool(refused) == dishonest
    if dishonest:
        assert "times what its requests allow" in str(refused[-1])


def test_the_first_request_goes_alone(tmp_path: Path) -> None:
    """One that bills more than the whole limit ends it: nothing else is sent, and the overrun is its own bill."""
    live, limit = Live(tmp_path), Decimal("0.004")
    ledger = Ledger(limit, name="--llm-max-spend")

    async def run(source: Any) -> list[Any]:
        asked = (source.complete(request(f"question {number}")) for number in range(10))
        try:
            return await asyncio.gather(*asked, return_exceptions=True)
        finally:
            await source.aclose()

    with Billed(ignored_limit, latency=0.02) as server:
        results = asyncio.run(run(live.source(server, ledger=ledger, concurrency=32)))
        assert (server.count, ledger.spent) == (1, server.bills[0])
    live.close()
    refused = [str(result) for result in results if isinstance(result, BudgetExhaustedError)]
    assert len(refused) == 9
    assert all("more than allowed" in message for message in refused)
