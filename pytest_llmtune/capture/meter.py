"""Count calls, tokens and USD of one test."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from pytest_llmtune.errors import BudgetExhaustedError, SuiteError
from pytest_llmtune.types import Usage
from pytest_llmtune.wire.response import facts_of, parse_object, token_limit
from pytest_llmtune.wire.tokens import ASSUMED_ANSWER, metered, prompt_bound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.money.ledger import Ledger, Reservation
    from pytest_llmtune.money.prices import PriceBook

__all__ = ["ClientSpend", "Limits", "Meter", "Prices"]


class _Price(Protocol):
    def cost(self, usage: Usage) -> Decimal: ...


class Prices(Protocol):
    """Gives the price of a model; SuiteError where it is unknown."""

    def price(self, model: str) -> _Price: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one test may ask, by its ``llm_replay`` marker."""

    max_cost: Decimal | None = None
    """USD in all."""
    max_calls: int | None = None

    @classmethod
    def of(cls, max_cost: Any = None, max_calls: Any = None) -> Limits:
        """Check a marker's values.

        Raises:
            SuiteError: ``max_cost`` is no amount of USD from 0, or ``max_calls`` no whole number from 0.
        """
        if max_calls is not None and (isinstance(max_calls, bool) or not isinstance(max_calls, int) or max_calls < 0):
            raise SuiteError(f"llm_replay: max_calls is {max_calls!r}; valid: a whole number of calls from 0")
        return cls(None if max_cost is None else _dollars(max_cost), max_calls)


def _dollars(value: Any) -> Decimal:
    try:
        amount = Decimal(str(value)) if isinstance(value, (int, float, str, Decimal)) else Decimal("nan")
    except ArithmeticError:
        amount = Decimal("nan")
    if isinstance(value, bool) or not amount.is_finite() or amount < 0:
        raise SuiteError(f"llm_replay: max_cost is {value!r}; valid: an amount of USD from 0")
    return amount


@dataclass(slots=True)
class Meter:
    """Counts the calls of one test; not thread-safe, its owner locks."""

    limits: Limits = field(default_factory=Limits)
    prices: Prices | None = None
    calls: int = 0
    """Calls that were answered."""
    usage: dict[str, Usage] = field(default_factory=dict)
    """Tokens by model, as asked for."""
    unmetered: list[str] = field(default_factory=list)
    """Models whose response gave no usage."""

    def before(self, body: str) -> None:
        """A call with this body is about to be made.

        Raises:
            BudgetExhaustedError: a limit leaves no room for one more call.
            SuiteError: ``max_cost`` is asked for, and the model has no price.
        """
        limits = self.limits
        if limits.max_calls is not None and self.calls >= limits.max_calls:
            raise BudgetExhaustedError(f"call {self.calls + 1} passes max_calls={limits.max_calls}")
        if limits.max_cost is not None:
            if model := _model(body):
                self._price(model)
            self.check()

    def after(self, body: str, response: str) -> None:
        """A call was answered."""
        self.calls += 1
        model, usage = _model(body) or facts_of(response).model, metered(body, response)
        if usage is not None:
            self.usage[model] = self.usage.get(model, Usage(0, 0)) + usage
        elif model:
            self.unmetered.append(model)

    @property
    def cost(self) -> Decimal:
        """USD so far.

        Raises:
            SuiteError: a model has no price.
        """
        return sum((self._price(model).cost(usage) for model, usage in self.usage.items()), Decimal(0))

    def check(self) -> None:
        """Hold the calls so far against the limits.

        Raises:
            BudgetExhaustedError: they are more, or cost more.
            SuiteError: they cannot be priced: an unknown model, or a response without ``usage``.
        """
        limit = self.limits.max_cost
        if self.limits.max_calls is not None and self.calls > self.limits.max_calls:
            raise BudgetExhaustedError(f"{self.calls} calls were made, more than max_calls={self.limits.max_calls}")
        if limit is None:
            return
        if self.unmetered:
            raise SuiteError(
                f"max_cost={limit} cannot be judged: a response of {self.unmetered[0]} gives no usage; "
                'for a stream of chat completions ask for it: stream_options={"include_usage": True}'
            )
        if (cost := self.cost) > limit:
            calls = "1 call costs" if self.calls == 1 else f"{self.calls} calls cost"
            raise BudgetExhaustedError(f"{calls} {cost} USD, more than max_cost={limit}")

    def _price(self, model: str) -> _Price:
        if self.prices is None:
            raise SuiteError(f"the price of {model} is not known; give it with llmtune_prices")
        return self.prices.price(model)


def _model(body: str) -> str:
    data: Mapping[str, Any] = parse_object(body) or {}
    return str(data.get("model") or "")


@dataclass(frozen=True, slots=True, eq=False)
class ClientSpend:
    """The run's ledger, as the calls of tests use it."""

    ledger: Ledger
    prices: PriceBook

    def reserve(self, body: str) -> Reservation | None:
        """Before a call is sent: the most it may cost; None where nothing limits it, or it asks no model.

        A request that does not limit its answer counts with 16,384 tokens for each.

        Raises:
            BudgetExhaustedError: it does not fit.
            SuiteError: nobody knows the model's price.
        """
        asked: Mapping[str, Any] = parse_object(body) or {}
        if self.ledger.limit is None or not asked.get("model"):
            return None
        most = token_limit(asked) or asked.get("max_output_tokens")
        tokens = _whole(asked.get("n"), 1) * _whole(most, ASSUMED_ANSWER)
        return self.ledger.reserve_now(self.prices.price(str(asked["model"])).worst(prompt_bound(asked), tokens))

    def answered(self, reservation: Reservation, body: str, status: int, text: str) -> None:
        """A call was answered: an error is free; an answer without ``usage`` may have cost what was reserved."""
        usage = metered(body, text)
        if status >= 400:
            reservation.settle(Decimal(0))
        elif usage is not None:
            reservation.settle(self.prices.price(str((parse_object(body) or {})["model"])).cost(usage))
        else:
            reservation.settle(reservation.amount, uncertain=True)
        self.ledger.close(reservation)

    def lost(self, reservation: Reservation) -> None:
        """A call was never answered; the provider may have billed it."""
        reservation.settle(reservation.amount, uncertain=True)
        self.ledger.close(reservation)


def _whole(value: Any, otherwise: int) -> int:
    """A number of a request as it was meant; what is none, or below one, lowers no worst case."""
    return value if isinstance(value, int) and value > 0 else otherwise
