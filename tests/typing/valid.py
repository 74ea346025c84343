"""What users write: `mypy`, which reads this file too, must accept all of it. Never run."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, assert_type

from pytest_llmtune import (
    BudgetExhaustedError,
    CompletionError,
    Config,
    Evaluation,
    Failure,
    Grader,
    LLMTuneError,
    Proposer,
    Settings,
    Suite,
    complete,
    evaluate,
    grade,
    lograndint,
    mark,
    propose,
    randint,
    tune,
    uniform,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

suite = Suite(
    name="sums",
    dataset=[{"question": "1+1", "answer": "2"}],
    where="answer != 'x'",
    prompt=["{question}", "{question} Answer briefly."],
    model=["small", {"model": "o3", "temperature": None}],
    temperature=uniform(0, 2),
    max_tokens=lograndint(50, 1000),
    n=randint(1, 5),
    stop=["a", None],
    grader={"math": {"symbolic": False}},
    inference_budget=0.004,
    optimization_budget=Decimal(1),
    prices={"small": {"input": 0.1, "output": "0.4"}},
    min_success_vote=0.85,
    thresholds={"min_json_valid": 0.99},
    max_drop=0.02,
)
config, study = tune(suite, settings=Settings(base_url="http://localhost:1"))
assert_type(config, Config)
result = evaluate(suite, config)
assert_type(result, Evaluation)
assert_type(result.success_vote, float)
assert_type(result.metrics["json_valid"], float)
assert_type(result.inference_cost, Decimal)
completion = complete(config, {"question": "1+1"}, temperature=0.5, n=3)
assert_type(completion.texts, tuple[str, ...])
assert_type(usage()["small"].cost, Decimal)
assert_type(grade("exact", ["2"], {"answer": "2"}).metrics["success"], float)


@mark(dataset="a.jsonl", model="small", grader="math", prompt="{q}", temperature=uniform(0, 1), min_success_vote=0.8)
def test_marked(llmtune: object) -> int:
    return 1


assert_type(test_marked(None), int)


class Writer:
    def prompt(self, template: str, failures: Sequence[Failure]) -> str:
        return template + failures[0].question + failures[0].expected

    def read(self, answer: str) -> str:
        return answer


writer: Proposer = Writer()
written = Suite(
    dataset="rows.jsonl",
    prompt=propose(["{question}"], model="large", rounds=1, per_round=3, by=writer),
    shots=randint(0, 4),
    model="small",
    grader="exact",
)


def mine(grader: Grader) -> str:
    return grader.fingerprint


def handled() -> None:
    try:
        evaluate(suite)
    except (BudgetExhaustedError, CompletionError) as error:
        raise LLMTuneError(str(error)) from error


def notebook(result: Evaluation) -> None:
    result.frame()
    result.frame("pandas").describe()
    result.frame("polars").describe()
