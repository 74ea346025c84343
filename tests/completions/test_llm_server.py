"""The loopback server of the test suite keeps the promises that other tests stand on."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest
from support import llm_server
from support.llm_server import Answer, Fault, LLMServer, prompt_tokens, refused_url, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGES = [{"role": "user", "content": "What is 6 x 7?"}]


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(answer="the answer is 42") as running:
        yield running


def client_of(server: LLMServer, key: str = "any", **options: object) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key=key, max_retries=0, timeout=5, **options)


def ask(server: LLMServer, key: str = "any", **parameters: object) -> openai.types.chat.ChatCompletion:
    with client_of(server, key) as client:
        return client.chat.completions.create(**{"model": "m", "messages": MESSAGES} | parameters)


def test_answers_every_choice_and_counts_its_tokens(server: LLMServer) -> None:
    """The real client reads n choices and a usage over all of them."""
    reply = ask(server, n=3)
    assert [choice.message.content for choice in reply.choices] == ["the answer is 42"] * 3
    assert reply.usage.completion_tokens == 3 * tokens("the answer is 42") == 12
    assert reply.usage.prompt_tokens == prompt_tokens(MESSAGES) == 3 + 4 + 4
    assert (server.count, server.answered, server.billed) == (1, server.requests, 12)


def test_answers_come_from_a_list_or_a_callable() -> None:
    """A list is repeated as needed; a callable sees the body."""
    with LLMServer(answer=lambda body: [body["model"], Answer("no", "tool_calls")]) as server:
        reply = ask(server, n=3)
    assert [(c.message.content, c.finish_reason) for c in reply.choices] == [
        ("m", "stop"),
        ("no", "tool_calls"),
        ("m", "stop"),
    ]


def test_cuts_answers_at_max_tokens(server: LLMServer) -> None:
    """A cut answer ends with the reason "length" and bills exactly max_tokens."""
    reply = ask(server, max_tokens=2)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("the answ"[:8], "length")
    assert reply.usage.completion_tokens == 2


@pytest.mark.parametrize(("usage", "counted"), [("one_choice", 4), ("none", None)])
def test_counts_tokens_as_badly_as_configured(usage: str, counted: int | None) -> None:
    """The usage can hold one choice only, or be missing."""
    with LLMServer(answer="the answer is 42", usage=usage) as server:
        reply = ask(server, n=5)
    assert (reply.usage and reply.usage.completion_tokens) == counted
    assert server.billed == 20


def test_refuses_a_large_n_a_foreign_model_and_a_wrong_key() -> None:
    """Each refusal has the status and the code that OpenAI gives it."""
    with LLMServer(max_n=2, models=["m"], api_key="right") as server:
        with pytest.raises(openai.BadRequestError, match="value <= 2, but got 3"):
            ask(server, "right", n=3)
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            ask(server, "right", model="gone")
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
            ask(server, "wrong")
        with client_of(server, "right") as client:
            assert [model.id for model in client.models.list()] == ["m"]
    assert server.keys == ["right", "right", "wrong"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.busy(retry_after="7", retry_after_ms="7000"), openai.RateLimitError),
        (Fault.http(503), openai.InternalServerError),
        (Fault("reset"), openai.APIConnectionError),
        (Fault("reset_mid_body"), Exception),
        (Fault("truncated"), Exception),
        (Fault.azure_filter(), openai.BadRequestError),
    ],
)
def test_misbehaves_once_for_each_queued_fault(fault: Fault, error: type[Exception]) -> None:
    """A queued fault hits one request, and the next is answered."""
    with LLMServer(faults=[fault]) as server:
        with pytest.raises(error):
            ask(server)
        assert ask(server).choices[0].message.content == "ok"
    assert (server.count, len(server.answered)) == (2, 1)


def test_rate_limit_headers_arrive() -> None:
    """Retry-After comes in both spellings."""
    faults = [Fault.busy(retry_after="7", retry_after_ms="7100")]
    with LLMServer(faults=faults) as server, pytest.raises(openai.RateLimitError) as caught:
        ask(server)
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("7", "7100")


def test_half_answers_are_no_proper_completions() -> None:
    """Empty choices, a missing usage and a content filter come with status 200."""
    kinds = ["empty_choices", "no_usage", "content_filter"]
    with LLMServer(faults=[Fault(kind) for kind in kinds]) as server:
        empty, unmetered, filtered = (ask(server) for _ in kinds)
    assert empty.choices == []
    assert unmetered.usage is None
    assert filtered.choices[0].finish_reason == "content_filter"


def test_fault_rate_is_a_probability_with_a_seed() -> None:
    """A tenth of the requests fails, the same ones for the same seed."""

    def failures(seed: int) -> list[int]:
        with LLMServer(fault_rate={"503": 0.2}, seed=seed) as server, client_of(server) as client:
            failed = []
            for number in range(60):
                try:
                    client.chat.completions.create(model="m", messages=MESSAGES)
                except openai.InternalServerError:
                    failed.append(number)
        return failed

    assert failures(1) == failures(1) != failures(2)
    assert 4 <= len(failures(1)) <= 24


def test_streams_with_a_usage_chunk(server: LLMServer) -> None:
    """Chunks join to the answer; the last one carries the usage."""
    with client_of(server) as client:
        stream = client.chat.completions.create(
            model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "the answer is 42"
    assert chunks[-1].usage.completion_tokens == 4


def test_speaks_the_responses_api(server: LLMServer) -> None:
    """The Responses API answers whole and as events."""
    with client_of(server) as client:
        whole = client.responses.create(model="m", input="What is 6 x 7?")
        events = list(client.responses.create(model="m", input="What is 6 x 7?", stream=True))
    assert (whole.output_text, whole.usage.output_tokens) == ("the answer is 42", 4)
    assert events[-1].response.output_text == whole.output_text


def test_speaks_azure(server: LLMServer) -> None:
    """A deployment's name in the path is the model."""
    with openai.AzureOpenAI(
        azure_endpoint=server.root_url, api_key="secret", api_version="2024-10-21", max_retries=0
    ) as client:
        reply = client.chat.completions.create(model="my-deployment", messages=MESSAGES)
    assert reply.model == "my-deployment"
    assert server.paths == ["/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"]
    assert server.keys == ["secret"]


def test_compresses_on_demand() -> None:
    """With gzip on, the response is compressed and the client still reads it."""
    with LLMServer(answer="x" * 5000, gzip=True) as server, client_of(server) as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
        assert raw.headers["content-encoding"] == "gzip"
        assert raw.parse().choices[0].message.content == "x" * 5000


def test_serves_many_at_once_and_knows_the_peak() -> None:
    """Twenty slow requests take about the time of one."""
    with LLMServer(latency=0.2) as server, ThreadPoolExecutor(20) as pool, client_of(server) as client:
        start = time.monotonic()
        jobs = [pool.submit(client.chat.completions.create, model="m", messages=MESSAGES) for _ in range(20)]
        assert all(job.result().choices for job in jobs)
        assert time.monotonic() - start < 2
    assert server.peak > 10


def test_a_stall_ends_with_the_client_or_the_server() -> None:
    """A stalled request times out at the client, and closing the server does not wait for the stall."""
    start = time.monotonic()
    with LLMServer(faults=[Fault("stall", seconds=60)]) as server, pytest.raises(openai.APITimeoutError):
        ask(server, timeout=0.2)
    assert time.monotonic() - start < 5


def test_nothing_listens_at_a_refused_url() -> None:
    """The address for connect errors refuses connections."""
    client = openai.OpenAI(base_url=refused_url(), api_key="any", max_retries=0)
    with client, pytest.raises(openai.APIConnectionError):
        client.models.list()


def test_runs_by_hand() -> None:
    """The file is a program too: it says where it listens, and answers."""
    script = Path(llm_server.__file__)
    with subprocess.Popen([sys.executable, script, "--port", "0", "--answer", "hi"], stdout=subprocess.PIPE) as process:
        try:
            url = process.stdout.readline().decode().removeprefix("ready: ").strip()
            with openai.OpenAI(base_url=url, api_key="any") as client:
                reply = client.chat.completions.create(model="m", messages=MESSAGES)
        finally:
            process.terminate()
    assert reply.choices[0].message.content == "hi"
