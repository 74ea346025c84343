"""Fixtures and the marker for a user's own tests: recorded once, replayed offline, metered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Project

APP = """
import pytest
from openai import OpenAI

def ask(client, config):
    prompt = "What is 2 plus 3?"
    return client.chat.completions.create(model=config["model"], messages=[{"role": "user", "content": prompt}])

def test_tuned(tuned_config, llm_client):
    assert tuned_config["model"] == "good"
    assert "5" in ask(llm_client, tuned_config).choices[0].message.content

@pytest.mark.llm_replay(max_calls=MAX)
def test_own_client():
    with OpenAI(base_url="BASE", api_key="sk-other-secret-987654") as client:
        assert "5" in ask(client, {"model": "good"}).choices[0].message.content
"""


def write(project: Project, max_calls: int) -> None:
    text = APP.replace("BASE", project.server.base_url).replace("MAX", str(max_calls))
    (project.pytester.path / "test_app.py").write_text(text, encoding="utf-8")


def test_app_tests_are_recorded_once_and_replayed_offline(tuned: Project) -> None:
    """Unrecorded, they fail with the mending command; recorded, they ask nothing."""
    write(tuned, 1)
    result = tuned.run("test_app.py")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*--llm-record=missing*"])
    tuned.run("test_app.py", "--llm-record=missing").assert_outcomes(passed=2)
    before = tuned.server.count
    tuned.run("test_app.py").assert_outcomes(passed=2)
    assert tuned.server.count == before
    kept = "".join(path.read_text(encoding="utf-8") for path in (tuned.pytester.path / "llmtune").iterdir())
    assert "secret" not in kept


def test_more_calls_than_allowed_fail_the_test(tuned: Project) -> None:
    """``max_calls=1`` is passed by a second call."""
    write(tuned, 1)
    path = tuned.pytester.path / "test_app.py"
    call = 'ask(client, {"model": "good"})'
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f'assert "5" in {call}', f'assert {call} and "5" in {call}'), encoding="utf-8")
    result = tuned.run("test_app.py", "--llm-record=missing", "-k", "own_client")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*max_calls*"])


def test_the_core_works_without_pytest(project: Project) -> None:
    """``Suite``, ``tune``, ``evaluate`` and ``complete`` in a plain script's words."""
    from pytest_llmtune import Suite, complete, evaluate, tune
    from pytest_llmtune.settings import Settings

    suite = Suite(
        name="script",
        dataset="data.jsonl",
        base_dir=project.pytester.path,
        prompt="{question}",
        model=["good", "bad"],
        grader="numeric",
        temperature=0,
        n=1,
        max_tokens=20,
        tune_size=12,
        prices={"good": {"input": 1, "output": 2}, "bad": {"input": 1, "output": 2}},
    )
    settings = Settings(
        root=project.pytester.path, base_url=project.server.base_url, prices={"good": {"input": "1", "output": "2"}}
    )
    config, analysis = tune(suite, log_file_name=project.pytester.path / "study.jsonl", settings=settings)
    assert config.model == "good"
    assert analysis.best_result.config == config.to_lock()
    assert {trial.config["model"] for trial in analysis.trials} == {"good", "bad"}
    log = (project.pytester.path / "study.jsonl").read_text(encoding="utf-8")
    assert [word in log for word in ('"paid"', '"trial": 2', '"finished"')] == [True] * 3
    assert evaluate(suite, config, settings=settings).success_vote == 1
    assert "4" in complete(config, {"question": "What is 1 plus 3?"}, settings=settings).choices[0].text
