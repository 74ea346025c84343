"""Reading what a server says when it refuses."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.completions.failures import Kind, backoff, failure_in, failure_of, n_limit
from pytest_llmtune.wire.response import FILTERED, finish_reason_of

REFUSALS_OF_N = [
    ("Invalid 'n': integer above maximum value. Expected a value <= 128, but got 200 instead.", 200, 128),
    ("Field 'n': Value must be between 1 <= value <= 16, but got 50", 50, 16),
    ("'n' : number must be at most 1", 4, 1),
    ("Invalid n value (currently only n = 1 is supported)", 4, 1),
    ("n must be 1 when using greedy sampling, got 4.", 4, 1),
    ("Only one completion choice is allowed", 8, 1),
    ("n should be in range [1, 4]", 10, 4),
    ("n must be less than or equal to 5", 10, 5),
    ("maximum of 6 choices; n was 9", 9, 6),
    ("n is not supported", 3, 1),
    ("n: between 1 and 10 please", 64, 10),
    ("n is too large", 9, 4),
    ("n=3 of at most 3", 3, 1),
    ("n > 128 for 2 prompts", 2, 1),
]


@pytest.mark.parametrize(("message", "refused", "limit"), REFUSALS_OF_N)
def test_the_limit_of_n_is_read_from_the_refusal(message: str, refused: int, limit: int) -> None:
    """In the words of OpenAI, llama.cpp, Groq, DeepSeek, vLLM and others; else it is half."""
    assert n_limit(message, refused) == limit


@given(st.text(max_size=60), st.integers(2, 200))
def test_the_limit_of_n_always_shrinks(message: str, refused: int) -> None:
    """Whatever a server says, the next try asks for fewer, and for one at least: it comes to an end."""
    assert 1 <= n_limit(message, refused) < refused


@given(st.integers(1, 2000), st.floats(0.001, 5))
def test_waiting_doubles_within_bounds(tries: int, base: float) -> None:
    """Each wait is at least half of the doubled one, and never longer than half a minute."""
    wait = backoff(tries, base)
    assert min(30.0, base * 2.0 ** min(tries - 1, 60)) / 2 <= wait <= 30.0


def test_waits_are_spread() -> None:
    """Clients that failed together do not come back together."""
    assert len({backoff(3, 0.5) for _ in range(20)}) > 15


@pytest.mark.parametrize(
    ("code", "kind"), [(429, Kind.RATE_LIMIT), (502, Kind.SERVER), ("oops", Kind.SERVER), (401, Kind.BAD_KEY)]
)
def test_an_error_inside_a_proper_response(code: object, kind: Kind) -> None:
    """A router's error document with status 200 is read like the status it names."""
    failure = failure_in({"error": {"code": code, "message": "upstream"}})
    assert failure is not None
    assert failure.kind is kind
    assert "upstream" in failure.message


def choice(**keys: object) -> dict[str, object]:
    return {"index": 0, "message": {"role": "assistant", "content": "42"}, "finish_reason": "stop", **keys}


EMPTY = {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        *(({"choices": [choice(finish_reason=reason)]}, Kind.SERVER) for reason in ("error", "network_error", "abort")),
        ({"choices": [choice(finish_reason="insufficient_system_resource")]}, Kind.SERVER),
        ({"choices": [choice(), choice(finish_reason="error", message=EMPTY)]}, Kind.SERVER),
        ({"choices": [choice(finish_reason=None, message=EMPTY)]}, Kind.SERVER),
        ({"choices": [{"message": {"role": "assistant", "content": None}}]}, Kind.SERVER),
        ({"choices": [choice(error={"code": 502, "message": "provider went away"})]}, Kind.SERVER),
        ({"choices": [choice(error={"code": 429, "message": "slow down"})]}, Kind.RATE_LIMIT),
        ({"choices": [choice(error="went away")]}, Kind.SERVER),
        ({"choices": [choice(finish_reason=None)], "error": {"code": 503, "message": "half a sentence"}}, Kind.SERVER),
    ],
)
def test_a_fault_inside_a_proper_response(response: dict[str, object], kind: Kind) -> None:
    """In one choice, in all, or beside them: no answer; what came of it may be billed."""
    failure = failure_in(response)
    assert failure is not None
    assert (failure.kind, failure.kind.passing, failure.uncertain) == (kind, True, True)


@pytest.mark.parametrize(
    "response",
    [
        {"choices": [choice()], "error": None},
        {"choices": [choice(finish_reason=None)]},  # a server that never says why
        *(
            {"choices": [choice(finish_reason=reason, message=EMPTY)]}
            for reason in ("stop", "length", "eos", "COMPLETE")
        ),
        *({"choices": [choice(finish_reason=why, message=EMPTY)]} for why in ("content_filter", "sensitive", "SAFETY")),
        {
            "choices": [
                choice(finish_reason=None, message={"content": None, "tool_calls": [{"function": {"name": "f"}}]})
            ]
        },
        {"choices": [choice(finish_reason=None, message={"content": None, "refusal": "No."})]},
        {"error": None},
        {},
    ],
)
def test_an_answer_is_no_fault(response: dict[str, object]) -> None:
    """Empty answers that ended as they should, calls of tools, refusals, and servers that give no reason."""
    assert failure_in(response) is None


@pytest.mark.parametrize(
    "reason", ["content_filter", "sensitive", "SAFETY", "guardrail_intervened", "PROHIBITED_CONTENT"]
)
def test_every_filter_is_a_refusal(reason: str) -> None:
    """Whatever a provider calls it."""
    assert finish_reason_of(choice(finish_reason=reason)) == FILTERED


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-proj-abcdefghijklmnop. Find yours at ...",
        "bad key sk-ab****************************************wxyz",
        "token 0123456789abcdef0123456789abcdef0123456789abcdef is revoked",
        "gsk_0123456789abcdefghijABCDEFGHIJ0123456789abcdefghij is no key",
    ],
)
def test_a_message_holds_no_key(text: str) -> None:
    """Servers repeat parts of a key, and some all of it."""
    failure = failure_of(RuntimeError(text))
    assert "[key]" in failure.message
    assert "abcdef" not in failure.message
    assert "wxyz" not in failure.message


def test_a_message_is_one_short_line() -> None:
    """A page of HTML does not fill the terminal."""
    failure = failure_of(RuntimeError("<html>\n" + "x y " * 500))
    assert len(failure.message) <= 300
    assert "\n" not in failure.message


def test_a_date_says_when_to_come_back() -> None:
    """Retry-After as an HTTP date, counted from now."""
    import httpx2
    import openai

    def busy(headers: dict[str, str]) -> float | None:
        response = httpx2.Response(429, headers=headers, request=httpx2.Request("POST", "http://h/"))
        return failure_of(openai.RateLimitError("busy", response=response, body=None)).retry_after

    soon = busy({"retry-after": formatdate(time.time() + 30, usegmt=True)})
    assert soon is not None
    assert 27 < soon <= 30
    assert busy({"retry-after": "1.5"}) == 1.5
    assert busy({"retry-after": "nan"}) is None
    assert busy({"retry-after-ms": "inf"}) is None
    assert busy({"retry-after": "9" * 400}) is None
    assert busy({}) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "-5"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1.2.3"}, None),
        ({"retry-after": "1e3"}, 1000.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2999999999999 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 99999999999999999999 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00"}, None),
        ({"retry-after-ms": "-1", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "x", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "nan", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
    ],
    ids=str,
)
def test_a_wait_that_is_none_is_ours(headers: dict[str, str], seconds: float | None) -> None:
    """Negative, past or garbage: None, so that the own, growing wait is taken; one header makes up for the other."""
    assert _busy(headers) == seconds


@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40))
def test_no_wait_raises(text: str) -> None:
    """Whatever stands in the header, it is a number of seconds from 0, or nothing."""
    seconds = _busy({"retry-after": text, "retry-after-ms": text})
    assert seconds is None or 0 < seconds < 1e300


def _busy(headers: dict[str, str]) -> float | None:
    import httpx2
    import openai

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = httpx2.Response(429, headers=raw, request=httpx2.Request("POST", "http://h/"))
    return failure_of(openai.RateLimitError("busy", response=response, body=None)).retry_after
