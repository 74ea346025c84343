"""Count calls, tokens and USD of one test."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.text import dollars, parse_dollars
from pytest_llmtune.capture.tariff import Tariff
from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError, SuiteError
from pytest_llmtune.money.ledger import NotNowError
from pytest_llmtune.types import TestCalls, Usage
from pytest_llmtune.wire.billing import model_asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.capture.matching import ClientRequest
    from pytest_llmtune.capture.tariff import Bound, Prices
    from pytest_llmtune.money.ledger import Ledger, Reservation
    from pytest_llmtune.money.prices import PriceBook

_ZERO = Decimal(0)
_LEAST = Decimal("0.000001")
"""An amount that never fits, so that reserving it fails."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one test, from its ``llm_replay`` marker."""

    max_cost: Decimal | None = None
    """Total USD."""
    max_calls: int | None = None

    @classmethod
    def of(cls, max_cost: Any = None, max_calls: Any = None) -> Limits:
        """Check a marker's values.

        Raises:
            SuiteError: ``max_cost`` is not an amount of USD from 0, or ``max_calls`` not an integer from 0.
        """
        if max_calls is not None and (isinstance(max_calls, bool) or not isinstance(max_calls, int) or max_calls < 0):
            raise SuiteError(f"llm_replay: max_calls is {max_calls!r}; valid: a whole number of calls from 0")
        if max_cost is not None and parse_dollars(max_cost) is None:
            raise SuiteError(f"llm_replay: max_cost is {max_cost!r}; valid: an amount of USD from 0")
        return cls(parse_dollars(max_cost), max_calls)


@dataclass(slots=True, eq=False)
class Hold:
    """A call in flight, which counts against the limits until it is answered or lost."""

    request: ClientRequest
    amount: Decimal = _ZERO
    """USD of ``max_cost`` reserved for it."""
    most: Decimal = _ZERO
    """USD that it costs at most, by what its request says; 0 where that is not known."""
    answer: str | bytes = ""
    sent: bool = False
    """Whether it was sent to a server; else it is played."""
    bounded: bool = True
    """Whether its request ensures that it costs no more than ``amount``."""


@dataclass(slots=True)
class Meter:
    """Counts the calls of one test; not thread-safe, the owner must lock.

    Answers are read and priced lazily, when the cost is needed.
    """

    limits: Limits = field(default_factory=Limits)
    prices: Prices | None = None
    calls: int = 0
    """Answered calls."""
    _usage: dict[str, Usage] = field(default_factory=dict)
    _flying: list[Hold] = field(default_factory=list)
    _answered: list[Hold] = field(default_factory=list)
    """Answers not read yet."""
    _cost: Decimal = _ZERO
    _paid: Decimal = _ZERO
    """USD of the calls sent to a server."""
    _lost: Decimal = _ZERO
    """USD that unanswered calls may have cost."""
    _dearest: dict[str, Decimal] = field(default_factory=dict)
    """USD of the most expensive call so far, by requested model."""
    growth: dict[str, Decimal] = field(default_factory=dict)
    """How many times what its requests allow a model has billed at most, where that is over 1; by model as asked for."""
    _unjudged: list[LLMTuneError] = field(default_factory=list)

    def enter(self, request: ClientRequest) -> Hold:
        """Register a call, recorded or not, before it is made.

        Raises:
            BudgetExhaustedError: one more call, counting those in flight, exceeds a limit.
            SuiteError: ``max_cost`` is set, but the calls so far cannot be priced.
        """
        most, made = self.limits.max_calls, self.calls + len(self._flying)
        if most is not None and made >= most:
            flying = f" ({len(self._flying)} in flight)" if self._flying else ""
            raise BudgetExhaustedError(f"call {made + 1} passes max_calls={most}{flying}")
        if self.limits.max_cost is not None:
            self.check()
        hold = Hold(request)
        self._flying.append(hold)
        return hold

    def reserve(self, hold: Hold) -> None:
        """Reserve the most that a call may cost, before it is sent.

        A request without a limit counts as 16,384 tokens per answer, or as what is left if that is less; once its model has
        answered in this test, as its largest bill, or twice that if calls are in flight. So it can exceed ``max_cost`` by no
        more than its own bill.

        Raises:
            NotNowError: the amount does not fit before calls in flight are settled; the hold stays.
            BudgetExhaustedError: the amount does not fit; the call must not be sent.
            SuiteError: the price of its model is unknown, or the calls so far cannot be priced.
        """
        limit, request = self.limits.max_cost, hold.request
        bound = None if limit is None else Tariff(self.prices).bound(request.method, request.uri, request.body)
        if limit is None or bound is None:
            hold.sent = True
            return
        self.check()  # it may have waited
        others = [other for other in self._flying if other.amount]
        flying = sum((other.amount for other in others), _ZERO)
        left = limit - self._cost - self._lost - flying
        worst, hold.bounded = self._worst(hold, bound, left, others)
        if worst > left:
            wait = bool(others) and (not hold.bounded or worst <= left + flying)
            number, counted = self.calls + len(others) + 1, f", {len(others)} calls in flight counted" if others else ""
            told = f" ({bound.model}{self._dishonest(bound.model)})" if bound.model in self.growth else ""
            raise (NotNowError if wait else BudgetExhaustedError)(
                f"call {number} may cost up to {dollars(worst, 6)}{told}, and {dollars(max(left, _ZERO), 6)} of "
                f"max_cost={limit} is left{counted}; it was not sent: give a smaller max_tokens or n, or a larger max_cost"
            )
        hold.sent, hold.amount = True, worst

    def release(self, hold: Hold) -> None:
        """Take back ``reserve``: the call was not sent."""
        hold.sent, hold.amount = False, _ZERO

    def answered(self, hold: Hold, status: int, answer: str | bytes) -> None:
        """Count an answered call; an error does not count, and costs nothing.

        Args:
            answer: the response's body as text, or bytes if binary.
        """
        self._flying.remove(hold)
        if status >= 400:
            return
        self.calls += 1
        hold.answer, hold.amount = answer, _ZERO
        self._answered.append(hold)

    def lost(self, hold: Hold) -> None:
        """Handle an unanswered call: it does not count, but its reservation may have been billed."""
        if hold in self._flying:
            self._flying.remove(hold)
            self._lost += hold.amount if hold.bounded else _ZERO

    @property
    def usage(self) -> dict[str, Usage]:
        """Tokens by requested model, of answers that report them."""
        self.read()
        return self._usage

    @property
    def cost(self) -> Decimal:
        """USD so far.

        Raises:
            SuiteError: a model has no price, or an answer reports no usage.
        """
        self.read()
        if self._unjudged:
            raise self._unjudged[0]
        return self._cost

    def told(self, nodeid: str) -> TestCalls:
        """Summary of the test's calls for reports."""
        self.read()
        problem = str(self._unjudged[0]) if self._unjudged else ""
        return TestCalls(nodeid, self.calls, dict(self._usage), self._cost, self._paid, problem)

    def read(self) -> None:
        """Read and price new answers."""
        answered, self._answered = self._answered, []
        tariff = Tariff(self.prices)
        for hold in answered:
            charge = tariff.billed(hold.request.method, hold.request.uri, hold.request.body, hold.answer)
            if charge is None:
                continue
            if charge.usage is not None:
                self._usage[charge.model] = self._usage.get(charge.model, Usage(0, 0)) + charge.usage
            if charge.problem is not None:
                self._unjudged.append(charge.problem)
                continue
            self._cost += charge.usd
            self._paid += charge.usd if hold.sent else _ZERO
            self._dearest[charge.model] = max(charge.usd, self._dearest.get(charge.model, _ZERO))
            if hold.most and charge.usd > hold.most:
                self._learn(charge.model, charge.usd / hold.most)

    def check(self) -> None:
        """Check the calls so far against the limits.

        Raises:
            BudgetExhaustedError: too many calls, or too expensive.
            SuiteError: they cannot be priced: an unknown model, or an answer without usage.
        """
        limit = self.limits.max_cost
        if self.limits.max_calls is not None and self.calls > self.limits.max_calls:
            raise BudgetExhaustedError(f"{self.calls} calls were made, more than max_calls={self.limits.max_calls}")
        if limit is None:
            return
        try:
            cost = self.cost
        except SuiteError as error:
            raise SuiteError(f"max_cost={limit} cannot be judged: {error}") from None
        if cost > limit:
            calls = "1 call costs" if self.calls == 1 else f"{self.calls} calls cost"
            more = "".join(f"; {model}{self._dishonest(model)}" for model in self.growth)
            raise BudgetExhaustedError(f"{calls} {cost} USD, more than max_cost={limit}{more}")

    def _learn(self, model: str, factor: Decimal) -> None:
        """A bill was so many times what its request allows: expect that of the others too, those in flight included."""
        factor = self.growth[model] = max(factor, self.growth.get(model, _ZERO))
        for hold in self._flying:
            if model_asked(hold.request.uri, hold.request.body) == model:
                hold.amount = max(hold.amount, hold.most * factor)

    def _dishonest(self, model: str) -> str:
        return f" has billed {self.growth[model]:.1f} times what its requests allow" if model in self.growth else ""

    def _worst(self, hold: Hold, bound: Bound, left: Decimal, others: Sequence[Hold]) -> tuple[Decimal, bool]:
        """USD that a call may cost, and whether its request ensures that."""
        if bound.usd is not None and bound.sure:
            hold.most = bound.usd
            return bound.usd * self.growth.get(bound.model, Decimal(1)), True
        if bound.model in self._dearest:
            return self._dearest[bound.model] * (2 if others else 1), False
        most = max(left, _LEAST)
        return most if bound.usd is None else min(most, bound.usd), False


@dataclass(frozen=True, slots=True, eq=False)
class ClientSpend:
    """The run's ledger for calls of tests."""

    ledger: Ledger
    prices: PriceBook

    def reserve(self, request: ClientRequest) -> Reservation | None:
        """Reserve the most that a call may cost, before it is sent; None if there is no limit, or it is not a model call.

        A request without a limit for its answer counts as 16,384 tokens. If only the answer names the model (an Azure
        deployment), or billing is per second, the call reserves all that is left, so that such calls go one at a time.

        Raises:
            NotNowError: it does not fit before requests in flight are settled.
            BudgetExhaustedError: it does not fit.
            SuiteError: the model's price is unknown.
        """
        left = self.ledger.left
        bound = None if left is None else Tariff(self.prices).bound(request.method, request.uri, request.body)
        if left is None or bound is None:
            return None
        if bound.usd is None:
            return self.ledger.reserve_now(max(left, _LEAST))
        return self.ledger.reserve_now(bound.usd, bound.model)

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return any(ledger.limit is not None for ledger in self.ledger.chain())

    def answered(self, reservation: Reservation, request: ClientRequest, status: int, answer: str | bytes) -> None:
        """Settle an answered call; an error is free.

        Raises:
            SuiteError: the answer cannot be priced; the reserved amount counts, because it may have been billed.
        """
        try:
            if status >= 400:
                reservation.settle(Decimal(0))
                return
            reservation.settle(reservation.amount, uncertain=True)
            if (cost := self._billed(request, answer)) is not None:
                reservation.settle(cost)
        finally:
            self.ledger.close(reservation)

    def note(self, request: ClientRequest, status: int, answer: str | bytes) -> None:
        """A call that nothing limits was answered: if the run is killed, the next one tells what it cost."""
        log = self.ledger.chain()[-1].log
        with suppress(LLMTuneError):
            if log is not None and status < 400 and (cost := self._billed(request, answer)):
                log.note(cost)

    def _billed(self, request: ClientRequest, answer: str | bytes) -> Decimal | None:
        charge = Tariff(self.prices).billed(request.method, request.uri, request.body, answer)
        if charge is None or (charge.problem is not None and charge.usage is None):
            return None
        if charge.problem is not None:
            raise charge.problem
        return charge.usd

    def lost(self, reservation: Reservation) -> None:
        """Settle an unanswered call, which the provider may have billed."""
        reservation.settle(reservation.amount, uncertain=True)
        self.ledger.close(reservation)
