"""From wire exchanges to the n answers of a request and what they bill, counted honestly.

Servers differ in what ``usage.completion_tokens`` means where n > 1: OpenAI counts all choices, llama.cpp only one.
Which it is, is read from the response alone, so that a replay counts as the live run did:

1. ``COUNTED`` in the usage: the live source put it there after it had asked the server (``completions.undercount``).
2. A proof: fewer tokens are reported than the texts must have had (a choice that ended with ``length`` has
   ``max_tokens``, any other text at least one), and they fit into one choice.
3. More than 12 bytes of text for each reported token: no tokenizer does that with ordinary text.

Where one choice was counted, or nothing was, the others' tokens are exact where they can be (the same text, ``length``,
``logprobs``) and else estimated from their bytes, rather too many than too few; the usage then says ``estimated``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_llmtune.completions.facts import usage_of
from pytest_llmtune.model import Choice, Completion, Usage

if TYPE_CHECKING:
    from pytest_llmtune.model import Exchange

__all__ = [
    "COUNTED",
    "answer_bytes",
    "answers_in",
    "completion_of",
    "counts_one",
    "is_refusal",
    "token_limit",
]

COUNTED = "llmtune_choices_counted"
"""In a response's ``usage``: how many of its choices ``completion_tokens`` counts, where the live source found out."""

_BYTES_PER_TOKEN = 3  # in estimates; English has 4 to 5
_IMPLAUSIBLE = 12  # bytes for each token
_ENOUGH = 64  # bytes of text from which a text's own rate of tokens is taken


@dataclass(frozen=True, slots=True)
class _Reading:
    """The choices of one exchange with their tokens."""

    choices: tuple[Choice, ...]
    """With ``tokens`` where they are exact."""
    tokens: tuple[int, ...]
    """Of each choice, exact or not."""
    reported: bool
    """Whether the sum of all ``tokens`` is what the server counted."""
    prompt: Usage


def completion_of(exchanges: Sequence[Exchange], n: int, *, skip: int = 0, max_n: int | None = None) -> Completion:
    """The n answers after the first ``skip``, and what asking for exactly these bills.

    The prompt is billed once for each request that n answers need: one for each ``max_n``, which is the largest ``n``
    among these exchanges where it is not given.

    Args:
        exchanges: all of one request, in order, with ``skip + n`` answers at least.
    """
    used: list[tuple[Exchange, _Reading, slice]] = []
    start = 0
    for exchange in exchanges:
        size = answers_in(exchange)
        low, high = max(skip - start, 0), min(skip + n - start, size)
        if low < high:
            used.append((exchange, _read(exchange), slice(low, high)))
        start += size
    most = max_n or max(len(reading.choices) for _, reading, _ in used)
    prompts = sorted((reading.prompt for _, reading, _ in used), key=lambda usage: -usage.prompt_tokens)
    usage = sum(prompts[: -(-n // most)], Usage(0, 0))
    return Completion(
        choices=tuple(choice for _, reading, part in used for choice in reading.choices[part]),
        usage=sum((_billed(reading, part) for _, reading, part in used), usage),
        exchanges=tuple(exchange for exchange, _, _ in used),
        served_model=str(used[0][0].response.get("model") or ""),
        latency=max(exchange.latency for exchange, _, _ in used),
    )


def answers_in(exchange: Exchange) -> int:
    """How many answers an exchange holds; a refused prompt is answered by as many refusals as were asked for."""
    if is_refusal(exchange):
        return int(exchange.request.get("n") or 1)
    choices = exchange.response.get("choices")
    return len(choices) if isinstance(choices, list) else 0


def answer_bytes(exchange: Exchange) -> int:
    """UTF-8 bytes of all that the model wrote in all choices."""
    return sum(map(_bytes, _choices(exchange)))


def is_refusal(exchange: Exchange) -> bool:
    """Whether the prompt itself was stopped by a content filter (Azure: status 400)."""
    return exchange.status == 400


def counts_one(exchange: Exchange) -> bool:
    """Whether ``usage.completion_tokens`` counts only one of several choices."""
    usage, given = exchange.response.get("usage"), _choices(exchange)
    reported = usage_of(usage)
    if reported is None or len(given) < 2 or not isinstance(usage, dict):
        return False
    if COUNTED in usage:
        return bool(usage[COUNTED] == 1)
    total, limit = reported.completion_tokens, token_limit(exchange.request)
    least = sum(limit if limit and _was_cut(choice) else min(1, _bytes(choice)) for choice in given)
    if total < least and (limit is None or total <= limit):
        return True
    return answer_bytes(exchange) > _IMPLAUSIBLE * total


def token_limit(body: Mapping[str, Any]) -> int | None:
    """The most tokens that one answer to this body may have."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return limit if isinstance(limit, int) else None


def _estimated_prompt(body: Mapping[str, Any]) -> int:
    """Prompt tokens of a body, from its bytes; rather too many."""
    messages = body.get("messages")
    parts = messages if isinstance(messages, (list, tuple)) else ()
    return 3 + sum(4 + _tokens_for(_size(part.get("content"))) for part in parts if isinstance(part, Mapping))


def _read(exchange: Exchange) -> _Reading:
    if is_refusal(exchange):
        refused = (Choice("", "content_filter", 0),) * answers_in(exchange)
        prompt = Usage(_estimated_prompt(exchange.request), 0, estimated=True)  # Azure bills a prompt that it refuses
        return _Reading(refused, (0,) * len(refused), reported=True, prompt=prompt)
    given, usage = _choices(exchange), usage_of(exchange.response.get("usage"))
    exact = _exact(given)
    if usage is None:
        guessed = _guess(exchange, exact, None)
        prompt = Usage(_estimated_prompt(exchange.request), 0, estimated=True)
        return _Reading(_with(given, exact), guessed, reported=False, prompt=prompt)
    prompt = replace(usage, completion_tokens=0)
    total = usage.completion_tokens
    if counts_one(exchange):
        exact = [
            total if _text(choice) == _text(given[0]) else known for choice, known in zip(given, exact, strict=True)
        ]
        limit = token_limit(exchange.request)
        exact = [limit if _was_cut(choice) and limit else known for choice, known in zip(given, exact, strict=True)]
        return _Reading(_with(given, exact), _guess(exchange, exact, total), reported=False, prompt=prompt)
    if len(given) == 1:
        exact = [total]
    return _Reading(_with(given, exact), _shared(given, exact, total), reported=True, prompt=prompt)


def _billed(reading: _Reading, part: slice) -> Usage:
    tokens, choices = reading.tokens[part], reading.choices[part]
    sure = all(choice.tokens is not None for choice in choices) or (_all_counted(reading, tokens))
    return Usage(0, sum(tokens), estimated=not sure)


def _all_counted(reading: _Reading, tokens: Sequence[int]) -> bool:
    """Whether these are all tokens of an exchange that the server counted."""
    return reading.reported and len(tokens) == len(reading.tokens)


def _with(given: Sequence[Mapping[str, Any]], exact: Sequence[int | None]) -> tuple[Choice, ...]:
    return tuple(
        Choice(_text(choice), str(choice.get("finish_reason") or ""), known)
        for choice, known in zip(given, exact, strict=True)
    )


def _shared(given: Sequence[Mapping[str, Any]], exact: Sequence[int | None], total: int) -> tuple[int, ...]:
    """Each choice's tokens: those that are known, and what is left of the total by the bytes of the others."""
    left = max(0, total - sum(known or 0 for known in exact))
    weights = [0 if known is not None else max(1, _bytes(choice)) for choice, known in zip(given, exact, strict=True)]
    shares, done, seen, whole = [], 0, 0, sum(weights)
    for known, weight in zip(exact, weights, strict=True):
        seen += weight
        share = known if known is not None else -(-left * seen // whole) - done
        done += share if known is None else 0
        shares.append(share)
    return tuple(shares)


def _guess(exchange: Exchange, exact: Sequence[int | None], first: int | None) -> tuple[int, ...]:
    """Each choice's tokens from its bytes, at the rate of the first choice where that is known and long enough."""
    given, limit = _choices(exchange), token_limit(exchange.request)
    size = _bytes(given[0]) if given else 0
    guessed = []
    for choice, known in zip(given, exact, strict=True):
        tokens = _tokens_for(_bytes(choice))
        if first is not None and size >= _ENOUGH:
            tokens = -(-first * _bytes(choice) // size)
        if limit is not None:
            tokens = limit if _was_cut(choice) else min(tokens, limit)
        guessed.append(tokens if known is None else known)
    return tuple(guessed)


def _exact(given: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Where logprobs came along, they name every token."""
    lists = [(choice.get("logprobs") or {}).get("content") for choice in given]
    return [len(tokens) if isinstance(tokens, list) and tokens else None for tokens in lists]


def _choices(exchange: Exchange) -> list[Mapping[str, Any]]:
    choices = exchange.response.get("choices")
    return [choice if isinstance(choice, dict) else {} for choice in choices] if isinstance(choices, list) else []


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    message = choice.get("message")
    return message if isinstance(message, dict) else {}


def _text(choice: Mapping[str, Any]) -> str:
    message = _message(choice)
    content = message.get("content") or message.get("refusal") or ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _bytes(choice: Mapping[str, Any]) -> int:
    """UTF-8 bytes of all that the model wrote: the text, its reasoning where it is shown, calls of tools."""
    message = _message(choice)
    return sum(_size(message.get(name)) for name in ("content", "refusal", "reasoning_content", "tool_calls"))


def _size(content: Any) -> int:
    if not content:
        return 0
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return len(text.encode("utf-8", "surrogatepass"))


def _was_cut(choice: Mapping[str, Any]) -> bool:
    return choice.get("finish_reason") == "length"


def _tokens_for(size: int) -> int:
    return -(-size // _BYTES_PER_TOKEN)
