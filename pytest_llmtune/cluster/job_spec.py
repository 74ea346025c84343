"""The settings that a node needs to send requests."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.completions.endpoints import SourceSettings
from pytest_llmtune.redaction.keys import Secret

if TYPE_CHECKING:
    from pytest_llmtune.types import CompletionRequest


@dataclass(frozen=True, slots=True)
class Item:
    """One request with its number."""

    number: int
    request: CompletionRequest


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The settings for one of ``width`` concurrent batches, with its share of every limit.

    Contains the keys, which are only sent between processes, and never written to a file.
    """

    version: str
    """Version of this package in the sending process."""
    _settings: SourceSettings
    """Without keys."""
    _keys: tuple[tuple[tuple[str, str], ...], ...] = field(repr=False)
    """For each endpoint: (key, origin)."""

    @classmethod
    def of(cls, source: SourceSettings, width: int, deadline: float | None) -> JobSpec:
        """A share of a source's settings.

        Args:
            deadline: remaining seconds.
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
            for endpoint in source.endpoints
        )
        settings = SourceSettings(
            tuple(shared),
            source.prices,
            max(1, source.concurrency // width),
            source.timeout,
            source.patience,
            deadline,
            source.attempts,
            source.pause,
        )
        keys = (tuple((key.reveal(), key.origin) for key in endpoint.keys) for endpoint in source.endpoints)
        return cls(installed(), settings, tuple(keys))

    @property
    def settings(self) -> SourceSettings:
        """The settings, with the keys of each endpoint."""
        pairs = zip(self._settings.endpoints, self._keys, strict=True)
        whole = (replace(endpoint, keys=tuple(Secret(*key) for key in keys)) for endpoint, keys in pairs)
        return replace(self._settings, endpoints=tuple(whole))


def installed() -> str:
    """The version of this package on this machine."""
    return version("pytest-llmtune")
