"""Worst-case cost of a request before it is sent, and actual cost of its answer."""

from __future__ import annotations

import asyncio
import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.jsonhash import safe_json
from pytest_llmtune.completions.sending import send
from pytest_llmtune.types import Exchange
from pytest_llmtune.wire import tokens
from pytest_llmtune.wire.response import answers_in, is_refusal, tier_of, token_limit, usage_of, wants_embedding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.completions.routing import KeyChannel
    from pytest_llmtune.completions.stats import RequestStats
    from pytest_llmtune.money.prices import Price, PriceBook


_FREE = Decimal(0)


@dataclass(slots=True, eq=False)
class Billing:
    """Prices and token counts over the life of one source."""

    prices: PriceBook
    account: RequestStats
    timeout: float
    share: Decimal = Decimal(1)
    """Fraction of the price that is paid: below 1 for batches."""
    _prompts: dict[bytes, int] = field(default_factory=dict)
    """Tokens of prompts billed before, by hash of the prompt."""
    _counting: dict[tuple[int, str], asyncio.Future[bool | None]] = field(default_factory=dict)
    """Whether an endpoint counts only one choice, by its position and the model; None: unknown."""

    def price(self, channel: KeyChannel, body: Mapping[str, Any]) -> Price:
        """The price that the endpoint's list gives, else that of its provider, times the share that batches pay."""
        model, endpoint = str(body["model"]), channel.endpoint
        found = endpoint.prices.get(model)
        found = found or self.prices.price(model, endpoint.base_url, input_only=wants_embedding(body))
        return found.times(self.share)

    def worst(self, channel: KeyChannel, body: Mapping[str, Any], n: int) -> Decimal:
        """The most USD that a request for n answers may cost, including a probe of the server's counting.

        Its prompt counts as the tokens billed for the same prompt before, else as an upper bound.
        """
        return worst_case(self.price(channel, body), body, n, self._prompts.get(_digest(body)))

    def tokens(self, body: Mapping[str, Any], n: int) -> int:
        """Tokens that a request counts as against a limit per minute."""
        prompt = self._prompts.get(_digest(body)) or tokens.prompt_bound(body) // 3
        return prompt + n * (0 if wants_embedding(body) else token_limit(body) or 1024)

    async def counted(self, channel: KeyChannel, exchange: Exchange) -> tuple[Exchange, Decimal]:
        """The exchange, annotated with the server's way of counting, and the USD spent to find it out."""
        model = str(exchange.request["model"])
        counts_one, extra = await self._counts_one(channel, model, exchange)
        if counts_one is not None:
            exchange = tokens.annotated(exchange, counts_one)
        return exchange, extra

    def cost(self, channel: KeyChannel, exchange: Exchange) -> Decimal:
        """USD for all answers of an exchange."""
        usage = tokens.completion_of([exchange], answers_in(exchange)).usage
        reported = usage_of(exchange.response.get("usage"))
        if reported is not None and reported.prompt_tokens and not is_refusal(exchange):
            self._prompts[_digest(exchange.request)] = usage.prompt_tokens
        if usage.estimated and not is_refusal(exchange) and not (reported and reported.completion_tokens):
            self.account.note(f"{channel.endpoint.label} reports no usable usage; tokens are estimated from the texts")
        return self.price(channel, exchange.request).cost(usage)

    @property
    def counting_modes(self) -> dict[tuple[int, str], bool | None]:
        """The ways of counting known so far."""
        return {key: found.result() for key, found in self._counting.items() if found.done()}

    def recall(self, ways: Mapping[tuple[int, str], bool | None]) -> None:
        """Take over what another process found out."""
        for key in ways.keys() - self._counting.keys():
            self._counting[key] = asyncio.get_running_loop().create_future()
            self._counting[key].set_result(ways[key])

    async def _counts_one(self, channel: KeyChannel, model: str, exchange: Exchange) -> tuple[bool | None, Decimal]:
        """The server's way of counting; the first suspicious response probes it, others wait."""
        key = channel.order, model
        if key in self._counting:
            return await asyncio.shield(self._counting[key]), _FREE  # a cancelled waiter must not cancel others
        if not tokens.suspicious(exchange):
            return None, _FREE
        found = self._counting[key] = asyncio.get_running_loop().create_future()
        one, cost = None, _FREE
        try:
            one, cost = (True, _FREE) if tokens.proven(exchange) else await self._probe(channel, exchange.request)
        finally:
            found.set_result(one)
        if one:
            self.account.note(f"{channel.endpoint.label} reports the tokens of one choice only; all are counted here")
        return one, cost

    async def _probe(self, channel: KeyChannel, body: Mapping[str, Any]) -> tuple[bool | None, Decimal]:
        """Probe how the server counts; returns the result and the USD spent."""
        question = tokens.probe_body(body)
        self.account.sent += 1
        answer = await send(channel, question, self.timeout)
        if not isinstance(answer, Exchange) or is_refusal(answer):
            return None, self.price(channel, body).worst(tokens.prompt_bound(question), 2)
        return tokens.verdict(answer.response), self.cost(channel, answer)


def worst_case(price: Price, body: Mapping[str, Any], n: int, prompt: int | None = None) -> Decimal:
    """The most USD that a request for n answers may cost, including a probe of the server's counting.

    Args:
        prompt: its tokens, if known.
    """
    most = price.worst(prompt or tokens.prompt_bound(body), n * tokens.answer_bound(body), tier_of(body))
    return most if n == 1 else most + price.worst(tokens.prompt_bound(tokens.probe_body(body)), 2)


def _digest(body: Mapping[str, Any]) -> bytes:
    text = safe_json([body.get(name) for name in ("model", "messages", "input", "tools", "response_format")])
    return hashlib.blake2b(text.encode(), digest_size=12).digest()
