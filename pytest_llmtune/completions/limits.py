"""How much may be in flight at once, and how fast: an adaptive gate and a pace, both first come, first served."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Gate", "Pace", "Pilot"]


@dataclass(slots=True, eq=False)
class Gate:
    """At most ``most`` at once; fewer after a server said that it is too many, and slowly more again.

    Additive increase, multiplicative decrease, as TCP does it.
    """

    most: int
    allowed: float = 0.0
    inside: int = 0
    _shrunk: float = 0.0
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.allowed = float(self.most)

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Be one of those inside."""
        if self.inside >= int(self.allowed) or self._waiting:
            await self._wait()
        else:
            self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
            self._admit()

    def shrink(self, sent: float) -> bool:
        """Too many: allow 30 % fewer; of the refusals of one burst only the first counts, and gives True.

        Args:
            sent: when the refused request was sent, on the monotonic clock.
        """
        if sent < self._shrunk:
            return False
        self._shrunk = time.monotonic()
        self.allowed = max(1.0, min(self.allowed, self.inside) * 0.7)
        return True

    def grow(self) -> None:
        """It went well: allow one more after as many successes as are allowed at once."""
        if self.allowed < self.most:
            self.allowed = min(float(self.most), self.allowed + 1 / self.allowed)
            self._admit()

    async def _wait(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # admitted in the same moment
                self.inside -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self.inside < int(self.allowed):
            place = self._waiting.popleft()
            if not place.done():
                self.inside += 1
                place.set_result(None)


@dataclass(slots=True, eq=False)
class Pace:
    """So many units a minute, evenly: each caller waits for its place on the time line (a leaky bucket)."""

    per_minute: float
    _next: float = 0.0

    def wait(self) -> float:
        """Seconds that the next caller waits."""
        return max(0.0, self._next - time.monotonic())

    async def take(self, amount: float = 1.0) -> None:
        """Wait until ``amount`` more may go."""
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + amount * 60.0 / self.per_minute
        if start > now:
            await asyncio.sleep(start - now)


@dataclass(slots=True, eq=False)
class Pilot:
    """The first request goes alone: a wrong key or a model that is gone is then found out once, not sixteen times."""

    landed: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def flight(self) -> AsyncIterator[Pilot]:
        """Alone until one has ``landed``, then together."""
        if not self.landed:
            async with self._lock:
                if not self.landed:
                    yield self
                    return
        yield self
