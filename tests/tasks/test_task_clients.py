"""Whatever client a task uses, sync or async: its calls are recorded, priced and replayed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Project

SUITE = """
import pytest

@pytest.mark.llmtune(
    dataset="data.jsonl", task="desk:handle", model="good", n=2, grader="numeric", tune_size=2, test_size=4,
    prices={{"good": {{"input": 1, "output": 2}}}}, {more}
)
def test_desk(llmtune):
    llmtune.check()
"""
HEAD = """
import asyncio, json, os
from concurrent.futures import ThreadPoolExecutor
URL = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:9/v1") + "/chat/completions"

def body(text, model="good"):
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 20}

def said(answer):
    return answer["choices"][0]["message"]["content"]
"""
TASKS = {
    "our-client": """
def handle(question, client):
    plan = client.chat.completions.create(**body("Plan: " + question)).choices[0].message.content
    return client.chat.completions.create(**body(plan + " " + question)).choices[0].message.content
""",
    "our-async-client": """
async def handle(question, async_client):
    ask = async_client.chat.completions.create
    plan = (await ask(**body("Plan: " + question))).choices[0].message.content
    return (await ask(**body(plan + " " + question))).choices[0].message.content
""",
    "openai": """
import openai
def handle(question):
    with openai.OpenAI() as client:
        plan = client.chat.completions.create(**body("Plan: " + question)).choices[0].message.content
        return client.chat.completions.create(**body(plan + " " + question)).choices[0].message.content
""",
    "openai-gathered": """
import openai
async def handle(question):
    async with openai.AsyncOpenAI() as client:
        plans = await asyncio.gather(*(client.chat.completions.create(**body(f"Plan: {n} {question}")) for n in range(2)))
        return (await client.chat.completions.create(**body(question))).choices[0].message.content
""",
    "httpx": """
import httpx
async def handle(question):
    async with httpx.AsyncClient() as client:
        plan = said((await client.post(URL, json=body("Plan: " + question))).json())
        return said((await client.post(URL, json=body(plan + " " + question))).json())
""",
    "requests": """
import requests
def handle(question):
    plan = said(requests.post(URL, json=body("Plan: " + question)).json())
    return said(requests.post(URL, json=body(plan + " " + question)).json())
""",
    "aiohttp": """
import aiohttp
async def handle(question):
    async with aiohttp.ClientSession() as session:
        async with session.post(URL, json=body("Plan: " + question)) as response:
            plan = said(await response.json())
        async with session.post(URL, json=body(plan + " " + question)) as response:
            return said(await response.json())
""",
    "a-pool-of-the-app-in-which-threads-serve-all-rows": """
import openai
POOL = ThreadPoolExecutor(2)
def handle(question):
    with openai.OpenAI() as client:
        ask = client.chat.completions.create
        plans = list(POOL.map(lambda number: ask(**body(f"Plan: {number} {question}")), range(2)))
        return POOL.submit(ask, **body(question)).result().choices[0].message.content
""",
    "urllib-in-a-thread-with-context": """
import contextvars, urllib.request
def post(text):
    request = urllib.request.Request(URL, json.dumps(body(text)).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return said(json.load(response))
def handle(question):
    with ThreadPoolExecutor(1) as pool:
        plan = pool.submit(contextvars.copy_context().run, post, "Plan: " + question).result()
        return pool.submit(contextvars.copy_context().run, post, plan + " " + question).result()
""",
}


@pytest.mark.parametrize("name", TASKS)
def test_a_client_is_recorded_and_replayed(project: Project, name: str) -> None:
    """Recorded once, replayed without a request, and the cost is that of all calls in all runs, as the server counts."""
    project.write_suite("min_success_vote=0.9,", suite=SUITE)
    project.write_task(HEAD + TASKS[name])
    project.run("--llm-tune").assert_outcomes(passed=1)
    facts = [each["llmtune"] for each in project.recording["interactions"]]
    calls = 3 if "gathered" in name or "pool" in name else 2
    assert sorted({each["call"] for each in facts}) == list(range(1, calls + 1))
    assert len(facts) == 4 * 2 * calls
    before = project.server.count
    result = project.run()
    result.assert_outcomes(passed=1)
    assert project.server.count == before
    usages = [each["response"]["body"]["string"] for each in project.recording["interactions"]]
    assert len(usages) == len(facts)
    cost = sum(_usd(text) for text in usages) / 4
    assert _locked_cost(project.lock) == pytest.approx(cost, rel=1e-9)


def test_a_task_with_a_client_of_its_own_needs_no_key_of_ours(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge does, and that is told before anything is sent."""
    monkeypatch.setenv("APP_URL", project.server.base_url)
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    project.write_task(HEAD.replace("OPENAI_BASE_URL", "APP_URL") + TASKS["httpx"])
    judged = SUITE.replace(
        'grader="numeric"', 'grader=["numeric", {{"judge": {{"model": "good", "rubric": "Is it right?"}}}}]'
    )
    project.write_suite("", suite=judged)
    assert "there is no API key for" in project.run("--llm-tune").stdout.str()
    assert not project.server.requests
    project.write_suite("", suite=SUITE)
    project.run("--llm-tune").assert_outcomes(passed=1)


def _usd(text: str) -> float:
    usage = json.loads(text)["usage"]
    return float((usage["prompt_tokens"] * 1 + usage["completion_tokens"] * 2) / 1e6)


def _locked_cost(lock: str) -> float:
    [line] = [line for line in lock.splitlines() if line.strip().startswith("inference_cost:")][:1]
    return float(line.partition("value:")[2].strip(" {").partition(",")[0])
