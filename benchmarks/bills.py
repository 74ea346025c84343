"""Money, held against the servers' own accounting: the tables of docs/reliability.md.

python benchmarks/bills.py caps    # every cap, honest and dishonest servers, 1, 32 and 256 requests in flight
python benchmarks/bills.py faults  # every provider's bill, and what becomes of it when the answer is damaged
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from completions.test_dishonest_bills import Billed, hidden_prompt, hidden_reasoning, honest, ignored_limit
from support.live import PRICES, Live, request
from support.provider_bodies import CASES, Case
from support.replaying import chat, replay_of
from wire.test_billing import asked, expected

from pytest_llmtune import Suite
from pytest_llmtune.capture.client import async_client
from pytest_llmtune.capture.meter import Limits, Meter
from pytest_llmtune.capture.tariff import Tariff
from pytest_llmtune.completions.endpoints import Endpoint
from pytest_llmtune.completions.source import LiveSource
from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.redaction.keys import Secret
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.settings import Mode
from pytest_llmtune.tasks.source import TaskSource

REQUESTS = 300
SERVERS = {
    "honest": (honest, "0.005"),
    "hidden reasoning": (hidden_reasoning, "0.03"),
    "ignores max_tokens": (ignored_limit, "0.03"),
    "hidden prompt": (hidden_prompt, "0.03"),
}
"""What a server does to its bills, and a cap that cannot hold all requests."""


def of_suite(directory: Path, server: Billed, concurrency: int, limit: Decimal) -> Decimal:
    """Requests of a suite under ``--llm-max-spend``, or its budget; USD by our accounting."""
    live, ledger = Live(directory), Ledger(limit, name="--llm-max-spend")

    async def run(source: Any) -> None:
        asking = (source.complete(request(f"question {number}")) for number in range(REQUESTS))
        await asyncio.gather(*asking, return_exceptions=True)
        await source.aclose()

    asyncio.run(run(live.source(server, ledger=ledger, concurrency=concurrency)))
    live.close()
    return ledger.billed


def of_calls(directory: Path, server: Billed, concurrency: int, limit: Decimal, *, of_run: bool) -> Decimal:
    """Calls of a test under ``max_cost``, or ``--llm-max-spend``, in tasks of their own."""
    ledger = Ledger(limit if of_run else None, name="--llm-max-spend")
    meter = Meter(Limits.of(max_cost=None if of_run else limit), PRICES, ledger)

    async def run(replay: Any) -> None:
        gate = asyncio.Semaphore(concurrency)

        async def one(create: Any, number: int) -> None:
            async with gate:
                await create(**chat(f"question {number}", model="m", max_tokens=20))

        async with async_client(replay, base_url=server.base_url, api_key="any") as asking:
            create = asking.chat.completions.create
            await asyncio.gather(*(one(create, number) for number in range(REQUESTS)), return_exceptions=True)

    with (
        suppress(BudgetExhaustedError),
        replay_of(directory / "a.cassette.json", Mode.LIVE, meter=meter) as replay,
    ):
        asyncio.run(run(replay))
    return meter.cost


async def answered(question: str, model: str, async_client: Any) -> str:
    """A task of one call."""
    reply = await async_client.chat.completions.create(**chat(question, model=model, max_tokens=20))
    return str(reply.choices[0].message.content)


def of_task(_: Path, server: Billed, concurrency: int, limit: Decimal) -> Decimal:
    """Runs of a task under ``--llm-max-spend``, or its suite's budget."""
    rows = [{"question": f"question {number}", "answer": "x"} for number in range(REQUESTS + 1)]
    suite = Suite(name="t", dataset=rows, task=answered, model="m", grader="exact", tune_size=1, shuffle=False)
    ledger = Ledger(limit, name="--llm-max-spend")
    live = LiveSource((Endpoint(server.base_url, (Secret("k", "test"),)),), PRICES, ledger=ledger)

    async def run() -> None:
        source = TaskSource(live, Tariff(PRICES), Redactor(), None, live, concurrency)
        asking = (source.complete(suite.space.first().request_for(row)) for row in suite.load().test)
        await asyncio.gather(*asking, return_exceptions=True)
        await source.aclose()

    asyncio.run(run())
    return ledger.billed


CAPS = {
    "`--llm-max-spend`, suite": of_suite,
    "`--llm-max-spend`, task": of_task,
    "`--llm-max-spend`, calls of a test": lambda *given: of_calls(*given, of_run=True),
    "`max_cost`": lambda *given: of_calls(*given, of_run=False),
}


def caps() -> None:
    """What the server billed, what we say, and by how much the cap was passed."""
    print("| cap | server | USD | answered with 1, 32, 256 in flight | the server's bills | our accounting | over |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for cap, spend in CAPS.items():
        for name, (change, limit) in SERVERS.items():
            answered, theirs, ours = [], [], []
            for concurrency in (1, 32, 256):
                with tempfile.TemporaryDirectory() as directory, Billed(change) as server:
                    ours.append(spend(Path(directory), server, concurrency, Decimal(limit)))
                answered.append(len(server.bills))
                theirs.append(sum(server.bills, Decimal(0)))
            over = max(0, *(each - Decimal(limit) for each in theirs))
            cells = [cap, name, f"${limit}", *(", ".join(map(str, each)) for each in (answered, theirs, ours)), over]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def damaged(case: Case, how: str) -> tuple[int, str | bytes]:
    """A status and an answer."""
    if how == "an error":
        return 500, '{"error": {"message": "overloaded"}}'
    if how == "a page":
        return 200, "<html>Bad gateway</html>"
    if how == "cut":
        return 200, case.answer[: len(case.answer) // 2]
    text = case.answer if isinstance(case.answer, str) else case.answer.decode("latin-1")
    for name in USAGE:
        text = text.replace(f'"{name}"', f'"{name[:-1]}_"')
    return 200, text if isinstance(case.answer, str) else text.encode("latin-1")


USAGE = ("usage", "usageMetadata", "meta", "prompt_token_count", "generation_token_count")
USAGE += ("amazon-bedrock-invocationMetrics",)
HOW = ("an error", "a page", "cut", "without usage")


def judged(case: Case, status: int, answer: str | bytes) -> str:
    """What a test with ``max_cost``, in a run with ``--llm-max-spend``, is told."""
    ledger = Ledger(Decimal(1000), name="--llm-max-spend")
    meter = Meter(Limits.of(max_cost=1000), PriceBook(), ledger)
    body = answer.encode() if isinstance(answer, str) else answer
    with tempfile.TemporaryDirectory() as directory, suppress(LLMTuneError):
        path = Path(directory) / "a.cassette.json"
        with replay_of(path, Mode.LIVE, meter=meter) as replay:
            call = replay.begin(asked(case))
            replay.answer(call, status, "", {"content-type": case.content_type}, body)
    try:
        meter.check()
    except LLMTuneError:
        return "cannot be judged"
    if ledger.uncertain:
        return "the most it may cost counts"
    if not meter.cost:
        return "free" if not meter.calls else "**$0**"
    return f"${meter.cost.normalize():f}" + ("" if meter.cost == expected(case) else ", **not its bill**")


def faults() -> None:
    """Each provider's answer, whole and damaged."""
    print(f"| answer | bills | we say | {' | '.join(HOW)} |\n|---|--:|--:|{'---|' * len(HOW)}")
    for case in CASES:
        cells = [case.name, f"${expected(case).normalize():f}", judged(case, 200, case.answer)]
        for how in HOW:
            status, answer = damaged(case, how)
            cells.append("-" if (status, answer) == (200, case.answer) else judged(case, status, answer))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    {"caps": caps, "faults": faults}[sys.argv[1] if sys.argv[1:] else "caps"]()
