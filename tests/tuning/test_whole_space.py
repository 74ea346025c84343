"""The whole space of OpenAI's parameters, as the server saw it: choices, branches, conditions, templates."""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import LLMServer
from support.searches import ROWS, answers, billed, search, settings, suite

from pytest_llmtune import choice, evaluate, lograndint, tune, uniform
from pytest_llmtune.errors import LLMTuneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")

JUDGE = {"judge": {"model": "strong", "rubric": "Right?", "question_column": "q"}}
SENT_BY_US = {"model", "messages", "n"}


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(answers) as running:
        yield running


def sent(server: LLMServer) -> dict[str, set[frozenset[str]]]:
    """Model to the sets of parameters that its requests had."""
    found: dict[str, set[frozenset[str]]] = defaultdict(set)
    for body in server.requests:
        found[body["model"]].add(frozenset(body.keys() - SENT_BY_US))
    return found


def values(server: LLMServer, name: str) -> set[str]:
    """What a parameter was, as JSON; "null" where it was not sent."""
    return {json.dumps(body.get(name), sort_keys=True) for body in server.requests}


def test_the_default_space_is_the_ancestors(server: LLMServer, tmp_path: Path) -> None:
    """Each request has a temperature or a top_p, both come, and never both at once; max_tokens is limited."""
    config, _ = search(server, tmp_path, temperature=..., max_tokens=..., n=..., num_samples=12, tune_size=8)
    shapes = {"temperature", "max_tokens"}, {"top_p", "max_tokens"}
    assert {shape for shapes in sent(server).values() for shape in shapes} == set(map(frozenset, shapes))
    assert all(0 <= body.get("temperature", 0) <= 2 and 0 <= body.get("top_p", 0) <= 1 for body in server.requests)
    limits = {body["max_tokens"] for body in server.requests}  # lower ones, once lengths are known
    assert max(limits) == 999
    assert min(limits) >= 16
    assert config.params["max_tokens"] == 999
    assert config.params.keys() & {"temperature", "top_p"}
    assert suite(temperature=..., max_tokens=..., n=...).space.contains(config)


def test_own_branches_are_taken_as_they_are(server: LLMServer, tmp_path: Path) -> None:
    """A range in one branch, a choice in the other."""
    branches = [{"temperature": uniform(0.5, 1)}, {"top_p": [0.25, 0.75]}]
    search(server, tmp_path, temperature=..., temperature_or_top_p=branches, num_samples=12, tune_size=6)
    assert values(server, "top_p") == {"null", "0.25", "0.75"}
    heats = [body["temperature"] for body in server.requests if "temperature" in body]
    assert min(heats) >= 0.5
    assert all(("temperature" in body) != ("top_p" in body) for body in server.requests)


def test_what_differs_for_one_model(server: LLMServer, tmp_path: Path) -> None:
    """A reasoning model takes no temperature, other lengths, and efforts that no other is sent."""
    reasoning = {
        "model": "strong",
        "temperature": None,
        "max_tokens": None,
        "max_completion_tokens": lograndint(30, 61),
        "reasoning_effort": ["low", "high"],
    }
    config, _ = search(server, tmp_path, model=["weak", reasoning])
    assert sent(server) == {
        "weak": {frozenset({"temperature", "max_tokens"})},
        "strong": {frozenset({"max_completion_tokens", "reasoning_effort"})},
    }
    assert values(server, "reasoning_effort") == {"null", '"low"', '"high"'}
    limits = {body.get("max_completion_tokens") for body in server.requests}
    assert {None, 60} <= limits
    assert max(limits - {None}) == 60
    assert config.model == "strong"
    assert config.params["max_completion_tokens"] == 60


def test_one_model_may_go_back_to_max_tokens(server: LLMServer, tmp_path: Path) -> None:
    """Where all others are limited by max_completion_tokens."""
    old = {"model": "weak", "max_completion_tokens": None, "max_tokens": 30}
    search(server, tmp_path, model=["strong", old], max_tokens=..., max_completion_tokens=50, temperature=0)
    assert sent(server) == {
        "strong": {frozenset({"temperature", "max_completion_tokens"})},
        "weak": {frozenset({"temperature", "max_tokens"})},
    }


EFFORT = {"type": "json_schema", "json_schema": {"name": "sum", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("name", "given", "seen"),
    [
        ("stop", [None, "word", ["a", "b"]], {"null", '"word"', '["a", "b"]'}),
        ("stop", [["a", "b"]], {'["a", "b"]'}),
        ("stop", choice(["a", "b"]), {'"a"', '"b"'}),
        ("reasoning_effort", ["low", "high"], {'"low"', '"high"'}),
        ("verbosity", "low", {'"low"'}),
        ("response_format", EFFORT, {json.dumps(EFFORT, sort_keys=True)}),
        ("response_format", [{"type": "text"}, EFFORT], {'{"type": "text"}', json.dumps(EFFORT, sort_keys=True)}),
        ("frequency_penalty", [0, 0.5], {"0", "0.5"}),
        ("tools", [{"type": "function", "function": {"name": "f"}}], None),
    ],
)
def test_any_parameter_is_a_constant_or_a_choice(
    server: LLMServer, tmp_path: Path, name: str, given: Any, seen: set[str] | None
) -> None:
    """Texts, lists and dicts alike are sent as they were given; all choices are tried, one of them wins."""
    config, _ = search(server, tmp_path, temperature=0, model="strong", tune_size=6, **{name: given})
    assert values(server, name) == (seen or {json.dumps(given, sort_keys=True)})
    assert json.dumps(config.params.get(name), sort_keys=True) in values(server, name)


def polite(row: Mapping[str, Any]) -> str:
    return f"{row['q']} Please."


CHATS = [
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{q}"}],
    [{"role": "user", "content": polite}],
]


@pytest.mark.parametrize(
    ("keys", "seen"),
    [
        ({"prompt": ["{q}", "Compute: {q}"]}, {"What", "Compute: What"}),
        ({"prompt": ["Compute: {q}", polite]}, {"Compute: What", "What ... Please."}),
        ({"prompt": ..., "messages": CHATS[0]}, {"Be brief. | What"}),
        ({"prompt": ..., "messages": CHATS}, {"Be brief. | What", "What ... Please."}),
    ],
)
def test_prompts_and_messages_are_choices(
    server: LLMServer, tmp_path: Path, keys: dict[str, Any], seen: set[str]
) -> None:
    """Templates and functions, each asked of both models; the winner can be asked again from its lock entry."""
    config, analysis = search(server, tmp_path, temperature=0, **keys)
    shapes = set()
    for body in server.requests:
        text = " | ".join(message["content"] for message in body["messages"])
        start, _, end = text.partition(" is ")
        shapes.add(f"{start} ... Please." if end.endswith("Please.") else start)
    assert shapes == seen
    assert analysis.best_result.config == config.to_lock()
    before = server.count
    held = evaluate(suite(temperature=0, **keys), config.to_lock(), settings=settings(server, tmp_path))
    assert len(held.results) == len(ROWS) - 16
    assert server.count > before


@pytest.mark.parametrize(("mode", "model"), [("max", "strong"), ("min", "weak")])
@pytest.mark.parametrize("metric", ["success_vote", "success", "expected_success", "mine"])
def test_every_score_is_tuned_in_both_directions(
    server: LLMServer, tmp_path: Path, mode: str, model: str, metric: str
) -> None:
    """Those of the built-in graders, and that of a function of the ancestor's kind."""

    def eval_func(responses: list[str], answer: str, **_: Any) -> dict[str, float]:
        return {"mine": sum(f"It is {answer}." in text for text in responses) / len(responses) * 40}

    grader = eval_func if metric == "mine" else "numeric"
    lowest = (metric, mode) == ("mine", "min")  # of which answers that say nothing have the best: 0
    config, analysis = search(
        server, tmp_path, metric=metric, mode=mode, grader=grader, temperature=[0, 1], allow_vacuous=lowest
    )
    assert config.model == model
    assert {trial.config["model"] for trial in analysis.trials} == {"strong", "weak"}
    assert analysis.best_result in analysis.trials


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            {"metric": "acuracy"},
            r"numeric gives no metric 'acuracy'; there are expected_success, success, success_vote:",
        ),
        ({"grader": lambda responses, **_: {"mine": len(responses) / 9}}, r"no metric 'success_vote'; there are mine"),
        (
            {"grader": JUDGE, "metric": "score"},
            r"metric: the grader judge gives no metric 'score'; there are expected_",
        ),
        ({"grader": [JUDGE, "exact"], "metric": "exact"}, r"judge\+exact gives no metric 'exact'.*exact_success_vote"),
        ({"min_acuracy": 0.5}, r"min_acuracy: the grader numeric gives no metric 'acuracy'.* inference_cost, latency"),
        ({"grader": JUDGE, "min_agreement": 0.8}, r"min_agreement: the grader judge gives no metric 'agreement'"),
        (
            {"max_latency": {"1": 2}, "group_by": "answer"},
            r"max_latency: .*gives no metric 'latency'.* expected_success, inference_cost, success, success_vote:",
        ),
        (
            {"grader": {"judge": {"model": "unpriced", "rubric": "Right?", "question_column": "q"}}},
            r"price of model 'unpriced' is unknown",
        ),
        ({"baselines": [{"model": "unpriced"}]}, r"price of model 'unpriced' is unknown"),
        ({"model": ["strong", "unpriced"]}, r"price of model 'unpriced' is unknown"),
        (
            {"optimization_budget": 0.0000001},
            r"budget of \$0\.0000001 does not pay for one request at its worst, \$0\.000\d+; raise it: "
            r"optimization_budget=.*max_tokens=",
        ),
    ],
)
def test_what_cannot_end_well_costs_nothing(server: LLMServer, tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    """Metrics that the grader does not give, tuned or gated on, and models without a price, are told before the first request."""
    with pytest.raises(LLMTuneError, match=says):
        search(server, tmp_path, **keys)
    assert server.count == 0


@pytest.mark.parametrize("name", [".", "a file/log.jsonl", "data.jsonl"])
def test_a_log_that_cannot_be_kept_is_reported(server: LLMServer, tmp_path: Path, name: str) -> None:
    """A directory, a place below a file, or somebody's data: said before the first request, and nothing is overwritten."""
    (tmp_path / "a file").touch()
    (tmp_path / "data.jsonl").write_text('{"question": "1 + 1?"}\n', encoding="utf-8")
    with pytest.raises(LLMTuneError, match=r"the study's log cannot be kept there: .*; name another file"):
        tune(suite(), log_file_name=tmp_path / name, settings=settings(server, tmp_path))
    assert server.count == 0
    assert "1 + 1" in (tmp_path / "data.jsonl").read_text(encoding="utf-8")


def test_the_log_tells_of_every_trial(server: LLMServer, tmp_path: Path) -> None:
    """JSON lines: what was paid for, the trials with their scores, and the winner; it adds up to the study's dollars."""
    log = tmp_path / "logs" / "study.jsonl"
    _, analysis = tune(suite(), log_file_name=log, settings=settings(server, tmp_path))
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    trials = [entry for entry in entries if "trial" in entry]
    assert [(one["trial"], one["config"], one["status"]) for one in trials] == [
        (trial.number, trial.config, trial.status) for trial in analysis.trials
    ]
    assert sum(Decimal(entry["paid"]) for entry in entries if "paid" in entry) == analysis.summary.spent
    assert (entries[-1]["winner"], entries[-1]["finished"]) == (analysis.summary.winner, analysis.summary.stopped_by)
    assert analysis.summary.spent == billed(server)


def test_other_seeds_are_other_searches(server: LLMServer, tmp_path: Path) -> None:
    """Equal seeds ask the same; another one orders the rows anew and shares no cached answer."""
    first, again, other = (search(server, tmp_path / name, seed=seed) for name, seed in [("a", 5), ("b", 5), ("c", 6)])
    assert again.analysis.summary == first.analysis.summary
    assert other.analysis.summary.trials != first.analysis.summary.trials
    before = server.count
    search(server, tmp_path / "a", seed=6)
    assert server.count > before
