"""From wire exchanges to the n answers of a request and what they bill, counted honestly.

Where a server counted one choice only (``completions.undercount``) or nothing, the tokens of a choice are exact where
they can be (the same text as the counted one, cut at ``max_tokens``, ``logprobs``) and else estimated from its bytes,
rather too many than too few; the usage then says ``estimated``. The same holds for a part of an exchange's answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_llmtune.types import Choice, Completion, Exchange, Usage
from pytest_llmtune.wire.answers import (
    answers_in,
    choices_of,
    is_refusal,
    size_of,
    text_of,
    token_limit,
    was_cut,
    written_bytes,
)
from pytest_llmtune.wire.response import facts_of, parse_object, usage_of
from pytest_llmtune.wire.undercount import counts_one

__all__ = ["answers_in", "completion_of", "estimated_prompt", "is_refusal", "lengths_of", "metered"]


_BYTES_PER_TOKEN = 3  # in estimates; English has 4 to 5
_ENOUGH = 64  # bytes of text from which a text's own rate of tokens is taken

Choices = Sequence[Mapping[str, Any]]
Known = Sequence[int | None]


@dataclass(frozen=True, slots=True)
class _Reading:
    """The choices of one exchange with their tokens."""

    choices: tuple[Choice, ...]
    """With ``tokens`` where they are exact."""
    tokens: tuple[int, ...]
    """Of each choice, exact or not."""
    counted: bool
    """Whether the sum of all ``tokens`` is what the server counted."""
    prompt: Usage

    def billed(self, part: slice) -> Usage:
        """Completion tokens of some of the choices."""
        tokens = self.tokens[part]
        sure = all(choice.tokens is not None for choice in self.choices[part])
        return Usage(0, sum(tokens), estimated=not sure and not (self.counted and len(tokens) == len(self.tokens)))


def completion_of(exchanges: Sequence[Exchange], n: int, *, skip: int = 0, max_n: int | None = None) -> Completion:
    """The n answers after the first ``skip``, and what asking for exactly these bills.

    The prompt is billed once for each request that n answers need of this server: one for each ``max_n`` of them.

    Args:
        exchanges: all of one request, in order, with ``skip + n`` answers at least.
        max_n: the most answers that one request brings; None: as the exchanges show it.
    """
    used: list[tuple[Exchange, _Reading, slice]] = []
    start = 0
    for exchange in exchanges:
        size = answers_in(exchange)
        low, high = max(skip - start, 0), min(skip + n - start, size)
        if low < high:
            used.append((exchange, _read(exchange), slice(low, high)))
        start += size
    most = max_n or _most([len(reading.choices) for _, reading, _ in used], n)
    prompts = sorted((reading.prompt for _, reading, _ in used), key=lambda usage: -usage.prompt_tokens)
    usage = sum(prompts[: -(-n // most)], Usage(0, 0))
    return Completion(
        choices=tuple(choice for _, reading, part in used for choice in reading.choices[part]),
        usage=sum((reading.billed(part) for _, reading, part in used), usage),
        exchanges=tuple(exchange for exchange, _, _ in used),
        served_model=str(used[0][0].response.get("model") or ""),
        latency=max(exchange.latency for exchange, _, _ in used),
    )


def _most(sizes: Sequence[int], n: int) -> int:
    """The most answers that one request brings: a server with a limit gives as many at first, and then the rest.

    Exchanges whose last is the largest show no limit: later on more answers were wanted (of a search's pool).
    """
    return n if sizes[-1] > max(sizes[:-1], default=0) else max(sizes)


def metered(body: str, text: str) -> Usage | None:
    """What one call of any client bills, by the texts of its request and response; None where nobody says."""
    usage, request, response = facts_of(text).usage, parse_object(body), parse_object(text)
    if usage is None or request is None or response is None:
        return usage
    exchange = Exchange("POST", "", request, response)
    return completion_of([exchange], answers_in(exchange)).usage if counts_one(exchange) else usage


def lengths_of(exchanges: Sequence[Exchange]) -> tuple[int, ...]:
    """Tokens billed for each answer of the exchanges, in order: exact where they can be, else their share."""
    return tuple(tokens for exchange in exchanges for tokens in _read(exchange).tokens)


def estimated_prompt(body: Mapping[str, Any]) -> int:
    """Prompt tokens of a body, from its bytes; rather too many."""
    messages = body.get("messages")
    parts = messages if isinstance(messages, (list, tuple)) else ()
    return 3 + sum(
        4 + -(-size_of(part.get("content")) // _BYTES_PER_TOKEN) for part in parts if isinstance(part, Mapping)
    )


def _read(exchange: Exchange) -> _Reading:
    unknown_prompt = Usage(estimated_prompt(exchange.request), 0, estimated=True)
    if is_refusal(exchange):  # Azure bills the prompt that it refuses
        refused = (Choice("", "content_filter", 0),) * answers_in(exchange)
        return _Reading(refused, (0,) * len(refused), counted=True, prompt=unknown_prompt)
    choices, usage = choices_of(exchange), usage_of(exchange.response.get("usage"))
    total = None if usage is None else usage.completion_tokens
    if total == 0 and any(map(written_bytes, choices)):
        total = None  # a text has tokens, and so has a prompt: zero is what servers say that do not count
    if total is not None and not counts_one(exchange):
        known: Known = [total] if len(choices) == 1 else [_logged(choice) for choice in choices]
        tokens, counted = _shared(choices, known, total), True
    else:
        limit = token_limit(exchange.request)
        known = [_sure(choice, choices[0], total, limit) for choice in choices]
        tokens, counted = _guessed(choices, known, limit), False
    prompt = replace(usage, completion_tokens=0) if usage is not None and usage.prompt_tokens else unknown_prompt
    return _Reading(_named(choices, known), tokens, counted, prompt)


def _logged(choice: Mapping[str, Any]) -> int | None:
    """Where logprobs came along, they name every token."""
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    return len(tokens) if isinstance(tokens, list) and tokens else None


def _sure(choice: Mapping[str, Any], first: Mapping[str, Any], total: int | None, limit: int | None) -> int | None:
    """The exact tokens of a choice where only the first was counted, or none."""
    if limit is not None and was_cut(choice):
        return limit
    return total if total is not None and text_of(choice) == text_of(first) else _logged(choice)


def _named(choices: Choices, known: Known) -> tuple[Choice, ...]:
    return tuple(
        Choice(text_of(choice), str(choice.get("finish_reason") or ""), tokens)
        for choice, tokens in zip(choices, known, strict=True)
    )


def _shared(choices: Choices, known: Known, total: int) -> tuple[int, ...]:
    """Each choice's tokens: those that are known, and of the rest of the total a share by the bytes of the text."""
    rest = max(0, total - sum(tokens or 0 for tokens in known))
    weights = [
        0 if tokens is not None else max(1, written_bytes(choice))
        for choice, tokens in zip(choices, known, strict=True)
    ]
    shares, given, seen = [], 0, 0
    for tokens, weight in zip(known, weights, strict=True):
        seen += weight
        share = 0 if tokens is not None else -(-rest * seen // sum(weights)) - given
        given += share
        shares.append(share if tokens is None else tokens)
    return tuple(shares)


def _guessed(choices: Choices, known: Known, limit: int | None) -> tuple[int, ...]:
    """Each choice's tokens: those that are known, else from its bytes, and one that ends it.

    The rate is that of the choice with the most tokens a byte, of those that are known and long enough.
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
