"""Read a response: answers, finish reasons, usage."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.jsonhash import is_heavy
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.types import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_llmtune.types import Exchange


@dataclass(frozen=True, slots=True)
class Facts:
    """Model, usage and finish reasons of one response."""

    model: str = ""
    """The served model; empty if not reported."""
    usage: Usage | None = None
    finish_reasons: tuple[str, ...] = ()
    """One per choice, in order; for the Responses API, the ``status``."""

    def to_plain(self) -> dict[str, Any]:
        """JSON data, without unknown fields."""
        plain: dict[str, Any] = {}
        if self.model:
            plain["model"] = self.model
        if self.finish_reasons:
            plain["finish_reasons"] = list(self.finish_reasons)
        if self.usage is not None:
            tokens = {"prompt_tokens": self.usage.prompt_tokens, "completion_tokens": self.usage.completion_tokens}
            parts = {"cached_tokens": self.usage.cached_tokens, "cache_write_tokens": self.usage.cache_write_tokens}
            plain["usage"] = tokens | {name: count for name, count in parts.items() if count}
        return plain


MOST_TOKENS = 1_000_000_000
"""Limit per response; a larger number is a server error."""
_MOST_ANSWERS = 10_000
"""Limit for one refused request: a recorded ``n`` must not exhaust memory."""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> float | int:
    """``1.0`` and ``1e0`` are the number 1."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number")
    return int(value) if value.is_integer() else value


_DECODER = json.JSONDecoder(parse_constant=_no_constant)  # Python's own accepts NaN and Infinity
_CANONICAL = json.JSONDecoder(parse_constant=_no_constant, parse_float=_number)
_BOM = "\ufeff"  # some servers write it before their JSON
_WRAPPED = ("response", "message", "delta", "x_groq")
"""Fields of an event that contain model and usage, in the Responses API, Anthropic, Cohere and Groq."""
_MERGED = (
    "model", "modelVersion", "usage", "usageMetadata", "meta", "service_tier", "serviceTier", "prompt_eval_count", "eval_count",
    "amazon-bedrock-invocationMetrics",
)  # fmt: skip


def parse_object(text: str, *, canonical: bool = False) -> dict[str, Any] | None:
    """The JSON object that the text is, or None; also where it would take more than 256 MB of memory.

    Args:
        canonical: equal numbers are equal values, however they are spelled; one that is infinite makes it no object.
    """
    text = text.lstrip(_BOM)
    if not text.startswith("{") and not text.lstrip().startswith("{"):
        return None
    data = _json(text, _CANONICAL if canonical else _DECODER)
    return data if isinstance(data, dict) else None


def parse_list(text: str) -> list[Any] | None:
    """The JSON array that the text is, or None."""
    data = _json(text) if text.lstrip().startswith("[") else None
    return data if isinstance(data, list) else None


def request_of(body: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON object of a request's body, as text or as it was read; empty if it is none."""
    return (read_object(body) or {}) if isinstance(body, str) else body


@lru_cache(maxsize=2)
def read_object(text: str) -> dict[str, Any] | None:
    """As ``parse_object``, for those who look at a request or its response one after another, and change nothing."""
    return parse_object(text)


def _json(text: str, decoder: json.JSONDecoder = _DECODER) -> Any:
    if is_heavy(text):
        return None
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError):
        return None


def documents_of(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a response: the body, an array's items, an object a line, or an event stream's ``data:``.

    They are shared, and not to be changed.
    """
    text = text.lstrip(_BOM)
    if (document := read_object(text)) is not None:
        yield document
        return
    if text.lstrip().startswith("["):  # Gemini's stream without server-sent events
        yield from dicts_in(_json(text))
        return
    for line in event_data(text) if "data:" in text else lines_of(text):
        if (document := parse_object(line)) is not None:
            yield document


def event_data(text: str) -> Iterator[str]:
    """The data of each event of a stream, and each line outside of events.

    An event may spread its JSON over several ``data:`` lines; some servers write several events without a blank line between.
    """
    data: list[str] = []
    for line in [*lines_of(text.lstrip(_BOM)), ""]:
        if line.startswith("data:"):
            data.append(line[5:])
        elif not line.strip():
            joined = "\n".join(data)
            yield from [joined] if len(data) > 1 and parse_object(joined) is not None else data
            data = []
        elif not line.startswith((":", "event:", "id:", "retry:")):
            yield line


def dicts_in(value: Any) -> list[dict[str, Any]]:
    """The mappings in a list; none in anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def value_at(data: Any, path: str) -> Any:
    """The value at a path of names, such as ``meta.billed_units``; None if there is none."""
    for name in path.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def lines_of(text: str) -> list[str]:
    """The lines of an event stream or of JSON Lines, whose strings may hold what ``str.splitlines`` splits at (U+2028)."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def with_wrapped(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The document, and the mappings in it that may report its model and usage."""
    return [document, *(document[name] for name in _WRAPPED if isinstance(document.get(name), dict))]


def folded(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge model and usage of a response's documents into one document; later values win, but no count falls.

    Anthropic reports prompt tokens in its first event and completion tokens in one of its last, where some servers repeat the
    prompt as 0.
    """
    merged: dict[str, Any] = {}
    for document in documents:
        for part in with_wrapped(document):
            reported = {name: part[name] for name in _MERGED if part.get(name) is not None}
            merged = _with_counts(merged, reported)
    return merged


def _with_counts(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """A usage with what a later event reports of it; a null reports nothing."""
    merged = dict(before)
    for name, value in now.items():
        known = merged.get(name)
        if isinstance(value, dict):
            merged[name] = _with_counts(known if isinstance(known, dict) else {}, value)
        elif value is not None and not (
            name not in _DISCOUNTED and _is_number(known) and _is_number(value) and value < known
        ):
            merged[name] = value
    return merged


_DISCOUNTED = frozenset({"cached_tokens", "prompt_cache_hit_tokens", "cachedContentTokenCount"})
"""Parts of a prompt that make it cheaper: the last count of them is taken, and not the largest."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def facts_of(text: str) -> Facts:
    """Read a response's body.

    llama.cpp ends a stream of n choices with n usage events, one per choice, which are summed.
    """
    reasons = dict[int, str]()
    closing: list[Usage] = []
    documents = list(documents_of(text))
    for document in documents:
        inner = document.get("response")  # an event of the Responses API wraps the whole response
        body = inner if isinstance(inner, dict) else document
        found = usage_of(body.get("usage"))
        closing += [found] if found and body.get("choices") == [] else []
        choices, status = body.get("choices"), body.get("status")
        if body.get("object") == "response" and isinstance(status, str) and not isinstance(choices, list):
            reasons[0] = status
        for choice in dicts_in(choices):
            if choice.get("finish_reason"):
                index = choice.get("index")
                reasons[index if isinstance(index, int) else 0] = str(choice["finish_reason"])
    merged = folded(documents)
    usage = usage_of(merged.get("usage"), merged)
    if len(closing) == len(reasons) > 1:
        usage = replace(closing[0], completion_tokens=sum(each.completion_tokens for each in closing))
    return Facts(
        str(merged.get("model") or merged.get("modelVersion") or ""),
        usage,
        tuple(reasons[index] for index in sorted(reasons)),
    )


def usage_of(data: Any, document: Mapping[str, Any] | None = None) -> Usage | None:
    """Read the ``usage`` of chat completions, embeddings, the Responses API or Anthropic's messages.

    Tokens of ``total_tokens`` in neither part are output: xAI, and Gemini behind OpenAI's routes, bill reasoning outside
    ``completion_tokens``. DeepSeek and Moonshot report cached tokens outside the details. Perplexity counts reasoning and
    citations outside both the completion and the total.

    Args:
        document: the response, which may name its service tier.

    Returns:
        None if a count is missing, not an integer, negative or absurdly large.
    """
    if not isinstance(data, dict):
        return None
    total = _count(data, "total_tokens")
    prompt = _count(data, "prompt_tokens", "input_tokens")
    if prompt is None and total and not any(data.get(name) is not None for name in _PARTS):
        prompt = total  # embeddings of Voyage and Jina report only the total
    if prompt is None:
        return None
    completion = _count(data, "completion_tokens", "output_tokens")
    if completion is None and any(data.get(name) is not None for name in ("completion_tokens", "output_tokens")):
        return None  # reported, but not readable
    prompt_details, completion_details = _details(data, _PROMPT_DETAILS), _details(data, _COMPLETION_DETAILS)
    cached = _count(prompt_details, "cached_tokens") or _count(data, "prompt_cache_hit_tokens", "cached_tokens") or 0
    written = _count(prompt_details, "cache_write_tokens") or 0
    if "prompt_tokens" not in data:  # Anthropic counts cache reads and writes separately from the input
        read, created = (_count(data, f"cache_{name}_input_tokens") or 0 for name in ("read", "creation"))
        prompt, cached, written = prompt + read + created, cached + read, written + created
    completion = max(completion or 0, (total or 0) - prompt)
    units = {
        "input_audio_tokens": _count(prompt_details, "audio_tokens"),
        "output_audio_tokens": _count(completion_details, "audio_tokens"),
        "input_image_tokens": _count(prompt_details, "image_tokens"),
        "output_image_tokens": _count(completion_details, "image_tokens"),
    }
    if "citation_tokens" in data or "num_search_queries" in data:
        reasoning, citations = _count(data, "reasoning_tokens") or 0, _count(data, "citation_tokens") or 0
        completion += reasoning + citations
        units |= {
            "output_reasoning_tokens": reasoning,
            "output_citation_tokens": citations,
            "web_searches": _count(data, "num_search_queries"),
        }
    cached = min(cached, prompt)
    return Usage(
        prompt,
        completion,
        cached,
        cache_write_tokens=min(written, prompt - cached),
        units=tuple(sorted((name, count) for name, count in units.items() if count)),
        tier=tier_of(document or {"usage": data}),
    )


def tier_of(document: Mapping[str, Any]) -> str:
    """The service tier that a response was served in, or that a request asks for, in lower case; empty for the ordinary one.

    Bedrock wraps it in ``type``, Vertex names it by its traffic (``ON_DEMAND_PRIORITY``), and Anthropic serves faster, or within
    one country, at prices of their own. Several are joined by a space.
    """
    places = [
        document,
        *(document[name] for name in ("usage", "usageMetadata") if isinstance(document.get(name), dict)),
    ]
    named = [place.get(name) for name in _TIERS for place in places]
    named = [each.get("type") if isinstance(each, dict) else each for each in named]
    tiers = [
        each.lower().removeprefix("on_demand_").removeprefix("service_tier_") for each in named if isinstance(each, str)
    ]
    return " ".join(dict.fromkeys(each for each in tiers if each not in _ORDINARY))


_PARTS = ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens")
_TIERS = ("speed", "service_tier", "serviceTier", "trafficType", "inference_geo")
_ORDINARY = frozenset({
    "", "auto", "default", "standard", "standard_only", "normal", "on_demand", "unspecified", "traffic_type_unspecified",
    "global", "not_available",
})  # fmt: skip
_PROMPT_DETAILS = ("prompt_tokens_details", "prompt_token_details", "input_tokens_details", "input_token_details")
_COMPLETION_DETAILS = tuple(name.replace("prompt", "completion").replace("input", "output") for name in _PROMPT_DETAILS)


def _details(data: Mapping[str, Any], names: Iterable[str]) -> Mapping[str, Any]:
    return next((data[name] for name in names if isinstance(data.get(name), dict)), {})


def _count(data: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        if (value := data.get(name)) is None:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS:
            return value
    return None


FILTERED = "content_filter"
"""The finish reason of an answer that a content filter stopped."""
_FILTERS = lazy_regex(
    r"content.?filter|sensitive|safety|recitation|prohibited|blocklist|blocked|spii|guardrail|^refusal$|^moderation",
    re.IGNORECASE,
)
"""Providers' names for that: ``sensitive`` (Zhipu), ``SAFETY`` (Gemini), ``guardrail_intervened`` (Bedrock), ..."""
_FAULTS = lazy_regex(
    r"error|insufficient|^fail|^abort|^cancel|timeout|timed.out|overload|unavailable|^interrupt", re.IGNORECASE
)


def answers_in(exchange: Exchange) -> int:
    """Number of answers in an exchange; a refused prompt counts as ``n`` refusals."""
    if is_refusal(exchange):
        n = exchange.request.get("n")
        return n if isinstance(n, int) and 0 < n <= _MOST_ANSWERS else 1
    choices = exchange.response.get("choices")
    return len(choices) if isinstance(choices, list) else int(_has_one_vector(exchange.response))


def wants_embedding(body: Mapping[str, Any]) -> bool:
    """Whether a suite's request asks for the embedding of a text, and not for a chat completion."""
    return "input" in body and "messages" not in body


def route_of(body: Mapping[str, Any]) -> str:
    """The path under the base URL that answers a suite's request."""
    return "/embeddings" if wants_embedding(body) else "/chat/completions"


_LARGEST = 1e30
"""Limit of one number of an embedding; NaN is not below it either."""


def embedding_in(response: Mapping[str, Any]) -> list[float] | None:
    """The embedding of the request's one text; None if it is missing, not finite numbers only, or all zeros."""
    vector = response["data"][0].get("embedding") if _has_one_vector(response) else None
    if not isinstance(vector, list) or not any(vector):
        return None
    sound = all(type(each) in (int, float) and -_LARGEST < each < _LARGEST for each in vector)
    return [float(each) for each in vector] if sound else None


def _has_one_vector(response: Mapping[str, Any]) -> bool:
    listed = response.get("data")
    return isinstance(listed, list) and len(listed) == 1 and isinstance(listed[0], dict) and "choices" not in response


def is_refusal(exchange: Exchange) -> bool:
    """Whether a content filter refused the prompt itself (Azure: status 400)."""
    return exchange.status == 400


def filtered_in(exchange: Exchange) -> int:
    """Number of answers that a content filter stopped."""
    return sum(finish_reason_of(choice) == FILTERED for choice in choices_of(exchange))


def finish_reason_of(choice: Mapping[str, Any]) -> str:
    """Why the answer ended, as served, with one name for all content filters; empty if not reported."""
    reason = choice.get("finish_reason")
    if reason == "stop" or not reason:  # most of them
        return reason or ""
    return FILTERED if _FILTERS.search(str(reason)) else str(reason)


def fault_of(choice: Mapping[str, Any]) -> str:
    """Why a choice is a provider's error instead of an answer; empty if it is an answer.

    Some report errors with status 200: OpenRouter and Mistral end a choice with ``error``, Zhipu with ``network_error``,
    DeepSeek with ``insufficient_system_resource``, vLLM with ``abort``.
    """
    if choice.get("error"):
        return "the choice contains an error"
    reason = finish_reason_of(choice)
    if reason != "stop" and _FAULTS.search(reason):
        return f"finish_reason is {reason!r}"
    if not reason and not written_bytes(choice) and not _message(choice).get("function_call"):
        return "the answer is empty, without a finish_reason"
    return ""


def choices_of(exchange: Exchange) -> list[Mapping[str, Any]]:
    """The response's choices, unchanged."""
    choices = exchange.response.get("choices")
    return [choice if isinstance(choice, dict) else {} for choice in choices] if isinstance(choices, list) else []


def text_of(choice: Mapping[str, Any]) -> str:
    """The answer's text; a model's refusal counts as text, and so do tool calls, as JSON.

    If the content is a list of parts (Mistral, OpenAI's input format), its texts are joined, without reasoning; other parts
    are given as JSON.
    """
    message = _message(choice)
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(map(_part, content))
    # without IDs, which differ each time and would split the vote
    called = [call.get("function") for call in dicts_in(message.get("tool_calls"))] + [message.get("function_call")]
    content = content or message.get("refusal") or [call for call in called if isinstance(call, dict)] or ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


_THOUGHT_PARTS = ("thinking", "redacted_thinking", "reasoning", "reasoning_text", "thought")


def _part(part: Any) -> str:
    """One part of an answer's content, as text."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return json.dumps(part, ensure_ascii=False)
    kind = part.get("type")
    if kind in _THOUGHT_PARTS or part.get("thought") is True:
        return ""
    text = part.get("text", part.get("refusal") if kind == "refusal" else None)
    if isinstance(text, dict):  # {"value": ..., "annotations": []}
        text = text.get("value")
    if isinstance(text, str) and kind in (None, "text", "output_text", "input_text", "refusal"):
        return text
    return json.dumps(part, ensure_ascii=False)


def was_cut(choice: Mapping[str, Any]) -> bool:
    """Whether the answer was truncated at ``max_tokens``."""
    return choice.get("finish_reason") == "length"


def token_limit(body: Mapping[str, Any]) -> int | None:
    """Maximum number of tokens of one answer to this body; None if not limited."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return limit if isinstance(limit, int) else None


def written_bytes(choice: Mapping[str, Any]) -> int:
    """UTF-8 bytes of everything the model wrote: text, visible reasoning, tool calls."""
    message = _message(choice)
    # two names for the same text; some servers send both
    thought = max(size_of(message.get("reasoning_content")), size_of(message.get("reasoning")))
    return thought + sum(size_of(message.get(name)) for name in ("content", "refusal", "tool_calls"))


def answer_bytes(exchange: Exchange) -> int:
    """UTF-8 bytes of all choices together."""
    return sum(map(written_bytes, choices_of(exchange)))


def size_of(content: Any) -> int:
    """UTF-8 bytes of a string, or of JSON data."""
    if not content:
        return 0
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    message = choice.get("message")
    return message if isinstance(message, dict) else {}
