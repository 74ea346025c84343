"""A live source on the loopback server, closed in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.live import Live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """Makes live sources with a cache in a directory of its own."""
    maker = Live(tmp_path)
    yield maker
    maker.close()
