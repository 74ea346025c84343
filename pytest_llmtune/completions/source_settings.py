"""The settings of a source that a requester needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pytest_llmtune.completions.batch_api import Batching
    from pytest_llmtune.completions.endpoints import Endpoint
    from pytest_llmtune.money.prices import PriceBook

__all__ = ["SourceSettings"]


class SourceSettings(Protocol):
    """Implemented by a live source, and by the job sent to a cluster's node."""

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
        """Seconds for all requests, starting with the first."""

    @property
    def attempts(self) -> int:
        """HTTP requests for the same answers, not counting waits for rate limits."""

    @property
    def pause(self) -> float:
        """Seconds before the first retry; doubled for each further one."""

    @property
    def batching(self) -> Batching | None:
        """Settings for the Batch API; None: one request at a time."""
