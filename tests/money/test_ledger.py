"""Dollars are reserved before they are spent, and no interleaving passes a limit."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loops import turns

from pytest_llmtune.errors import BudgetExhaustedError
from pytest_llmtune.money.ledger import Ledger, Reservation

ONE = Decimal(1)


async def spend(ledger: Ledger, worst: Decimal, cost: Decimal, steps: int = 1) -> None:
    async with ledger.reserve(worst) as reservation:
        await turns(steps)
        reservation.settle(cost)


def test_settling_frees_what_was_not_needed() -> None:
    """The reserved worst case becomes the real cost."""

    async def run() -> None:
        ledger = Ledger(ONE)
        async with ledger.reserve(Decimal("0.75")) as reservation:
            assert (ledger.reserved, ledger.spent, ledger.left) == (Decimal("0.75"), 0, Decimal("0.25"))
            reservation.settle(Decimal("0.5"))
        assert (ledger.reserved, ledger.spent, ledger.left) == (0, Decimal("0.5"), Decimal("0.5"))

    asyncio.run(run())


def test_waits_for_requests_in_flight() -> None:
    """What does not fit now but may fit later waits, and goes on when something was settled for less."""

    async def run() -> None:
        ledger, order = Ledger(ONE), []
        hold = asyncio.Event()

        async def first() -> None:
            async with ledger.reserve(Decimal("0.9")) as reservation:
                await hold.wait()
                reservation.settle(Decimal("0.1"))
                order.append("first")

        async def second() -> None:
            async with ledger.reserve(Decimal("0.8")) as reservation:
                order.append("second")
                reservation.settle(Decimal("0.8"))

        jobs = [asyncio.create_task(first()), asyncio.create_task(second())]
        await turns(9)
        assert order == []
        hold.set()
        await asyncio.gather(*jobs)
        assert order == ["first", "second"]
        assert ledger.spent == Decimal("0.9")

    asyncio.run(run())


def test_fails_when_it_can_never_fit() -> None:
    """More than the limit fails at once; a waiting request fails as soon as the money is really gone."""

    async def run() -> None:
        ledger = Ledger(ONE, name="optimization_budget")
        with pytest.raises(BudgetExhaustedError, match=r"optimization_budget: \$0 of \$1 .* up to \$1.10"):
            await spend(ledger, Decimal("1.1"), ONE)
        gone = asyncio.create_task(spend(ledger, Decimal("0.9"), Decimal("0.9"), steps=3))
        await turns()
        with pytest.raises(BudgetExhaustedError) as refused:
            await spend(ledger, Decimal("0.5"), ONE)
        assert str(refused.value) == (
            "optimization_budget: $0.90 of $1 is spent, and the next request may cost up to $0.50; "
            "give a larger budget, or a smaller max_tokens or n"
        )
        await gone
        assert (ledger.spent, ledger.reserved) == (Decimal("0.9"), 0)

    asyncio.run(run())


def test_without_a_limit_everything_is_still_counted() -> None:
    """No limit: nothing waits, and the sum is right."""
    ledger = Ledger()

    async def run() -> None:
        await asyncio.gather(*(spend(ledger, Decimal(9), Decimal("0.1")) for _ in range(50)))

    asyncio.run(run())
    assert (ledger.spent, ledger.reserved, ledger.left) == (5, 0, None)


def test_what_breaks_off_counts_as_spent() -> None:
    """A request that ends without a known cost may have been billed in full: the budget assumes so."""

    async def run() -> None:
        ledger = Ledger(ONE)
        with pytest.raises(ConnectionError):
            async with ledger.reserve(Decimal("0.4")):
                raise ConnectionError
        assert (ledger.spent, ledger.uncertain, ledger.reserved) == (Decimal("0.4"), Decimal("0.4"), 0)
        with pytest.raises(ConnectionError):
            async with ledger.reserve(Decimal("0.4")) as reservation:
                reservation.settle(Decimal(0))  # refused before any work was done
                raise ConnectionError
        assert (ledger.spent, ledger.uncertain) == (Decimal("0.4"), Decimal("0.4"))

    asyncio.run(run())


def test_a_cancelled_wait_costs_nothing() -> None:
    """A request that is cancelled while it waits leaves no trace, and those behind it move up."""

    async def run() -> None:
        ledger, hold = Ledger(ONE), asyncio.Event()

        async def holder() -> None:
            async with ledger.reserve(ONE) as reservation:
                await hold.wait()
                reservation.settle(Decimal(0))

        jobs = [asyncio.create_task(holder())]
        jobs += [asyncio.create_task(spend(ledger, ONE, Decimal("0.1"))) for _ in range(3)]
        await turns(9)
        jobs[1].cancel()
        hold.set()
        await turns()
        jobs[2].cancel()  # perhaps granted in this very moment
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert results[0] is None
        assert results[3] is None
        assert ledger.reserved == 0
        assert ledger.spent - ledger.uncertain == Decimal("0.1")

    asyncio.run(run())


def test_a_suite_s_budget_lies_inside_the_run_s() -> None:
    """A reservation holds in both; the tighter one decides, and a settlement in one suite lets another go on."""

    async def run() -> None:
        whole = Ledger(ONE, name="--llm-max-spend")
        algebra, sentiment = Ledger(Decimal("0.8"), whole, "algebra"), Ledger(Decimal("0.8"), whole, "sentiment")
        await asyncio.gather(
            spend(algebra, Decimal("0.7"), Decimal("0.2"), steps=3), spend(sentiment, Decimal("0.7"), Decimal("0.3"))
        )
        assert (whole.spent, algebra.spent, sentiment.spent) == (Decimal("0.5"), Decimal("0.2"), Decimal("0.3"))
        assert (algebra.left, sentiment.left) == (Decimal("0.5"), Decimal("0.5"))
        with pytest.raises(BudgetExhaustedError, match="--llm-max-spend"):
            await spend(algebra, Decimal("0.6"), ONE)
        with pytest.raises(BudgetExhaustedError, match="algebra"):
            algebra.check(Decimal("0.7"))

    asyncio.run(run())


def test_serves_several_event_loops_one_after_the_other() -> None:
    """The ledger of a run outlives the asyncio.run of each suite."""
    ledger = Ledger(ONE)

    async def run() -> None:
        await asyncio.gather(*(spend(ledger, Decimal("0.3"), Decimal("0.1")) for _ in range(4)))

    asyncio.run(run())
    asyncio.run(run())
    assert ledger.spent == Decimal("0.8")


CENTS = st.integers(0, 60).map(lambda cents: Decimal(cents) / 100)


@given(st.lists(st.tuples(CENTS, CENTS, st.integers(0, 5), st.integers(0, 12)), max_size=25))
def test_no_interleaving_passes_the_limit(requests: list[tuple[Decimal, Decimal, int, int]]) -> None:
    """Whatever is asked, cancelled and settled in whatever order: spent + reserved stays within, and nothing hangs."""

    async def run() -> None:
        ledger = Ledger(ONE)

        async def one(worst: Decimal, cost: Decimal, steps: int) -> None:
            async with ledger.reserve(worst) as reservation:
                assert ledger.spent + ledger.reserved <= ONE
                await turns(steps)
                reservation.settle(min(cost, worst))
            assert ledger.spent + ledger.reserved <= ONE

        jobs = [asyncio.create_task(one(worst, cost, steps)) for worst, cost, steps, _ in requests]
        for moment in range(12):
            await turns()
            for job, (_, _, _, end) in zip(jobs, requests, strict=True):
                if end == moment and end % 2:
                    job.cancel()
        async with asyncio.timeout(5):
            results = await asyncio.gather(*jobs, return_exceptions=True)
        assert {type(result) for result in results} <= {type(None), BudgetExhaustedError, asyncio.CancelledError}
        assert ledger.reserved == 0
        assert ledger.spent <= ONE
        assert not ledger.queue

    asyncio.run(run())


def test_an_amount_is_reserved_at_once_or_not_at_all() -> None:
    """Synchronous clients cannot wait: what does not fit now is refused, with what is in the way."""
    ledger = Ledger(ONE, name="--llm-max-spend")
    held = ledger.reserve_now(Decimal("0.8"))
    with pytest.raises(BudgetExhaustedError, match=r"--llm-max-spend: what is left of \$1 is reserved .* \$0.50"):
        ledger.reserve_now(Decimal("0.5"))
    held.settle(Decimal("0.1"))
    ledger.close(held)
    ledger.close(ledger.reserve_now(Decimal("0.5")))  # nobody said what it cost: all of it
    assert (ledger.spent, ledger.reserved) == (Decimal("0.6"), 0)
    with pytest.raises(BudgetExhaustedError, match=r"\$0.60 of \$1 is spent"):
        ledger.reserve_now(Decimal("0.5"))


def test_a_bill_over_its_reservation_counts_for_all_of_its_model() -> None:
    """At once: what is under way grows by the same factor, what comes later is reserved so, other models are not."""
    run, suite = Ledger(Decimal(100), name="--llm-max-spend"), Ledger(Decimal(50))
    suite.parent = run
    first, second, other = (suite.reserve_now(ONE, model) for model in ("m", "m", "other"))
    assert first.billed(Decimal(5))
    assert (second.amount, other.amount, run.reserved) == (5, 1, 11)
    suite.close(first)
    assert suite.reserve_now(ONE, "m").amount == 5
    assert (suite.spent, suite.reserved) == (5, 11)
    assert not suite.reserve_now(ONE, "other").billed(ONE)
    suite.close(second)  # nobody said what it cost: all that it counts with
    assert (suite.spent, run.spent) == (10, 10)


def test_what_has_grown_over_the_limit_is_not_sent() -> None:
    """Until enough of it is given back; the message tells of the factor."""
    ledger = Ledger(Decimal(10), name="optimization_budget")
    held = [ledger.reserve_now(ONE, "m") for _ in range(4)]
    held[0].billed(Decimal(4))
    ledger.close(held[0])
    assert [each.overdrawn for each in held[1:]] == [True] * 3
    for each in held[1:3]:
        each.settle(Decimal(0))
        ledger.close(each)
    assert not held[3].overdrawn
    assert (ledger.spent, ledger.reserved) == (4, 4)
    ledger.close(held[3])
    with pytest.raises(
        BudgetExhaustedError, match=r"\$8.00 of \$10 is spent.*m has billed 4.0 times what its requests allow"
    ):
        ledger.check(ONE, "m")


def test_an_overrun_is_reported() -> None:
    """How much more than the limit was spent."""
    ledger = Ledger(ONE, name="--llm-max-spend")
    first = ledger.reserve_now(ONE, "m")
    first.billed(Decimal("2.5"))
    ledger.close(first)
    with pytest.raises(BudgetExhaustedError, match=r"\$2.50 of \$1 is spent, \$1.50 more than allowed"):
        ledger.check(Decimal("0.1"), "m")


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 100)), min_size=1, max_size=30),
    st.integers(20, 400),
    st.integers(1, 6),
)
def test_an_overrun_is_at_most_what_was_under_way(requests: list[tuple[int, int]], limit: int, at_once: int) -> None:
    """Whatever a server bills: the first request goes alone, and what is sent later was granted at the dearest rate seen."""
    ledger, flying, under_way = Ledger(Decimal(limit)), [], Decimal(0)
    for number, (requested, billed) in enumerate(requests):
        try:
            flying.append((ledger.reserve_now(Decimal(requested), "m"), Decimal(billed)))
        except BudgetExhaustedError:
            if not flying:
                break
        if number and len(flying) < at_once:
            continue
        under_way = max(under_way, sum((bill for _, bill in flying), Decimal(0)))
        for reservation, bill in flying:
            reservation.billed(bill)
            ledger.close(reservation)
        flying = []
    for reservation, bill in flying:
        under_way = max(under_way, sum((each for _, each in flying), Decimal(0)))
        reservation.billed(bill)
        ledger.close(reservation)
    assert ledger.reserved == 0
    assert ledger.spent <= limit + under_way


def test_a_ledger_without_a_limit_inside_one_that_has_it_is_bound_by_it() -> None:
    """A suite without a budget of its own still spends the run's."""
    whole = Ledger(ONE, name="--llm-max-spend")
    suite = Ledger(None, whole, "optimization_budget")
    assert (suite.left, Ledger(None, Ledger()).left) == (ONE, None)
    with pytest.raises(BudgetExhaustedError, match=r"^--llm-max-spend: \$0 of \$1 is spent"):
        suite.check(Decimal("1.1"))
    suite.check(ONE)
    held = suite.reserve_now(Decimal("0.75"))
    assert (suite.left, whole.left, suite.fits(Decimal("0.25")), suite.fits(Decimal("0.26"))) == (
        Decimal("0.25"),
        Decimal("0.25"),
        True,
        False,
    )
    held.settle(Decimal("0.5"), uncertain=True)
    suite.close(held)
    for ledger in (suite, whole):
        assert (ledger.spent, ledger.uncertain, ledger.reserved) == (Decimal("0.5"), Decimal("0.5"), 0)


def test_a_reservation_that_nobody_settled_cost_all_of_it() -> None:
    """A reservation closed without ``settle`` counts with its whole amount, as certain."""
    ledger = Ledger(ONE)
    ledger.close(ledger.reserve_now(Decimal("0.4")))
    assert (ledger.spent, ledger.uncertain, ledger.reserved) == (Decimal("0.4"), 0, 0)


def test_what_is_left_is_reserved_to_the_last_cent() -> None:
    """Just the limit fits, a cent more does not, and nothing is taken where it does not."""
    ledger = Ledger(ONE)
    assert not ledger.try_reserve(Decimal("1.01"))
    assert ledger.reserved == 0
    assert ledger.try_reserve(ONE)
    assert (ledger.left, ledger.fits(Decimal(0)), ledger.fits(Decimal("0.01"))) == (0, True, False)


def test_one_that_can_never_fit_lets_those_behind_it_go_on() -> None:
    """First come, first served: a large request that waits is not overtaken, and does not block once it is refused."""

    async def run() -> None:
        ledger, order = Ledger(ONE), []

        async def take(name: str, worst: str, cost: str) -> None:
            try:
                async with ledger.reserve(Decimal(worst)) as reservation:
                    order.append(name)
                    reservation.settle(Decimal(cost))
            except BudgetExhaustedError:
                order.append(f"{name} refused")

        held = await ledger.hold(Decimal("0.6"))
        jobs = [
            asyncio.create_task(take("large", "0.9", "0.9")),
            asyncio.create_task(take("small", "0.1", "0.05")),
        ]
        await turns(9)
        assert order == []
        held.settle(Decimal("0.6"))
        ledger.close(held)
        await asyncio.gather(*jobs)
        assert order == ["large refused", "small"]
        assert (ledger.spent, ledger.reserved, list(ledger.queue)) == (Decimal("0.65"), 0, [])

    asyncio.run(run())


def test_a_grant_that_comes_with_the_cancellation_is_given_back() -> None:
    """Cancelled in the very turn in which it was granted: reserved and spent are as if it had never asked."""

    async def run() -> None:
        ledger = Ledger(ONE)
        held = await ledger.hold(ONE)
        waiting = asyncio.create_task(ledger.hold(Decimal("0.5")))
        behind = asyncio.create_task(ledger.hold(Decimal("0.8")))
        await turns(9)
        held.settle(Decimal("0.1"))
        ledger.close(held)  # grants it
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        assert (await asyncio.wait_for(behind, 5)).amount == Decimal("0.8")
        assert (ledger.spent, ledger.reserved, ledger.uncertain) == (Decimal("0.1"), Decimal("0.8"), 0)

    asyncio.run(run())


def test_a_refusal_that_comes_with_the_cancellation_is_a_cancellation() -> None:
    async def run() -> None:
        ledger = Ledger(ONE)
        held = await ledger.hold(Decimal("0.6"))
        waiting = asyncio.create_task(ledger.hold(Decimal("0.9")))
        await turns(9)
        held.settle(Decimal("0.6"))
        ledger.close(held)  # refuses it
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        assert (ledger.spent, ledger.reserved) == (Decimal("0.6"), 0)

    asyncio.run(run())


def test_when_the_first_gives_up_waiting_the_next_is_served() -> None:
    """At once: nothing else has to happen."""

    async def run() -> None:
        ledger = Ledger(ONE)
        await ledger.hold(Decimal("0.6"))
        first, second = (asyncio.create_task(ledger.hold(Decimal(amount))) for amount in ("0.9", "0.3"))
        await turns(9)
        assert not second.done()
        first.cancel()
        await turns(9)
        assert second.result().amount == Decimal("0.3")

    asyncio.run(run())


def test_what_is_under_way_grows_by_the_factor_that_was_billed() -> None:
    """2.5 times what was asked for, whatever that was; rounded up to a hundredth."""
    ledger = Ledger(Decimal(100))
    first, second = ledger.reserve_now(Decimal("0.2"), "m"), ledger.reserve_now(Decimal("0.4"), "m")
    assert first.billed(Decimal("0.5"))
    assert (second.amount, ledger.growth) == (ONE, {"m": Decimal("2.5")})
    assert (ledger.reserve_now(Decimal("0.2"), "m").amount, ledger.reserve_now(Decimal("0.2")).amount) == (
        Decimal("0.5"),
        Decimal("0.2"),
    )
    third = ledger.reserve_now(Decimal(3), "third")
    third.billed(Decimal(10))
    assert ledger.growth["third"] == Decimal("3.34")


def test_bills_within_what_was_asked_teach_nothing() -> None:
    """Nor does a reservation that asks for nothing, or that no ledger made."""
    ledger = Ledger(Decimal(100))
    assert not ledger.reserve_now(ONE, "m").billed(ONE)
    assert not Reservation(ONE).billed(Decimal(5))
    assert not ledger.reserve_now(Decimal(0), "m").billed(Decimal(5))
    assert Reservation(ONE, requested=ONE).billed(Decimal(5))
    assert ledger.growth == {}


def test_only_what_has_grown_is_overdrawn() -> None:
    """Another model's request was granted for what it may cost, and is sent."""
    ledger = Ledger(ONE)
    first, second, other = (ledger.reserve_now(Decimal("0.2"), model) for model in ("m", "m", "other"))
    assert not ledger.overdrawn
    first.billed(Decimal("0.8"))
    assert ledger.overdrawn
    assert [each.overdrawn for each in (second, other)] == [True, False]


def test_requests_without_a_model_are_like_each_other() -> None:
    """What one of them billed too much is expected of the next."""
    ledger = Ledger(Decimal(10))
    first = ledger.reserve_now(ONE)
    first.billed(Decimal(4))
    ledger.close(first)
    ledger.check(Decimal("1.5"))
    with pytest.raises(BudgetExhaustedError, match=r"up to \$8\.00"):
        ledger.check(Decimal(2))
    assert ledger.reserve_now(ONE).amount == 4


def test_spending_without_a_request_enlarges_nothing() -> None:
    """What a machine of a cluster spent is closed as it is: nothing was requested, so nothing was exceeded."""
    ledger = Ledger(Decimal(10))
    ledger.close(Reservation(Decimal(0), ONE))
    assert (ledger.spent, ledger.reserved, ledger.growth) == (ONE, Decimal(0), {})
