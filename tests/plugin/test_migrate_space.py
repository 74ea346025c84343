"""One model in the place of another: what it refuses, its search space, and how it is judged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.results import evaluation, result

from pytest_llmtune import Suite, lograndint, uniform
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import resolve
from pytest_llmtune.guard.rows import RowColumns
from pytest_llmtune.guard.verdict import Criteria
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.recording import Gathered
from pytest_llmtune.recording.format import Interaction
from pytest_llmtune.suite.domains import Choice, Constant
from pytest_llmtune.workflow.migrate import Change, MigrateMode, _change, _changed, _restricted, calls_model

if TYPE_CHECKING:
    from pytest_llmtune.guard.result import Migration
    from pytest_llmtune.suite import Config
    from pytest_llmtune.types import Evaluation

KEYS = {"name": "a", "dataset": [{"question": "q", "answer": "a"}], "prompt": "{question}", "grader": "exact"}


def domains(suite: Suite, **changes: str | float | None) -> dict[str, object]:
    made = _restricted(suite, "model", "new", changes)
    assert made.space.models == ("new",)
    assert suite.space.models == ("old",)
    return dict(made.space.for_model("new"))


def test_refused_parameters_leave_the_space() -> None:
    """The default space: randomness goes whole, a length changes its name, bounds are lowered."""
    suite = Suite(**KEYS, model="old", max_tokens=lograndint(50, 1000), stop=[None, "a"])
    found = domains(suite, temperature=None, max_tokens="max_completion_tokens")
    assert found.keys() == {"max_completion_tokens", "n", "stop"}
    found = domains(suite, temperature=1.0, max_tokens=100.0)
    assert found["max_tokens"] == lograndint(50, 101)
    assert found["temperature_or_top_p"].branches[0]["temperature"] == uniform(0, 1)  # type: ignore[attr-defined]
    assert domains(suite, max_tokens=20.0)["max_tokens"] == Constant(20)


def test_choices_and_constants_are_lowered() -> None:
    suite = Suite(**KEYS, model="old", temperature=[0, 1, 2], max_tokens=500)
    assert domains(suite, temperature=1.0)["temperature"] == Choice((0, 1))
    assert domains(suite, max_tokens=100.0)["max_tokens"] == Constant(100.0)


def test_a_task_that_never_asks_the_model_tells_nothing() -> None:
    """In any row and any run; the model is in the body of the request or in its URL."""
    gathered = Gathered()
    assert not calls_model(gathered, "old")
    gathered.runs["0", 1] = (Interaction("POST", "http://127.0.0.1:9/v1/chat/completions", '{"model":"old"}', 200, ""),)
    gathered.runs["1", 1] = ()
    gathered.runs["1", 2] = (Interaction("POST", "http://127.0.0.1:9/v1/models/older:generateContent", "{}", 200, ""),)
    assert calls_model(gathered, "old")
    assert calls_model(gathered, "older")
    assert not calls_model(gathered, "new")


def mode_of(
    suite: Suite, before: Evaluation, grader: Any = None, max_drop: float | None = 0.2, config: Config | None = None
) -> MigrateMode:
    """Without services: for what is judged, not requested."""
    services: Any = None
    criteria: Any = Criteria(max_drop=max_drop)
    rows: Any = None
    return MigrateMode(
        *(suite, [one.example for one in before.results], grader or resolve("exact"), services, Ledger(), criteria),
        *(RowColumns(), rows, config or suite.space.first(), before, "test_it.py::test_it"),
    )


def judged(before: Evaluation, after: Evaluation, max_drop: float | None = 0.2) -> Migration:
    suite = Suite(**KEYS, model="old")
    return (
        mode_of(suite, before, max_drop=max_drop)._judged("new", suite.space.first(), (), after, Gathered()).migration
    )


@pytest.mark.parametrize(("agreement", "passes"), [(0.9, True), (0.5, False), (None, False)])
def test_no_model_keeps_quality_by_a_judge_that_agrees_too_little(agreement: float | None, passes: bool) -> None:
    """As in the guard: nothing is gated on such a judge, so that nothing is locked by its word."""
    suite = Suite(**KEYS, model="old")
    grader = resolve({"judge": {"model": "judge", "rubric": "Polite?", "min_agreement": 0.8}})
    before = evaluation([result(index) for index in range(40)])
    mode = mode_of(suite, before, grader)
    figures = before.metrics | ({} if agreement is None else {"agreement": agreement})  # type: ignore[operator]
    found = mode._judged("new", suite.space.first(), (), replace(before, metrics=figures), Gathered()).migration
    assert found.verdict == "keeps quality"
    assert (found.passed, found.broken) == (passes, not passes)
    assert passes or "min_agreement asks for 0.8" in found.sentence


def test_without_a_limit_a_twentieth_is_allowed_and_said_to_be() -> None:
    """Equal answers to 300 rows keep quality; to 20 they do not show it."""
    for rows, verdict in ((300, "keeps quality"), (20, "inconclusive")):
        before = evaluation([result(index) for index in range(rows)])
        found = judged(before, before, max_drop=None)
        assert (found.verdict, found.margin) == (verdict, 0.05)
        assert "0.05 is allowed (no max_drop is set)" in found.sentence


def test_a_model_that_does_not_answer_is_inconclusive() -> None:
    """Whatever its other answers are: too many are unknown. Its cost is known where a row can be compared."""
    before = evaluation([result(index) for index in range(40)])
    found = judged(before, evaluation([result(index, None if index % 2 else 1.0) for index in range(40)]))
    assert (found.verdict, found.passed) == ("inconclusive", False)
    assert "20 of 40 rows have no answer: 429 Too Many Requests" in found.sentence
    assert found.cost is not None
    none = judged(before, evaluation([result(index, None) for index in range(40)]))
    assert (none.verdict, none.passed, none.cost) == ("inconclusive", False, None)
    assert "40 of 40 rows have no answer" in none.sentence


def test_what_the_suite_declares_for_a_model_goes_with_it() -> None:
    """Constants are taken over and noted, ranges leave the locked value; the same model twice is refused."""
    suite = Suite(
        **KEYS, model=["old", {"model": "new", "temperature": 1, "max_tokens": lograndint(50, 1000)}], temperature=0
    )
    mode = mode_of(
        suite,
        evaluation([result(0)]),
        config=suite.space.config({"model": "old", "temperature": 0}, suite.space.templates[0]),
    )
    config, notes = mode._moved("new")
    assert config.params["model"] == "new"
    assert config.params["temperature"] == 1
    assert notes == ("temperature=1, as the suite declares for this model",)
    with pytest.raises(SuiteError, match="is the locked model already"):
        mode._moved("old")
    with pytest.raises(SuiteError, match=r"has no parameter 'modle' that is a model \(did you mean 'model'\?\)"):
        mode._moved("modle=new")


@pytest.mark.parametrize(
    ("message", "changed", "note"),
    [
        ("HTTP 400: max_tokens is not supported", {"max_completion_tokens": 500}, "was sent as max_completion_tokens"),
        ("HTTP 400: temperature is not supported", {"max_tokens": 500}, "was left out"),
        ("HTTP 400: max_tokens must be at most 300", {"temperature": 0, "max_tokens": 300}, "was lowered to 300"),
        ("HTTP 400: the prompt is too long", None, ""),
        ("HTTP 500: max_tokens is not supported", None, ""),
    ],
)
def test_a_refusal_changes_the_parameter_that_it_names(message: str, changed: dict[str, Any] | None, note: str) -> None:
    suite = Suite(**KEYS, model="old", temperature=0, max_tokens=500)
    config = suite.space.first()
    changes: dict[str, Change] = {}
    change = _change(config, message, changes)
    if changed is None:
        assert change is None
        return
    assert change is not None
    found, notes = _changed(config, (), *change, changes)
    rest = {name: value for name, value in config.params.items() if name not in ("temperature", "max_tokens")}
    kept = {"temperature": 0} if change[0] != "temperature" else {}
    assert found.params == rest | kept | changed
    assert note in notes[0]
    if "max_completion_tokens" in found.params:  # refused as well: the answer's length stays limited
        assert _change(found, "HTTP 400: max_completion_tokens is not supported", changes) is None
