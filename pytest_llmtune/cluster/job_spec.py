"""What a node needs to know to ask in somebody's place."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, ClassVar

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.redaction.keys import Secret

if TYPE_CHECKING:
    from pytest_llmtune.completions.endpoints import Endpoint
    from pytest_llmtune.completions.source_settings import SourceSettings
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.types import CompletionRequest

__all__ = ["Item", "JobSpec", "installed"]


@dataclass(frozen=True, slots=True)
class Item:
    """One request: ``request.n`` answers are wanted."""

    number: int
    request: CompletionRequest


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The terms for one of ``width`` batches at a time: its share of every limit.

    The keys travel in it from process to process, and are in no file.
    """

    version: str
    """Of this package, where the order comes from."""
    prices: PriceBook
    concurrency: int
    timeout: float
    patience: float | None
    deadline: float | None
    attempts: int
    pause: float
    _endpoints: tuple[Endpoint, ...]
    """Without their keys."""
    _keys: tuple[tuple[tuple[str, str], ...], ...] = field(repr=False)
    """Of each endpoint: (key, where it came from)."""

    batching: ClassVar[None] = None

    @classmethod
    def of(cls, terms: SourceSettings, width: int, deadline: float | None) -> JobSpec:
        """A share of somebody's terms.

        Args:
            deadline: seconds that are left of it.
        """

        def share(limit: float | None) -> float | None:
            return None if limit is None else limit / width

        shared = (
            replace(
                endpoint,
                keys=(),
                requests_per_minute=share(endpoint.requests_per_minute),
                tokens_per_minute=share(endpoint.tokens_per_minute),
                concurrency=None if endpoint.concurrency is None else max(1, endpoint.concurrency // width),
            )
            for endpoint in terms.endpoints
        )
        return cls(
            installed(),
            terms.prices,
            max(1, terms.concurrency // width),
            terms.timeout,
            terms.patience,
            deadline,
            terms.attempts,
            terms.pause,
            tuple(shared),
            tuple(tuple((key.reveal(), key.origin) for key in endpoint.keys) for endpoint in terms.endpoints),
        )

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(
            replace(endpoint, keys=tuple(Secret(*key) for key in keys))
            for endpoint, keys in zip(self._endpoints, self._keys, strict=True)
        )


def installed() -> str:
    """The version of this package on this machine."""
    return version("pytest-llmtune")
