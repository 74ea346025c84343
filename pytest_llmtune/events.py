"""What a long-running step tells whoever shows its progress: small frozen values, passed to a plain callable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["Asked", "Event", "Finished", "InFlight", "Listener", "Started", "TrialDone"]


@dataclass(frozen=True, slots=True)
class Started:
    """A suite starts to spend time or money."""

    suite: str
    task: Literal["tune", "record", "live"]
    total: int | None = None
    """Trials of a search, else examples; None where only the budget decides."""
    budget: Decimal | None = None
    """USD that may be spent at most."""


@dataclass(frozen=True, slots=True)
class TrialDone:
    """One configuration of a search has been judged."""

    suite: str
    trial: int
    """From 1."""
    config: str
    """One line for people."""
    score: float | None
    """The tuned metric; None where the trial has none."""
    inference_cost: Decimal | None
    """Mean USD per instance."""
    spent: Decimal
    """USD of the search so far."""
    best: float | None
    """The best score so far."""
    status: str = "done"


@dataclass(frozen=True, slots=True)
class Asked:
    """Some more examples are finished; sent as often as the sender likes."""

    suite: str
    done: int
    total: int | None
    spent: Decimal
    """USD so far."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A request was sent, or came back."""

    suite: str
    requests: int
    """Sent and not yet answered."""
    paid: Decimal
    """USD for all that has been answered in this step."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A suite is done with its step."""

    suite: str
    spent: Decimal
    """USD in all."""
    note: str = ""
    """Why it stopped, where that is worth a word."""


Event = Started | TrialDone | Asked | InFlight | Finished
Listener = Callable[[Event], None]
