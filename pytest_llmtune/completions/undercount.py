"""Finding out whether a server counts the tokens of all choices or of one only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_llmtune.completions.facts import usage_of
from pytest_llmtune.completions.usage import COUNTED, answer_bytes, answers_in, counts_one

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.model import Exchange

__all__ = ["annotated", "probe_body", "suspicious", "verdict"]

_USUAL = 4  # bytes for each token, in English


def suspicious(exchange: Exchange) -> bool:
    """Whether one tiny request is worth it: several choices with more text than the reported tokens usually make."""
    usage = usage_of(exchange.response.get("usage"))
    return answers_in(exchange) > 1 and usage is not None and answer_bytes(exchange) > _USUAL * usage.completion_tokens


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
    """The exchange with what is known about its usage written beside it, so that a replay counts the same way."""
    usage = exchange.response.get("usage")
    if not isinstance(usage, dict) or answers_in(exchange) < 2 or counts_one(exchange) == counts_only_one:
        return exchange
    usage = usage | {COUNTED: 1 if counts_only_one else answers_in(exchange)}
    return replace(exchange, response={**exchange.response, "usage": usage})
