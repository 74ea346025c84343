"""One odd reply closes no endpoint; what a server says is shown; a server that fails from the start is told of soon."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.live import Live, request
from support.llm_server import Fault, LLMServer, refused_url

from pytest_llmtune.completions.failures import Kind, failure_in
from pytest_llmtune.errors import CompletionError, EndpointError
from pytest_llmtune.types import Completion

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def raw(status: int, body: str, content_type: str = "text/html") -> Fault:
    """A response as it stands."""
    data = body.encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
    return Fault("raw", data=lambda _: head.encode() + data)


PAGE = raw(403, "<html>Your request was blocked by the firewall</html>")
LOST = raw(404, "<html>Not found</html>")
EMPTY = Fault.http(429, "You exceeded your current quota", "insufficient_quota")


async def many(source: Any, count: int) -> list[Any]:
    asked = (source.complete(request(f"question {number}")) for number in range(count))
    try:
        return await asyncio.gather(*asked, return_exceptions=True)
    finally:
        await source.aclose()


def answered(
    tmp_path: Path, fault: Callable[[Any], Fault | None], count: int = 20, **options: Any
) -> tuple[list[Any], int]:
    live = Live(tmp_path)
    with LLMServer(answer="ok", fault=fault) as server:
        results = asyncio.run(many(live.source(server, concurrency=4, **options), count))
    live.close()
    return results, server.count


@pytest.mark.parametrize("fault", [PAGE, LOST, EMPTY], ids=["403 page", "404 page", "insufficient_quota"])
def test_a_refusal_of_one_row_is_that_rows(tmp_path: Path, fault: Fault) -> None:
    """It fails, after a second try; all the others are answered."""
    results, count = answered(tmp_path, lambda body: fault if "question 7" in body["messages"][0]["content"] else None)
    failed = [result for result in results if not isinstance(result, Completion)]
    assert [type(error) for error in failed] == [CompletionError]
    assert isinstance(results[7], CompletionError)
    assert count == 21


@pytest.mark.parametrize(
    "fault",
    [PAGE, LOST, raw(403, '{"message": "Forbidden"}', "application/json"), raw(404, '{"detail": "Not Found"}')],
    ids=["403 page", "404 page", "403 in JSON", "404 in JSON"],
)
def test_the_first_reply_of_all_may_be_odd_too(tmp_path: Path, fault: Fault) -> None:
    """Nothing says that it is of the key or the model, and not of the row."""
    results, _ = answered(tmp_path, lambda body: fault if "question 0" in body["messages"][0]["content"] else None)
    assert sum(isinstance(result, Completion) for result in results) == 19


@pytest.mark.parametrize("fault", [PAGE, LOST, EMPTY, raw(404, "{}")])
def test_a_first_odd_reply_is_asked_about_once_more(tmp_path: Path, fault: Fault) -> None:
    """Once: all is well; always: the second closes the endpoint, and the rest is not asked."""
    odd = [fault]
    results, count = answered(tmp_path, lambda _: odd.pop() if odd else None)
    assert all(isinstance(result, Completion) for result in results)
    assert count == 21
    (other := tmp_path / "other").mkdir()  # another cache
    results, count = answered(other, lambda _: fault)
    assert sum(isinstance(result, EndpointError) for result in results) == 20
    assert count == 2


def test_what_refuses_all_is_given_up_by_a_canary(tmp_path: Path) -> None:
    """After some answers a key is taken back: one other request finds that out, and the rest is not asked."""
    seen: list[Any] = []

    def refuse(body: Any) -> Fault | None:
        seen.append(body)
        return Fault.http(403, "the key was revoked") if len(seen) > 5 else None

    results, count = answered(tmp_path, refuse, 100)
    assert sum(isinstance(result, Completion) for result in results) == 5
    assert sum(isinstance(result, EndpointError) for result in results) > 80
    assert count < 20


@pytest.mark.parametrize(
    "message",
    [
        "invalid temperature: only 1 is allowed for this model",
        "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.",
        "Unknown parameter: top_k. This model has other parameters",
    ],
)
def test_a_refused_parameter_is_no_missing_model(tmp_path: Path, message: str) -> None:
    """Requests with another value go on."""
    live = Live(tmp_path)

    def refuse(body: Any) -> Fault | None:
        return Fault.http(400, message) if body.get("temperature") != 1 else None

    async def run(source: Any) -> list[Any]:
        asked = [source.complete(request("x", temperature=heat)) for heat in (0.2, 1, 0.4, 1)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        await source.aclose()
        return results

    with LLMServer(answer="ok", fault=refuse) as server:
        results = asyncio.run(run(live.source(server)))
    live.close()
    assert [type(result) for result in results] == [CompletionError, Completion, CompletionError, Completion]
    assert message[:40] in str(results[0])


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("The model `gpt-9` does not exist or you do not have access to it.", Kind.NO_MODEL),
        ("invalid model: gpt-9", Kind.NO_MODEL),
        ("Unknown model gpt-9", Kind.NO_MODEL),
        ("model gpt-9 not found", Kind.NO_MODEL),
        ("invalid temperature: only 1 is allowed for this model", Kind.BAD_REQUEST),
        ("invalid response_format for this deployment", Kind.BAD_REQUEST),
    ],
)
def test_whether_a_model_is_missing_is_read_from_the_words(message: str, kind: Kind) -> None:
    failure = failure_in({"error": {"message": message, "code": 400}})
    assert failure is not None
    assert failure.kind is kind


@pytest.mark.parametrize(
    "document",
    [
        {"detail": "context too long by 12"},
        {"detail": [{"loc": ["body"], "msg": "context too long by 12"}]},
        {"error": "context too long by 12"},
        {"message": "context too long by 12"},
        {"error": {"message": "context too long by 12"}},
    ],
)
def test_the_servers_own_words_are_shown(tmp_path: Path, document: Any) -> None:
    """In whichever field they stand."""
    [result], _ = answered(tmp_path, lambda _: raw(422, json.dumps(document), "application/json"), 1)
    assert str(result).endswith("HTTP 422: context too long by 12")


def test_a_bom_before_json_is_read(tmp_path: Path) -> None:
    """As some Windows servers write it."""

    def with_bom(data: bytes) -> bytes:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data) + 3}\r\nconnection: close\r\n\r\n"
        return head.encode() + b"\xef\xbb\xbf" + data

    [result], _ = answered(tmp_path, lambda _: Fault("raw", data=with_bom), 1)
    assert result.texts == ("ok",)


def test_a_server_that_fails_from_the_start_is_reported_soon(tmp_path: Path) -> None:
    """HTTP 500 for every request, or a closed port: one error with the reason, without a request for every row."""
    results, count = answered(tmp_path, lambda _: Fault.http(500, "out of memory"), 1000, pause=0.02)
    assert all(isinstance(result, EndpointError) for result in results)
    assert "no request has been answered yet: HTTP 500: out of memory" in str(results[0])
    assert count < 1000
    live = Live(tmp_path)
    began = time.monotonic()
    refused = asyncio.run(many(live.source(refused_url(), concurrency=4, pause=0.02), 100))
    live.close()
    assert all(isinstance(result, EndpointError) for result in refused)
    assert time.monotonic() - began < 60


def test_what_is_waited_out_is_reported(tmp_path: Path) -> None:
    """The fault, the attempt and the pause; gone as soon as something is answered."""
    told: list[str] = []
    live = Live(tmp_path)
    with LLMServer(answer="ok", faults=[Fault.http(503, "overloaded")] * 2) as server:
        source = live.source(server)
        source.account.listen = lambda account: told.append(account.retrying)
        asyncio.run(many(source, 1))
    live.close()
    assert any("HTTP 503: overloaded (attempt 2, next in 0 s)" in text for text in told)
    assert source.account.retrying == ""


def test_without_pytest_it_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Trials, what was spent, and the best so far, at INFO."""
    from pytest_llmtune import Suite, tune
    from pytest_llmtune.settings import Settings

    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdef")
    caplog.set_level(logging.INFO, "pytest_llmtune")
    rows = [{"q": str(number), "answer": "4"} for number in range(8)]
    with LLMServer(answer="4") as server:
        suite = Suite(
            name="fours", dataset=rows, prompt="{q}", model="m", grader="numeric", num_samples=2, n=1, max_tokens=5,
            prices={"m": {"input": 1, "output": 1}}, base_url=server.base_url, tune_size=4,
        )  # fmt: skip
        tune(suite, settings=Settings(root=tmp_path))
    said = caplog.text
    assert "fours: tune begins" in said
    assert "fours: trial 1: score 1" in said
    assert "best 1" in said
    assert "fours: done, $0.0000" in said
