"""Collect calls into batches."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pytest_llmtune._dataclass import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Gathering(Generic[T]):
    """Collects items into batches: once no new one comes for a while, batches start on all free slots."""

    run: Callable[[list[T]], Awaitable[None]]
    """Runs one batch to completion; must not raise."""
    size: Callable[[Sequence[T], int], int]
    """How many of the waiting items the next batch takes, given the number of free slots."""
    width: int = sys.maxsize
    """Maximum number of concurrent batches."""
    quiet: float = 0.005
    """Seconds without a new item after which batches start."""
    enough: int = sys.maxsize
    """Number of waiting items for which batches start at once."""
    _waiting: list[T] = field(default_factory=list)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _gathering: asyncio.Task[None] | None = None

    def add(self, item: T) -> None:
        self._waiting.append(item)
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().create_task(self._gather())

    async def aclose(self) -> None:
        """Stop sending, and cancel running batches."""
        tasks = [*self._running, *([self._gathering] if self._gathering else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _gather(self) -> None:
        seen = 0
        while seen < len(self._waiting) < self.enough:
            seen = len(self._waiting)
            await asyncio.sleep(self.quiet)
        self._gathering = None
        self._fill()

    def _fill(self) -> None:
        while self._waiting and (free := self.width - len(self._running)) > 0:
            size = self.size(self._waiting, free)
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            self._running.add(asyncio.get_running_loop().create_task(self._one(batch)))

    async def _one(self, batch: list[T]) -> None:
        try:
            await self.run(batch)
        finally:
            if (task := asyncio.current_task()) is not None:
                self._running.discard(task)
            self._fill()


def evenly(most: int) -> Callable[[Sequence[Any], int], int]:
    """Batches of equal size, at most ``most``, so that none is left with a long one at the end."""
    return lambda waiting, free: min(most, -(-len(waiting) // free))
