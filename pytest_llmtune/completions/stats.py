"""Counts of requests, retries and failures of a run."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.text import dollars
from pytest_llmtune.types import ModelUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(slots=True)
class RequestStats:
    """Counts over the life of one or more sources."""

    sent: int = 0
    """HTTP requests, including retries and probes."""
    answered: int = 0
    """Requests with answers."""
    samples: int = 0
    """Answers paid for."""
    cached: int = 0
    """Answers from the cache."""
    refused: int = 0
    """Requests whose prompt a content filter refused."""
    filtered: int = 0
    """Answers that a content filter stopped."""
    retried: Counter[str] = field(default_factory=Counter)
    """Failures that were retried, by kind."""
    given_up: Counter[str] = field(default_factory=Counter)
    """Abandoned requests, by kind of the last failure."""
    waited: float = 0.0
    """Total seconds of waiting before retries."""
    paid: Decimal = Decimal(0)
    """USD for answers that arrived."""
    uncertain: Decimal = Decimal(0)
    """The most USD that interrupted requests may have cost."""
    notes: list[str] = field(default_factory=list)
    """Notable events: a server's limit of n, its way of counting, a switch to another endpoint."""

    by_model: dict[str, ModelUsage] = field(default_factory=dict)
    """Usage and cost by requested model."""

    in_flight: int = 0
    """Requests sent and not yet answered."""
    retrying: str = ""
    """The failure being retried: ``HTTP 500: ... (attempt 3, next in 8 s)``."""
    listen: Callable[[RequestStats], None] | None = None
    """Called whenever a request is sent or answered."""

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Count a request as in flight."""
        self.sent += 1
        self.set_in_flight(self.in_flight + 1)
        try:
            yield
        finally:
            self.set_in_flight(self.in_flight - 1)

    def retry(self, text: str) -> None:
        """Note a failure that will be retried."""
        self.retrying = text
        self.set_in_flight(self.in_flight)

    def set_in_flight(self, number: int) -> None:
        """Set the number of requests in flight, sent here or by another process, and call the listener."""
        self.in_flight = number
        if self.listen is not None:
            self.listen(self)

    def take(self) -> RequestStats:
        """Return the counts since the last call, and reset them."""
        taken, fresh = RequestStats(), RequestStats()
        for name in _COUNTED:
            setattr(taken, name, getattr(self, name))
            setattr(self, name, getattr(fresh, name))
        return taken

    def add(self, other: RequestStats) -> None:
        """Add another object's counts."""
        for name in _COUNTED:
            if name not in ("notes", "by_model"):
                setattr(self, name, getattr(self, name) + getattr(other, name))
        for model, billed in other.by_model.items():
            self.bill(model, billed)
        for text in other.notes:
            self.note(text)

    def bill(self, model: str, billed: ModelUsage) -> None:
        """Add one answer's usage and cost to its model."""
        self.by_model[model] = self.by_model.get(model, ModelUsage()) + billed

    def note(self, text: str) -> None:
        """Add a line, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def eventful(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.retried or self.given_up or self.refused or self.filtered or self.uncertain)

    def lines(self) -> tuple[str, ...]:
        """A summary; empty if nothing was sent and nothing notable happened."""
        lines = []
        if self.sent:
            lines.append(f"requests: {self.sent} sent, {self.answered} answered with {self.samples} samples")
        for title, counts in (("retried", self.retried), ("given up", self.given_up)):
            if counts:
                lines.append(f"{title}: " + ", ".join(f"{number} x {kind}" for kind, number in counts.most_common()))
        if self.refused or self.filtered:
            lines.append(f"stopped by a content filter: {self.refused} prompts, {self.filtered} answers")
        if self.waited >= 1:
            lines.append(f"waited {self.waited:.0f} s in total before retries")
        if self.uncertain:
            lines.append(f"interrupted requests may have cost up to {dollars(self.uncertain)}")
        return (*lines, *self.notes)


_COUNTED = [each.name for each in fields(RequestStats) if each.name not in ("in_flight", "retrying", "listen")]
