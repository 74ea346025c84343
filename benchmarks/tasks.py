"""Replay runs of a task, beside the same task over httpx's MockTransport.

python benchmarks/tasks.py [ROWS ...]        default: 500 1000 2000 rows of 5 calls each

For a task that uses bare httpx, and for two that use OpenAI's client (ours, and one of the app): seconds of CPU for each number
of rows, the ratio of the two, and milliseconds a call, which must not grow with the rows.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai

from pytest_llmtune.capture.tariff import Tariff
from pytest_llmtune.guard.evaluation import all_of
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.recording import Recording
from pytest_llmtune.recording.format import CallPosition, Interaction, canonical_body
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.suite import Suite
from pytest_llmtune.tasks.source import TaskSource
from pytest_llmtune.tasks.verify import replay_misses

CALLS = 5
URL = "http://127.0.0.1:9/v1/chat/completions"
PRICES = {"m": {"input": 1, "output": 2}}
CLIENT: list[httpx.AsyncClient] = []
OPENAI: list[openai.AsyncOpenAI] = []


def body(question: str, call: int) -> dict[str, Any]:
    """What one call asks."""
    messages = [
        {"role": "system", "content": "You are the desk of a small shop. Be brief, and never make up an order. " * 8},
        {"role": "user", "content": f"Step {call}: {question}"},
    ]
    return {"model": "m", "max_tokens": 200, "messages": messages}


def answer(call: int) -> str:
    """What it is answered."""
    message = {"role": "assistant", "content": f"Step {call} is done; nothing else is needed here. " * 6}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 200, "completion_tokens": 60, "total_tokens": 260},
        }
    )


async def handle(question: str) -> str:
    """The task: five calls, one after another."""
    said = ""
    for call in range(1, CALLS + 1):
        response = await CLIENT[-1].post(URL, json=body(question, call))
        said = response.json()["choices"][0]["message"]["content"]
    return said


async def with_openai(question: str) -> str:
    """The same with OpenAI's client."""
    return await with_ours(question, OPENAI[-1])


async def with_ours(question: str, async_client: Any) -> str:
    """The same with the client that a task is given."""
    said = ""
    for call in range(1, CALLS + 1):
        response = await async_client.chat.completions.create(**body(question, call))
        said = response.choices[0].message.content
    return said


TASKS = {"httpx": handle, "openai": with_openai, "async_client": with_ours}


def suite(rows: int, task: Any) -> Suite:
    """As many different questions."""
    data = [{"question": f"Where is order {row}?", "answer": "x"} for row in range(rows)]
    return Suite(
        name="tasks", dataset=data, task=task, model="m", grader="exact", tune_size=1, prices=PRICES, shuffle=False
    )


def recorded(declared: Suite) -> Recording:
    """A recording of every row."""
    kind = {"content-type": "application/json"}
    interactions = [
        Interaction(
            "POST",
            URL,
            canonical_body(json.dumps(body(example.row["question"], call))),
            200,
            answer(call),
            "OK",
            kind,
            kind,
            0.1,
            position=CallPosition(example.id, 1, call, 0.1 * call),
        )
        for example in declared.load().test
        for call in range(1, CALLS + 1)
    ]
    return Recording.of(Path("tasks.cassette.json"), interactions)


def replayed(rows: int, task: Any = handle) -> float:
    """Seconds of CPU for a replay of all rows."""
    declared = suite(rows + 1, task)
    recording, config = recorded(declared), declared.space.first()
    tariff = Tariff(PriceBook(declared.prices))

    async def run() -> float:
        async with httpx.AsyncClient() as client:
            CLIENT.append(client)
            OPENAI.append(openai.AsyncOpenAI(api_key="unused", base_url=URL.removesuffix("/chat/completions")))
            source = TaskSource(None, tariff, Redactor(), recording)  # type: ignore[arg-type]  # no judge is asked
            source.inner = _Nobody()
            started = time.process_time()
            misses = await replay_misses(source, [config.request_for(example) for example in declared.load().test], 32)
            seconds = time.process_time() - started
        if misses:
            sys.exit(f"missing: {next(iter(misses.values())).detail}")
        return seconds

    return asyncio.run(run())


class _Nobody:
    async def aclose(self) -> None:
        """Nothing is open."""


def mocked(rows: int, task: Any = handle) -> float:
    """Seconds of CPU for the same task over a MockTransport."""

    def respond(library: Any) -> Any:
        async def respond(request: Any) -> Any:
            call = int(json.loads(request.content)["messages"][1]["content"].split(":")[0].removeprefix("Step "))
            return library.Response(200, text=answer(call), headers={"content-type": "application/json"})

        return library.AsyncClient(transport=library.MockTransport(respond))

    async def run() -> float:
        CLIENT.append(respond(httpx))
        OPENAI.append(
            openai.AsyncOpenAI(api_key="unused", base_url="http://127.0.0.1:9/v1", http_client=respond(httpx2))
        )
        todo = iter([f"Where is order {row}?" for row in range(1, rows + 1)])

        async def work() -> None:
            for question in todo:
                await (task(question, OPENAI[-1]) if task is with_ours else task(question))

        started = time.process_time()
        await all_of(work() for _ in range(32))
        return time.process_time() - started

    return asyncio.run(run())


def main() -> None:
    """Measure and print."""
    for name, task in TASKS.items():
        replayed(2, task), mocked(2, task)  # what is imported is imported now
        for rows in map(int, sys.argv[1:] or ("500", "1000", "2000")):
            ours, plain = replayed(rows, task), mocked(rows, task)
            per_call = ours / rows / CALLS * 1e3
            print(
                f"{name:12} {rows:6} rows: replay {ours:6.2f} s, MockTransport {plain:6.2f} s, {ours / plain:.2f}; "
                f"{per_call:.3f} ms a call"
            )


if __name__ == "__main__":
    main()
