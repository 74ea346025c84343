"""Token counts of responses, including those of servers that count only one of n choices, and bounds of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.jsonhash import safe_json
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.types import Choice, Completion, Exchange, Usage
from pytest_llmtune.wire.response import (
    answer_bytes,
    answers_in,
    choices_of,
    finish_reason_of,
    is_refusal,
    parse_object,
    size_of,
    text_of,
    tier_of,
    token_limit,
    usage_of,
    value_at,
    wants_embedding,
    was_cut,
    written_bytes,
)

COUNTED = "llmtune_choices_counted"
"""Field of a response's ``usage``: how many of its choices ``completion_tokens`` counts."""

_USUAL = 4  # bytes per token in English
_IMPLAUSIBLE = 12


def reports_one_choice_only(exchange: Exchange, usage: Usage | None = None) -> bool:
    """Whether the response's ``usage``, read already or not, counts the completion tokens of only one of several choices."""
    usage = usage or usage_of(exchange.response.get("usage"))
    if answers_in(exchange) < 2 or usage is None or not usage.completion_tokens:
        return False
    if COUNTED in (reported := exchange.response["usage"]):
        return bool(reported[COUNTED] == 1)
    return proven(exchange, usage) or answer_bytes(exchange) > _IMPLAUSIBLE * usage.completion_tokens


def proven(exchange: Exchange, usage: Usage | None = None) -> bool:
    """Whether the texts must have more tokens than reported, and the reported number fits one choice."""
    usage = usage or usage_of(exchange.response.get("usage"))
    limit, choices = token_limit(exchange.request), choices_of(exchange)
    if usage is None or not usage.completion_tokens or len(choices) < 2:
        return False
    if _stopwatch(exchange) == usage.completion_tokens:
        return True
    if usage.completion_tokens >= len(choices) if limit is None else usage.completion_tokens > limit:
        return False  # as of most
    return usage.completion_tokens < sum(
        limit if limit and was_cut(choice) else written_bytes(choice) > 0 for choice in choices
    )


def suspicious(exchange: Exchange) -> bool:
    """Whether a probe is worthwhile: several choices with more text than the reported tokens usually make."""
    usage = usage_of(exchange.response.get("usage"))
    if answers_in(exchange) < 2 or usage is None or not usage.completion_tokens:
        return False
    return _stopwatch(exchange) is not None or answer_bytes(exchange) > _USUAL * usage.completion_tokens


def _stopwatch(exchange: Exchange) -> int | None:
    """Tokens timed by llama.cpp, which times each choice; None if not reported."""
    timings = exchange.response.get("timings")
    timed = timings.get("predicted_n") if isinstance(timings, dict) else None
    return timed if isinstance(timed, int) else None


def with_counted_mark(body: str, text: str) -> str:
    """The text of a response, with ``COUNTED`` added if it proves that only one choice was counted.

    A recording omits the timings that may be the proof.
    """
    request, response = parse_object(body), parse_object(text)
    if request is None or response is None or not isinstance(response.get("choices"), list):
        return text
    exchange = Exchange("POST", "", request, response)
    return safe_json(annotated(exchange, True).response) if proven(exchange) else text


def probe_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the request for two choices of one token each: a server that counts all reports two or more."""
    limit = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    return {"model": body["model"], "messages": [{"role": "user", "content": "Hi"}], "n": 2, limit: 1}


def verdict(response: Mapping[str, Any]) -> bool | None:
    """Whether the server counts only one choice, by its answer to the probe; None if inconclusive."""
    usage, choices = usage_of(response.get("usage")), response.get("choices")
    if usage is None or not isinstance(choices, list) or len(choices) < 2 or usage.completion_tokens < 1:
        return None
    return usage.completion_tokens == 1


def annotated(exchange: Exchange, counts_only_one: bool) -> Exchange:
    """The exchange with the way its usage is counted noted in it, so that a replay counts the same way.

    A count of one choice is noted even if the timings show it, because a recording omits them.
    """
    usage = exchange.response.get("usage")
    if not isinstance(usage, dict) or answers_in(exchange) < 2 or COUNTED in usage:
        return exchange
    if not counts_only_one and not reports_one_choice_only(exchange):
        return exchange
    known = usage | {COUNTED: 1 if counts_only_one else answers_in(exchange)}
    return replace(exchange, response={**exchange.response, "usage": known})


_BYTES_PER_TOKEN = 3  # for estimates; English has 4 to 5
_ENOUGH = 64  # minimum bytes for a text's own token rate to be used

Choices = Sequence[Mapping[str, Any]]
KnownLengths = Sequence[int | None]


@dataclass(frozen=True, slots=True)
class _Reading:
    """The choices of one exchange with their tokens."""

    choices: tuple[Choice, ...]
    """With ``tokens`` if exact."""
    tokens: tuple[int, ...]
    """Tokens of each choice, exact or estimated."""
    counted: bool
    """Whether the sum of ``tokens`` is the server's count."""
    prompt: Usage

    def billed(self, part: slice) -> Usage:
        """Completion tokens of some of the choices."""
        tokens = self.tokens[part]
        sure = all(choice.tokens is not None for choice in self.choices[part])
        return Usage(0, sum(tokens), estimated=not sure and not (self.counted and len(tokens) == len(self.tokens)))


def completion_of(exchanges: Sequence[Exchange], n: int, *, skip: int = 0, max_n: int | None = None) -> Completion:
    """The n answers after the first ``skip``, and the tokens billed for requesting exactly these.

    The prompt is billed once per request that n answers take at this server: one for each ``max_n`` of them.

    Args:
        exchanges: all exchanges of one request, in order, with at least ``skip + n`` answers.
        max_n: the most answers per HTTP request; None: inferred from the exchanges.
    """
    used: list[tuple[Exchange, _Reading, slice]] = []
    start = 0
    for exchange in exchanges:
        size = answers_in(exchange)
        low, high = max(skip - start, 0), min(skip + n - start, size)
        if low < high:
            used.append((exchange, _read(exchange), slice(low, high)))
        start += size
    sizes = [len(reading.choices) for _, reading, _ in used]
    # a server with a limit first gives that many, then the rest; if the last exchange is the largest, no limit shows:
    # more answers were requested later (by a search)
    most = max_n or (n if sizes[-1] > max(sizes[:-1], default=0) else max(sizes))
    prompts = sorted((reading.prompt for _, reading, _ in used), key=lambda usage: -usage.prompt_tokens)
    usage = sum(prompts[: -(-n // most)], Usage(0, 0))
    return Completion(
        choices=tuple(choice for _, reading, part in used for choice in reading.choices[part]),
        usage=sum((reading.billed(part) for _, reading, part in used), usage),
        exchanges=tuple(exchange for exchange, _, _ in used),
        served_model=str(used[0][0].response.get("model") or ""),
        latency=max(exchange.latency for exchange, _, _ in used),
    )


def of_all_choices(exchange: Exchange, usage: Usage | None) -> Usage | None:
    """The usage that a response reports, or one of all its choices, where it counts only one of them."""
    return completion_of([exchange], answers_in(exchange)).usage if reports_one_choice_only(exchange, usage) else usage


def lengths_of(exchanges: Sequence[Exchange]) -> tuple[int, ...]:
    """Tokens billed for each answer of the exchanges, in order: exact if possible, else a share of the total."""
    return tuple(tokens for exchange in exchanges for tokens in _read(exchange).tokens)


def estimated_prompt(body: Mapping[str, Any]) -> int:
    """Estimated prompt tokens of a body, from its bytes; errs on the high side."""
    if wants_embedding(body):
        return -(-size_of(body["input"]) // _BYTES_PER_TOKEN)
    messages = body.get("messages")
    parts = messages if isinstance(messages, (list, tuple)) else ()
    return 3 + sum(
        4 + -(-size_of(part.get("content")) // _BYTES_PER_TOKEN) for part in parts if isinstance(part, Mapping)
    )


def _read(exchange: Exchange) -> _Reading:
    if is_refusal(exchange):  # Azure bills the prompt that it refuses
        refused = (Choice("", "content_filter", 0),) * answers_in(exchange)
        return _Reading(refused, (0,) * len(refused), counted=True, prompt=_unknown_prompt(exchange))
    choices, usage = choices_of(exchange), usage_of(exchange.response.get("usage"), exchange.response)
    if wants_embedding(exchange.request):  # billed by its input alone; whoever asks for it reads the exchange
        prompt = usage if usage and usage.prompt_tokens else _unknown_prompt(exchange)
        vectors = (Choice("", "stop", 0),) * answers_in(exchange)
        return _Reading(vectors, (0,) * len(vectors), counted=True, prompt=prompt)
    total = None if usage is None else usage.completion_tokens
    if total == 0 and any(map(written_bytes, choices)):
        total = None  # every text has tokens: servers that do not count report zero
    if total is not None and not reports_one_choice_only(exchange, usage):
        known: KnownLengths = [total] if len(choices) == 1 else [_logged(choice) for choice in choices]
        tokens, counted = _shared(choices, known, total), True
    else:
        limit = token_limit(exchange.request)
        known = [_exact(choice, choices[0], total, limit) for choice in choices]
        tokens, counted = _guessed(choices, known, limit), False
    prompt = replace(usage, completion_tokens=0) if usage and usage.prompt_tokens else _unknown_prompt(exchange)
    read = (Choice(text_of(one), finish_reason_of(one), exact) for one, exact in zip(choices, known, strict=True))
    return _Reading(tuple(read), tokens, counted, prompt)


def _unknown_prompt(exchange: Exchange) -> Usage:
    return Usage(estimated_prompt(exchange.request), 0, estimated=True)


def _logged(choice: Mapping[str, Any]) -> int | None:
    """Exact tokens of a choice with logprobs, which list every token."""
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    return len(tokens) if isinstance(tokens, list) and tokens else None


def _exact(choice: Mapping[str, Any], first: Mapping[str, Any], total: int | None, limit: int | None) -> int | None:
    """Exact tokens of a choice if only the first, or none, was counted; None if unknown."""
    if limit is not None and was_cut(choice):
        return limit
    return total if total is not None and text_of(choice) == text_of(first) else _logged(choice)


def _shared(choices: Choices, known: KnownLengths, total: int) -> tuple[int, ...]:
    """Each choice's tokens: known ones, else a share of the remaining total by bytes of text."""
    rest = max(0, total - sum(tokens or 0 for tokens in known))
    weights = [
        0 if tokens is not None else max(1, written_bytes(choice))
        for choice, tokens in zip(choices, known, strict=True)
    ]
    weight = sum(weights) or 1
    ends = [-(-rest * seen // weight) for seen in itertools.accumulate(weights, initial=0)]
    return tuple(
        end - start if tokens is None else tokens
        for tokens, (start, end) in zip(known, itertools.pairwise(ends), strict=True)
    )


def _guessed(choices: Choices, known: KnownLengths, limit: int | None) -> tuple[int, ...]:
    """Each choice's tokens: known ones, else estimated from its bytes, plus one end token.

    The rate is the highest tokens-per-byte rate among the known choices that are long enough.
    """
    sizes = [written_bytes(choice) for choice in choices]
    rates = [
        (tokens, size) for tokens, size in zip(known, sizes, strict=True) if tokens is not None and size >= _ENOUGH
    ]
    most, least = max(rates, key=lambda rate: rate[0] / rate[1], default=(1, _BYTES_PER_TOKEN))
    guesses = [-(-most * size // least) + 1 for size in sizes]
    return tuple(
        tokens if tokens is not None else guess if limit is None else min(guess, limit)
        for tokens, guess in zip(known, guesses, strict=True)
    )


# Upper bounds of what a request can be billed for: a suite's, and any client's.

ASSUMED_ANSWER = 16_384
"""Tokens to reserve for an answer that the request does not limit."""

_IMAGE = 4096  # tokens to reserve for an image given by URL


def answer_bound(body: Mapping[str, Any]) -> int:
    """Upper bound of one answer's tokens; an embedding has none."""
    return 0 if wants_embedding(body) else token_limit(body) or ASSUMED_ANSWER


def prompt_bound(body: Mapping[str, Any]) -> int:
    """Upper bound of a prompt's tokens: one per byte of the request, plus what a chat template adds.

    No tokenizer in use makes more tokens than bytes. Images given by URL count as a fixed number.
    """
    messages = [message for message in body.get("messages") or () if isinstance(message, Mapping)]
    lists = [message["content"] for message in messages if isinstance(message.get("content"), (list, tuple))]
    images = sum(1 for parts in lists for part in parts if isinstance(part, Mapping) and part.get("type") != "text")
    return len(safe_json(body).encode()) + 16 * len(messages) + 64 + _IMAGE * images


_LIMITS = (
    "max_completion_tokens", "max_tokens", "max_output_tokens", "max_tokens_to_sample", "max_gen_len", "max_new_tokens",
    "generationConfig.maxOutputTokens", "inferenceConfig.maxTokens", "options.num_predict",
    "textGenerationConfig.maxTokenCount", "parameters.max_new_tokens", "parameters.maxOutputTokens",
)  # fmt: skip
_CHOICES = ("n", "best_of", "num_generations", "generationConfig.candidateCount")
_NO_ANSWER = lazy_regex(r"(?:/embeddings|/embed|/rerank|:(?:batch)?[eE]mbedContents?)$")
_BLOB = lazy_regex(r'"(?:data:[^",]{0,100},)?[A-Za-z0-9+/=_-]{2000,}"')
"""A base64 image, sound or file in the request."""
_BLOB_TOKENS = 50_000
"""Maximum billed for an image by today's providers; a longer one counts one token more per 32 characters."""


@dataclass(frozen=True, slots=True)
class MostTokens:
    """Upper bounds of one call."""

    prompt: int
    answer: int | None
    """Total over all choices; None: the request sets no limit."""
    choices: int = 1
    tier: str = ""
    """The requested service tier."""
    elsewhere: bool = False
    """Whether the request names content that it does not hold, of any length, or asks for sounds or images."""
    by_url: int = 0
    """Number of images, documents and servers of tools given by URL; each counts as an image of usual size."""


_ELSEWHERE = lazy_regex(
    r'"(?:previous_response_id|conversation|conversation_id|thread_id|file_id|fileUri|file_uri|cachedContent|s3Location)":\s*["{]'
    r'|"prompt":\s*\{"id"|"(?:modalities|responseModalities|response_modalities)":\s*\[[^\]]*"(?:audio|image|AUDIO|IMAGE)"'
)
_BY_URL = lazy_regex(
    r'"(?:image_url|video_url|audio_url|file_url)":\s*(?:\{[^{}]*?"url":\s*)?"https?:|"type":\s*"url",\s*"url":\s*"https?:'
)


def most_tokens(uri: str, body: str) -> MostTokens:
    """Bounds for one call: a token per byte of its request, as no tokenizer makes more, and its limit for the answer."""
    request = parse_object(body) or {}
    blobs = [len(blob) for blob in _BLOB.findall(body)]
    text = len(body.encode("utf-8", "surrogatepass")) - sum(blobs)
    prompt = text + 16 * body.count('"role"') + 64 + sum(min(size, _BLOB_TOKENS + size // 32) for size in blobs)
    tier = tier_of(request)
    if _NO_ANSWER.search(urlsplit(uri).path):
        return MostTokens(prompt, 0, tier=tier)
    limits = [limit for name in _LIMITS if (limit := _positive(request, name)) is not None]
    choices = max([1, *(number for name in _CHOICES if (number := _positive(request, name)) is not None)])
    by_url = len(_BY_URL.findall(body))
    return MostTokens(
        prompt + by_url * _IMAGE,
        choices * max(limits) if limits else None,
        choices,
        tier,
        elsewhere=_ELSEWHERE.search(body) is not None,
        by_url=by_url,
    )


def _positive(data: Mapping[str, Any], name: str) -> int | None:
    """A positive integer field of the request; None for anything else, which must not lower a bound."""
    found = value_at(data, name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None
