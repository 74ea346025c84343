"""A cluster for all tests of this room, and live sources that ask on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.live import Live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.ray_cluster import RayCluster

    from pytest_llmtune.cluster import Engine


@pytest.fixture
def engine(cluster: RayCluster) -> Engine:
    """The connection to the cluster."""
    from pytest_llmtune.cluster import Engine

    return Engine.connect(cluster.address)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """Makes live sources with a cache in a directory of its own."""
    maker = Live(tmp_path)
    yield maker
    maker.close()
