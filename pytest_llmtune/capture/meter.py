"""Count calls, tokens and USD of one test."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.text import dollars, parse_dollars
from pytest_llmtune.errors import BudgetExhaustedError, LLMTuneError, SuiteError
from pytest_llmtune.money.ledger import NotNowError
from pytest_llmtune.types import TestCalls, Usage
from pytest_llmtune.wire.billing import asks_a_model, model_asked, names_a_deployment, read_bill
from pytest_llmtune.wire.bounds import most_tokens
from pytest_llmtune.wire.tokens import ASSUMED_ANSWER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_llmtune.capture.matching import ClientRequest
    from pytest_llmtune.money.ledger import Ledger, Reservation
    from pytest_llmtune.money.prices import Price, PriceBook
    from pytest_llmtune.wire.billing import Bill

__all__ = ["ClientSpend", "Hold", "Limits", "Meter", "Prices"]


_ZERO = Decimal(0)
_LEAST = Decimal("0.000001")
"""An amount that never fits, so that reserving it fails."""


class Prices(Protocol):
    """Gives the price of a call; SuiteError where it is unknown."""

    def price_at(self, uri: str, models: Iterable[str], providers: Iterable[str] = ()) -> Price: ...

    def has_own(self, models: Iterable[str]) -> bool: ...

    def learn(self, uri: str, models: Sequence[str]) -> None: ...


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
        limit = self.limits.max_cost
        if limit is None or not asks_a_model(hold.request.method, hold.request.uri, hold.request.body):
            hold.sent = True
            return
        self.check()  # it may have waited
        others = [other for other in self._flying if other.amount]
        flying = sum((other.amount for other in others), _ZERO)
        left = limit - self._cost - self._lost - flying
        worst, hold.bounded = self._worst(hold, left, others)
        if worst > left:
            wait = bool(others) and (not hold.bounded or worst <= left + flying)
            number, counted = self.calls + len(others) + 1, f", {len(others)} calls in flight counted" if others else ""
            model = model_asked(hold.request.uri, hold.request.body)
            told = f" ({model}{self._dishonest(model)})" if model in self.growth else ""
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
        for hold in answered:
            own = self.prices is not None and self.prices.has_own([model_asked(hold.request.uri, hold.request.body)])
            bill = read_bill(hold.request.method, hold.request.uri, hold.request.body, hold.answer, listed=not own)
            if bill is None:
                continue
            if bill.usage is not None:
                self._usage[bill.model] = self._usage.get(bill.model, Usage(0, 0)) + bill.usage
            try:
                cost = self._priced(hold, bill)
                if self.prices is not None:
                    self.prices.learn(hold.request.uri, bill.models)
            except LLMTuneError as error:
                self._unjudged.append(error)
                continue
            self._cost += cost
            self._paid += cost if hold.sent else _ZERO
            self._dearest[bill.model] = max(cost, self._dearest.get(bill.model, _ZERO))
            if hold.most and cost > hold.most:
                self._learn(bill.model, cost / hold.most)

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

    def _priced(self, hold: Hold, bill: Bill) -> Decimal:
        if self.prices is None:
            raise SuiteError(f"the price of {bill.model} is not known; give it with llmtune_prices")
        usage = bill.usage
        if usage is None and (not bill.models or not self._price(hold, bill).free):
            path = urlsplit(hold.request.uri).path
            raise SuiteError(
                f"an answer of {bill.model or 'the model'} at {path} gives no usage that can be read; for a stream of "
                'chat completions ask for it: stream_options={"include_usage": True}'
            )
        return self._price(hold, bill).cost(usage or Usage(0, 0))

    def _price(self, hold: Hold, bill: Bill) -> Price:
        if self.prices is None:  # pragma: no cover  # checked before
            raise SuiteError("no prices")
        return self.prices.price_at(hold.request.uri, bill.models, bill.providers)

    def _worst(self, hold: Hold, left: Decimal, others: Sequence[Hold]) -> tuple[Decimal, bool]:
        """USD that a call may cost, and whether its request ensures that."""
        model, uri = model_asked(hold.request.uri, hold.request.body), hold.request.uri
        if self.prices is None:
            raise SuiteError(f"the price of {model} is not known; give it with llmtune_prices")
        most, worst = most_tokens(uri, hold.request.body), max(left, _LEAST)
        try:
            price = self.prices.price_at(uri, [model])
        except SuiteError:
            if not names_a_deployment(uri):
                raise
        else:
            if price.free or (price.bounded and most.answer is not None):
                hold.most = price.worst(most.prompt, most.answer or 0, most.tier)
                return hold.most * self.growth.get(model, Decimal(1)), True
            if price.bounded:
                worst = min(worst, price.worst(most.prompt, most.choices * ASSUMED_ANSWER, most.tier))
        if model in self._dearest:
            worst = self._dearest[model] * (2 if others else 1)
        return worst, False


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
        if left is None or not asks_a_model(request.method, request.uri, request.body):
            return None
        most = most_tokens(request.uri, request.body)
        answer = most.choices * ASSUMED_ANSWER if most.answer is None else most.answer
        try:
            price: Price | None = self.prices.price_at(request.uri, [model_asked(request.uri, request.body)])
        except SuiteError:
            if not names_a_deployment(request.uri):
                raise
            price = None
        if price is None or not price.bounded:
            return self.ledger.reserve_now(max(left, _LEAST))
        model = model_asked(request.uri, request.body)
        return self.ledger.reserve_now(price.worst(most.prompt, answer, most.tier), model)

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
        own = self.prices.has_own([model_asked(request.uri, request.body)])
        bill = read_bill(request.method, request.uri, request.body, answer, listed=not own)
        if bill is None or bill.usage is None:
            return None
        cost = self.prices.price_at(request.uri, bill.models, bill.providers).cost(bill.usage)
        self.prices.learn(request.uri, bill.models)
        return cost

    def lost(self, reservation: Reservation) -> None:
        """Settle an unanswered call, which the provider may have billed."""
        reservation.settle(reservation.amount, uncertain=True)
        self.ledger.close(reservation)
