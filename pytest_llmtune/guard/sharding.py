"""A stable part of every suite's rows: which rows are a shard's, and what its results say of where they belong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmtune.types import Example

__all__ = ["Shard", "ShardFacts"]


_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``index`` of ``count``. A row's own content decides where it goes: rows that are appended move no other."""

    index: int
    """From 1."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From ``2/5``.

        Raises:
            ValueError: no such part; says what is valid.
        """
        match = re.fullmatch(r"\s*(\d{1,5})\s*/\s*(\d{1,5})\s*", text)
        index, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= index <= count <= _MOST:
            raise ValueError(f"is {text!r}; valid: K/N, with K from 1 to N, such as 2/5")
        return cls(index, count)

    def holds(self, example: Example) -> bool:
        """Whether a row is of this part; equal rows are of the same."""
        return int(example.id[:16], 16) % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What the results of a shard say of themselves, so that only what belongs together is merged."""

    index: int
    count: int
    rows: int
    """Of the suite, over all shards."""
    state: Mapping[str, str]
    """Fingerprints of all that the results depend on: ``dataset``, ``grader``, ``prompt``, ``lock``, ``prices``, ..."""

    @property
    def name(self) -> str:
        """As the option says it."""
        return f"{self.index}/{self.count}"
