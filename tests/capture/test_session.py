"""One test's calls, request by request: waiting, given up, and answers that cannot be recorded."""

from __future__ import annotations

import json
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.replaying import replay_of

from pytest_llmtune.capture.matching import ClientRequest
from pytest_llmtune.capture.meter import Meter
from pytest_llmtune.capture.session import marked
from pytest_llmtune.errors import RecordingError, SuiteError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.capture.call import Call
    from pytest_llmtune.capture.session import Replay

PRICES = PriceBook({"m": {"input": 0, "output": 1_000_000}})
"""A dollar for each completion token."""
JSON = {"content-type": "application/json"}


def request(question: str, model: str = "m") -> ClientRequest:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 5}
    return ClientRequest.of("POST", "https://h/v1/chat/completions", json.dumps(body))


def answer(replay: Replay, call: Call, model: str = "m", **headers: str) -> None:
    body = {"object": "chat.completion", "model": model, "choices": [{"message": {"content": "y"}}]}
    body["usage"] = {"prompt_tokens": 1, "completion_tokens": 2}
    replay.answer(call, 200, "OK", JSON | headers, json.dumps(body).encode())


def test_a_call_that_waits_when_the_test_ends_is_not_sent(tmp_path: Path) -> None:
    """The first of its model goes alone; what it may have cost counts."""
    ledger = Ledger(Decimal(100))
    replay = replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=Meter(prices=PRICES, ledger=ledger))
    with replay:
        sent, waiting = (replay.begin(request(name), waits=True) for name in "ab")
        assert (ledger.reserved, ledger.spent) == (5, 0)
    assert sent.ready is not None
    assert waiting.ready is not None
    assert sent.ready.result() is None
    assert "was not sent before the test ended" in str(waiting.ready.result())
    assert (ledger.reserved, ledger.spent, ledger.uncertain) == (0, 5, 5)


def test_an_answer_after_the_end_changes_nothing(tmp_path: Path) -> None:
    """A thread that outlives its test: its call was counted as perhaps billed."""
    ledger = Ledger(Decimal(100))
    with replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=Meter(prices=PRICES, ledger=ledger)) as replay:
        call = replay.begin(request("a"))
    answer(replay, call)
    assert (ledger.reserved, ledger.spent, ledger.uncertain, replay.meter.calls) == (0, 5, 5, 0)


def test_a_call_that_is_given_up_before_it_is_sent_gives_its_dollars_back(tmp_path: Path) -> None:
    """Its limit and the next call are free again."""
    ledger = Ledger(Decimal(100))
    replay = replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=Meter(prices=PRICES, ledger=ledger))
    with replay:
        first, second = (replay.begin(request(name), waits=True) for name in "ab")
        replay.cancel(first)
        assert second.ready is not None
        assert second.ready.done()
        answer(replay, replay.resume(second))
    assert (ledger.reserved, ledger.spent, ledger.uncertain) == (0, 2, 0)
    assert replay.meter.calls == 1


def test_an_answer_in_an_unknown_encoding_cannot_be_recorded(tmp_path: Path) -> None:
    """Nothing is written, and the call may have been billed."""
    ledger, path = Ledger(Decimal(100)), tmp_path / "a.cassette.json"
    replay = replay_of(path, Mode.RECORD_ALL, meter=Meter(prices=PRICES, ledger=ledger))
    with pytest.raises(RecordingError, match="unsupported content encoding 'x-new', and cannot be recorded"), replay:
        answer(replay, replay.begin(request("a")), **{"content-encoding": "x-new"})
    assert not path.exists()
    assert (ledger.spent, ledger.uncertain) == (5, 5)


def test_an_answer_of_an_unpriced_model_fails_the_test_under_a_limit(tmp_path: Path) -> None:
    """The deployment's model is known from its answer alone; all that was left counts."""
    ledger = Ledger(Decimal(100))
    body = b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}'
    sent = ClientRequest.of("POST", "https://r.openai.azure.com/openai/deployments/d/chat/completions", body)
    replay = replay_of(tmp_path / "a.cassette.json", Mode.LIVE, meter=Meter(prices=PRICES, ledger=ledger))
    with pytest.raises(SuiteError, match="the price of model 'd' is unknown"), replay:
        answer(replay, replay.begin(sent), "unheard-of")
    assert (ledger.reserved, ledger.spent, ledger.uncertain) == (0, 100, 100)


@pytest.mark.parametrize("keys", [{"keep_retries": "no"}, {"keep_retries": 1}, {"max_calls": -1}, {"max_cost": "much"}])
def test_marks_with_unusable_values(keys: dict[str, Any]) -> None:
    marks = [SimpleNamespace(args=(), kwargs=keys)]
    with pytest.raises(SuiteError, match=f"llm_replay: {next(iter(keys))} is"):
        marked(SimpleNamespace(iter_markers=lambda _: marks, nodeid="test_a.py::test"))
