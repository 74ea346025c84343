"""Whole searches over real HTTP: two budgets, pooled samples, faults, interruption, and the choice of the winner."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import Fault, LLMServer, prompt_tokens, tokens

from pytest_llmtune import Suite, evaluate, lograndint, randint, tune, uniform
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_llmtune.api import Tuned

pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = [{"q": f"Question {number}?", "answer": str(number)} for number in range(48)]
SKILL = {"strong": 0.9, "middling": 0.6, "weak": 0.2}
PRICES = {"strong": 8, "middling": 2, "weak": 1}


def answers(body: dict[str, Any]) -> list[str]:
    """Right as often as the model's skill says; hard questions are hard for all; the same request, the same answers."""
    text = body["messages"][-1]["content"]
    [number] = map(int, re.findall(r"\d+", text))
    found = []
    for choice in range(body.get("n") or 1):
        luck = zlib.crc32(f"{body['model']} {body.get('temperature')} {number} {choice}".encode()) % 1000 / 1000
        right = luck < SKILL[body["model"]] - 0.2 * (number % 3 - 1)
        found.append(f"It is {number if right else 777}." + " word" * (number % 5))
    return found


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(answers) as running:
        yield running


def suite(**keys: Any) -> Suite:
    given = {
        "name": "numbers",
        "dataset": ROWS,
        "prompt": "{q}",
        "model": list(SKILL),
        "temperature": uniform(0, 1),
        "n": randint(1, 6),
        "max_tokens": lograndint(16, 65),
        "grader": "numeric",
        "prices": {model: {"input": usd, "output": 4 * usd} for model, usd in PRICES.items()},
        "tune_size": 24,
        "num_samples": -1,
        "optimization_budget": 0.02,
    }
    return Suite(**given | keys)


def search(server: LLMServer, root: Path, concurrency: int = 16, **keys: Any) -> Tuned:
    settings = Settings(root=root, base_url=server.base_url, concurrency=concurrency)
    return tune(suite(**keys), settings=settings)


def billed(server: LLMServer) -> Decimal:
    """USD for everything that the server answered."""
    total = Decimal(0)
    for body in server.answered:
        found = server.answer(body) if callable(server.answer) else []
        completion = sum(min(tokens(text), body["max_tokens"]) for text in found)
        total += (prompt_tokens(body["messages"]) + 4 * completion) * Decimal(PRICES[body["model"]]) / 1_000_000
    return total


def test_the_best_model_wins_and_not_a_cent_over_the_budget_is_spent(server: LLMServer, tmp_path: Path) -> None:
    """With sixteen requests in flight; what the study says it spent is what the server billed."""
    config, analysis = search(server, tmp_path)
    assert config.model == "strong"
    assert analysis.summary.stopped_by in ("optimization_budget", "converged")
    assert analysis.summary.spent == billed(server) <= Decimal("0.02")
    assert analysis.best_result.config == config.to_lock()


@pytest.mark.parametrize("rates", [{"429": 0.15, "503": 0.1}])
def test_faults_cost_no_cent_over_the_budget(server: LLMServer, tmp_path: Path, rates: dict[str, float]) -> None:
    """A search among rate limits and broken servers finds the same winner within the same budget."""
    server.fault_rate = rates
    config, analysis = search(server, tmp_path)
    assert config.model == "strong"
    assert billed(server) <= analysis.summary.spent <= Decimal("0.02")


def test_what_is_over_the_inference_budget_cannot_win(server: LLMServer, tmp_path: Path) -> None:
    """The strong model costs too much; its trials end early, and the winner is within the budget on the test rows."""
    limit = 0.00015
    config, analysis = search(server, tmp_path, inference_budget=limit)
    assert config.model != "strong"
    dear = [trial for trial in analysis.trials if trial.config["model"] == "strong"]
    assert {trial.status for trial in dear} == {"over_budget"}
    settings = Settings(root=tmp_path, base_url=server.base_url)
    assert evaluate(suite(inference_budget=limit), config, settings=settings).inference_cost <= Decimal(str(limit))


def test_nothing_within_the_budget_is_an_error_that_names_the_cheapest(server: LLMServer, tmp_path: Path) -> None:
    """It says both figures and what to change."""
    with pytest.raises(
        LLMTuneError, match=r"none of \d+ configurations.*\$0\.0001 per 1,000 instances.*cheapest costs about \$0\.0"
    ):
        search(server, tmp_path, inference_budget=0.0000001)


def test_a_winner_is_affordable_on_rows_it_was_not_tuned_on(tmp_path: Path) -> None:
    """The strong model's answers to the test rows are longer: a part of the budget is kept to find that out."""

    def talkative(body: dict[str, Any]) -> list[str]:
        [number] = map(int, re.findall(r"\d+", body["messages"][-1]["content"]))
        more = " word" * 3 if body["model"] == "strong" and number >= 24 else ""
        return [text + more for text in answers(body)]

    with LLMServer(talkative) as server:
        keys = {"inference_budget": 0.00025, "n": 1, "max_tokens": 64, "shuffle": False}
        config, analysis = search(server, tmp_path, **keys, optimization_budget=0.05)
        assert config.model == "middling"
        asked = {int(re.findall(r"\d+", b["messages"][-1]["content"])[0]) for b in server.requests}
        assert max(asked) >= 24
        assert analysis.summary.spent <= Decimal("0.05")
        dear = [trial for trial in analysis.trials if trial.config["model"] == "strong"]
        assert {trial.status for trial in dear} == {"over_budget"}
        settings = Settings(root=tmp_path, base_url=server.base_url)
        assert evaluate(suite(**keys), config, settings=settings).inference_cost <= Decimal("0.00025")


def test_who_cannot_win_is_not_asked_to_the_end(server: LLMServer, tmp_path: Path) -> None:
    """With dollars to spare the best model sees every row, and the weak one stops early."""
    rows = [{"q": f"Question {number}?", "answer": str(number)} for number in range(120)]
    config, analysis = search(
        server,
        tmp_path,
        dataset=rows,
        tune_size=96,
        num_samples=6,
        optimization_budget=5,
        model=["strong", "weak"],
        n=3,
    )
    assert config.model == "strong"
    status: dict[str, set[str]] = {str(trial.config["model"]): set() for trial in analysis.trials}
    for trial in analysis.trials:
        status[str(trial.config["model"])].add(trial.status)
    assert "done" in status["strong"]
    assert status["weak"] == {"stopped"}


def test_samples_serve_every_n(server: LLMServer, tmp_path: Path) -> None:
    """No request asks for a sample that is there: answers sent are those that the cache keeps, once each."""
    _, analysis = search(server, tmp_path, n=randint(1, 6), temperature=0.5, optimization_budget=1)
    assert analysis.summary.stopped_by == "converged"
    sent: dict[tuple[str, str], int] = {}
    for body in server.requests:
        place = (body["model"], body["messages"][-1]["content"])
        sent[place] = sent.get(place, 0) + (body.get("n") or 1)
    assert max(sent.values()) <= 5
    assert any(count > 1 for count in sent.values())


def test_the_same_seed_repeats_the_search(server: LLMServer, tmp_path: Path) -> None:
    """The requests of two searches are the same, and so is what they find."""
    first = search(server, tmp_path / "one", optimization_budget=0.02)
    requests = sorted(map(repr, server.requests))
    server.requests.clear()
    second = search(server, tmp_path / "two", optimization_budget=0.02)
    assert sorted(map(repr, server.requests)) == requests
    assert first.config.key == second.config.key
    assert first.analysis.summary == second.analysis.summary


def test_a_search_again_asks_for_nothing(server: LLMServer, tmp_path: Path) -> None:
    """A study that had ended is repeated from the cache, and finds the same."""
    first = search(server, tmp_path, num_samples=6)
    before = server.count
    again = search(server, tmp_path, num_samples=6)
    assert server.count == before
    assert again.analysis.summary == first.analysis.summary


def test_cached_samples_are_free_in_the_budget_too(server: LLMServer, tmp_path: Path) -> None:
    """Another study over the same space has its whole budget for what the first did not ask."""
    search(server, tmp_path)
    before = billed(server)
    _, analysis = search(server, tmp_path, min_success_vote=0.5, optimization_budget=0.015)
    assert analysis.summary.spent == billed(server) - before <= Decimal("0.015")


def test_an_interrupted_search_goes_on_within_its_budget(server: LLMServer, tmp_path: Path) -> None:
    """Stopped after some requests, run again: what was answered is not asked again, but for what was in flight."""
    undisturbed = search(server, tmp_path / "undisturbed", optimization_budget=0.02)
    asked, cost = len(server.answered), billed(server)
    server.faults.extend([None] * (asked // 2) + [Fault.http(401, "gone", "invalid_api_key")] * 40)
    with pytest.raises(LLMTuneError):
        search(server, tmp_path / "stopped", optimization_budget=0.02)
    server.faults.clear()
    resumed = search(server, tmp_path / "stopped", optimization_budget=0.02)
    assert resumed.config.key == undisturbed.config.key
    assert resumed.analysis.summary.spent == undisturbed.analysis.summary.spent
    lost = len(server.answered) - 2 * asked
    assert 0 <= lost <= 16
    assert billed(server) - 2 * cost <= lost * Decimal("0.0025")


def test_ctrl_c_keeps_the_best_so_far(server: LLMServer, tmp_path: Path) -> None:
    """A SIGINT in the middle: the search ends at once, with a winner and a word about it."""

    sent = threading.Lock()

    def slow(body: dict[str, Any]) -> float:
        if server.count >= 60 and sent.acquire(blocking=False):  # once
            os.kill(os.getpid(), signal.SIGINT)
        return 0.02

    server.latency = slow
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        config, analysis = search(server, tmp_path, concurrency=2, optimization_budget=5, n=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert analysis.summary.stopped_by == "interrupted"
    assert "interrupted" in analysis.notes[0]
    assert config.model in SKILL
    assert server.count < 70


def test_requests_fill_the_concurrency(server: LLMServer, tmp_path: Path) -> None:
    """Across rows and trials: with 16 in flight the same search takes a small part of the time one by one."""
    server.latency = 0.2
    search(server, tmp_path, concurrency=16, optimization_budget=1, n=1, num_samples=12)
    assert server.peak == 16


def test_the_least_of_a_metric_wins_in_mode_min(server: LLMServer, tmp_path: Path) -> None:
    """And over-budget or failed trials do not."""
    config, _ = search(server, tmp_path, mode="min", num_samples=6, inference_budget=0.001)
    assert config.model == "weak"


def test_errors_are_pruned_and_chosen_as_hits_are(tmp_path: Path) -> None:
    """One world told both ways, as hits to be maximised and as errors to be minimised: the same requests, the same winner."""

    def hits(responses: list[str], answer: str) -> dict[str, float]:
        return {"score": float(f" {answer}." in responses[0])}

    def errors(responses: list[str], answer: str) -> dict[str, float]:
        return {"score": 1.0 - (f" {answer}." in responses[0])}

    found = []
    for grader, mode in ((hits, "max"), (errors, "min")):
        with LLMServer(answers) as server:
            root = tmp_path / mode
            config, analysis = search(server, root, grader=grader, metric="score", mode=mode, num_samples=8, n=1)
            trials = [(trial.config, trial.status) for trial in analysis.trials]
            found.append((config.params, trials, len(server.answered)))
    assert found[0][0] == found[1][0]
    assert found[0][0]["model"] == "strong"
    assert found[0][1:] == found[1][1:]


def test_a_model_that_fails_always_is_out(server: LLMServer, tmp_path: Path) -> None:
    """Its rows are unknown, not wrong: another model wins, and its trials are called failed."""
    server.fault = lambda body: Fault.http(400, "no such thing") if body["model"] == "weak" else None
    config, analysis = search(server, tmp_path, num_samples=3, temperature=0, n=1)
    assert config.model == "strong"
    assert [trial.status for trial in analysis.trials if trial.config["model"] == "weak"] == ["failed"]


def test_the_claim_holds_for_rows_that_the_search_never_saw(server: LLMServer, tmp_path: Path) -> None:
    """The cross-fitted score has an interval, and the winner's score on the test rows lies in it."""
    config, analysis = search(server, tmp_path, tune_size=24, optimization_budget=0.05)
    held = analysis.summary.heldout
    assert held is not None
    assert held.low is not None
    assert held.high is not None
    settings = Settings(root=tmp_path, base_url=server.base_url)
    assert held.low <= evaluate(suite(), config, settings=settings).success_vote <= held.high
    assert held.high - held.low < 0.75


def test_a_callable_grader_of_the_ancestors_kind_is_tuned(server: LLMServer, tmp_path: Path) -> None:
    """``eval_func(responses, **row)`` judges all answers together, and is shown parts of the pool."""
    shown: set[int] = set()

    def eval_func(responses: list[str], answer: str, **_: Any) -> dict[str, float]:
        shown.add(len(responses))
        return {"any_right": float(any(f"It is {answer}." in text for text in responses))}

    config, analysis = search(server, tmp_path, grader=eval_func, metric="any_right", num_samples=4)
    assert config.model != "weak"
    assert analysis.best_result.score is not None
    assert shown <= {1, 2, 3, 4, 5}


@pytest.mark.parametrize(("aggregate", "own"), [("mean", None), ("median", "median"), (max, "builtins:max")])
def test_the_note_names_what_the_suite_is_judged_by(
    server: LLMServer, tmp_path: Path, aggregate: Any, own: str | None
) -> None:
    """Scores of a search are means; nothing is said where the suite's are too."""
    _, analysis = search(server, tmp_path, aggregate=aggregate, model="weak", num_samples=1)
    assert [note.split("aggregate=")[1] for note in analysis.notes] == ([own] if own else [])
    assert analysis.summary.note == (analysis.notes[0] if own else None)


def test_one_configuration_needs_no_search(server: LLMServer, tmp_path: Path) -> None:
    """A constant space is judged as it is."""
    config, analysis = search(server, tmp_path, model="middling", temperature=0, n=1, max_tokens=50)
    assert config.params == {"model": "middling", "temperature": 0, "n": 1, "max_tokens": 50}
    assert analysis.summary.stopped_by == "constant space"
    assert len(analysis.trials) == 1


def test_a_shorter_limit_makes_a_model_affordable(server: LLMServer, tmp_path: Path) -> None:
    """Long answers of one row in three are cut where the whole ones would cost too much."""

    def long_ones(body: dict[str, Any]) -> str:
        [number] = map(int, re.findall(r"\d+", body["messages"][-1]["content"]))
        return f"It is {number}." + (" word" * 40 if number % 4 == 0 else "")

    server.answer = long_ones
    whole = (15 + 4 * 18) * 8 / 1_000_000
    config, _ = search(server, tmp_path, model="strong", n=1, temperature=0, inference_budget=whole * 0.75)
    assert config.params["max_tokens"] < 64


def test_a_running_event_loop_is_no_obstacle(server: LLMServer, tmp_path: Path) -> None:
    """As in a notebook."""

    async def notebook() -> Tuned:
        return search(server, tmp_path, num_samples=3)

    assert asyncio.run(notebook()).config.model in SKILL


def test_a_search_whose_first_requests_are_all_given_up(server: LLMServer, tmp_path: Path) -> None:
    """Nothing is known of anything after the first round: no traceback, the first error."""
    server.fault = lambda _: Fault.http(500)
    with pytest.raises(LLMTuneError, match=r"no configuration could be completed; the first error: .*HTTP 500"):
        tune(suite(num_samples=3), settings=Settings(root=tmp_path, base_url=server.base_url, deadline=3.0))


def test_short_answers_under_a_long_limit_leave_no_dollars_unspent(server: LLMServer, tmp_path: Path) -> None:
    """What is reserved follows from the lengths seen; once lengths are known, a lower limit is sent."""
    _, analysis = search(server, tmp_path, max_tokens=1000, n=1, tune_size=40, optimization_budget=0.05)
    assert Decimal("0.045") <= analysis.summary.spent <= Decimal("0.05")
    assert analysis.summary.spent == billed(server)
    assert min(body["max_tokens"] for body in server.requests) < 200


def test_an_answer_that_a_lowered_limit_cuts_is_asked_again(tmp_path: Path) -> None:
    """One row in eight has an answer ten times as long as the others: it counts, with the suite's own limit."""

    def talkative(body: dict[str, Any]) -> list[str]:
        [number] = map(int, re.findall(r"\d+", body["messages"][-1]["content"]))
        return [" word" * (300 if number % 8 == 5 else 3) + f" It is {number}."]

    with LLMServer(talkative) as server:
        config, analysis = search(
            server, tmp_path, model="weak", n=1, temperature=0, max_tokens=4000, optimization_budget=1
        )
        assert analysis.summary.tuning is not None
        assert analysis.summary.tuning.value == 1.0
        assert config.params["max_tokens"] == 4000
        assert analysis.summary.spent == billed(server)
        assert {body["max_tokens"] for body in server.requests} > {4000}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_one_good_prompt_of_seventy_is_found_wherever_it_stands(tmp_path: Path, seed: int) -> None:
    """All pairs of model and prompt are tried, independent of their order."""
    prompts = [f"{{q}} variant {place:03}" for place in range(69)] + ["{q} the good one"]

    def taught(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        [number] = map(int, re.findall(r"Question (\d+)", text))
        right = "good" in text or zlib.crc32(text.encode()) % 10 < 3
        return f"It is {number if right else 777}."

    with LLMServer(taught) as server:
        keys = {"model": ["weak", "middling"], "temperature": 0, "n": 1, "prompt": prompts, "max_tokens": 40}
        config, analysis = search(server, tmp_path, **keys, optimization_budget=0.05, seed=seed)
        assert "good" in str(config.template.source)
        assert len({(body["model"], body["messages"][-1]["content"].split("?")[1]) for body in server.requests}) == 140
        assert analysis.notes == ()


def test_what_was_never_looked_at_is_reported(tmp_path: Path, server: LLMServer) -> None:
    """The money does not reach every pair: the study says how many are left, and that it was the money."""
    prompts = [f"{{q}} {'x' * place}" for place in range(40)]
    keys = {"model": "strong", "temperature": 0, "n": 1, "prompt": prompts, "max_tokens": 40}
    _, analysis = search(server, tmp_path, **keys, optimization_budget=0.006)
    asked = {body["messages"][-1]["content"].split("?")[1] for body in server.requests}
    assert analysis.summary.stopped_by == "optimization_budget"
    assert f"{40 - len(asked)} of 40 pairs of model and prompt were never asked" in analysis.notes
