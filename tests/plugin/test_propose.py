"""A suite in YAML whose prompts a model writes: tuned, locked, replayed offline, and searched again when its seed changes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import Project

YAML = """
name: sums
dataset: data.jsonl
prompt: {propose: {seeds: ["{question}"], model: good, rounds: 1, per_round: 2}}
shots: {randint: [0, 2]}
model: bad
temperature: 0
n: 1
max_tokens: 20
grader: numeric
prices: {good: {input: 1, output: 2}, bad: {input: 1, output: 2}}
tune_size: 18
num_samples: -1
optimization_budget: 1
min_success_vote: 0.9
"""


def answer(body: dict[str, Any]) -> str:
    """The good model writes prompts; the bad one adds up only when it is asked to be careful."""
    text = str(body["messages"][-1]["content"])
    if body["model"] == "good":
        return "<template>Be careful: {question}</template>"
    a, b = map(int, re.findall(r"\d+", text)[-2:])
    return f"The answer is {a + b if 'careful' in text else 999}."


def test_a_written_prompt_is_locked_and_replayed(project: Project) -> None:
    """The lock file holds it; it is the suite's own until somebody searches again."""
    project.server.answer = answer
    path = project.pytester.path
    (path / "test_sums.py").unlink()
    (path / "sums.llmtune.yaml").write_text(YAML, encoding="utf-8")
    result = project.run("--llm-tune")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*good wrote 2 prompts*over the suite's own prompts they gained 1 (1 to 1)*never saw*"]
    )
    assert "Be careful: {question}" in project.lock
    asked = project.server.count
    project.run().assert_outcomes(passed=1)
    assert project.server.count == asked
    (path / "sums.llmtune.yaml").write_text(
        YAML.replace('["{question}"]', '["{question}?"]').replace("good, rounds", "other, rounds")
    )
    project.run().assert_outcomes(passed=1)  # the recorded answers are those of the locked prompt
    (path / "sums.llmtune.yaml").write_text(
        YAML.replace(
            '{propose: {seeds: ["{question}"], model: good, rounds: 1, per_round: 2}}', '"{question}"'
        ).replace("shots: {randint: [0, 2]}\n", "")
    )
    project.run().assert_outcomes(failed=1)
