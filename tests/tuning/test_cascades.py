"""Cascades: a cheap model votes, and a dear one answers where the vote is not clear."""

from __future__ import annotations

import itertools
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import LLMServer, prompt_tokens, tokens

from pytest_llmtune import Suite, complete, evaluate, tune, uniform
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.settings import Settings
from pytest_llmtune.suite import Config
from pytest_llmtune.suite.cascade import CascadeSteps
from pytest_llmtune.types import Accept

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = [{"q": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(10) for b in range(10)]
PRICES = {"cheap": 1, "dear": 20}
USD = {model: {"input": usd, "output": 4 * usd} for model, usd in PRICES.items()}
GUESS = itertools.count()


def hard(text: str) -> bool:
    """One row in four."""
    a, b = map(int, re.findall(r"\d+", text)[:2])
    return (a + 3 * b) % 4 == 0


def answers(body: dict[str, Any]) -> list[str]:
    """The dear model is right; the cheap one guesses at hard rows, so that its answers differ."""
    text = str(body["messages"][-1]["content"])
    a, b = map(int, re.findall(r"\d+", text)[:2])
    guesses = body["model"] == "cheap" and hard(text)
    return [f"It is {1000 + next(GUESS) % 97 if guesses else a + b}." for _ in range(body.get("n") or 1)]


def hard_row(row: dict[str, Any]) -> bool:
    return hard(row["q"])


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(answers) as running:
        yield running


def suite(**keys: Any) -> Suite:
    """The inference budget lies between the two models' costs."""
    given = {
        "name": "sums",
        "dataset": ROWS,
        "prompt": "{q}",
        "model": list(PRICES),
        "temperature": uniform(0.7, 1),
        "n": [1, 3, 5],
        "max_tokens": 40,
        "grader": "numeric",
        "prices": {model: {"input": usd, "output": 4 * usd} for model, usd in PRICES.items()},
        "tune_size": 40,
        "num_samples": 8,
        "inference_budget": 0.0003,
        "optimization_budget": 0.15,
        "cascade": True,
    }
    return Suite(**given | keys)


def billed(server: LLMServer) -> Decimal:
    total = Decimal(0)
    for body in server.answered:
        answered = sum(map(tokens, answers(body)))  # guesses are as long as each other
        total += (prompt_tokens(body["messages"]) + 4 * answered) * Decimal(PRICES[body["model"]]) / 1_000_000
    return total


def test_a_cascade_wins_where_the_budget_lies_between_two_models(server: LLMServer, tmp_path: Path) -> None:
    """It is right on the rows that no affordable model is right on, within both budgets."""
    settings = Settings(root=tmp_path, base_url=server.base_url)
    config, study = tune(suite(), settings=settings)
    assert [step.model for step in config.steps] == ["cheap", "dear"]
    assert study.summary.spent <= Decimal("0.15")
    assert study.best_result.config == config.to_lock()
    found = evaluate(suite(), config, settings=settings)
    assert found.success_vote == 1
    assert found.inference_cost <= Decimal("0.0003")
    wanted = sum(hard(result.example.row["q"]) for result in found.results) / len(found.results)
    assert found.metrics["escalated"] == pytest.approx(wanted)
    single, _ = tune(suite(cascade=False), settings=settings)
    assert single.following is None
    assert evaluate(suite(), single, settings=settings).success_vote < 0.85


def test_its_cost_is_the_mix_of_its_steps(server: LLMServer, tmp_path: Path) -> None:
    """Rows that escalate cost both; what the server bills is what is counted."""
    plain = {"cascade": [cheap(3), dear()]}
    found = evaluate(suite(), plain, use_cache=False, settings=Settings(root=tmp_path, base_url=server.base_url))
    assert found.cost == billed(server)
    assert found.inference_cost * len(found.results) == pytest.approx(billed(server))
    assert {body["model"] for body in server.requests} == {"cheap", "dear"}


def cheap(n: int, **accept: Any) -> dict[str, Any]:
    own = {"margin": 0.6, "grader": "numeric"} | accept
    return {"model": "cheap", "temperature": 1, "n": n, "max_tokens": 40, "prompt": "{q}", "accept": own}


def dear() -> dict[str, Any]:
    return {"model": "dear", "temperature": 0.7, "n": 1, "max_tokens": 40, "prompt": "{q}"}


def test_complete_asks_the_dear_step_only_where_the_vote_is_not_clear(server: LLMServer, tmp_path: Path) -> None:
    """With the locked mapping and a row without a reference, as an application has it."""
    settings = Settings(root=tmp_path, base_url=server.base_url, prices=USD)
    plain = {"cascade": [cheap(3), dear()]}
    assert complete(plain, {"q": "What is 2 plus 3?"}, settings=settings).texts == ("It is 5.",) * 3
    assert [body["model"] for body in server.requests] == ["cheap"]
    found = complete(plain, {"q": "What is 1 plus 1?"}, settings=settings)
    assert found.texts == ("It is 2.",)
    assert [body["model"] for body in server.requests] == ["cheap", "cheap", "dear"]
    prompt = prompt_tokens([{"content": "What is 1 plus 1?"}])
    assert found.paid == Decimal(prompt * 21 + 4 * (3 * 3 + 2 * 20)) / 1_000_000


def test_a_rule_may_refuse_a_clear_vote(server: LLMServer, tmp_path: Path) -> None:
    """All answers must match the pattern."""
    settings = Settings(root=tmp_path, base_url=server.base_url, prices=USD)
    complete({"cascade": [cheap(1, regex="^Therefore"), dear()]}, {"q": "What is 2 plus 3?"}, settings=settings)
    assert [body["model"] for body in server.requests] == ["cheap", "dear"]


def sure(text: str) -> bool:
    """Guesses are large numbers."""
    return len(re.findall(r"\d+", text)[-1]) < 4


@pytest.mark.parametrize("rule", [{"schema": {"type": "integer"}}, {"function": sure}])
def test_a_schema_or_a_function_may_refuse_an_answer(server: LLMServer, tmp_path: Path, rule: dict[str, Any]) -> None:
    """Of each answer by itself; a function that only a lock file names is not looked for."""
    settings = Settings(root=tmp_path, base_url=server.base_url, prices=USD)
    hard = next(row for row in ROWS if hard_row(row))
    complete({"cascade": [cheap(1, margin=0, **rule), dear()]}, hard, settings=settings)
    assert [body["model"] for body in server.requests] == ["cheap", "dear"]
    locked = {"cascade": [cheap(1, function={"callable": "os:system"}), dear()]}
    with pytest.raises(SuiteError, match="which is in the suite; give its Config"):
        complete(locked, hard, settings=settings)


@pytest.mark.parametrize(
    "grader",
    [
        "never_imported:read",
        [{"choice": {}}, "never_imported:read"],
        {"judge": {"prompt": {"callable": "never_imported:read"}}},
        {"python": {"isolation": "none", "allow_code_execution": True}},
    ],
    ids=["function", "list", "option", "python"],
)
def test_a_grader_that_a_lock_file_names_runs_no_code(server: LLMServer, tmp_path: Path, grader: Any) -> None:
    """A lock file may come from a stranger, and ``complete`` is called by the app."""
    locked = {"cascade": [cheap(1, grader=grader), dear()]}
    with pytest.raises(SuiteError, match="runs code, which complete"):
        complete(locked, ROWS[0], settings=Settings(root=tmp_path, base_url=server.base_url, prices=USD))


def test_the_suite_says_which_steps_and_what_is_refused(server: LLMServer, tmp_path: Path) -> None:
    """One answer is enough where a rule tells good ones; it is locked by name, and belongs to the suite."""
    settings = Settings(root=tmp_path, base_url=server.base_url)
    steps = [{"model": "cheap", "accept": {"function": sure}}, {"model": "dear"}]
    config, study = tune(suite(n=1, cascade=steps), settings=settings)
    assert [step.model for step in config.steps] == ["cheap", "dear"]
    locked = config.to_lock()
    assert locked["cascade"][0]["accept"]["function"] == {"callable": f"{__name__}:sure"}
    assert evaluate(suite(n=1, cascade=steps), config, settings=settings).success_vote == 1
    again = Config.from_lock(locked).read_by("numeric", suite(cascade=steps).cascade)
    assert again.key == config.key
    with pytest.raises(SuiteError, match="which the suite does not have"):
        Config.from_lock(locked).read_by("numeric", suite().cascade)
    config, study = tune(suite(n=1, cascade=[{"model": "dear"}, {"model": "cheap"}]), settings=settings)
    assert config.following is None
    assert study.summary.note is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"model": "cheap"}], "two steps"),
        ([{"model": "other"}, {}], "is no model of the suite"),
        ([{}, {"accept": {"margin": 1}}], "has the step"),
        ({"accept": {"regex": "("}}, "regex of a cascade's step"),
        ({"accept": {"function": 3}}, "function of a cascade's step"),
    ],
)
def test_what_is_no_step_is_refused(given: Any, said: str) -> None:
    """With what is valid."""
    with pytest.raises(SuiteError, match=said):
        suite(cascade=given)


def test_a_good_model_that_is_affordable_needs_no_cascade(server: LLMServer, tmp_path: Path) -> None:
    """No evidence for one: it is not chosen, and no dollar of the search is reserved for it."""
    given = {"inference_budget": 0.01, "optimization_budget": 0.02}
    settings = [Settings(root=tmp_path / name, base_url=server.base_url) for name in ("with", "without")]
    config, study = tune(suite(**given), settings=settings[0])
    _, without = tune(suite(**given, cascade=False), settings=settings[1])
    assert study.summary.spent == without.summary.spent > Decimal("0.012")
    assert config.following is None
    assert config.model == "dear"
    assert study.summary.winner in {trial.number for trial in study.trials}


def test_a_migrated_cascade_may_have_other_models_but_no_other_rule() -> None:
    """The declared models are the search's; what the first answers must satisfy is the app's."""
    steps = CascadeSteps(("small",), ("large",), Accept(regex="ok"))
    assert steps.why_not(["small", "large"], Accept(0.6, "ok")) is None
    assert steps.why_not(["new", "large"], Accept(0.6, "ok")) == "a step uses the model new; declared: 'small'"
    assert steps.why_not([], Accept(0.6, "ok")) is None
    assert steps.why_not([], Accept(0.6)) == "its 'regex' in accept differs from the declared one"


def test_a_cascade_is_read_as_it_was_written() -> None:
    """Lock file and configuration; its key knows its steps."""
    plain = {"cascade": [cheap(3), dear()]}
    config = Config.from_lock(plain)
    assert config.to_lock() == {"cascade": [cheap(3) | {"accept": {"margin": 0.6, "grader": "numeric"}}, dear()]}
    assert config.models == ("cheap", "dear")
    assert config.key != Config.from_lock({"cascade": [cheap(3, margin=0.8), dear()]}).key
    assert suite().space.why_not(config) is None
    assert "the model 'dear' is not one of" in str(suite(model=["cheap", "other"]).space.why_not(config))


@pytest.mark.parametrize(
    ("cascade", "message"),
    [
        ([], "two or more steps"),
        ([cheap(1)], "two or more steps"),
        ("cheap", "two or more steps"),
        ([cheap(1), cheap(1)], "the last step of a cascade must not have accept"),
        ([dear(), dear()], "accept of a cascade's step is None"),
        ([cheap(1, margin=2), dear()], "margin of a cascade's step is 2"),
        ([cheap(1, margin=True), dear()], "margin of a cascade's step is True"),
        ([cheap(1, regex="("), dear()], "regex of a cascade's step"),
        ([cheap(1, function="os:system"), dear()], "function of a cascade's step is 'os:system'"),
        ([cheap(1, schema="x"), dear()], "schema of a cascade's step is 'x'"),
        ([cheap(1, rule=1), dear()], "valid: margin, regex, schema, function, grader"),
        ([cheap(1), {"cascade": [cheap(1), dear()]}], "must be a configuration"),
    ],
)
def test_what_is_no_cascade_is_refused(cascade: Any, message: str) -> None:
    """It may come from a lock file that somebody edited."""
    with pytest.raises(SuiteError, match=message):
        Config.from_lock({"cascade": cascade})
