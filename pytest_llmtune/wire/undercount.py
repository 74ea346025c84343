"""Servers that count the tokens of one choice only where n > 1, as llama.cpp does: noticed, asked, and written down.

OpenAI's ``usage.completion_tokens`` counts all choices. Which way a server counts is read from the response alone, so
that a replay counts as the live run did:

1. ``COUNTED`` in the usage: the live source wrote it there, after it had asked the server with ``probe_body``.
2. A proof: fewer tokens are reported than the texts must have had (a choice that ended with ``length`` has
   ``max_tokens``, any other text at least one), and they fit into one choice. Or the server's stopwatch of one choice
   (llama.cpp's ``timings``) counted as many tokens as the usage reports for all.
3. More than 12 bytes of text for each reported token: no tokenizer does that with ordinary text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.jsonhash import safe_json
from pytest_llmtune.types import Exchange
from pytest_llmtune.wire.answers import answer_bytes, answers_in, choices_of, token_limit, was_cut, written_bytes
from pytest_llmtune.wire.response import parse_object, usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COUNTED", "annotated", "counts_one", "noted", "probe_body", "proven", "suspicious", "verdict"]


COUNTED = "llmtune_choices_counted"
"""In a response's ``usage``: how many of its choices ``completion_tokens`` counts."""

_USUAL = 4  # bytes for each token, in English
_IMPLAUSIBLE = 12


def counts_one(exchange: Exchange) -> bool:
    """Whether ``usage.completion_tokens`` counts only one of several choices."""
    usage = exchange.response.get("usage")
    reported = usage_of(usage)
    if reported is None or answers_in(exchange) < 2 or not isinstance(usage, dict):
        return False
    if not reported.completion_tokens:
        return False  # nothing was counted
    if COUNTED in usage:
        return bool(usage[COUNTED] == 1)
    return proven(exchange) or answer_bytes(exchange) > _IMPLAUSIBLE * reported.completion_tokens


def proven(exchange: Exchange) -> bool:
    """Whether the texts must have had more tokens than are reported, and the reported ones fit into one choice."""
    usage, limit, choices = (
        usage_of(exchange.response.get("usage")),
        token_limit(exchange.request),
        choices_of(exchange),
    )
    if usage is None or not usage.completion_tokens or len(choices) < 2:
        return False
    if _stopwatch(exchange) == usage.completion_tokens:
        return True
    least = sum(limit if limit and was_cut(choice) else min(1, written_bytes(choice)) for choice in choices)
    return usage.completion_tokens < least and (limit is None or usage.completion_tokens <= limit)


def suspicious(exchange: Exchange) -> bool:
    """Whether one tiny request is worth it: several choices with more text than the reported tokens usually make."""
    usage = usage_of(exchange.response.get("usage"))
    if answers_in(exchange) < 2 or usage is None or not usage.completion_tokens:
        return False
    return _stopwatch(exchange) is not None or answer_bytes(exchange) > _USUAL * usage.completion_tokens


def _stopwatch(exchange: Exchange) -> int | None:
    """Tokens that llama.cpp timed, which it does choice by choice; None where there is no such figure."""
    timings = exchange.response.get("timings")
    timed = timings.get("predicted_n") if isinstance(timings, dict) else None
    return timed if isinstance(timed, int) else None


def noted(body: str, text: str) -> str:
    """The text of a response with ``COUNTED`` in it where it proves that only one choice was counted.

    A recording leaves out the stopwatch that may be the proof.
    """
    request, response = parse_object(body), parse_object(text)
    if request is None or response is None or not isinstance(response.get("choices"), list):
        return text
    exchange = Exchange("POST", "", request, response)
    return safe_json(annotated(exchange, True).response) if proven(exchange) else text


def probe_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """Two choices of one token each, in the words of the request: a server that counts all reports two or more."""
    limit = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    return {"model": body["model"], "messages": [{"role": "user", "content": "Hi"}], "n": 2, limit: 1}


def verdict(response: Mapping[str, Any]) -> bool | None:
    """Whether the server counts one choice only, from its answer to the probe; None where that does not tell."""
    usage, choices = usage_of(response.get("usage")), response.get("choices")
    if usage is None or not isinstance(choices, list) or len(choices) < 2 or usage.completion_tokens < 1:
        return None
    return usage.completion_tokens == 1


def annotated(exchange: Exchange, counts_only_one: bool) -> Exchange:
    """The exchange with what is known about its usage written beside it, so that a replay counts the same way.

    That one choice is counted is written also where it can be seen: a recording leaves out the stopwatch.
    """
    usage = exchange.response.get("usage")
    if not isinstance(usage, dict) or answers_in(exchange) < 2 or COUNTED in usage:
        return exchange
    if not counts_only_one and not counts_one(exchange):
        return exchange
    known = usage | {COUNTED: 1 if counts_only_one else answers_in(exchange)}
    return replace(exchange, response={**exchange.response, "usage": known})
