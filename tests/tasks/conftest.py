"""A user's project whose suite runs a function of the app, and a real server on loopback."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import openai
import pytest
from support.llm_server import LLMServer

with warnings.catch_warnings():
    # pytester forgets what an inner run imported; numpy cannot be imported twice in one process, and a second
    # copy of an HTTP library does not catch the errors of the first
    warnings.simplefilter("ignore")
    import flaml  # noqa: F401
    import genai_prices.data_snapshot  # noqa: F401  # this and what follows: so that no inner run takes the time again
    import vcr.patch  # noqa: F401
    import yaml  # noqa: F401

    import pytest_llmtune.capture.client
    import pytest_llmtune.guard.results_file
    import pytest_llmtune.plugin.session
    import pytest_llmtune.tasks.verify  # noqa: F401

    openai.OpenAI(api_key="unused").close()

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = [{"question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(4) for b in range(5)]

DESK = """
import os, openai

def handle(question, model, style, config, client):
    plan = client.chat.completions.create(
        model=config["planner_model"], messages=[{"role": "user", "content": f"Plan: {question}"}], max_tokens=20
    ).choices[0].message.content
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": f"[{plan}] ({style}) {question}"}], max_tokens=20,
        temperature=config["temperature"],
    ).choices[0].message.content
"""

SUITE = """
import pytest
from pytest_llmtune import models, randint, uniform

@pytest.mark.llmtune(
    dataset="data.jsonl",
    task="desk:handle",
    model=["good", "bad"],
    temperature=uniform(0, 1),
    params={{"style": ["short", "kind"], "planner_model": models(["good", "bad"])}},
    n=randint(1, 3),
    grader="numeric",
    prices={{"good": {{"input": 1, "output": 2}}, "bad": {{"input": 1, "output": 2}}}},
    tune_size=8,
    num_samples=6,
    optimization_budget=1,
    {more}
)
def test_desk(llmtune):
    llmtune.check()
"""


def answer(body: dict[str, Any]) -> str:
    """The good model adds up; the bad one is always wrong; a plan is a plan."""
    text = body["messages"][-1]["content"]
    if text.startswith("Plan:"):
        return f"add, says {body['model']}"
    a, b = map(int, re.findall(r"\d+", text)[-2:])
    return f"The answer is {a + b if body['model'] == 'good' else 999}."


class Project:
    """A user's project."""

    def __init__(self, pytester: pytest.Pytester, server: LLMServer) -> None:
        self.pytester, self.server = pytester, server
        self.write_data(ROWS)
        self.write_task(DESK)
        self.write_suite()

    def write_data(self, rows: list[dict[str, Any]]) -> None:
        text = "\n".join(json.dumps(row) for row in rows)
        (self.pytester.path / "data.jsonl").write_text(text, encoding="utf-8")

    def write_task(self, text: str) -> None:
        shutil.rmtree(self.pytester.path / "__pycache__", ignore_errors=True)  # does not notice edits within a second
        (self.pytester.path / "desk.py").write_text(text, encoding="utf-8")

    def write_suite(self, more: str = "min_success_vote=0.9, max_drop=0.05,", suite: str = SUITE) -> None:
        (self.pytester.path / "test_desk.py").write_text(suite.format(more=more), encoding="utf-8")

    def run(self, *args: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *args)

    def run_outside(self, *args: str) -> pytest.RunResult:
        """In a process of its own, so that what is imported is imported anew."""
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)

    @property
    def lock(self) -> str:
        return (self.pytester.path / "llmtune" / "desk.lock.yaml").read_text(encoding="utf-8")

    @property
    def recording(self) -> dict[str, Any]:
        path = self.pytester.path / "llmtune" / "desk.cassette.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


@pytest.fixture
def server() -> Iterator[LLMServer]:
    """A real server with two models."""
    with LLMServer(answer=answer, models=["good", "bad"]) as running:
        yield running


@pytest.fixture
def project(pytester: pytest.Pytester, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose endpoint is the server; offline modes must not touch it.

    A recording is not replayed in other processes as well, which takes seconds; tests that mean it unset the variable.
    """
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret-0123456789")
    return Project(pytester, server)
