"""Any sequence of commands, edits and kills, against what must always hold: money, recordings, and no green that is not true."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support.llm_server import LLMServer, prompt_tokens
from support.suite_files import read_suites

from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError
from pytest_llmtune.guard.lockfile import Lock
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.settings import Mode, Settings
from pytest_llmtune.workflow.modes import SuiteLocation, SuiteRun

SUITE = """
name: sums
dataset: rows.jsonl
prompt: {prompts}
model: small
temperature: {{uniform: [0, 1]}}
n: 2
max_tokens: 20
grader: numeric
prices: {{small: {{input: 1, output: 1}}}}
tune_size: 3
num_samples: 2
concurrency: 4
min_success_vote: 0.5
max_drop: 0.1
"""
TUNE = """
import sys
sys.path[:0] = {path!r}
from test_commands import suite_run
from pytest_llmtune.settings import Mode
suite_run({root!r}, Mode.TUNE).report
"""


def suite_run(root: Path | str, mode: Mode, limit: Decimal | None = None) -> SuiteRun:
    root = Path(root)
    [(suite, line)] = read_suites(root / "sums.llmtune.yaml", root=root, allow_code=())
    location = SuiteLocation("sums", "sums.llmtune.yaml", line, root / "llmtune")
    return SuiteRun(suite, Settings(mode=mode, root=root), location, Ledger(limit), Redactor())


class Commands(RuleBasedStateMachine):
    """A project with a server that counts what it bills."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="llmtune-commands-"))
        rows = [{"q": f"{number} plus 1", "answer": str(number + 1)} for number in range(6)]
        (self.root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.server = LLMServer(
            answer=lambda body: str(int(re.findall(r"\d+", body["messages"][-1]["content"])[0]) + 1)
        )
        self.server.__enter__()
        os.environ["OPENAI_BASE_URL"] = self.server.base_url
        os.environ["OPENAI_API_KEY"] = "sk-test"
        self.anew = self.lost = 0
        self.edit("{q}?")
        self.command(Mode.TUNE)

    def teardown(self) -> None:
        self.server.__exit__()
        shutil.rmtree(self.root, ignore_errors=True)

    # -- commands

    @rule(prompt=st.sampled_from(["{q}?", "What is {q}?", "Add: {q}"]))
    def edit(self, prompt: str) -> None:
        self.prompts = [prompt]
        (self.root / "sums.llmtune.yaml").write_text(SUITE.format(prompts=json.dumps(self.prompts)))
        self.complete: Mode | None = None

    @rule(limit=st.sampled_from([None, Decimal("0.0001"), Decimal("0.0004"), Decimal("0.01")]))
    def tune(self, limit: Decimal | None) -> None:
        self.command(Mode.TUNE, limit)

    @rule(limit=st.sampled_from([None, Decimal("0.0001"), Decimal("0.01")]))
    def record_missing(self, limit: Decimal | None) -> None:
        self.command(Mode.RECORD_MISSING, limit)

    @rule()
    def record_all(self) -> None:
        self.command(Mode.RECORD_ALL)

    @rule()
    def accept(self) -> None:
        self.command(Mode.ACCEPT)

    @rule(after=st.integers(1, 8))
    def killed(self, after: int) -> None:
        """SIGKILL in the middle of a search: lock file and recording are what they were, or whole new ones."""
        until = self.server.count + after
        code = TUNE.format(path=[str(Path(__file__).parent), *sys.path], root=str(self.root))
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.server.until(lambda: self.server.count >= until, process)
        process.kill()
        process.wait()
        self.lost += 1
        self.complete = None
        Lock.read(self.root / "llmtune" / "sums.lock.yaml")
        self.guard()

    @precondition(lambda self: self.complete is not None)
    @rule()
    def again(self) -> None:
        """A command that was done, over the same files: nothing is asked, for all is in the cache."""
        before = self.server.count
        assert self.complete is not None
        self.command(self.complete)
        assert self.server.count == before

    @rule()
    def guard(self) -> None:
        """No request; green only where the prompt in force is one of the suite's."""
        before = self.server.count
        try:
            verdict = suite_run(self.root, Mode.REPLAY).report.verdict
        except LLMTuneError:
            return
        finally:
            assert self.server.count == before
        if verdict.status == "passed":
            assert Lock.read(self.root / "llmtune" / "sums.lock.yaml").config["prompt"] in self.prompts

    # -- what must hold

    def command(self, mode: Mode, limit: Decimal | None = None) -> None:
        requests, completion = len(self.server.answered), self.server.billed
        run = suite_run(self.root, mode, limit)
        try:
            report = run.report
        except BudgetExhaustedError:
            self.complete = None
        except LLMTuneError:
            self.complete = None
        else:
            done = report.verdict.status == "passed" and mode in (Mode.TUNE, Mode.RECORD_MISSING)
            self.complete = mode if done else None
        self.anew += mode is Mode.RECORD_ALL
        self.paid_once()
        prompts = sum(prompt_tokens(body["messages"]) for body in self.server.answered[requests:])
        billed = Decimal(prompts + self.server.billed - completion) / 1_000_000
        assert run.ledger.spent >= billed  # nothing is forgotten
        if limit is not None:
            assert billed <= limit
        if mode in (Mode.ACCEPT, Mode.REPLAY):
            assert billed == 0

    def paid_once(self) -> None:
        """An answer that is kept is not bought again, but by ``record=all``; a kill loses at most what was in flight."""
        bought: Counter[str] = Counter()
        for body in self.server.answered:
            bought[json.dumps([body["messages"], body["temperature"]])] += body.get("n") or 1
        over = sum(max(0, count - 2 * (1 + self.anew)) for count in bought.values())
        assert over <= 2 * 4 * self.lost, bought


Commands.TestCase.settings = settings(
    max_examples=4, stateful_step_count=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


class TestCommands(Commands.TestCase):  # type: ignore[misc]
    """Found by pytest; the environment is put back."""

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", "")
        monkeypatch.setenv("OPENAI_API_KEY", "")


def test_what_was_paid_for_is_not_bought_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that is changed and changed back costs nothing the second time; the count notices where the cache is lost."""
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    project = Commands()
    project.begin()
    try:
        project.edit("What is {q}?")
        project.tune(None)
        project.edit("{q}?")
        before = project.server.count
        project.tune(None)
        project.record_missing(None)
        assert project.server.count == before
        shutil.rmtree(project.root / ".llmtune" / "cache")
        with pytest.raises(AssertionError, match="plus"):
            project.tune(None)
    finally:
        project.teardown()
