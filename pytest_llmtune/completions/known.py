"""What asking teaches about servers, so that nobody has to find it out twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Known"]


@dataclass(frozen=True, slots=True)
class Known:
    """Places are of the list of endpoints and keys, which must be the same for whoever is told."""

    largest: Mapping[tuple[int, str, bool], int] = field(default_factory=dict)
    """The largest n that an endpoint takes for a model, greedy or not."""
    counts_one: Mapping[tuple[int, str], bool | None] = field(default_factory=dict)
    """Whether an endpoint counts the tokens of one choice only, by model; None: it cannot be found out."""
    landed: frozenset[tuple[int, str]] = frozenset()
    """Lanes and models that have answered: nobody needs to go first any more."""

    def __or__(self, other: Known) -> Known:
        return Known(
            {**self.largest, **other.largest},
            {**self.counts_one, **other.counts_one},
            self.landed | other.landed,
        )
