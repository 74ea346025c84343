"""Calls that come one by one go out together, in as many batches as there are places for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Gathering"]


T = TypeVar("T")
_QUIET = 0.005
"""Seconds without another call that end the gathering."""


@dataclass(slots=True, eq=False)
class Gathering(Generic[T]):
    """What waits to be sent."""

    run: Callable[[list[T]], Awaitable[None]]
    """Sends one batch, and returns when it is done; it raises nothing."""
    width: int
    """Batches at once."""
    most: int
    """Calls in a batch."""
    _waiting: list[T] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _gathering: asyncio.Task[None] | None = None

    def add(self, call: T) -> None:
        self._waiting.append(call)
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().create_task(self._gather())

    async def aclose(self) -> None:
        """Send nothing more, and let go of what is under way."""
        tasks = [*self._tasks, *([self._gathering] if self._gathering else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _gather(self) -> None:
        seen = 0
        while seen < len(self._waiting):
            seen = len(self._waiting)
            await asyncio.sleep(_QUIET)
        self._gathering = None
        self._fill()

    def _fill(self) -> None:
        """As many batches as are free, of even size: none waits for a long one at the end."""
        while self._waiting and (free := self.width - len(self._tasks)) > 0:
            size = min(self.most, -(-len(self._waiting) // free))
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            task = asyncio.get_running_loop().create_task(self._one(batch))
            self._tasks.add(task)

    async def _one(self, batch: list[T]) -> None:
        try:
            await self.run(batch)
        finally:
            if (task := asyncio.current_task()) is not None:
                self._tasks.discard(task)
            self._fill()
