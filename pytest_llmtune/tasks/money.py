"""Worst-case and billed cost of a task's calls."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.types import Usage
from pytest_llmtune.wire.billing import asks_a_model, model_asked, names_a_deployment, read_bill
from pytest_llmtune.wire.bounds import most_tokens
from pytest_llmtune.wire.tokens import ASSUMED_ANSWER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pytest_llmtune.money.prices import Price, PriceBook
    from pytest_llmtune.recording.format import Interaction

__all__ = ["Charge", "Tariff"]

_UNBOUNDED = Decimal("0.05")
"""USD reserved for a call without a bound: a deployment, or billed by the second."""


@dataclass(frozen=True, slots=True)
class Charge:
    """The bill of one call."""

    model: str = ""
    """The requested model, else as served; empty if not a model call."""
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Tariff:
    """Applies prices to a task's calls."""

    prices: PriceBook

    def worst(self, method: str, uri: str, body: str, own: Price | None = None) -> Decimal:
        """USD that a call may cost at most; 0 where it asks no model.

        An answer that the request does not limit counts with 16,384 tokens for each choice.

        Args:
            own: the price of the endpoint that serves it, where it has its own.

        Raises:
            SuiteError: the model's price is unknown.
        """
        if not asks_a_model(method, uri, body):
            return Decimal(0)
        most = most_tokens(uri, body)
        try:
            price = own or self.prices.price_at(uri, [model_asked(uri, body)])
        except SuiteError:
            if not names_a_deployment(uri):
                raise
            return _UNBOUNDED
        if not price.bounded:
            return _UNBOUNDED
        answer = most.choices * ASSUMED_ANSWER if most.answer is None else most.answer
        return price.worst(most.prompt, answer, most.tier)

    def charge(self, call: Interaction, read: Mapping[str, Any] | None = None, own: Price | None = None) -> Charge:
        """What an answered call was billed; an error is free.

        Args:
            read: the request's body, where it was read already.
            own: as of ``worst``.

        Raises:
            SuiteError: the model's price is unknown, or the answer does not say what was used.
        """
        body = call.body if read is None else read
        asked = model_asked(call.uri, body)
        if call.status >= 400:
            return Charge(asked if asks_a_model(call.method, call.uri, body) else "")
        bill = read_bill(call.method, call.uri, body, call.data or call.text, listed=not self.prices.has_own([asked]))
        if bill is None:
            return Charge()
        if bill.usage is None:
            if bill.models and self.prices.price_at(call.uri, bill.models, bill.providers).free:
                return Charge(bill.model)
            raise SuiteError(
                f"a call of {bill.model or call.uri} cannot be priced: its answer gives no usage that can be read; for a "
                'stream of chat completions ask for it: stream_options={"include_usage": True}'
            )
        price = own or self.prices.price_at(call.uri, bill.models, bill.providers)
        return Charge(bill.model, bill.usage, price.cost(bill.usage))
