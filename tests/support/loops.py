"""Turns of the event loop, for tests of what happens between them."""

from __future__ import annotations

import asyncio

__all__ = ["turns"]


async def turns(count: int = 1) -> None:
    """Let everything else that is ready run, so many times."""
    for _ in range(count):
        await asyncio.sleep(0)
