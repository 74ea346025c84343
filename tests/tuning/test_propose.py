"""Prompts that a model writes while a search runs, and examples in prompts: over real HTTP, within the same budgets."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import Fault, LLMServer, prompt_tokens, tokens

from pytest_llmtune import Suite, propose, randint, tune, uniform
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.settings import Settings
from pytest_llmtune.suite import Config
from pytest_llmtune.tuning.prompt_rounds import GepaProposer, ModelProposer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_llmtune import Failure
    from pytest_llmtune.api import Tuned

pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = [{"q": f"Question {number}?", "answer": str(number)} for number in range(60)]
PRICES = {"worker": {"input": 1, "output": 4}, "writer": {"input": 5, "output": 20}}


def server_of(written: Sequence[str]) -> LLMServer:
    """The worker is right on all rows when told to think, on a third of them else; the writer writes these in turn."""

    def answers(body: dict[str, Any]) -> list[str]:
        text = str(body["messages"][-1]["content"])
        if body["model"] == "writer":
            return [written[place % len(written)] for place in range(body.get("n") or 1)]
        number = int(re.findall(r"Question (\d+)", text)[-1])
        right = "Think" in text or number % 3 == 0 or len(body["messages"]) > 3
        return [f"It is {number if right else 777}."] * (body.get("n") or 1)

    return LLMServer(answers)


def search(server: LLMServer, root: Path, **keys: Any) -> Tuned:
    given = {
        "name": "numbers",
        "dataset": ROWS,
        "prompt": propose("{q}", model="writer", rounds=1, per_round=4),
        "model": "worker",
        "temperature": 0,
        "n": 1,
        "max_tokens": 40,
        "grader": "numeric",
        "prices": PRICES,
        "tune_size": 36,
        "num_samples": -1,
        "optimization_budget": 1,
    }
    return tune(Suite(**given | keys), settings=Settings(root=root, base_url=server.base_url))


def shown_and_scored(server: LLMServer) -> tuple[set[str], set[str]]:
    """Rows in what the writer was asked, and rows that a written prompt was asked with."""
    shown, scored = set(), set()
    for body in server.requests:
        text = str(body["messages"][-1]["content"])
        (shown if body["model"] == "writer" else scored if "Think" in text else set()).update(
            re.findall(r"Question (\d+)", text)
        )
    return shown, scored


def test_a_written_prompt_wins_and_its_gain_is_of_rows_that_nobody_showed(tmp_path: Path) -> None:
    """Bad templates are refused with the reason; what the writer costs is in the study's budget and log, and cached."""
    good = "Here it is.\n<template>\nThink first. {q}\n</template>"
    with server_of([good, "<template>Think of {answer}. {q}</template>", "<template>{q} {</template>", good]) as server:
        config, study = search(server, tmp_path)
        assert config.template.source == "Think first. {q}"
        assert Config.from_lock(study.best_result.config).key == config.key
        shown, scored = shown_and_scored(server)
        assert shown
        assert scored
        assert not shown & scored
        assert int(max(shown, key=int)) in {int(row["q"][9:-1]) for row in ROWS}
        note = study.summary.note or ""
        assert (
            "writer wrote 1 prompt, 3 more were refused (the first: it names the columns 'answer', 'q' in place of 'q')"
            in note
        )
        gain = re.search(r"over the suite's own prompts they gained ([\d.]+) \(([\d.]+) to [\d.]+\) on 24 rows", note)
        assert gain is not None
        assert float(gain[2]) > 0.3
        billed = Decimal(0)
        for body in server.answered:
            price, said = PRICES[body["model"]], server.answer(body) if callable(server.answer) else []
            billed += prompt_tokens(body["messages"]) * Decimal(price["input"]) / 1_000_000
            billed += sum(map(tokens, said)) * Decimal(price["output"]) / 1_000_000
        assert study.summary.spent == billed
        log = [json.loads(line) for line in (tmp_path / ".llmtune/studies/numbers.jsonl").read_text().splitlines()]
        assert [entry["refused"] is None for entry in log if "proposed" in entry] == [True, False, False, False]
        before = server.count
        again = search(server, tmp_path)
        assert server.count == before
        assert again.analysis.summary == study.summary


def test_the_best_written_prompt_is_tried_with_the_other_models(tmp_path: Path) -> None:
    """It was written from the failures of one of them, and may suit another better."""
    with server_of(["<template>Think first. {q}</template>"]) as server:
        prices = PRICES | {"other": PRICES["worker"]}
        _, study = search(server, tmp_path, model=["worker", "other"], prices=prices, temperature=uniform(0, 1))
        tried = [trial.config for trial in study.trials if "Think" in trial.config["prompt"]]
        assert {config["model"] for config in tried} == {"worker", "other"}
        assert len({config["temperature"] for config in tried}) > 1


def test_prompts_that_do_not_help_are_not_claimed_to(tmp_path: Path) -> None:
    """Nor is the budget passed: the seed stays, or is no better than what replaced it."""
    with server_of(["<template>Please: {q}</template>", "<template>Now: {q}</template>"]) as server:
        config, study = search(server, tmp_path, optimization_budget=0.2)
        note = study.summary.note or ""
        assert "writer wrote 2 prompts, 2 more were refused (the first: it is in the race already)" in note
        assert "no gain over the suite's own prompts can be claimed: 0 (0 to 0)" in note
        assert config.template.source == "{q}"
        assert study.summary.spent <= Decimal("0.2")


def test_a_writer_that_cannot_be_paid_leaves_the_search_as_it_is(tmp_path: Path) -> None:
    """The dollars that were kept for it go to the race."""
    with server_of(["<template>Think {q}</template>"]) as server:
        _, study = search(server, tmp_path, optimization_budget=0.004, prompt=propose("{q}", model="writer", rounds=2))
        assert not any(body["model"] == "writer" for body in server.requests)
        assert "writer wrote 0 prompts; the optimization budget did not reach every request" in (
            study.summary.note or ""
        )


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("<template>Think {q} " + "word " * 2000 + "</template>", r"\(the first: it was cut off\)"),
        (None, r"\(the first: writer at \S+ HTTP 400: no such luck\)"),
    ],
)
def test_what_the_writer_does_not_finish_is_refused(tmp_path: Path, written: str | None, why: str) -> None:
    """The reason is named, and nothing that the race found is lost."""
    with server_of([written or ""]) as server:
        if written is None:
            server.fault = lambda body: Fault.http(400, "no such luck") if body["model"] == "writer" else None
        config, study = search(server, tmp_path)
    assert config.template.source == "{q}"
    assert re.search(rf"writer wrote 0 prompts, \d more were refused {why}", study.summary.note or "")


def test_written_prompts_count_as_samples(tmp_path: Path) -> None:
    """Half of the samples are left to them."""
    with server_of(["<template>Think {q}</template>"]) as server:
        _, study = search(server, tmp_path, temperature=uniform(0, 1), num_samples=4)
    written = ["Think" in str(trial.config["prompt"]) for trial in study.trials]
    assert written.count(True) >= 1
    assert len(written) <= 4


@pytest.mark.parametrize("kind", ["prompt", "system"])
def test_shots_are_tuning_rows_that_are_not_scored(tmp_path: Path, kind: str) -> None:
    """They stand in the lock by their content; two of them teach the worker everything."""
    with server_of([]) as server:
        keys = {"system": "Be brief {x}."} if kind == "system" else {}
        config, study = search(server, tmp_path, prompt="{q}", shots=randint(0, 3), **keys)
        messages = config.to_lock()["messages"]
        roles = [message["role"] for message in messages]
        assert roles == [*(["system"] if keys else []), "user", "assistant", "user", "assistant", "user"]
        questions = [message["content"] for message in messages if message["role"] == "user"]
        examples = {re.findall(r"\d+", text)[0] for text in questions[:-1]}
        assert [m["content"] for m in messages if m["role"] == "assistant"] == [
            re.findall(r"\d+", t)[0] for t in questions[:-1]
        ]
        assert questions[-1] == "{q}"
        asked = {re.findall(r"Question (\d+)", str(body["messages"][-1]["content"]))[0] for body in server.requests}
        assert not examples & asked
        suite = Suite(
            dataset=ROWS, prompt="{q}", shots=randint(0, 3), model="worker", temperature=0, n=1, max_tokens=40,
            grader="numeric", prices=PRICES, name="x", **keys,
        )  # fmt: skip
        assert suite.space.contains(Config.from_lock(study.best_result.config))
        assert not suite.space.contains(Config.from_lock({**study.best_result.config, "messages": messages[:-1]}))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"prompt": propose("{q}", model="writer"), "task": "json:dumps"},
            "propose writes prompts that are sent from here",
        ),
        (
            {"prompt": propose("{q}", model="writer"), "optimization_budget": None},
            "propose needs an optimization_budget",
        ),
        ({"prompt": {"propose": {"seeds": ["{q}"]}}}, "propose takes seeds and model"),
        ({"prompt": {"propose": {"seeds": ["{q}"], "model": "writer", "by": "gpea"}}}, "did you mean 'gepa'"),
        (
            {"prompt": "{q}", "shots": randint(0, 99)},
            "shots is .*99.*; valid: examples in a prompt, from 0 to 32",
        ),
        ({"prompt": len, "shots": 2}, "precede a user message that is a format string"),
        ({"prompt": "{q}", "shots": 2, "tune_size": 3}, "too few rows to score on"),
        ({"prompt": "{q}", "shots": 2, "tune_size": 60}, "tuning rows that the guard does not use"),
        (
            {
                "prompt": "{q}",
                "shots": 2,
                "grader": {"judge": {"model": "writer", "rubric": "Polite?", "question_column": "q"}},
            },
            "an example needs its right answer, and the rows have no such column",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_paid(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    """At the declaration where that is enough, else when the search begins."""
    with server_of([]) as server:
        with pytest.raises(SuiteError, match=said):
            search(server, tmp_path, **keys)
        assert not server.requests


def test_a_proposer_is_a_request_and_a_reading() -> None:
    """Ours and GEPA's behind the same protocol."""
    from pytest_llmtune import Failure, Proposer

    failures = [Failure("Question 1?", "1", "It is 777.")]
    proposers: list[Any] = [ModelProposer()]
    try:
        proposers.append(GepaProposer.of("here"))
    except SuiteError as error:
        assert "pip install 'pytest-llmtune[gepa]'" in str(error)  # noqa: PT017
    for proposer in proposers:
        assert isinstance(proposer, Proposer)
        asked = proposer.prompt("{q} Answer.", failures)
        assert all(part in asked for part in ("{q} Answer.", "Question 1?", "It is 777."))
    assert ModelProposer().read("So: <template>a</template> or <template>\n{q} b\n</template>") == "{q} b"
    assert [proposer.read("```\n{q} b\n```") for proposer in proposers[1:]] == ["{q} b"] * len(proposers[1:])


def test_one_of_ones_own_words_the_request(tmp_path: Path) -> None:
    """An object with ``prompt`` and ``read``; the search pays and checks."""

    class Mine:
        def prompt(self, template: str, failures: Sequence[Failure]) -> str:
            return f"Better than {template}; wrong: {[one.expected for one in failures]}"

        def read(self, answer: str) -> str:
            return answer.removeprefix("Mine: ")

    with server_of(["Mine: {q} Think."]) as server:
        config, _ = search(server, tmp_path, prompt=propose(["{q}"], model="writer", rounds=1, by=Mine()))
        assert config.template.source == "{q} Think."
