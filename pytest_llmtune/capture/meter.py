"""Count calls, tokens and USD of one test, and reserve what its calls may cost in the run's ledger."""

from __future__ import annotations

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
    from pytest_llmtune.capture.tariff import Bound, Charge
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
    reservation: Reservation | None = None
    """USD reserved for it in the run's ledger; None: that has no limit, or no model is called."""
    bound: Decimal = _ZERO
    """USD that it costs at most according to its request; 0 if unknown."""
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
    prices: PriceBook | None = None
    ledger: Ledger | None = None
    """The run's; None: no limit but the test's own."""
    calls: int = 0
    """Answered calls."""
    _usage: dict[str, Usage] = field(default_factory=dict)
    _in_flight: list[Hold] = field(default_factory=list)
    _unread: list[Hold] = field(default_factory=list)
    """Answered calls whose answers are not read yet."""
    _cost: Decimal = _ZERO
    _paid: Decimal = _ZERO
    """USD of the calls sent to a server."""
    _lost: Decimal = _ZERO
    """USD that unanswered calls may have cost."""
    _largest_bill: dict[str, Decimal] = field(default_factory=dict)
    """USD of the most expensive call so far, by requested model."""
    growth: dict[str, Decimal] = field(default_factory=dict)
    """By requested model: the largest ratio of a bill to what its request allows, if over 1."""
    _problems: list[LLMTuneError] = field(default_factory=list)
    """Why calls could not be priced."""

    @property
    def limited(self) -> bool:
        """Whether the test or the run has a limit in USD."""
        return self.limits.max_cost is not None or (
            self.ledger is not None and any(ledger.limit is not None for ledger in self.ledger.chain())
        )

    def enter(self, request: ClientRequest) -> Hold:
        """Register a call, recorded or not, before it is made.

        Raises:
            BudgetExhaustedError: one more call, counting those in flight, exceeds a limit.
            SuiteError: ``max_cost`` is set, but the calls so far cannot be priced.
        """
        most, number = self.limits.max_calls, self.calls + len(self._in_flight) + 1
        if most is not None and number > most:
            in_flight = f" ({len(self._in_flight)} in flight)" if self._in_flight else ""
            raise BudgetExhaustedError(f"call {number} passes max_calls={most}{in_flight}")
        if self.limits.max_cost is not None:
            self.check()
        hold = Hold(request)
        self._in_flight.append(hold)
        return hold

    def reserve(self, hold: Hold, *, may_wait: bool = False) -> None:
        """Reserve the most that a call may cost, within the test's limit and the run's, before it is sent.

        A request without a limit for its answer counts as 16,384 tokens per answer. For ``max_cost`` it counts as what is left
        if that is less; once its model has answered in this test, as its largest bill, or twice that if calls are in flight.
        So it can exceed ``max_cost`` by no more than its own bill. If only the answer names the model (an Azure deployment), or
        billing is per second, the call reserves all that is left of the run's, so that such calls go one at a time.

        Args:
            may_wait: keep the hold where the amount does not fit now.

        Raises:
            NotNowError: the amount does not fit before calls in flight are settled.
            BudgetExhaustedError: the amount does not fit; the call must not be sent.
            SuiteError: the price of its model is unknown, or the calls so far cannot be priced.
        """
        limit = self.limits.max_cost
        try:
            bound = Tariff(self.prices).bound(hold.request) if self.limited else None
            if bound is not None and limit is not None:
                self._reserve_of_test(hold, bound, limit)
            if bound is not None and self.ledger is not None and (remaining := self.ledger.left) is not None:
                usd, model = (max(remaining, _LEAST), "") if bound.usd is None else (bound.usd, bound.model)
                hold.reservation = self.ledger.reserve_now(usd, model)
        except LLMTuneError as error:
            self.release(hold)
            if not (may_wait and isinstance(error, NotNowError)):
                self.lost(hold)
            raise
        hold.sent = True

    def _reserve_of_test(self, hold: Hold, bound: Bound, limit: Decimal) -> None:
        self.check()  # it may have waited
        others = [other for other in self._in_flight if other.amount]
        reserved = sum((other.amount for other in others), _ZERO)
        remaining = limit - self._cost - self._lost - reserved
        worst, hold.bounded = self._worst(hold, bound, remaining, others)
        if worst > remaining:
            wait = bool(others) and (not hold.bounded or worst <= remaining + reserved)
            number, counted = self.calls + len(others) + 1, f", {len(others)} calls in flight counted" if others else ""
            dishonest = f" ({bound.model}{self._dishonest(bound.model)})" if bound.model in self.growth else ""
            raise (NotNowError if wait else BudgetExhaustedError)(
                f"call {number} may cost up to {dollars(worst, 6)}{dishonest}, and {dollars(max(remaining, _ZERO), 6)} of "
                f"max_cost={limit} is left{counted}; it was not sent: give a smaller max_tokens or n, or a larger max_cost"
            )
        hold.amount = worst

    def release(self, hold: Hold) -> None:
        """Take back ``reserve``: the call was not sent."""
        hold.sent, hold.amount = False, _ZERO
        self._settle(hold, _ZERO)

    def answered(self, hold: Hold, status: int, answer: str | bytes) -> None:
        """Count an answered call; an error does not count, and costs nothing.

        Args:
            answer: the response's body as text, or bytes if binary.

        Raises:
            SuiteError: the run has a limit, and the answer's model no price; the reserved amount counts, as it may have been
                billed.
        """
        self._in_flight.remove(hold)
        if status >= 400:
            self._settle(hold, _ZERO)
            return
        self.calls += 1
        hold.answer, hold.amount = answer, _ZERO
        if not hold.sent or self.ledger is None:
            self._unread.append(hold)
            return
        usd = None
        try:
            charge = self._read(hold)
            usd = charge.usd if charge is not None and charge.problem is None else None
            if usd and hold.reservation is None:
                self.ledger.note(usd)  # if the run is killed, the next one tells what it cost
            if hold.reservation is not None and charge is not None and charge.usage is not None and charge.problem:
                raise charge.problem
        finally:
            self._settle(hold, usd)

    def lost(self, hold: Hold) -> None:
        """Handle an unanswered call: it does not count, but what is reserved for it may have been billed."""
        if hold in self._in_flight:
            self._in_flight.remove(hold)
            self._lost += hold.amount if hold.bounded else _ZERO
        self._settle(hold, None)

    def _settle(self, hold: Hold, cost: Decimal | None) -> None:
        """Settle a call in the run's ledger; None: what is reserved may have been billed."""
        if hold.reservation is not None and self.ledger is not None:
            reservation, hold.reservation = hold.reservation, None
            reservation.settle(reservation.amount if cost is None else cost, uncertain=cost is None)
            self.ledger.close(reservation)

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
        if self._problems:
            raise self._problems[0]
        return self._cost

    def summary(self, nodeid: str) -> TestCalls:
        """Summary of the test's calls for reports."""
        self.read()
        problem = str(self._problems[0]) if self._problems else ""
        return TestCalls(nodeid, self.calls, dict(self._usage), self._cost, self._paid, problem)

    def read(self) -> None:
        """Read and price new answers."""
        answered, self._unread = self._unread, []
        for hold in answered:
            self._read(hold)

    def _read(self, hold: Hold) -> Charge | None:
        charge = Tariff(self.prices).billed(hold.request, hold.answer)
        if charge is None:
            return None
        if charge.usage is not None:
            self._usage[charge.model] = self._usage.get(charge.model, Usage(0, 0)) + charge.usage
        if charge.problem is not None:
            self._problems.append(charge.problem)
            return charge
        self._cost += charge.usd
        self._paid += charge.usd if hold.sent else _ZERO
        self._largest_bill[charge.model] = max(charge.usd, self._largest_bill.get(charge.model, _ZERO))
        if hold.bound and charge.usd > hold.bound:
            self._learn(charge.model, charge.usd / hold.bound)
        return charge

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
        for hold in self._in_flight:
            if model_asked(hold.request.uri, hold.request.body) == model:
                hold.amount = max(hold.amount, hold.bound * factor)

    def _dishonest(self, model: str) -> str:
        return f" has billed {self.growth[model]:.1f} times what its requests allow" if model in self.growth else ""

    def _worst(self, hold: Hold, bound: Bound, remaining: Decimal, others: Sequence[Hold]) -> tuple[Decimal, bool]:
        """USD that a call may cost, and whether its request ensures that."""
        if bound.usd is not None and bound.sure:
            hold.bound = bound.usd
            return bound.usd * self.growth.get(bound.model, Decimal(1)), True
        if bound.model in self._largest_bill:
            return self._largest_bill[bound.model] * (2 if others else 1), False
        most = max(remaining, _LEAST)
        return most if bound.usd is None else min(most, bound.usd), False
