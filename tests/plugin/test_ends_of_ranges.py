"""Every key at each end of its range, alone and in pairs that meet: it works, or is one sentence; never a traceback."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Project

ROWS = 10
SUITE: dict[str, Any] = {
    "dataset": "data.jsonl",
    "prompt": "{question}",
    "model": "good",
    "temperature": 0.5,
    "n": 1,
    "max_tokens": 20,
    "grader": "numeric",
    "prices": {"good": {"input": 1, "output": 2}, "bad": {"input": 1, "output": 2}},
    "tune_size": 4,
}
SPACE: dict[str, Any] = {"model": ["good", "bad"], "num_samples": 2}
FREE = {"prices": {"good": {"input": 0, "output": 0}, "bad": {"input": 0, "output": 0}}}
ENDS: dict[str, list[Any]] = {
    "tune_size": [0, 1, 0.001, 0.999, ROWS, 10**9],
    "test_size": [1, 10**9],
    "seed": [0, 10**30],
    "num_samples": [1, -1],
    "max_drop": [0, 1, None, "auto"],
    "alpha": [0, 1, None],
    "max_cost_rise": [0, 1e300, None],
    "max_unknown": [0, 10**9],
    "inference_budget": ["1e-30", "1e30"],
    "optimization_budget": ["1e-30", "1e30"],
    "concurrency": [1, 10**9],
    "timeout": [1e-9, 1e9],
    "deadline": [1e-9, 1e300],
    "n": [1, 0, 10_001],
    "max_tokens": [1, 10**9],
    "temperature": [0, 2],
    "top_p": [0, 1],
    "min_success_vote": [0, 1],
    "max_success_vote": [0, 1],
    "max_latency": [0, 1e300],
    "max_inference_cost": [0, "1e30"],
    "max_cost": [0, "1e30"],
    "where": ["question != ''"],
    "stop": ["x", ["a", "b", "c", "d"]],
}


def batched(items: list[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


ALONE = [{key: value} for key, values in ENDS.items() for value in values]
MEETING: list[dict[str, Any]] = [
    {"n": 200, "tune_size": 0, "test_size": 1},  # here two a request; the end of the range: tests/test_api.py
    {"tune_size": 0, "test_size": 1},
    {"tune_size": ROWS, "test_size": 1},
    {"tune_size": 0, "split": "hash"},
    {"tune_size": 10**9, "split": "hash"},
    {"tune_size": 0.001, "split": "hash", "stratify": "answer"},
    {"tune_size": 0, "stratify": "answer"},
    {"tune_size": 0, "duplicates": "drop", "shuffle": False},
    {"tune_size": 0, "optimization_budget": "1e-30"},
    {"tune_size": 0, "baselines": [{"n": 1}]},
    {"tune_size": 0, "aggregate": "median"},
    {"tune_size": 0, "mode": "min", "metric": "success"},
    {"max_drop": 0, "alpha": 0},
    {"max_drop": 1, "alpha": 1},
    {"max_drop": None, "alpha": 1},
    {"max_unknown": 10**9, "min_success_vote": 1},
    {"max_cost_rise": 0, **FREE},
    {"inference_budget": "1e-30", **FREE},
    {"optimization_budget": "1e-30", **FREE},
    {"max_inference_cost": 0, **FREE},
    {"min_success_vote": 1, "max_success_vote": 1},
    {**SPACE, "tune_size": 0},
    {**SPACE, "tune_size": 1},
    {**SPACE, "tune_size": 1, "num_samples": 1},
    {**SPACE, "tune_size": ROWS, "test_size": 1},
    {**SPACE, "num_samples": -1},
    {**SPACE, "num_samples": -1, "optimization_budget": "1e-30"},
    {**SPACE, "num_samples": 10**9, "optimization_budget": "0.0001"},
    {**SPACE, "inference_budget": "1e-30"},
    {**SPACE, "inference_budget": "1e-30", **FREE},
    {**SPACE, "concurrency": 1, "tune_size": 1},
]


TOGETHER = 10  # suites in one project: starting pytest takes longer than most of them


def written(*suites: dict[str, Any]) -> str:
    text = "import pytest\n"
    for number, keys in enumerate(suites):
        given = ", ".join(f"{key}={value!r}" for key, value in {**SUITE, **keys}.items())
        text += f"\n@pytest.mark.llmtune({given})\ndef test_sums_{number}(llmtune):\n    llmtune.check()\n"
    return text


@pytest.mark.parametrize(
    "suites", batched([*ALONE, *MEETING], TOGETHER), ids=lambda suites: ";".join(map(str, suites))[:60]
)
def test_each_end_works_or_is_one_sentence(project: Project, suites: list[dict[str, Any]]) -> None:
    """Searching and then guarding: passed, or failed with a text for people that names what to do."""
    project.write_data([{"question": f"What is {n} plus 1?", "answer": str(n + 1)} for n in range(ROWS)])
    path = project.pytester.path / "test_sums.py"
    path.write_text(written(*suites), encoding="utf-8")
    for mode in (["--llm-tune-dry-run"], ["--llm-tune"], []):
        result = project.run(*mode)
        text = result.stdout.str() + result.stderr.str()
        assert "Traceback" not in text
        assert "INTERNALERROR" not in text
        assert not re.search(r"^E  ", text, re.MULTILINE)  # an exception that pytest shows is none of ours
        outcomes = result.parseoutcomes()
        ended = sum(outcomes.get(word, 0) for word in ("passed", "failed", "errors", "error", "skipped"))
        assert ended == len(suites), text


@pytest.mark.parametrize("value", ["10**400", "-10**400", "float('inf')", "float('nan')", "'x'", "None"])
@pytest.mark.parametrize("key", ["score", "votes"])
def test_a_grader_returns_no_finite_number(project: Project, key: str, value: str) -> None:
    """One sentence with the grader and the metric; no bare OverflowError."""
    project.pytester.makepyfile(
        own=f"def grade(responses, question, answer):\n"
        f"    found = {{'score': float(f' {{answer}}.' in responses[0]), 'voted_answer': 'x', 'votes': 1}}\n"
        f"    return {{**found, {key!r}: {value}}} if responses[0].startswith('The') else found\n"
    )
    project.write_data([{"question": f"What is {n} plus 1?", "answer": str(n + 1)} for n in range(ROWS)])
    path = project.pytester.path / "test_sums.py"
    path.write_text(written({"grader": "own:grade", "metric": "score"}), encoding="utf-8")
    result = project.run("--llm-tune")
    text = result.stdout.str()
    assert not re.search(r"^E  ", text, re.MULTILINE)
    if key == "score" or value in ("10**400", "-10**400", "float('inf')", "float('nan')"):
        assert re.search(rf"the grader grade returned {key}=.*; a metric is a finite number", text)
