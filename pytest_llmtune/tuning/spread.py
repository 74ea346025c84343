"""Rows in blocks, and numbers of answers, each of which tells about as much as the one before."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["blocks_of", "thin"]


def blocks_of(rows: int) -> list[range]:
    """Rows in blocks of growing size: each about doubles what was seen."""
    edges = sorted({0, *(math.ceil(rows / part) for part in (8, 4, 2, 1))})
    return [range(low, high) for low, high in itertools.pairwise(edges)]


def thin(counts: Sequence[int], most: int) -> list[int]:
    """At most so many of the counts, the ends among them, spread by factors."""
    if len(counts) <= most:
        return list(counts)
    low, high = math.log(counts[0]), math.log(counts[-1])
    targets = [math.exp(low + (high - low) * step / (most - 1)) for step in range(most)]
    return sorted({min(counts, key=lambda n: abs(math.log(n / target))) for target in targets})
