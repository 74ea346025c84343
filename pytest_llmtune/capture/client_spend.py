"""What a client's calls cost, held against the run's limit: reserved before a call is sent, settled by its answer."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_llmtune.completions.billing import ASSUMED_ANSWER, prompt_bound
from pytest_llmtune.wire.answers import token_limit
from pytest_llmtune.wire.response import parse_object
from pytest_llmtune.wire.tokens import metered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.money.ledger import Ledger, Reservation
    from pytest_llmtune.money.prices import PriceBook

__all__ = ["ClientSpend"]


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
