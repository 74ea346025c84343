"""A cascade in a project: tuned, locked, recorded, replayed and gated as any other configuration."""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.llm_server import LLMServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Project

KEYS = "inference_budget=0.00018, cascade=True, min_success_vote=0.95, max_drop=0.05, base_url={url!r},"
GUESS = itertools.count()


def answer(body: dict[str, Any]) -> list[str]:
    """The bad model guesses at every third row, the good one adds up."""
    text = body["messages"][-1]["content"]
    a, b = map(int, re.findall(r"\d+", text)[-2:])
    guesses = body["model"] == "bad" and (a + b) % 3 == 0
    return [f"The answer is {1000 + next(GUESS) % 97 if guesses else a + b}." for _ in range(body.get("n") or 1)]


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(answer, models=["good", "bad"]) as running:
        yield running


@pytest.fixture
def cascaded(project: Project) -> Project:
    """The project after a search that chose a cascade."""
    project.write_suite(more=KEYS.format(url=project.server.base_url))
    path = project.pytester.path / "test_sums.py"
    text = path.read_text(encoding="utf-8").replace(
        '"good": {"input": 1, "output": 2}', '"good": {"input": 10, "output": 20}'
    )
    path.write_text(text.replace("uniform(0, 1)", "uniform(0.7, 1)"), encoding="utf-8")
    project.run("--llm-tune").assert_outcomes(passed=1)
    return project


def test_it_is_locked_and_replayed_offline(cascaded: Project) -> None:
    """The lock file has both steps and both prices; a replay gates the score and tells the share of escalations."""
    lock = yaml.safe_load(cascaded.lock)
    assert [step["model"] for step in lock["config"]["cascade"]] == ["bad", "good"]
    assert lock["config"]["cascade"][0]["accept"]["grader"] == "numeric"
    assert set(lock["prices"]) == {"bad", "good"}
    assert 0.1 < lock["metrics"]["escalated"]["value"] < 0.6
    asked = cascaded.server.count
    cascaded.run().assert_outcomes(passed=1)
    assert cascaded.server.count == asked
    cascaded.run("--llm-record=missing").assert_outcomes(passed=1)
    assert cascaded.server.count == asked


def test_a_dearer_step_without_a_recording_is_reported(cascaded: Project) -> None:
    """The result is neither a pass nor a zero, and the suggested command fixes it."""
    path = cascaded.pytester.path / "llmtune" / "sums.cassette.json"
    recording = json.loads(path.read_text(encoding="utf-8"))
    kept = [one for one in recording["interactions"] if '"good"' not in str(one["request"]["body"])]
    assert 0 < len(kept) < len(recording["interactions"])
    path.write_text(json.dumps({**recording, "interactions": kept}), encoding="utf-8")
    result = cascaded.run()
    assert result.ret == 1
    assert "--llm-record=missing" in result.stdout.str()
    cascaded.run("--llm-record=missing").assert_outcomes(passed=1)
    cascaded.run().assert_outcomes(passed=1)


def test_a_cascade_that_is_not_the_declared_one_has_to_be_searched_again(cascaded: Project) -> None:
    """Without a request being different: the recording replays as it is."""
    path = cascaded.pytester.path / "test_sums.py"
    text = path.read_text(encoding="utf-8")
    for declared, told in {
        "False": "*is a cascade, which the suite does not allow*",
        "{'accept': {'regex': 'answer'}}": "*its 'regex' in accept differs from the declared one*",
        "{'accept': {'schema': {'type': 'string'}}}": "*its 'schema' in accept differs*",
        "{'accept': {'margin': 0.01}}": "*its 'margin' in accept differs*",
        "{'accept': {'function': str.isprintable}}": "*its 'function' in accept differs*",
        "[{'model': 'good'}, {'model': 'bad'}]": "*a step uses the model bad; declared: 'good'*",
    }.items():
        path.write_text(text.replace("cascade=True", f"cascade={declared}"), encoding="utf-8")
        result = cascaded.run()
        assert result.ret == 1
        result.stdout.fnmatch_lines([told])
