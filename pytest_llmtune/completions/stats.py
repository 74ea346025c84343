"""Counts of requests, retries and failures of a run."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["RequestStats"]


_COUNTED = (
    "sent", "answered", "samples", "cached", "refused", "filtered", "retried", "given_up", "waited", "paid", "uncertain", "notes",
)  # fmt: skip


@dataclass(slots=True)
class RequestStats:
    """Counts over the life of one or several sources."""

    sent: int = 0
    """HTTP requests, retries and probes included."""
    answered: int = 0
    """Requests that brought answers."""
    samples: int = 0
    """Answers paid for."""
    cached: int = 0
    """Answers taken from the cache."""
    refused: int = 0
    """Requests whose prompt a content filter stopped."""
    filtered: int = 0
    """Answers that a content filter stopped."""
    retried: Counter[str] = field(default_factory=Counter)
    """Faults by kind, after which the request was tried again."""
    given_up: Counter[str] = field(default_factory=Counter)
    """Requests by the kind of their last fault."""
    waited: float = 0.0
    """Seconds of waiting before retries, added up over requests."""
    paid: Decimal = Decimal(0)
    """USD for answers that arrived."""
    uncertain: Decimal = Decimal(0)
    """USD that requests which broke off may have cost at most."""
    notes: list[str] = field(default_factory=list)
    """Single events worth a line: a server's limit of n, its way of counting, a switch to another endpoint."""

    in_flight: int = 0
    """Requests sent and not yet answered."""
    retrying: str = ""
    """What is being waited out right now: ``HTTP 500: ... (attempt 3, next in 8 s)``."""
    listen: Callable[[RequestStats], None] | None = None
    """Told whenever a request is sent or has come back."""

    @contextmanager
    def flight(self) -> Iterator[None]:
        """A request is on its way."""
        self.sent += 1
        self._fly(1)
        try:
            yield
        finally:
            self._fly(-1)

    def retry(self, text: str) -> None:
        """A request failed and waits for its next attempt."""
        self.retrying = text
        self._fly(0)

    def fly_to(self, number: int) -> None:
        """So many are on their way now, sent from elsewhere."""
        self._fly(number - self.in_flight)

    def _fly(self, number: int) -> None:
        self.in_flight += number
        if self.listen is not None:
            self.listen(self)

    def take(self) -> RequestStats:
        """What was counted since the last time; counting begins anew."""
        taken, fresh = RequestStats(), RequestStats()
        for name in _COUNTED:
            setattr(taken, name, getattr(self, name))
            setattr(self, name, getattr(fresh, name))
        return taken

    def add(self, other: RequestStats) -> None:
        """Count what another one counted."""
        for name in _COUNTED[:-1]:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for text in other.notes:
            self.note(text)

    def note(self, text: str) -> None:
        """Add a line, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def eventful(self) -> bool:
        """Whether anything did not go as it should."""
        return bool(self.retried or self.given_up or self.refused or self.filtered or self.uncertain)

    def lines(self) -> tuple[str, ...]:
        """The account for people; empty where nothing was sent and nothing noteworthy happened."""
        lines = []
        if self.sent:
            lines.append(f"requests: {self.sent} sent, {self.answered} answered with {self.samples} samples")
        for title, counts in (("retried", self.retried), ("given up", self.given_up)):
            if counts:
                lines.append(f"{title}: " + ", ".join(f"{number} x {kind}" for kind, number in counts.most_common()))
        if self.refused or self.filtered:
            lines.append(f"stopped by a content filter: {self.refused} prompts, {self.filtered} answers")
        if self.waited >= 1:
            lines.append(f"waited {self.waited:.0f} s in all before retries")
        if self.uncertain:
            lines.append(f"requests that broke off may have cost up to ${self.uncertain:.6f}")
        return (*lines, *self.notes)
