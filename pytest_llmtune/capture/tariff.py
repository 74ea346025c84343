"""What a client's call may cost at most, and what it was billed."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.wire.billing import asks_a_model, model_asked, names_a_deployment, read_bill
from pytest_llmtune.wire.tokens import ASSUMED_ANSWER, most_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from pytest_llmtune.capture.matching import ClientRequest
    from pytest_llmtune.money.prices import Price, PriceBook
    from pytest_llmtune.recording.format import Interaction
    from pytest_llmtune.types import Usage
    from pytest_llmtune.wire.billing import Bill


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a call may cost."""

    usd: Decimal | None
    """None where nothing bounds it: only the answer names the model (a deployment), it is billed by the second, or the prompt
    goes on where an earlier response ended, or is in a file."""
    model: str = ""
    """As requested."""
    sure: bool = True
    """Whether the request limits its answer, and holds its prompt; else 16,384 tokens are assumed for each choice."""
    least: Decimal = Decimal(0)
    """Where nothing bounds it: the most that its own bytes and its answer may cost."""


@dataclass(frozen=True, slots=True)
class Charge:
    """The bill of one call."""

    model: str = ""
    """The requested model, else as served; empty if not a model call."""
    usage: Usage | None = None
    """None if it is not known, or nothing was billed."""
    usd: Decimal = Decimal(0)
    problem: SuiteError | None = None
    """Why ``usd`` is not known: the model's price is unknown, or the answer does not say what was used."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """Applies prices to the calls of clients."""

    prices: PriceBook | None = None

    def bound(self, request: ClientRequest, own: Price | None = None) -> Bound | None:
        """What a call may cost at most; None if it is not a model call.

        Args:
            own: the price of the endpoint that serves it, where it has its own.

        Raises:
            SuiteError: the model's price is unknown.
        """
        uri, body = request.uri, request.body
        if not asks_a_model(request.method, uri, body):
            return None
        model = model_asked(uri, body)
        try:
            price = own or self._price(uri, [model])
        except SuiteError:
            if not names_a_deployment(uri):
                raise
            return Bound(None, model, sure=False)
        if not price.bounded and not price.free:
            return Bound(None, model, sure=False)
        most = most_tokens(uri, body)
        answer = most.choices * ASSUMED_ANSWER if most.answer is None else most.answer
        if most.elsewhere and not price.free:
            return Bound(None, model, sure=False, least=price.worst(most.prompt, answer, most.tier))
        sure = price.free or (most.answer is not None and not most.by_url)
        return Bound(price.worst(most.prompt, answer, most.tier), model, sure)

    def billed(
        self,
        request: ClientRequest | Interaction,
        answer: str | bytes,
        read: Mapping[str, Any] | None = None,
        own: Price | None = None,
    ) -> Charge | None:
        """What an answered call was billed; None if it is not a model call.

        Args:
            answer: the response's body; bytes where it is no text.
            read: the request's body, where it was read already.
            own: as in ``bound``.
        """
        uri, body = request.uri, request.body if read is None else read
        listed = self.prices is None or not self.prices.has_own([model_asked(uri, body)])
        bill = read_bill(request.method, uri, body, answer, listed=listed)
        if bill is None:
            return None
        try:
            usd = self._cost(uri, bill, own)
        except SuiteError as error:
            return Charge(bill.model, bill.usage, problem=error)
        if self.prices is not None:
            self.prices.learn(uri, bill.models)
        return Charge(bill.model, bill.usage, usd)

    def charge(self, call: Interaction, read: Mapping[str, Any] | None = None, own: Price | None = None) -> Charge:
        """What a recorded call was billed; an error is free.

        Args:
            read, own: as in ``billed``.

        Raises:
            SuiteError: the model's price is unknown, or the answer does not say what was used.
        """
        if call.status >= 400:
            body = call.body if read is None else read
            return Charge(model_asked(call.uri, body) if asks_a_model(call.method, call.uri, body) else "")
        charge = self.billed(call, call.data or call.text, read, own) or Charge()
        if charge.problem is not None:
            raise charge.problem
        return charge

    def _cost(self, uri: str, bill: Bill, own: Price | None) -> Decimal:
        if bill.usage is not None:
            return (own or self._price(uri, bill.models, bill.providers)).cost(bill.usage)
        if bill.models and self._price(uri, bill.models, bill.providers).free:
            return Decimal(0)
        raise SuiteError(
            f"an answer of {bill.model or 'the model'} at {urlsplit(uri).path} gives no usage that can be read; for a stream "
            'of chat completions ask for it: stream_options={"include_usage": True}'
        )

    def _price(self, uri: str, models: Sequence[str], providers: Iterable[str] = ()) -> Price:
        if self.prices is None:
            raise SuiteError(
                f"the price of {models[-1] if models else 'the model'} is not known; give it with llmtune_prices"
            )
        return self.prices.price_at(uri, models, providers)
