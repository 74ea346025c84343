"""The three calls without pytest: what autogen's ``create`` and ``test`` could, over real HTTP; ``tune`` has its own tests."""

from __future__ import annotations

import statistics
from decimal import Decimal
from time import process_time
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import Fault, LLMServer, prompt_tokens, tokens
from support.searches import answers, settings, suite

from pytest_llmtune import api, complete, evaluate, tune, usage
from pytest_llmtune._dataclass import replace
from pytest_llmtune.completions.stats import RequestStats
from pytest_llmtune.errors import CompletionError, LLMTuneError, SuiteError
from pytest_llmtune.types import Exchange
from pytest_llmtune.wire.tokens import completion_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pytest_llmtune.settings import Settings
    from pytest_llmtune.types import Completion

WEAK, STRONG = ({"model": model, "prompt": "{q}", "n": 2, "max_tokens": 40} for model in ("weak", "strong"))
ROW = {"q": "What is 3 plus 4?"}


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(answers) as running:
        yield running


@pytest.fixture
def at(server: LLMServer, tmp_path: Path) -> Settings:
    """Where the server is, what its models cost, and that a fault is given up soon."""
    usd = {"input": "1", "output": "4"}
    return settings(server, tmp_path, prices={"weak": usd, "strong": usd}, timeout=2.0)


def test_a_row_gives_texts(server: LLMServer, at: Settings) -> None:
    """All answers, the first one, and what they cost."""
    completion = complete(STRONG, ROW, settings=at)
    body = server.requests[0]
    assert (body["model"], body["n"], body["messages"][-1]["content"]) == ("strong", 2, ROW["q"])
    assert completion.texts == tuple(answers(body))
    assert completion.text == answers(body)[0]
    billed = prompt_tokens(body["messages"]) + 4 * sum(map(tokens, answers(body)))
    assert completion.paid == Decimal(billed) / 1_000_000


def test_parameters_may_be_given_over_those_of_the_configuration(server: LLMServer, at: Settings) -> None:
    """A prompt without fields needs no row; a misspelt name is not sent."""
    complete({**STRONG, "prompt": "1 + 2?"}, n=1, temperature=0.5, model="weak", stop=["x", "y"], settings=at)
    [sent] = server.requests
    assert sent.pop("n", 1) == 1
    assert sent == {
        "model": "weak",
        "max_tokens": 40,
        "temperature": 0.5,
        "stop": ["x", "y"],
        "messages": [{"role": "user", "content": "1 + 2?"}],
    }
    with pytest.raises(SuiteError, match=r"unknown parameter 'temprature' \(did you mean 'temperature'\?\); prompts"):
        complete(STRONG, ROW, temprature=0, settings=at)
    with pytest.raises(SuiteError, match=r"the prompt names \{q\}, but the row has .question."):
        complete(STRONG, {"question": "?"}, settings=at)
    assert server.count == 1


def test_usage_is_reported_by_model(server: LLMServer, at: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all calls so far, failed ones too, to the digit of what the server billed; what the cache held is not in it."""
    monkeypatch.setattr(api, "_USED", RequestStats())
    for _ in range(2):
        complete(STRONG, ROW, cache_seed=3, settings=at)
    evaluated = evaluate(suite(), WEAK, settings=at)
    server.fault = lambda _: Fault.http(400, "no")
    with pytest.raises(CompletionError):
        complete(WEAK, ROW, settings=at)
    found = usage()
    assert set(found) == {"weak", "strong"}
    assert (found["strong"].usage.requests, found["weak"].cost) == (1, evaluated.cost)
    for model, asked in found.items():
        bodies = [body for body in server.answered if body["model"] == model]
        assert asked.usage.prompt_tokens == sum(prompt_tokens(body["messages"]) for body in bodies)
        assert asked.usage.completion_tokens == sum(sum(map(tokens, answers(body))) for body in bodies)
        assert asked.cost == Decimal(asked.usage.prompt_tokens + 4 * asked.usage.completion_tokens) / 1_000_000


def test_what_is_kept_is_asked_for_once(server: LLMServer, at: Settings) -> None:
    """By seed; without one every call asks anew."""
    first = complete(STRONG, ROW, cache_seed=1, settings=at)
    again = complete(STRONG, ROW, cache_seed=1, settings=at)
    assert server.count == 1
    assert (again.texts, again.paid) == (first.texts, 0)
    complete(STRONG, ROW, cache_seed=2, settings=at)
    complete(STRONG, ROW, settings=at)
    complete(STRONG, ROW, settings=at)
    assert server.count == 4


def test_the_first_that_can_be_completed_and_is_accepted_is_taken(server: LLMServer, at: Settings) -> None:
    """A list is tried in order; what was rejected is paid for too; the last is taken as it is."""
    seen: list[tuple[Mapping[str, Any], str]] = []

    def accept(row: Mapping[str, Any], completion: Completion) -> bool:
        seen.append((row, completion.served_model))
        return completion.served_model == "strong"

    alone = [complete(config, ROW, settings=at) for config in (WEAK, STRONG)]
    found = complete([WEAK, STRONG, WEAK], ROW, accept=accept, settings=at)
    assert found.texts == alone[1].texts
    assert seen == [(ROW, "weak"), (ROW, "strong")]
    assert found.paid == alone[0].paid + alone[1].paid
    assert complete([WEAK, WEAK], ROW, accept=accept, settings=at).served_model == "weak"
    server.fault = lambda body: Fault.http(404, "gone", "model_not_found") if body["model"] == "weak" else None
    assert complete([WEAK, STRONG], ROW, settings=at).served_model == "strong"
    with pytest.raises(CompletionError, match="gone"):
        complete([STRONG, WEAK], ROW, accept=lambda *_: False, settings=at)
    with pytest.raises(SuiteError, match=r"takes a configuration .* not 5"):
        complete(5, ROW, settings=at)  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match="the list is empty"):
        complete([], ROW, settings=at)


def test_calls_of_tools_are_texts_too() -> None:
    """Without their ids, so that equal calls vote together; a text beside them comes first."""
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        {"content": None, "tool_calls": [call]},
        {"content": None, "tool_calls": [call | {"id": "call_2"}]},
        {"content": None, "function_call": call["function"]},
        {"content": "Adding.", "tool_calls": [call]},
        {"content": None, "tool_calls": "broken"},
    ]
    choices = [{"index": 0, "finish_reason": "stop", "message": message} for message in messages]
    exchange = Exchange("POST", "", {"model": "m", "n": 5, "messages": []}, {"choices": choices})
    same = '[{"name": "add", "arguments": "{\\"a\\": 1}"}]'
    assert completion_of([exchange], 5).texts == (same, same, same, "Adding.", "")


def spread(responses: list[str], q: str, answer: str, **_: Any) -> dict[str, float]:
    """0 to 9 by the row, and the length of the answers: the median is not the mean."""
    return {"digit": (int(answer) % 10) ** 2 / 2, "length": float(len(responses[0])), "same": 0.5}


def graded() -> Any:
    return suite(grader=spread, metric="digit", temperature=0, n=1, tune_size=10)


@pytest.mark.parametrize(
    ("aggregate", "whole"), [("median", statistics.median), ("mean", statistics.fmean), (max, max)]
)
def test_aggregates_are_the_callers(at: Settings, aggregate: Any, whole: Callable[[list[float]], float]) -> None:
    """A name, or a function, for all metrics; the interval is of the same aggregate."""
    found = evaluate(graded(), STRONG, aggregate=aggregate, settings=at)
    assert len(found.results) == 30
    columns = {name: [r.grade.metrics[name] for r in found.results if r.grade] for name in ("digit", "length")}
    assert {name: found.metrics[name] for name in columns} == {name: whole(c) for name, c in columns.items()}
    assert found.intervals["digit"].low <= found.digit <= found.intervals["digit"].high
    assert statistics.median(columns["digit"]) != statistics.fmean(columns["digit"])


def test_every_metric_may_have_an_aggregate_of_its_own(server: LLMServer, at: Settings) -> None:
    """The others keep the suite's; the results are there example by example, with their answers."""
    plain = evaluate(graded(), STRONG, settings=at)
    asked = server.count
    found = evaluate(graded(), STRONG, aggregate={"digit": "median", "length": max}, settings=at)
    assert server.count == asked
    assert found.cost == 0 < plain.cost
    assert found.inference_cost == plain.inference_cost == plain.cost / 30
    digits = [result.grade.metrics["digit"] for result in found.results if result.grade]
    assert found.digit == statistics.median(digits) != plain.digit == statistics.fmean(digits)
    assert found.length == max(float(len(result.responses[0])) for result in found.results)
    assert found.same == plain.same
    assert found.intervals["digit"] != plain.intervals["digit"]
    assert found.intervals["same"] == plain.intervals["same"]


def test_the_most_answers_to_a_row(tmp_path: Path) -> None:
    """10,000, where the server gives them at once: the work grows with their number, and not faster."""
    with LLMServer(lambda body: [f"It is {number}." for number in range(body["n"])]) as server:
        many = suite(n=10_000, temperature=1, max_tokens=9, model="weak", tune_size=1, test_size=1)
        began = process_time()
        evaluated = evaluate(many, settings=settings(server, tmp_path))
        assert process_time() - began < 30
    assert server.count == 1
    [result] = evaluated.results
    assert len(result.responses) == 10_000
    assert result.grade is not None
    assert len(result.grade.votes) == 10_000


def test_an_evaluation_may_skip_the_cache(server: LLMServer, at: Settings) -> None:
    """``use_cache=False`` pays for everything again."""
    first = evaluate(graded(), STRONG, settings=at)
    asked = server.count
    again = evaluate(graded(), STRONG, use_cache=False, settings=at)
    assert server.count == 2 * asked
    assert again.cost == first.cost > 0


@pytest.mark.parametrize(
    ("aggregate", "says"),
    [
        ("meen", r"Suite\('sums'\): aggregate is 'meen' \(did you mean 'mean'\?\)"),
        ({"digit": 5}, r"aggregate is 5; valid: mean, median"),
        ({"nope": "median"}, r"aggregate names the metric 'nope'; there are digit, latency.*length"),
    ],
)
def test_a_wrong_aggregate_is_named(at: Settings, aggregate: Any, says: str) -> None:
    """With what there is instead."""
    with pytest.raises(LLMTuneError, match=says):
        evaluate(graded(), STRONG, aggregate=aggregate, settings=at)


def test_an_aggregate_of_a_metric_that_will_not_be_costs_nothing(server: LLMServer, at: Settings) -> None:
    """Where the grader can tell what it gives; what every suite has is there all the same."""
    told = r"aggregate: the grader numeric gives no metric 'sucess' \(did you mean 'success'\?\); there are expected_"
    with pytest.raises(SuiteError, match=told):
        evaluate(suite(), STRONG, aggregate={"sucess": "median"}, settings=at)
    assert server.count == 0
    found = evaluate(suite(), STRONG, aggregate={"latency": "median", "success": "median"}, settings=at)
    assert found.success == 1


@pytest.mark.parametrize("call", ["tune", "evaluate", "complete"])
def test_max_spend_limits_each_call(server: LLMServer, at: Settings, call: str) -> None:
    """What the next request may cost is more than the limit: nothing is sent."""
    limited = replace(at, max_spend=Decimal("0.000001"))
    work = {
        "tune": lambda: tune(suite(), settings=limited),
        "evaluate": lambda: evaluate(suite(), STRONG, settings=limited),
        "complete": lambda: complete(STRONG, ROW, settings=limited),
    }
    with pytest.raises(LLMTuneError, match="max_spend"):
        work[call]()
    assert server.count == 0


def test_a_completion_has_a_deadline(server: LLMServer, at: Settings) -> None:
    """As a suite has."""
    with pytest.raises(CompletionError, match="the time of the run is up"):
        complete(STRONG, ROW, settings=replace(at, deadline=0.0))
    assert server.count == 0


@pytest.mark.parametrize("option", [{"batch": True}, {"engine": "ray"}, {"source": "canned"}])
def test_a_completion_is_not_sent_another_way_than_the_settings_say(
    server: LLMServer, at: Settings, option: dict[str, Any]
) -> None:
    """It is sent at once, over HTTP."""
    [name] = option
    with pytest.raises(SuiteError, match=rf"complete\(\) .*{name}"):
        complete(STRONG, ROW, settings=replace(at, **option))
    assert server.count == 0
