"""What a node tells, in order, and the process that asked hears."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from decimal import Decimal

    from pytest_llmtune.completions.stats import Account
    from pytest_llmtune.errors import LLMTuneError
    from pytest_llmtune.types import Exchange

__all__ = ["Closed", "Counted", "Done", "Ended", "Kept", "News"]


class Kept(NamedTuple):
    """Answers to an item arrived, for so many USD."""

    item: int
    exchange: Exchange
    cost: Decimal


class Closed(NamedTuple):
    """What was reserved under a number became what it cost, in USD."""

    number: int
    cost: Decimal
    uncertain: bool


class Done(NamedTuple):
    """An item has all its answers, or never will."""

    item: int
    error: LLMTuneError | None


class Counted(NamedTuple):
    """What happened on the way, since the last time."""

    account: Account


class Ended(NamedTuple):
    """Nothing more will be heard of a batch: it is done, or its machine is lost."""

    batch: int


News = Kept | Closed | Done | Counted | Ended
