"""Facts of a response: answers, finish reasons, usage."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_llmtune.types import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_llmtune.types import Exchange

__all__ = [
    "FILTERED",
    "Facts",
    "answer_bytes",
    "answers_in",
    "choices_of",
    "documents_of",
    "facts_of",
    "filtered_in",
    "is_refusal",
    "parse_object",
    "size_of",
    "text_of",
    "token_limit",
    "usage_of",
    "was_cut",
    "written_bytes",
]


@dataclass(frozen=True, slots=True)
class Facts:
    """Read from one response's body."""

    model: str = ""
    """As served; empty where the response does not say."""
    usage: Usage | None = None
    finish_reasons: tuple[str, ...] = ()
    """One for each choice, in their order; the ``status`` of a Responses API response."""

    def to_plain(self) -> dict[str, Any]:
        """JSON data, without what is not known."""
        plain: dict[str, Any] = {}
        if self.model:
            plain["model"] = self.model
        if self.finish_reasons:
            plain["finish_reasons"] = list(self.finish_reasons)
        if self.usage is not None:
            tokens = {"prompt_tokens": self.usage.prompt_tokens, "completion_tokens": self.usage.completion_tokens}
            plain["usage"] = tokens | ({"cached_tokens": self.usage.cached_tokens} if self.usage.cached_tokens else {})
        return plain


_MOST_TOKENS = 1_000_000_000
"""Of one response; a larger figure is an error of the server's."""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)  # Python's own accepts NaN and Infinity


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that the text is, or None."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        data = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def documents_of(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a response: the body itself, or the ``data:`` lines of an event stream."""
    if (whole := parse_object(text)) is not None:
        yield whole
        return
    for line in text.splitlines():
        if line.startswith("data:") and (event := parse_object(line[5:])) is not None:
            yield event


def facts_of(text: str) -> Facts:
    """Read a response's body; in an event stream what comes later wins.

    llama.cpp ends a stream of n choices with n events of usage, one for each choice: together they are the call's.
    """
    model, usage, reasons = "", None, dict[int, str]()
    closing: list[Usage] = []
    for document in documents_of(text):
        inner = document.get("response")  # an event of the Responses API wraps the whole response
        body = inner if isinstance(inner, dict) else document
        model = str(body.get("model") or model)
        found = usage_of(body.get("usage"))
        usage = found or usage
        closing += [found] if found and body.get("choices") == [] else []
        reasons |= _reasons(body)
    if len(closing) == len(reasons) > 1:
        usage = replace(closing[0], completion_tokens=sum(each.completion_tokens for each in closing))
    return Facts(model, usage, tuple(reasons[index] for index in sorted(reasons)))


def _reasons(body: Mapping[str, Any]) -> dict[int, str]:
    choices = body.get("choices")
    if not isinstance(choices, list):
        status = body.get("status")
        return {0: status} if body.get("object") == "response" and isinstance(status, str) else {}
    return {
        _index(choice): str(choice["finish_reason"])
        for choice in choices
        if isinstance(choice, dict) and choice.get("finish_reason")
    }


def _index(choice: Mapping[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def usage_of(data: Any) -> Usage | None:
    """Read the ``usage`` of chat completions, embeddings (``prompt_tokens`` only) or the Responses API.

    None where a count is missing, no whole number, negative or absurd: nobody is billed by such a figure.
    """
    if not isinstance(data, dict):
        return None
    prompt = _count(data, "prompt_tokens", "input_tokens")
    if prompt is None:
        return None
    completion = _count(data, "completion_tokens", "output_tokens")
    if completion is None and any(data.get(name) is not None for name in ("completion_tokens", "output_tokens")):
        return None  # it is said, and cannot be read
    details = data.get("prompt_tokens_details") or data.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
    return Usage(prompt, completion or 0, min(cached or 0, prompt))


def _count(data: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = data.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
            return value
    return None


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
