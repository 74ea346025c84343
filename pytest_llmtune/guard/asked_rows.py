"""The rows a run looks at, with what is asked about each: all of a suite's, or a shard's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmtune.guard.evaluation import requests_of
from pytest_llmtune.guard.sharding import Shard, ShardFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_llmtune.money.prices import Price
    from pytest_llmtune.recording import Recording
    from pytest_llmtune.suite import Config
    from pytest_llmtune.types import CompletionRequest, Example

__all__ = ["AskedRows", "state_of"]


@dataclass(frozen=True, slots=True)
class AskedRows:
    """Requests are made each time they are gone through: all at once they would fill memory."""

    config: Config
    all: Sequence[Example]
    """Of the suite: a row's draw counts those before it, whatever shard they are of."""
    shard: Shard | None = None
    unknown: frozenset[str] = frozenset()
    """Rows, by id, that could not be completed when the baseline was made: they need no recording."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The rows of this run, in order."""
        return tuple(example for example in self.all if self._holds(example))

    def requests(self) -> Iterator[CompletionRequest]:
        """One for each of ``examples``."""
        return (request for mine, request in self._everything() if mine)

    def missing(self, recording: Recording) -> tuple[int, str]:
        """How many requests have no recording, and how the first of them differs from the nearest recorded one.

        What other shards will take counts as used.
        """
        count, detail = 0, ""
        excused = self.excused(recording)
        for mine, request in self._everything():
            if not mine:
                recording.leave(request)
            elif not recording.holds(request) and (request.key, request.draw) not in excused:
                count += 1
                detail = detail or recording.explain(request)
        return count, detail

    def excused(self, recording: Recording) -> frozenset[tuple[str, int]]:
        """The requests (key and draw) without a recording whose rows are unknown in the baseline too."""
        if not self.unknown:
            return frozenset()
        asked = zip(self.all, requests_of(self.config, self.all), strict=True)
        return frozenset(
            (request.key, request.draw)
            for example, request in asked
            if example.id in self.unknown and not recording.holds(request)
        )

    def facts(self, state: Mapping[str, str]) -> ShardFacts | None:
        """What the results of a shard say of themselves; None where the run is whole."""
        if self.shard is None:
            return None
        return ShardFacts(self.shard.index, self.shard.count, len(self.all), state)

    def _everything(self) -> Iterator[tuple[bool, CompletionRequest]]:
        for example, request in zip(self.all, requests_of(self.config, self.all), strict=True):
            yield self._holds(example), request

    def _holds(self, example: Example) -> bool:
        return self.shard is None or self.shard.holds(example)


def state_of(fingerprints: Mapping[str, str], lock_path: Path, price: Price) -> dict[str, str]:
    """All that the results of a suite depend on, beside its recording."""
    lock = hashlib.sha256(lock_path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
    return {**fingerprints, "lock": lock, "prices": str(sorted(price.to_plain().items()))}
