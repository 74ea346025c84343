"""What a request may cost at most, and what it did cost, with the tokens counted honestly."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_llmtune.completions import undercount
from pytest_llmtune.completions.facts import usage_of
from pytest_llmtune.completions.request import safe_json
from pytest_llmtune.completions.sending import send
from pytest_llmtune.completions.usage import answers_in, completion_of, counts_one, is_refusal, token_limit
from pytest_llmtune.model import Exchange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.completions.account import Account
    from pytest_llmtune.completions.lanes import Lane
    from pytest_llmtune.completions.pricing import Price, PriceBook

__all__ = ["ASSUMED_ANSWER", "Billing", "prompt_bound"]

ASSUMED_ANSWER = 16_384
"""Tokens that an answer is reserved with where the request limits it by nothing."""

_IMAGE = 4096  # tokens that an image given by its address is reserved with
_NO_DOLLARS = Decimal(0)


@dataclass(slots=True, eq=False)
class Billing:
    """Prices and the tokens they are applied to, over the life of one source."""

    prices: PriceBook
    account: Account
    timeout: float
    _prompts: dict[bytes, int] = field(default_factory=dict)
    """Tokens of prompts that were billed before, by a digest of model and messages."""
    _counting: dict[tuple[int, str], bool | None] = field(default_factory=dict)
    """Whether an endpoint counts one choice only, by its place and the model; None: it could not be found out."""

    def price(self, lane: Lane, model: str) -> Price:
        """The endpoint's own price, else the price book's."""
        return lane.endpoint.prices.get(model) or self.prices.price(model)

    def worst(self, lane: Lane, body: Mapping[str, Any], n: int) -> Decimal:
        """USD that a request for n answers may cost at most, a probe of the server's counting included.

        Its prompt counts with the tokens billed for the same messages before, else with an upper bound.
        """
        price = self.price(lane, str(body["model"]))
        prompt = self._prompts.get(_digest(body)) or prompt_bound(body)
        most = price.worst(prompt, n * (token_limit(body) or ASSUMED_ANSWER))
        if n == 1:
            return most
        return most + price.worst(prompt_bound(undercount.probe_body(body)), 2)

    def tokens(self, body: Mapping[str, Any], n: int) -> int:
        """The tokens that a request counts with against a limit of tokens a minute."""
        prompt = self._prompts.get(_digest(body)) or prompt_bound(body) // 3
        return prompt + n * (token_limit(body) or 1024)

    async def counted(self, lane: Lane, exchange: Exchange) -> tuple[Exchange, Decimal]:
        """The exchange with honest counts, and USD for it and for what finding out took."""
        body, extra = exchange.request, _NO_DOLLARS
        model = str(body["model"])
        place = lane.order, model
        if place not in self._counting and undercount.suspicious(exchange):
            self._counting[place] = True if counts_one(exchange) else None  # the probe's answer follows
            if self._counting[place] is None:
                extra = await self._probe(lane, place, body)
            if self._counting[place]:
                self.account.note(f"{lane.endpoint.label} reports the tokens of one choice only; all are counted here")
        if (known := self._counting.get(place)) is not None:
            exchange = undercount.annotated(exchange, known)
        usage = completion_of([exchange], answers_in(exchange)).usage
        if usage_of(exchange.response.get("usage")) is not None and not is_refusal(exchange):
            self._prompts[_digest(body)] = usage.prompt_tokens
        return exchange, extra + self.price(lane, model).cost(usage)

    async def _probe(self, lane: Lane, place: tuple[int, str], body: Mapping[str, Any]) -> Decimal:
        """Ask the server how it counts; USD that it took."""
        question = undercount.probe_body(body)
        self.account.sent += 1
        answer = await send(lane, question, self.timeout)
        price = self.price(lane, place[1])
        if not isinstance(answer, Exchange) or is_refusal(answer):
            return price.worst(prompt_bound(question), 2)
        self._counting[place] = undercount.verdict(answer.response)
        return price.cost(completion_of([answer], answers_in(answer)).usage)


def prompt_bound(body: Mapping[str, Any]) -> int:
    """An upper bound of a prompt's tokens: one for each byte of the request, and what a chat template adds around it.

    No tokenizer in use makes more tokens than bytes. Images given by an address count with a fixed number.
    """
    messages = body.get("messages") or ()
    images = sum(
        1
        for message in messages
        if isinstance(message.get("content"), (list, tuple))
        for part in message["content"]
        if part.get("type") != "text"
    )
    return len(safe_json(body).encode()) + 16 * len(messages) + 64 + _IMAGE * images


def _digest(body: Mapping[str, Any]) -> bytes:
    text = safe_json([body.get("model"), body.get("messages"), body.get("tools"), body.get("response_format")])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
