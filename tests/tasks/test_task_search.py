"""A search over a task: within its dollars, killed and begun again, declared in YAML, refused where it cannot be done."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune import Suite, SuiteError
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.settings import Settings
from pytest_llmtune.workflow.services import SuiteServices

if TYPE_CHECKING:
    from conftest import Project
    from support.llm_server import LLMServer

YAML = """
name: desk
dataset: data.jsonl
task: "desk:handle"
model: good
temperature: 0.5
params: {style: [short], planner_model: {models: [good]}}
grader: numeric
prices: {good: {input: 1, output: 2}}
tune_size: 2
test_size: 4
"""
KILLED = """
import os, pathlib, signal
import desk_of_the_app

def handle(question, model, style, config, client):
    flag, calls = pathlib.Path("kill"), pathlib.Path("calls")
    with calls.open("a") as log:
        log.write(".")
    if flag.exists() and calls.stat().st_size > int(flag.read_text()):
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return desk_of_the_app.handle(question, model, style, config, client)
"""


def billed(server: LLMServer) -> float:
    """USD of all proper answers, as the server counts: prompts by its own rule."""
    from support.llm_server import prompt_tokens

    prompts = sum(prompt_tokens(body["messages"]) for body in server.answered)
    return (prompts * 1 + server.billed * 2) / 1e6


@pytest.mark.parametrize("concurrency", [1, 32])
def test_the_optimization_budget_holds_call_by_call(project: Project, concurrency: int) -> None:
    """What the server bills for the search and the recording stays within the two limits, whatever is in flight."""
    project.write_suite(f"concurrency={concurrency},")
    text = (project.pytester.path / "test_desk.py").read_text(encoding="utf-8")
    text = text.replace("optimization_budget=1,", "optimization_budget=0.001,")
    (project.pytester.path / "test_desk.py").write_text(text, encoding="utf-8")
    result = project.run("--llm-tune", "--llm-json=results.json")
    results = json.loads((project.pytester.path / "results.json").read_text(encoding="utf-8"))
    result.assert_outcomes(passed=1)
    winner = float(results["suites"][0]["evaluation"]["cost"])
    assert billed(project.server) <= 0.001 + winner + 1e-12
    assert float(results["spent"]) == pytest.approx(billed(project.server), rel=1e-9)


GATHERED = """
import asyncio

async def handle(question, model, async_client):
    ask = async_client.chat.completions.create
    asked = (ask(model=model, messages=[{"role": "user", "content": f"{n} {question}"}], max_tokens=20) for n in range(3))
    return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)][0]
"""


@pytest.mark.parametrize("task", ["threads", "tasks"])
def test_hidden_reasoning_passes_no_limit_of_a_task(project: Project, task: str) -> None:
    """The first call of a model goes alone, over all runs; what it bills beyond its request all others set aside."""
    if task == "tasks":
        (project.pytester.path / "desk.py").write_text(GATHERED, encoding="utf-8")
        text = (project.pytester.path / "test_desk.py").read_text(encoding="utf-8")
        text = re.sub(r"    (?:temperature|params)=.*\n", "", text)
        (project.pytester.path / "test_desk.py").write_text(text, encoding="utf-8")
    honest, bills = project.server.usage_of, list[Decimal]()

    def usage_of(body: Any, answers: Any) -> Any:
        usage = honest(body, answers)
        usage["completion_tokens"] += 1000
        bills.append((Decimal(usage["prompt_tokens"]) + 2 * usage["completion_tokens"]) / 10**6)
        return usage | {"total_tokens": usage["prompt_tokens"] + usage["completion_tokens"]}

    project.server.usage_of = usage_of  # type: ignore[method-assign]
    project.server.latency = 0.02
    assert project.run("--llm-tune", "--llm-max-spend=0.02", "--llm-json=results.json").ret == 1
    results = json.loads((project.pytester.path / "results.json").read_text(encoding="utf-8"))
    assert Decimal(results["spent"]) == sum(bills) <= Decimal("0.02")
    assert len(bills) > 4


@pytest.mark.slow
def test_a_search_that_is_killed_pays_for_nothing_twice(project: Project) -> None:
    """Killed in the middle and begun again: the same configuration, and only what was in flight is asked once more."""
    (project.pytester.path / "desk_of_the_app.py").write_text(
        (project.pytester.path / "desk.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    project.write_suite("concurrency=2,")
    project.write_task(KILLED)
    project.run_outside("--llm-tune").assert_outcomes(passed=1)
    undisturbed, lock = project.server.count, project.lock
    for name in ("llmtune", ".llmtune"):
        (project.pytester.path / name).rename(project.pytester.path / f"{name}-before")
    (project.pytester.path / "calls").unlink()
    (project.pytester.path / "kill").write_text("25", encoding="utf-8")
    assert project.run_outside("--llm-tune").ret != 0
    assert not (project.pytester.path / "kill").exists()
    project.run_outside("--llm-tune").assert_outcomes(passed=1)
    assert project.server.count - undisturbed <= undisturbed + 2
    assert project.lock.split("study:")[0] == lock.split("study:")[0]


def test_a_task_in_yaml_runs_only_with_consent(project: Project) -> None:
    """The same function, declared in a file that may come from a stranger."""
    (project.pytester.path / "test_desk.py").unlink()
    (project.pytester.path / "desk.llmtune.yaml").write_text(YAML, encoding="utf-8")
    refused = project.run()
    assert refused.ret != 0
    assert "task is 'desk:handle', which runs code" in refused.stdout.str() + refused.stderr.str()
    project.pytester.makeini("[pytest]\nllmtune_allow_code = desk\n")
    project.run("--llm-tune").assert_outcomes(passed=1)
    before = project.server.count
    project.run().assert_outcomes(passed=1)
    assert project.server.count == before


def test_batches_refuse_a_task_in_one_sentence(project: Project) -> None:
    """Until they can."""
    result = project.run("--llm-tune", "--llm-batch")
    assert result.ret != 0
    assert "runs the task desk:handle, which does not support --llm-batch yet" in result.stdout.str()


def test_a_cluster_refuses_a_task_in_one_sentence() -> None:
    """Until it can; before it is joined."""
    suite = Suite(
        name="desk", dataset=[{"q": "1", "answer": "1"}], task=lambda q: q, model="good", grader="exact", tune_size=0
    )
    settings = Settings(Path(), engine="ray://nowhere:10001")
    with pytest.raises(
        SuiteError, match=r"runs the task .*, which does not support --llm-engine yet; leave the option out"
    ):
        SuiteServices(suite, settings, Redactor(), lambda _: None, lambda _: None)


def test_a_recording_in_parts_is_replayed_by_workers_together(project: Project) -> None:
    """Written in several files; two workers share the suite's rows, and ask nothing."""
    project.run("--llm-tune", "--llm-part-size=0.004").assert_outcomes(passed=1)
    assert len([*(project.pytester.path / "llmtune").rglob("*.json")]) > 1
    before = project.server.count
    project.run("-n", "2", "--llm-share-rows=2", "--llm-json=shared.json").assert_outcomes(passed=2)
    project.run("--llm-json=alone.json").assert_outcomes(passed=1)
    alone, shared = (
        json.loads((project.pytester.path / f"{name}.json").read_text(encoding="utf-8"))["suites"][0]["evaluation"]
        for name in ("alone", "shared")
    )
    assert (alone["metrics"], alone["inference_cost"]) == (shared["metrics"], shared["inference_cost"])
    assert project.server.count == before


def test_a_dry_run_asks_nothing(project: Project) -> None:
    """Before there is a recording it knows the first call; then what the recorded runs cost."""
    result = project.run("--llm-tune-dry-run")
    result.stdout.fnmatch_lines(["*the first call of a run on row * costs at most $0.000*"])
    assert not project.server.requests
    project.run("--llm-tune").assert_outcomes(passed=1)
    before = project.server.count
    project.run("--llm-tune-dry-run").stdout.fnmatch_lines(["*a run makes 2 calls and costs about * recorded runs*"])
    assert project.server.count == before


def test_a_model_without_a_price_is_an_error_before_anything_is_paid_for(project: Project) -> None:
    """Declared with ``models``, a planner's model is checked as the suite's own."""
    text = (project.pytester.path / "test_desk.py").read_text(encoding="utf-8")
    text = text.replace('models(["good", "bad"])', 'models(["good", "dear"])')
    (project.pytester.path / "test_desk.py").write_text(text, encoding="utf-8")
    result = project.run("--llm-tune")
    result.assert_outcomes(failed=1)
    assert "the price of model 'dear' is unknown" in result.stdout.str()
    assert not project.server.requests


def test_shards_replay_their_rows_and_are_judged_together(project: Project) -> None:
    """Each shard its own rows, offline; merged, one verdict."""
    project.run("--llm-tune").assert_outcomes(passed=1)
    before = project.server.count
    for number in (1, 2):
        project.run(f"--llm-shard={number}/2", f"--llm-json=shards/{number}.json").assert_outcomes(passed=1)
    project.run("--llm-merge=shards").assert_outcomes(passed=1)
    assert project.server.count == before
