"""The judge: a model grades open answers; its calls are paid, recorded and held against hand labels."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import LLMServer

from pytest_llmtune import Suite, evaluate
from pytest_llmtune.grading import resolve
from pytest_llmtune.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_llmtune.types import Evaluation

ROWS = [
    {"question": f"Greet guest {n}.", "sample": "Hi!" if n % 2 else "Go away.", "polite": "yes" if n % 2 else "no"}
    for n in range(8)
]


def speak(body: dict[str, Any]) -> str:
    """One model greets; the other judges what stands between the marks."""
    text = body["messages"][-1]["content"]
    if body["model"] == "writer":
        return "Hi, dear guest!"
    judged = text.split("<<<answer")[1].split("answer>>>")[0]
    return "It greets.\nVerdict: pass" if "Hi" in judged else "It is rude.\nVerdict: fail"


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(speak) as running:
        yield running


def judged(server: LLMServer, root: Path, **options: Any) -> Evaluation:
    suite = Suite(
        name="greetings", dataset=ROWS, prompt="{question}", model="writer", n=2, max_tokens=20, tune_size=4,
        grader={"judge": {"model": "judge", "rubric": "The answer greets politely.", **options}},
        prices={"writer": {"input": 1, "output": 1}, "judge": {"input": 10, "output": 10}},
    )  # fmt: skip
    config = {"model": "writer", "prompt": "{question}", "n": 2, "max_tokens": 20}
    return evaluate(suite, config, settings=Settings(root=root, base_url=server.base_url))


def test_a_model_judges_and_is_paid_for(server: LLMServer, tmp_path: Path) -> None:
    """Equal answers are judged once a row; what the judge costs is a part of the cost per instance."""
    found = judged(server, tmp_path)
    assert found.success_vote == 1
    calls = [body["model"] for body in server.answered]
    assert calls.count("judge") == 4
    writer_alone = Decimal("0.00006")
    assert found.inference_cost > writer_alone


def test_its_agreement_with_hand_labels_is_reported(server: LLMServer, tmp_path: Path) -> None:
    """The judge's word on hand-labelled samples, as a metric of its own."""
    found = judged(server, tmp_path, label_column="polite", labelled_column="sample")
    assert found.metrics["agreement"] == 1
    rude = {row["question"]: row for row in ROWS if row["polite"] == "no"}
    assert any(result.example.row["question"] in rude for result in found.results)


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, set()),
        ({"label_column": "polite", "labelled_column": "sample"}, {"agreement"}),
        ({"scale": 5, "pass_mark": 3}, {"score"}),
    ],
)
def test_its_metrics_are_known_without_asking(
    server: LLMServer, tmp_path: Path, options: dict[str, Any], more: set[str]
) -> None:
    """What it says beforehand that it gives is what it gives, so that gates on it are checked before it is paid."""
    if "scale" in options:
        server.answer = lambda body: "Hi!" if body["model"] == "writer" else "Score: 4"
    found = judged(server, tmp_path, **options)
    given = {name for result in found.results if result.grade for name in result.grade.metrics}
    grader = resolve({"judge": {"model": "judge", "rubric": "Polite?", **options}})
    assert grader.metric_names(ROWS) == given == {"expected_success", "success", "success_vote", *more}


def test_a_judge_that_gives_no_verdict_leaves_examples_unknown(server: LLMServer, tmp_path: Path) -> None:
    """Never silently wrong or right."""
    server.answer = lambda body: "Hi!" if body["model"] == "writer" else "Who am I to judge?"
    found = judged(server, tmp_path)
    assert len(found.unknown) == 4
    assert all("no verdict" in str(result.error) for result in found.unknown)
