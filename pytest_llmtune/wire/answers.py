"""What one exchange of chat completions holds, choice by choice; safe on whatever a stranger's file says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.types import Exchange

__all__ = [
    "FILTERED",
    "answer_bytes",
    "answers_in",
    "choices_of",
    "filtered_in",
    "is_refusal",
    "size_of",
    "text_of",
    "token_limit",
    "was_cut",
    "written_bytes",
]


FILTERED = "content_filter"
"""The finish reason of an answer that a content filter stopped."""
_WRITTEN = ("content", "refusal", "reasoning_content", "tool_calls")


def answers_in(exchange: Exchange) -> int:
    """How many answers an exchange holds; a refused prompt is answered by as many refusals as were asked for."""
    if is_refusal(exchange):
        n = exchange.request.get("n")
        return n if isinstance(n, int) and n > 0 else 1
    return len(choices_of(exchange))


def is_refusal(exchange: Exchange) -> bool:
    """Whether the prompt itself was stopped by a content filter (Azure: status 400)."""
    return exchange.status == 400


def filtered_in(exchange: Exchange) -> int:
    """How many of the answers a content filter stopped on their way."""
    return sum(choice.get("finish_reason") == FILTERED for choice in choices_of(exchange))


def choices_of(exchange: Exchange) -> list[Mapping[str, Any]]:
    """The response's choices as they are."""
    choices = exchange.response.get("choices")
    return [choice if isinstance(choice, dict) else {} for choice in choices] if isinstance(choices, list) else []


def text_of(choice: Mapping[str, Any]) -> str:
    """The answer's text; a refusal in the model's own words counts as one, and so do calls of tools, as JSON."""
    message = _message(choice)
    content = message.get("content") or message.get("refusal") or _calls(message) or ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _calls(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """``[{"name": ..., "arguments": ...}]``, without the ids, which differ each time and would split the vote."""
    listed = message.get("tool_calls")
    calls = [call.get("function") for call in listed if isinstance(call, dict)] if isinstance(listed, list) else []
    return [call for call in [*calls, message.get("function_call")] if isinstance(call, dict)]


def was_cut(choice: Mapping[str, Any]) -> bool:
    """Whether the answer ended at ``max_tokens``."""
    return choice.get("finish_reason") == "length"


def token_limit(body: Mapping[str, Any]) -> int | None:
    """The most tokens that one answer to this body may have."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return limit if isinstance(limit, int) else None


def written_bytes(choice: Mapping[str, Any]) -> int:
    """UTF-8 bytes of all that the model wrote: the text, its reasoning where it is shown, calls of tools."""
    message = _message(choice)
    return sum(size_of(message.get(name)) for name in _WRITTEN)


def answer_bytes(exchange: Exchange) -> int:
    """UTF-8 bytes of all choices together."""
    return sum(map(written_bytes, choices_of(exchange)))


def size_of(content: Any) -> int:
    """UTF-8 bytes of a text, or of JSON data."""
    if not content:
        return 0
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return len(text.encode("utf-8", "surrogatepass"))


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    message = choice.get("message")
    return message if isinstance(message, dict) else {}
