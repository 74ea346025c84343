"""What a requester needs to know of the source it works for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pytest_llmtune.completions.batch_api import Batching
    from pytest_llmtune.completions.endpoints import Endpoint
    from pytest_llmtune.money.prices import PriceBook

__all__ = ["SourceSettings"]


class SourceSettings(Protocol):
    """A live source has them, and what is sent to a node of a cluster."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]: ...

    @property
    def prices(self) -> PriceBook: ...

    @property
    def concurrency(self) -> int:
        """HTTP requests in flight, over all endpoints."""

    @property
    def timeout(self) -> float:
        """Seconds for one HTTP request."""

    @property
    def patience(self) -> float | None:
        """Seconds for one completion with all its retries; None: ten times ``timeout``."""

    @property
    def deadline(self) -> float | None:
        """Seconds for everything, from the first request on."""

    @property
    def attempts(self) -> int:
        """HTTP requests for the same answers, waiting out of rate limits not counted."""

    @property
    def pause(self) -> float:
        """Seconds before the first retry; doubled for each further one."""

    @property
    def batching(self) -> Batching | None:
        """How requests become batches; None: one by one."""
