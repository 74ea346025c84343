"""What a response says about itself: tokens, the model as served, why it ended; as JSON or as an event stream."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_llmtune.types import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Facts", "documents_of", "facts_of", "parse_object", "usage_of"]


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
