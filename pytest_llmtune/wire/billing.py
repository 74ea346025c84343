"""Read the model and billed usage of one call, in any provider's format.

genai-prices' extractors read the tokens, by provider and API flavour; what they do not support (Ollama, Bedrock's models
other than Anthropic's, audio by the second, speech by the character) is read here. An unreadable response has no usage:
the caller reports that, and never counts zero.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.types import Exchange, Usage
from pytest_llmtune.wire.event_stream import answer_documents
from pytest_llmtune.wire.response import (
    MOST_TOKENS,
    answer_bytes,
    dicts_in,
    event_data,
    facts_of,
    folded,
    read_object,
    request_of,
    tier_of,
    usage_of,
    value_at,
    with_wrapped,
)
from pytest_llmtune.wire.tokens import of_all_choices

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import Provider


_MODEL_IN_PATH = lazy_regex(r"/(?:models?|deployments|engines)/([^/]+)|/ai/run/(.+)")
_VERB = lazy_regex(r":[a-zA-Z]+$")  # Gemini's, behind the model
_MODEL_IN_FORM = lazy_regex(r'name="model"\r?\n(?:[^\r\n]+\r?\n)*\r?\n([^\r\n]+)')
_FREE = lazy_regex(
    r"(?:count_tokens|:countTokens|/tokenize|/detokenize|/moderations|/files|/uploads(?:/.*)?|/vector_stores(?:/.*)?"
    r"|/assistants(?:/[^/]+)?|/threads(?:/[^/]+(?:/messages)?)?|/conversations(?:/.*)?|/cancel|/api/(?:show|pull|tags))$"
)
"""Routes that look like those of models, but are never billed."""
_ROUTES = lazy_regex(
    r"(?:/chat/completions|/completions|/responses|/messages|/embeddings|/embed|/rerank|/batches|/audio/\w+|/images/\w+"
    r"|/converse(?:-stream)?|/runs(?:/stream)?|/invoke(?:-with-response-stream)?|/generate|/v[12]/chat|/api/chat|/videos|/realtime\S*"
    r"|:(?:stream)?generateContent|:(?:batch)?[eE]mbedContents?|:(?:rawP|streamRawP|p)redict)$"
)
_PROMPTS = frozenset({"messages", "prompt", "contents", "inputs", "chat_history"})
"""Parts of a request body that only models use."""
_FLAVOURS = (
    ("/embeddings", ("embeddings", "default", "chat")),
    ("/responses", ("responses", "default")),
    ("/messages", ("anthropic", "default")),
    ("/chat/completions", ("chat", "default")),
    ("/images/", ("images",)),
)
_ELSEWHERE = frozenset({"decisions", "systemone", "realtime", "live", "usage-event", "images", "embeddings"})
"""Flavours that are tried only if the route names them."""
_SECONDS = ("audio_seconds", "input_audio_seconds")
_SEARCHES = {"web_search_call": "web_searches", "file_search_call": "storage_searches"}


@dataclass(frozen=True, slots=True)
class Bill:
    """The billed usage of one answered call."""

    models: tuple[str, ...]
    """Names of the model, most reliable first: as served, as requested, as in the URL."""
    usage: Usage | None
    """None: the response does not report it, or not readably."""
    providers: tuple[str, ...] = ()
    """genai-prices' IDs of possible providers, by the format of the response."""

    @property
    def model(self) -> str:
        """The name to display: as requested, else as served."""
        return self.models[-1] if self.models else ""


def asks_a_model(method: str, uri: str, body: str | Mapping[str, Any]) -> bool:
    """Whether a request is one that a provider may bill; its body as text, or as it was read."""
    if method.upper() not in ("POST", "PUT") or (billed := _is_billed(urlsplit(uri).path)) is False:
        return False
    return bool(billed or model_asked(uri, body)) or not _PROMPTS.isdisjoint(request_of(body))


@lru_cache(maxsize=256)
def _is_billed(path: str) -> bool | None:
    """Whether a route is that of a model; False: never billed."""
    return False if _FREE.search(path) else bool(_ROUTES.search(path)) or None


def model_asked(uri: str, body: str | Mapping[str, Any]) -> str:
    """The model that a request names: in its JSON, its form or its URL; else the empty text."""
    named = request_of(body).get("model")
    if isinstance(named, str) and named:
        return named
    if isinstance(body, str) and (form := _MODEL_IN_FORM.search(body[:100_000])):
        return form[1].strip()
    found = _MODEL_IN_PATH.search(urlsplit(uri).path)
    return _VERB.sub("", unquote(found[1] or found[2])) if found else ""


def names_a_deployment(uri: str) -> bool:
    """Whether a URL is Azure's: the request names a deployment, and only the response names the model."""
    parts = urlsplit(uri)
    return "/deployments/" in parts.path or "/openai/v1/" in parts.path or (parts.hostname or "").endswith(".azure.com")


def read_bill(
    method: str, uri: str, body: str | Mapping[str, Any], answer: str | bytes, *, listed: bool = True
) -> Bill | None:
    """The bill of an answered call; None if it is not billed.

    Args:
        body: of the request, as text, or as it was read.
        answer: as in ``answer_documents``.
        listed: read by genai-prices' extractors first; else only where our own reading knows nothing.
    """
    documents = answer_documents(answer)
    document = {**folded(documents), **(documents[0] if len(documents) == 1 else {})}
    has_usage = any(isinstance(document.get(name), dict) for name in ("usage", "usageMetadata"))
    if not asks_a_model(method, uri, body) and not (has_usage and method.upper() == "POST"):
        return None
    request, path, requested = request_of(body), urlsplit(uri).path, model_asked(uri, body)
    served = document.get("model") or document.get("modelVersion")
    models = tuple(dict.fromkeys(name for name in (served, requested) if isinstance(name, str) and name))
    providers = _by_shape(path, document)
    unread = Bill(models, None, providers)
    if (
        any(map(_miscounted, documents))
        or _has_unread_units(document)
        or (isinstance(answer, str) and (_lost(answer, len(documents)) or _repeats_a_count(answer)))
    ):
        return unread
    usage = own = _own(path, request, document, answer if isinstance(answer, str) else "")
    if listed or own is None:
        usage = _extracted(uri, path, document, models, providers)
        usage = own if usage is None else usage if own is None else _completed(usage, own, document)
    if usage is None:
        return unread
    reported, units = usage_of(document.get("usage")), any(count for _, count in usage.units)
    zero = reported is not None and not reported.completion_tokens  # of a text: the server does not count
    trusted = usage is own and usage.completion_tokens
    if zero and not trusted and answer_bytes(Exchange("POST", "", request, document)):
        return unread
    counted = usage.completion_tokens or units or _NO_TEXT.search(path) or not any(map(_wrote, documents))
    if not counted or not (usage.prompt_tokens or units):
        return unread
    return Bill(models, replace(usage, units=_with_searches(usage, documents), requests=1), providers)


_COUNT = lazy_regex(r"(?i)(?:tokens?|tokens?_?count|eval_count|seconds|units|characters|searches|queries|requests)$")
"""Names of counts in a usage."""


@lru_cache(maxsize=1024)
def _is_count(name: str) -> bool:
    return _COUNT.search(name) is not None


_COUNTED_IN = ("usage", "usageMetadata", "meta", "amazon-bedrock-invocationMetrics")


def _miscounted(document: Mapping[str, Any]) -> bool:
    """Whether a count is none (negative, a text, absurd), so that what is read of the others may be too little."""
    if any(name in document and _no_count(document[name], name) for name in _COUNTED):
        return True
    places = [(part, name) for part in with_wrapped(document) for name in _COUNTED_IN]
    return any(part.get(name) is not None and _no_count(part[name], name) for part, name in places)


def _no_count(found: Any, name: str = "") -> bool:
    """Whether a value of this name, or one within it, should be a count and is none.

    None is a count that does not apply, but every answer has output.
    """
    counts = _is_count(name)
    if isinstance(found, dict):
        return (counts and not found and not name.endswith("seconds")) or any(
            _no_count(value, key) for key, value in found.items()
        )
    if isinstance(found, list):
        return counts or any(map(_no_count, found))
    if not counts or found is None:
        return name in ("output_tokens", "outputTokens")
    if isinstance(found, (str, bool)) or not 0 <= found <= MOST_TOKENS:
        return True
    return found != int(found) and not name.endswith("seconds")


def _repeats_a_count(answer: str) -> bool:
    """Whether a JSON object of the answer has a count, or its usage, twice, of which parsers take one or the other."""
    texts = [answer] if read_object(answer) is not None else [*event_data(answer)]
    return any(_has_repeated(text) for text in texts if "sage" in text or "_count" in text or "nits" in text)


def _has_repeated(text: str) -> bool:
    found = False

    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        data = dict(pairs)
        if len(data) != len(pairs):
            names = [name for name, _ in pairs]
            found = found or any(names.count(name) > 1 and (name in _COUNTED_IN or _is_count(name)) for name in data)
        return data

    with suppress(ValueError, RecursionError):
        json.loads(text, object_pairs_hook=read)
    return found


_BILLED_UNITS = frozenset({"input_tokens", "output_tokens", "search_units"})


def _has_unread_units(document: Mapping[str, Any]) -> bool:
    """Whether Cohere bills other units than those that are read, such as the tokens of images."""
    places = [value_at(document, f"{name}.billed_units") for name in ("usage", "meta")]
    return any(
        count
        for units in places
        if isinstance(units, dict)
        for name, count in units.items()
        if name not in _BILLED_UNITS
    )


_NO_TEXT = lazy_regex(r"/(?:embeddings|embed|rerank|images/\w+)$|[eE]mbedContents?$")
_TEXTS = frozenset({"text", "content", "generation", "outputText", "response", "thinking", "arguments", "partial_json"})
_CALLS = frozenset({"tool_calls", "toolUse", "functionCall", "function_call"})


def _wrote(found: Any) -> bool:
    """Whether a response holds a text of its model, in any provider's format."""
    if isinstance(found, list):
        return any(map(_wrote, found))
    if not isinstance(found, dict):
        return False
    return found.get("type") == "tool_use" or any(
        (name in _TEXTS and isinstance(part, str) and part) or (name in _CALLS and part) or _wrote(part)
        for name, part in found.items()
    )


def _lost(text: str, read: int) -> bool:
    """Whether a stream has an event that cannot be read, which may be that with the usage."""
    return "data:" in text and sum(event.lstrip().startswith("{") for event in event_data(text)) > read


_BEDROCK = lazy_regex(r"/model/[^/]+/(?:converse|invoke)")


def _by_shape(path: str, document: Mapping[str, Any]) -> tuple[str, ...]:
    """genai-prices' IDs of the providers whose API has this format."""
    usage, meta = document.get("usage"), document.get("meta")
    if "usageMetadata" in document or ":generateContent" in path or ":streamGenerateContent" in path:
        return ("google",)
    if (isinstance(usage, dict) and "inputTokens" in usage) or _BEDROCK.search(path):
        return ("aws",)
    if any(isinstance(part, dict) and "billed_units" in part for part in (usage, meta)):
        return ("cohere",)
    if "/publishers/" in path:
        return ("google",)
    return ("anthropic",) if path.endswith("/messages") else ()


def _extracted(
    uri: str, path: str, document: Mapping[str, Any], models: tuple[str, ...], providers: tuple[str, ...]
) -> Usage | None:
    """Usage by the first matching extractor of genai-prices: by address, format, model, or OpenAI's."""
    from genai_prices import data_snapshot

    table = data_snapshot.get_snapshot()
    for provider in _candidates(table, uri, models, providers):
        for flavour in _flavours(path, provider):
            try:
                _, found = provider.extract_usage(document, api_flavor=flavour)
            except ValueError:  # another format, or no usage
                continue
            return _usage(vars(found), document)
    return None


def _candidates(
    table: DataSnapshot, uri: str, models: tuple[str, ...], providers: tuple[str, ...]
) -> Iterator[Provider]:
    candidates: list[tuple[str | None, str | None, str | None]] = [(None, None, uri)]
    candidates += [(None, provider, None) for provider in providers]
    candidates += [(model, None, None) for model in models]
    for model, provider, url in [*candidates, (None, "openai", None), (None, "anthropic", None)]:
        try:
            yield table.find_provider(model and model.lower(), provider, url)
        except LookupError:
            continue


def _flavours(path: str, provider: Provider) -> list[str]:
    known = [extractor.api_flavor for extractor in provider.extractors or ()]
    first = next((names for route, names in _FLAVOURS if route in path), ())
    rest = [name for name in known if name not in _ELSEWHERE]
    return [name for name in dict.fromkeys([*first, *rest]) if name in known]


def _usage(values: Mapping[str, Any], document: Mapping[str, Any]) -> Usage | None:
    """Convert genai-prices' units; None if a token count is not an integer, or absurdly large."""
    tokens = [count for name, count in values.items() if name.endswith("_tokens")]
    if any(count != int(count) or count > MOST_TOKENS for count in tokens):
        return None
    prompt, completion, cached, written = (int(values.get(name, 0)) for name in _TOKENS)
    total = next((int(count) for count in _totals(document) if isinstance(count, (int, float))), 0)
    return Usage(
        prompt,
        max(completion, total - prompt),
        min(cached, prompt),
        cache_write_tokens=written,
        units=tuple(sorted((name, count) for name, count in values.items() if count and name not in _TOKENS)),
        tier=tier_of(document),
    )


_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def _totals(document: Mapping[str, Any]) -> Iterator[Any]:
    for name in ("usage.total_tokens", "usage.totalTokens", "usageMetadata.totalTokenCount"):
        if (total := value_at(document, name)) is not None:
            yield total


def _completed(usage: Usage, own: Usage, document: Mapping[str, Any]) -> Usage:
    """Complete an extractor's usage with our own reading.

    xAI's extractor adds reasoning to the completion, as xAI bills it; if the total shows that it is already included (by a
    router), it is not added twice.
    """
    if own.prompt_tokens != usage.prompt_tokens:
        return usage
    reasoning = value_at(document, "usage.completion_tokens_details.reasoning_tokens")
    added = usage.completion_tokens - own.completion_tokens
    twice = reasoning and next(_totals(document), None) and added == reasoning
    return replace(
        usage,
        completion_tokens=own.completion_tokens if twice else max(usage.completion_tokens, own.completion_tokens),
        cached_tokens=max(usage.cached_tokens, own.cached_tokens),
        cache_write_tokens=max(usage.cache_write_tokens, own.cache_write_tokens),
        estimated=own.estimated,
        units=tuple(sorted({**dict(own.units), **dict(usage.units)}.items())),
    )


def _own(path: str, request: Mapping[str, Any], document: Mapping[str, Any], text: str) -> Usage | None:
    """Usage by our own reading; None if the format is unknown."""
    usage = document.get("usage")
    found = usage_of(usage, document)
    if isinstance(document.get("choices"), list) and isinstance(usage, dict):
        return of_all_choices(Exchange("POST", "", request, document), found)
    if found is not None:
        streamed = facts_of(text).usage if "choices" not in document and text else None
        return streamed or found
    if isinstance(usage, dict) and isinstance(usage.get("seconds"), (int, float)):  # a transcription's
        return Usage(0, 0, units=tuple((name, usage["seconds"]) for name in _SECONDS))
    if path.endswith("/audio/speech") and str(request.get("model", "")).startswith("tts-"):
        return Usage(0, 0, units=(("input_characters", len(str(request.get("input", "")))),))
    return _outside_usage(document)


def _outside_usage(document: Mapping[str, Any]) -> Usage | None:
    """Usage of a response that reports its tokens elsewhere than in ``usage``."""
    for names in _PAIRS:
        counts = [_at(document, name) for name in names]
        if counts[0] is not None:
            return Usage(counts[0], counts[1] or 0)
    units = value_at(document, "meta.billed_units")
    if isinstance(units, dict):
        searches = units.get("search_units")
        counted = (("rerank_searches", searches),) if isinstance(searches, (int, float)) and searches else ()
        return Usage(int(units.get("input_tokens") or 0), int(units.get("output_tokens") or 0), units=counted)
    return None


_PAIRS = (
    ("prompt_eval_count", "eval_count"),  # Ollama
    ("prompt_token_count", "generation_token_count"),  # Llama at Bedrock
    ("inputTextTokenCount", "outputTextTokenCount"),  # Titan
    ("amazon-bedrock-invocationMetrics.inputTokenCount", "amazon-bedrock-invocationMetrics.outputTokenCount"),
)
_COUNTED = tuple(name for names in _PAIRS for name in names)


def _at(document: Mapping[str, Any], name: str) -> int | None:
    value = value_at(document, name)
    if name == "outputTextTokenCount" and isinstance(document.get("results"), list):
        value = sum(item.get("tokenCount") or 0 for item in document["results"] if isinstance(item, dict))
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _with_searches(usage: Usage, documents: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, float], ...]:
    """The units plus searches made by OpenAI's Responses API, which are billed per call."""
    units = dict(usage.units)
    for document in documents:
        inner = document.get("response")
        output = (inner if isinstance(inner, dict) else document).get("output")
        kinds = [_SEARCHES.get(str(item.get("type"))) for item in dicts_in(output)]
        units |= {kind: float(kinds.count(kind)) for kind in kinds if kind}  # later events repeat them all
    return tuple(sorted(units.items()))
