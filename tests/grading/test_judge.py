"""The judge: a model grades open answers; its calls are paid, recorded and held against hand labels."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import pytest
from support.llm_server import LLMServer
from support.results import evaluation, result

from pytest_llmtune import Suite, evaluate
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import resolve
from pytest_llmtune.guard.gates import held_to_agreement
from pytest_llmtune.guard.verdict import Gate, Verdict
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
        (
            {"label_column": "polite", "labelled_column": "sample"},
            {"agreement", "judged_pass", "labelled_pass", "kappa", "base_rate"},
        ),
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
    given = {name for name in found.metrics if not name.startswith(("latency", "refused", "row_rate"))}
    grader = resolve({"judge": {"model": "judge", "rubric": "Polite?", **options}})
    assert grader.metric_names(ROWS) == given == {"expected_success", "success", "success_vote", *more}


def test_a_judge_that_gives_no_verdict_leaves_examples_unknown(server: LLMServer, tmp_path: Path) -> None:
    """Never silently wrong or right."""
    server.answer = lambda body: "Hi!" if body["model"] == "writer" else "Who am I to judge?"
    found = judged(server, tmp_path)
    assert len(found.unknown) == 4
    assert all("no verdict" in str(result.error) for result in found.unknown)


def test_kappa_stands_beside_the_base_rate(server: LLMServer, tmp_path: Path) -> None:
    """A judge that accepts everything agrees with all positive labels, and is no better than chance."""
    server.answer = lambda body: "Hi!" if body["model"] == "writer" else "Verdict: pass"
    blind = judged(server, tmp_path / "blind", label_column="polite", labelled_column="sample")
    kind = sum(result.example.row["polite"] == "yes" for result in blind.results) / len(blind.results)
    assert blind.metrics["agreement"] == kind
    assert blind.metrics["kappa"] == 0
    assert blind.metrics["base_rate"] == max(kind, 1 - kind)
    server.answer = speak
    seeing = judged(server, tmp_path / "seeing", label_column="polite", labelled_column="sample")
    assert seeing.metrics["agreement"] == 1
    assert seeing.metrics["kappa"] == (1 if 0 < kind < 1 else 0)


def test_what_a_judge_thinks_is_no_verdict(server: LLMServer, tmp_path: Path) -> None:
    """Only what it says; a thought that is cut off says nothing."""
    server.answer = lambda body: "Hi!" if body["model"] == "writer" else "<think>Verdict: pass?</think> Verdict: fail"
    assert judged(server, tmp_path / "1").success_vote == 0
    server.answer = lambda body: "Hi!" if body["model"] == "writer" else "<think>Verdict: pass? Let me"
    assert len(judged(server, tmp_path / "2").unknown) == 4


def test_a_missing_question_is_named(server: LLMServer, tmp_path: Path) -> None:
    """It is no reference that is missing."""
    suite = Suite(
        name="s", dataset=[{"ask": "Hi"}], prompt="{ask}", model="writer", tune_size=0, temperature=0, max_tokens=9, n=1,
        grader={"judge": {"model": "judge", "rubric": "Polite?"}}, prices={"writer": {"input": 1, "output": 1}},
    )  # fmt: skip
    with pytest.raises(SuiteError, match=r"finds no question in 1 of 1 rows(?s:.*)`question_column`"):
        evaluate(suite, settings=Settings(root=tmp_path, base_url=server.base_url))
    with pytest.raises(SuiteError, match="min_agreement"):
        resolve({"judge": {"model": "judge", "rubric": "Polite?", "min_agreement": 0}})


@pytest.mark.parametrize(("agreement", "status"), [(0.5, "inconclusive"), (0.9, "passed")])
def test_nothing_is_gated_on_a_judge_that_agrees_too_little(agreement: float, status: str) -> None:
    """With both numbers, and kappa beside them; gates on cost are judged all the same."""
    gates = (
        Gate("min_success_vote", "success_vote", passed=True, value=1, limit=0.9, sentence="fine"),
        Gate("max_inference_cost", "inference_cost", passed=True, value=1, limit=2, sentence="cheap"),
    )
    found = evaluation([result(0)])
    found = replace(found, metrics={**found.metrics, "agreement": agreement, "kappa": 0.1, "base_rate": 0.5})
    grader = resolve({"judge": {"model": "judge", "rubric": "Polite?", "min_agreement": 0.8}})
    verdict = held_to_agreement(Verdict("passed", "success_vote", gates), found, grader)
    assert verdict.status == status
    assert [gate.word for gate in verdict.gates] == (
        ["ok"] * 3 if status == "passed" else ["not judged", "ok", "not judged"]
    )
    assert f"{agreement:g} of the hand labels; Cohen's kappa 0.10; base rate 0.50" in verdict.gates[-1].sentence
    nothing = held_to_agreement(Verdict("passed", "success_vote", gates), evaluation([result(0)]), grader)
    assert "no row has a hand label" in nothing.gates[-1].sentence
    assert nothing.status == "inconclusive"


@pytest.mark.parametrize("status", ["stale", "error", "inconclusive"])
def test_a_distrusted_judge_leaves_a_verdict_that_says_more(status: Literal["stale", "error", "inconclusive"]) -> None:
    """What is stale, an error or inconclusive stays so, and a suite that was not evaluated has no agreement to judge."""
    grader = resolve({"judge": {"model": "judge", "rubric": "Polite?", "min_agreement": 0.8}})
    gates = (
        Gate("min_success_vote", "success_vote", True, 1.0, 0.9, "ok"),
        Gate("max_unknown", "unknown", False, 2, 0, "2 of 3 examples have no answer"),
    )
    verdict = held_to_agreement(Verdict(status, "success_vote", gates), evaluation([result(0)]), grader)
    assert verdict.status == status
    assert [gate.word for gate in verdict.gates] == ["not judged", "FAIL", "not judged"]
    nothing = Verdict(status, "success_vote", gates)
    assert held_to_agreement(nothing, None, grader) is nothing
