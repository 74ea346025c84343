"""From wire exchanges to the n answers of a request and what they bill, counted honestly.

Where a server counted one choice only (``completions.undercount``) or nothing, the tokens of a choice are exact where
they can be (the same text as the counted one, cut at ``max_tokens``, ``logprobs``) and else estimated from its bytes,
rather too many than too few; the usage then says ``estimated``. The same holds for a part of an exchange's answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_llmtune.completions.answers import (
    answers_in,
    choices_of,
    is_refusal,
    size_of,
    text_of,
    token_limit,
    was_cut,
    written_bytes,
)
from pytest_llmtune.completions.facts import usage_of
from pytest_llmtune.completions.undercount import counts_one
from pytest_llmtune.model import Choice, Completion, Usage

if TYPE_CHECKING:
    from pytest_llmtune.model import Exchange

__all__ = ["answers_in", "completion_of", "estimated_prompt", "is_refusal"]

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
        usage=sum((reading.billed(part) for _, reading, part in used), usage),
        exchanges=tuple(exchange for exchange, _, _ in used),
        served_model=str(used[0][0].response.get("model") or ""),
        latency=max(exchange.latency for exchange, _, _ in used),
    )


def estimated_prompt(body: Mapping[str, Any]) -> int:
    """Prompt tokens of a body, from its bytes; rather too many."""
    messages = body.get("messages")
    parts = messages if isinstance(messages, (list, tuple)) else ()
    return 3 + sum(4 + _tokens_for(size_of(part.get("content"))) for part in parts if isinstance(part, Mapping))


def _read(exchange: Exchange) -> _Reading:
    unknown_prompt = Usage(estimated_prompt(exchange.request), 0, estimated=True)
    if is_refusal(exchange):  # Azure bills the prompt that it refuses
        refused = (Choice("", "content_filter", 0),) * answers_in(exchange)
        return _Reading(refused, (0,) * len(refused), counted=True, prompt=unknown_prompt)
    choices, usage = choices_of(exchange), usage_of(exchange.response.get("usage"))
    limit = token_limit(exchange.request)
    known: Known = [_logged(choice) for choice in choices]
    if usage is None:
        return _Reading(
            _named(choices, known), _guess(choices, known, None, limit), counted=False, prompt=unknown_prompt
        )
    total, prompt = usage.completion_tokens, replace(usage, completion_tokens=0)
    if counts_one(exchange):
        known = [
            _beside(choices[0], total, choice, logged, limit) for choice, logged in zip(choices, known, strict=True)
        ]
        return _Reading(_named(choices, known), _guess(choices, known, total, limit), counted=False, prompt=prompt)
    if len(choices) == 1:
        known = [total]
    return _Reading(_named(choices, known), _shared(choices, known, total), counted=True, prompt=prompt)


def _logged(choice: Mapping[str, Any]) -> int | None:
    """Where logprobs came along, they name every token."""
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    return len(tokens) if isinstance(tokens, list) and tokens else None


def _beside(
    first: Mapping[str, Any], total: int, choice: Mapping[str, Any], logged: int | None, limit: int | None
) -> int | None:
    """The exact tokens of a choice where only the first was counted."""
    if limit is not None and was_cut(choice):
        return limit
    return total if text_of(choice) == text_of(first) else logged


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


def _guess(choices: Choices, known: Known, first: int | None, limit: int | None) -> tuple[int, ...]:
    """Each choice's tokens from its bytes, at the rate of the first choice where that is known and long enough."""
    size = written_bytes(choices[0]) if choices else 0
    guessed = []
    for choice, tokens in zip(choices, known, strict=True):
        guess = _tokens_for(written_bytes(choice))
        if first is not None and size >= _ENOUGH:
            guess = -(-first * written_bytes(choice) // size)
        if limit is not None:
            guess = limit if was_cut(choice) else min(guess, limit)
        guessed.append(guess if tokens is None else tokens)
    return tuple(guessed)


def _tokens_for(size: int) -> int:
    return -(-size // _BYTES_PER_TOKEN)
