"""How long and how often a request is tried, and how far one has come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmtune.completions.failures import Failure
    from pytest_llmtune.completions.routing import Lane
    from pytest_llmtune.types import CompletionRequest

__all__ = ["Job", "Patience"]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often to try."""

    timeout: float
    """Seconds for one HTTP request."""
    total: float
    """Seconds for one completion with all its retries."""
    attempts: int
    """HTTP requests for the same answers, waiting out of rate limits not counted."""
    pause: float
    """Seconds before the first retry; doubled for each further one."""
    end: float = float("inf")
    """When the run's time is up, on the monotonic clock."""


@dataclass(slots=True, eq=False)
class Job:
    """How far one request has come."""

    request: CompletionRequest
    end: float
    """When its time is up, on the monotonic clock; the run's end until it is sent for the first time."""
    started: float | None = None
    sent: float = 0.0
    """When it was sent for the last time."""
    tries: int = 0
    failure: Failure | None = None
    avoid: set[Lane] = field(default_factory=set)

    @property
    def model(self) -> str:
        return str(self.request.body.get("model"))

    def begin(self, patience: Patience) -> float:
        """The clock runs from the first sending or rest on, not while the request queues; seconds for sending now."""
        self.sent = now = time.monotonic()
        if self.started is None:
            self.started, self.end = now, min(now + patience.total, self.end)
        return min(patience.timeout, self.end - now)
