"""A cluster for all tests of this room, and live sources that ask on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.ray_cluster import RayCluster

    from pytest_llmtune.cluster import Engine


@pytest.fixture
def engine(cluster: RayCluster) -> Engine:
    """The connection to the cluster."""
    from pytest_llmtune.cluster import Engine

    return Engine.connect(cluster.address)
