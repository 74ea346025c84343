"""What becomes of each call of a task's run: its answer, what it costs, and what may have been billed."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmtune.capture.call import CallRefusedError
from pytest_llmtune.capture.matching import ClientRequest
from pytest_llmtune.capture.tariff import Tariff
from pytest_llmtune.errors import LLMTuneError, RecordingError, StaleRecordingError, SuiteError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.tasks.capture import Allowance, Canaries, NoRoomError, RunCapture, Store

PRICES = PriceBook({"m": {"input": 0, "output": 1_000_000}})
"""A dollar for each completion token."""
URL = "https://h/v1/chat/completions"
JSON = {"content-type": "application/json"}


def request(question: str = "x", **more: Any) -> ClientRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": question}], "max_tokens": 5} | more
    return ClientRequest.of("POST", URL, json.dumps(body))


def completion(tokens: int | None = 2, **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "y"}, "finish_reason": "stop"}
    usage = {} if tokens is None else {"usage": {"prompt_tokens": 1, "completion_tokens": tokens}}
    return json.dumps({"object": "chat.completion", "model": "m", "choices": [choice], **usage, **more}).encode()


def capture(*, live: bool = True, **fields: Any) -> RunCapture:
    """A run on row 0 with 100 USD; the network is blocked unless ``live``."""
    services: Any = SimpleNamespace(cache=None, journal=None, ledger=Ledger())
    store = Store(services, threading.Lock()) if live else None
    fields = {"recorded": (), "allowance": Allowance(Decimal(100))} | fields
    own = threading.get_ident()
    return RunCapture(
        "id", "0 [id]", 1, redactor=Redactor(), tariff=Tariff(PRICES), store=store, task_thread=own, **fields
    )


def spent(run: RunCapture) -> tuple[int, int, int]:
    """USD spent, perhaps billed, and still reserved."""
    return int(run.allowance.spent), int(run.allowance.lost), int(run.allowance.reserved)


@pytest.mark.parametrize(
    ("status", "headers", "body", "money", "why"),
    [
        (200, JSON, completion(), (2, 0, 0), ""),
        (200, JSON, b'{"error": {"message": "overloaded"}}', (0, 5, 0), "reports an error"),
        (200, JSON | {"content-encoding": "x-new"}, b"?", (0, 5, 0), "its answer has the unsupported content encoding"),
        (429, JSON, b'{"error": {"message": "slow down"}}', (0, 0, 0), "was answered with status 429"),
        (500, JSON, b"{}", (0, 0, 0), "was answered with status 500"),
        (400, JSON, b'{"error": {"message": "no api key"}}', (0, 0, 0), "was answered with status 400"),
    ],
)
def test_an_answer_settles_its_call(
    status: int, headers: dict[str, str], body: bytes, money: tuple[int, int, int], why: str
) -> None:
    """By its usage; an error is free, and what cannot be read may have been billed."""
    with capture() as run:
        call = run.begin(request())
        assert spent(run) == (0, 0, 5)
        run.answer(call, status, "", headers, body)
    assert spent(run) == money
    assert [fault.why.startswith(why) and fault.status for fault in run.unresolved_faults] == ([status] if why else [])
    assert len(run.interactions) == (not why)


def test_an_answer_without_a_price_stops_the_run() -> None:
    """It gives no usage: the worst case counts."""
    with capture() as run:
        run.answer(run.begin(request()), 200, "", JSON, completion(None))
    assert isinstance(run.error, SuiteError)
    assert spent(run) == (0, 5, 0)


def test_a_paid_answer_that_cannot_be_stored_stops_the_run() -> None:
    """It was paid for all the same."""
    run = capture()
    assert run.store is not None
    run.store.live.journal = lambda *_: (_ for _ in ()).throw(LLMTuneError("the disk is full"))  # type: ignore[misc]
    with run:
        run.answer(run.begin(request()), 200, "", JSON, completion())
    assert str(run.error) == "the disk is full"
    assert spent(run) == (2, 0, 0)


def test_calls_without_an_answer_may_have_been_billed() -> None:
    """One whose connection broke, and one that the task did not wait for."""
    with capture() as run:
        run.drop(run.begin(request("broken")), "did not come (ReadError)")
        run.begin(request("not awaited"))
        assert spent(run) == (0, 5, 5)
    assert spent(run) == (0, 10, 0)
    whys = [fault.why for fault in run.unresolved_faults]
    assert whys == ["did not come (ReadError)", "was not answered before the task ended"]


def test_a_fault_that_was_retried_is_resolved() -> None:
    """The same request was answered the second time."""
    with capture() as run:
        run.drop(run.begin(request()))
        run.answer(run.begin(request()), 200, "", JSON, completion())
    assert run.faults
    assert not run.unresolved_faults


def test_a_repeated_run_is_answered_by_what_was_paid_for() -> None:
    """Its larger reservation is needed for the rest alone."""
    store = capture().store
    with capture() as first:
        first.store = store
        first.answer(first.begin(request()), 200, "", JSON, completion())
        first.allowance.limit = Decimal(5)
        with pytest.raises(CallRefusedError, match="not set aside"):
            first.begin(request("more"))
        assert isinstance(first.error, NoRoomError)
    with capture() as second:
        second.store = store
        assert second.begin(request()).interaction is not None
        assert second.begin(request("more")).interaction is None
    assert second.cached == 1


def test_what_a_bill_takes_beyond_its_reservation_is_reserved_at_once() -> None:
    """Other runs must not spend the same dollars."""
    asked: list[Decimal] = []
    with capture(allowance=Allowance(Decimal(5), lambda amount: not asked.append(amount))) as run:
        run.answer(run.begin(request()), 200, "", JSON, completion(9))
    assert (asked, run.allowance.limit) == ([4], 9)


def recorded_call() -> RunCapture:
    with capture() as run:
        run.answer(run.begin(request()), 200, "", JSON, completion())
    return run


def test_a_recorded_call_is_played_in_any_spelling() -> None:
    """Its body was edited by hand."""
    [interaction] = recorded_call().interactions
    edited = replace(interaction, body=json.dumps(json.loads(interaction.body), indent=1))
    with capture(live=False, recorded=(edited,)) as run:
        call = run.begin(request())
    assert call.played
    assert run.interactions == (edited,)


@pytest.mark.parametrize(
    ("before", "sent", "message"),
    [
        ([], request("other"), r"row 0 \[id\], run 1, call 1 asks something else than was recorded there"),
        ([], ClientRequest.of("GET", "https://h/v1/models", b""), "recorded was POST /v1/chat/completions, sent now GET /v1/models"),
        ([request()], request(), "call 2: POST /v1/chat/completions is one call more than the 1 recorded"),
    ],
)  # fmt: skip
def test_a_call_that_is_not_recorded_is_refused(before: list[ClientRequest], sent: ClientRequest, message: str) -> None:
    """The message tells which one, and what was recorded."""
    with capture(live=False, recorded=recorded_call().interactions) as run:
        for each in before:
            run.begin(each)
        with pytest.raises(CallRefusedError, match=message):
            run.begin(sent)
    assert isinstance(run.error, StaleRecordingError)


def test_a_run_without_a_recording_names_its_first_call() -> None:
    with (
        capture(live=False) as run,
        pytest.raises(CallRefusedError, match="nothing is recorded of this run; it asks POST"),
    ):
        run.begin(request())
    assert run.worst == 5


def test_what_the_rules_refuse_stops_the_run() -> None:
    """And so does an error from elsewhere; the first one counts."""
    with capture() as run:
        with pytest.raises(CallRefusedError, match="GET /x is refused by llmtune_ignore_hosts"):
            run.refuse(ClientRequest.of("GET", "https://h/x", b""))
        run.fail(LLMTuneError("later"))
    assert isinstance(run.error, RecordingError)
    other = capture()
    other.fail(LLMTuneError("first"))
    assert str(other.error) == "first"


def test_a_call_after_the_end_is_an_error_of_the_next_request() -> None:
    late: list[LLMTuneError] = []
    with capture(late=late) as run:
        pass
    with pytest.raises(CallRefusedError):
        run.begin(request())
    assert [str(each) for each in late] == [
        "row 0 [id], run 1: POST /v1/chat/completions is sent after the task has returned; wait for all calls before returning"
    ]
    assert run.error is None


def test_the_first_call_of_a_model_goes_alone() -> None:
    """After its bill all others follow; if it fails, the next one goes alone; what waits is not sent, and costs nothing."""
    run = capture(canaries=Canaries())
    with run:
        calls = [run.begin(request(str(number)), waits=True) for number in range(5)]
        waiting = [call.ready is not None and not call.ready.done() for call in calls]
        assert waiting == [False, True, True, True, True]
        assert spent(run) == (0, 0, 5)
        run.cancel(calls[1])
        run.drop(calls[0])
        assert [call.ready is not None and call.ready.done() for call in calls[2:]] == [True, False, False]
        second = run.resume(calls[2])
        assert spent(run) == (0, 5, 5)
        run.answer(second, 200, "", JSON, completion(10))  # twice what it asked for
        assert all(call.ready is not None and call.ready.done() for call in calls[3:])
        run.resume(calls[3])
        assert spent(run) == (10, 5, 10)
    assert spent(run) == (10, 15, 0)
    with pytest.raises(CallRefusedError, match="waited until the task had returned"):
        run.resume(calls[4])


def test_nobody_waits_for_ever_for_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has waited too long goes as well."""
    monkeypatch.setattr("pytest_llmtune.tasks.capture._LONGEST_WAIT", -1.0)
    with capture(canaries=Canaries()) as run:
        _, waiting = (run.begin(request(name), waits=True) for name in "ab")
        assert waiting.ready is not None
        run.recheck(waiting)
        assert waiting.ready.done()
        run.resume(waiting)
        assert spent(run) == (0, 0, 10)
