"""``--llm-max-spend``: one limit for the whole run, in every paid mode, for suites and clients, with and without xdist."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Project

SUITES = """
import pytest

KEYS = dict(
    dataset="data.jsonl", prompt="{question}", model="good", temperature=0, n=1, max_tokens=8, grader="numeric", num_samples=1,
    prices={"good": {"input": 0, "output": 1000}}, tune_size=4, optimization_budget=9, concurrency=2,
)

@pytest.mark.llmtune(**KEYS, seed=1)
def test_one(llmtune):
    llmtune.check()

@pytest.mark.llmtune(**KEYS, seed=2)
def test_two(llmtune):
    llmtune.check()
"""

CLIENT = """
import pytest

def ask(client, **limit):
    messages = [{"role": "user", "content": "What is 1 plus 2?"}]
    return client.chat.completions.create(model="good", messages=messages, **limit).choices[0].message.content

def test_calls(llm_client):
    for _ in range(9):
        assert "3" in ask(llm_client, max_tokens=8)
"""


def paid(project: Project) -> Decimal:
    """USD that the server billed: only completion tokens have a price, of a tenth of a cent."""
    return Decimal(project.server.billed) / 1000


@pytest.fixture
def two(project: Project) -> Project:
    """Two suites with lock files; live, each costs 10.4 cents."""
    (project.pytester.path / "test_sums.py").write_text(SUITES, encoding="utf-8")
    project.run("--llm-tune").assert_outcomes(passed=2)
    return project


def test_workers_share_the_limit(two: Project) -> None:
    """Each suite alone would fit, and both do not: two workers stop before the limit, and say how much is gone."""
    before = paid(two)
    command = ("-p", "no:cacheprovider", "-n", "2", "--llm-live", "--llm-max-spend=0.15")
    result = two.pytester.runpytest_subprocess(*command)
    assert result.parseoutcomes().get("failed", 0) >= 1
    result.stdout.fnmatch_lines(["*--llm-max-spend: $0.1* of $0.15 is spent, and the next request may cost up to*"])
    assert Decimal("0.14") < paid(two) - before <= Decimal("0.15")


@pytest.mark.parametrize("mode", ["--llm-live", "--llm-record=missing", "--llm-record=all"])
def test_the_limit_holds_for_calls_of_clients(project: Project, mode: str) -> None:
    """An app's own calls are refused once the next one might pass the limit; replay needs no money."""
    (project.pytester.path / "test_sums.py").write_text(CLIENT, encoding="utf-8")
    (project.pytester.path / "pytest.ini").write_text("[pytest]\nllmtune_prices = good input=0 output=1000\n")
    result = project.run(mode, "--llm-max-spend=0.02")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*--llm-max-spend: $0.0* of $0.02 is spent, and the next request may cost up to*"])
    assert 0 < paid(project) <= Decimal("0.02")
    project.run("--llm-record=all", "--llm-max-spend=1").assert_outcomes(passed=1)
    project.run("--llm-max-spend=0.001").assert_outcomes(passed=1)


def test_a_call_of_unknown_price_is_refused_under_a_limit(project: Project) -> None:
    """Nobody could say what it costs; without a limit it may be made."""
    (project.pytester.path / "test_sums.py").write_text(CLIENT, encoding="utf-8")
    result = project.run("--llm-live", "--llm-max-spend=1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the price of model 'good' is unknown*llmtune_prices*"])
    assert project.server.count == 0
    project.run("--llm-live").assert_outcomes(passed=1)


def test_a_call_without_max_tokens_counts_with_a_long_answer(project: Project) -> None:
    """Its worst case is reserved like that of a suite without max_tokens: 16,384 tokens."""
    tests = CLIENT.replace("max_tokens=8", "")
    (project.pytester.path / "test_sums.py").write_text(tests, encoding="utf-8")
    (project.pytester.path / "pytest.ini").write_text("[pytest]\nllmtune_prices = good input=0 output=1000\n")
    result = project.run("--llm-live", "--llm-max-spend=16")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*may cost up to $16.384*"])
    assert project.server.count == 0


CRASH = """
import os, pathlib, threading

def crash():
    pathlib.Path("asked-for-the-call").read_text()
    pathlib.Path("the-suite-waits").read_text()
    os._exit(3)

def test_crash(llm_client):
    threading.Thread(target=crash, daemon=True).start()
    messages = [{"role": "user", "content": "What is 1 plus 2?"}]
    llm_client.chat.completions.create(model="good", messages=messages, max_tokens=80)
"""
LATE = """
    import asyncio, pathlib
    pathlib.Path("asked-for-the-suite").read_text()
    wait = asyncio.wait

    async def waits(*args, **kwargs):
        asyncio.wait = wait
        pathlib.Path("the-suite-waits").write_text("now")
        return await wait(*args, **kwargs)

    asyncio.wait = waits
    llmtune"""
"""The ledger waits for other processes with ``asyncio.wait``; the other worker crashes once it does."""


def test_nobody_waits_for_a_worker_that_died(two: Project) -> None:
    """Reservations of a crashed worker count as spent: the other worker is refused instead of waiting forever."""
    late = SUITES.replace("def test_two", "def no_test").replace("\n    llmtune", LATE)
    (two.pytester.path / "test_sums.py").write_text(late, encoding="utf-8")
    (two.pytester.path / "test_crash.py").write_text(CRASH, encoding="utf-8")
    (two.pytester.path / "pytest.ini").write_text("[pytest]\nllmtune_prices = good input=0 output=1000\n")

    pipes = [two.pytester.path / f"asked-for-the-{reader}" for reader in ("call", "suite")]
    for pipe in (*pipes, two.pytester.path / "the-suite-waits"):
        os.mkfifo(pipe)

    def unanswered(body: dict[str, Any]) -> float:
        """The suite asks once the dollars of the other call are reserved; no answer gives them back before the crash."""
        for pipe in pipes:
            pipe.write_text("now")  # once somebody reads
        return 60

    two.server.latency = unanswered
    command = ("-p", "no:cacheprovider", "-n", "2", "--max-worker-restart=0", "--llm-live", "--llm-max-spend=0.085")
    result = two.pytester.runpytest_subprocess(*command, timeout=60)
    result.stdout.fnmatch_lines_random(["*worker 'gw?' crashed*", "*--llm-max-spend: $0.08* of $0.085 is spent*"])


def test_a_search_that_the_run_has_no_dollars_for_names_the_limit(project: Project) -> None:
    """Not one request fits: nothing is asked, and it is not the suite's own budget that is blamed."""
    result = project.run("--llm-tune", "--llm-max-spend=0.000001")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*what is left of --llm-max-spend does not pay for one request*--llm-max-spend=...*"])
    assert project.server.count == 0


def test_a_search_that_the_run_cuts_short_names_the_limit(project: Project) -> None:
    """It takes the best so far, for whose test rows dollars were kept, and says whose dollars ended it."""
    result = project.run("--llm-tune", "--llm-max-spend=0.001")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*ended by --llm-max-spend"])
    assert project.server.billed * 2e-6 <= 0.001
    project.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("text", ["nan", "snan", "inf", "-1", "0", "a lot"])
def test_a_limit_that_is_no_amount_is_a_usage_error(pytester: pytest.Pytester, text: str) -> None:
    """Also one that has no order, as nan."""
    result = pytester.runpytest_inprocess(f"--llm-max-spend={text}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --llm-max-spend is '{text}'; valid: a number of USD above 0"])
