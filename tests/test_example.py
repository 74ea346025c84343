"""The example project's files agree with each other: what tuning wrote is what a replay finds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmtune.commits.export import as_python
from pytest_llmtune.guard.lockfile import Lock

if TYPE_CHECKING:
    from typing import Any

EXAMPLE = Path(__file__).parents[1] / "example_project"
SUITES = ("korean", "mood", "orders", "till")


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Suite to what ``--llm-json`` says of it."""
    path = tmp_path_factory.mktemp("example") / "results.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--llm-json={path}", "tests"]
    subprocess.run(command, cwd=EXAMPLE, check=True, stdout=subprocess.DEVNULL)
    return {suite["name"]: suite for suite in json.loads(path.read_text(encoding="utf-8"))["suites"]}


@pytest.mark.parametrize("name", SUITES)
def test_a_replay_finds_the_baseline_to_the_digit(replayed: dict[str, Any], name: str) -> None:
    """Score and cost: the recording holds what the live run counted, though the server counts one choice of n."""
    held, evaluation = replayed[name]["baseline"]["metrics"], replayed[name]["evaluation"]
    assert evaluation["metrics"]["success_vote"] == pytest.approx(held["success_vote"]["value"], rel=1e-9)
    assert float(evaluation["inference_cost"]) == pytest.approx(held["inference_cost"]["value"], rel=1e-9)


def test_the_exported_cascade_is_the_locked_one() -> None:
    module = (EXAMPLE / "cornershop" / "moods.py").read_text(encoding="utf-8")
    assert module == as_python(Lock.read(EXAMPLE / "tests" / "llmtune" / "mood.lock.yaml"))


@pytest.mark.slow
def test_the_readme_shows_what_its_commands_print() -> None:
    """The tour's offline commands, run in a copy; `python docs/transcripts.py` writes what they print today."""
    command = [sys.executable, str(EXAMPLE.parent / "docs" / "transcripts.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_search_in_the_readme_is_the_committed_one() -> None:
    """A search is not repeated for a page: what it shows has to be what it wrote."""
    shown = (EXAMPLE / "README.md").read_text(encoding="utf-8").partition("$ pytest --llm-tune tests/")[2]
    name, _, shown = shown.partition("\n")
    suite = name.removeprefix("test_").removesuffix(".py")
    lock = Lock.read(EXAMPLE / "tests" / "llmtune" / f"{suite}.lock.yaml")
    assert lock.study is not None
    for said in (
        *(f"{name}={value}, " for name, value in lock.config.items() if name != "task"),
        f"{suite} {lock.metrics['success_vote'].value:.4g} ",
        f"success_vote {lock.study.tuning.value:.4g} (",
        f"${float(lock.study.spent):.4g} of ",
    ):
        assert said in re.sub(r" +", " ", shown), said
