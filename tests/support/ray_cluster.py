"""A real Ray cluster of two nodes on this machine, which this process joins."""

from __future__ import annotations

import os
import signal
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RayCluster", "running"]

_QUICK = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}
"""A node that is lost is noticed within seconds; by Ray's defaults it takes some twenty."""

_SMALL = {"include_dashboard": False, "no_monitor": True}
"""Neither a web page nor a scaler, each of which is a process that takes its time to start."""


@dataclass(frozen=True, slots=True)
class RayCluster:
    """The cluster; its head is never taken away."""

    cluster: Any

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    @contextmanager
    def one_more(self) -> Iterator[Any]:
        """Another node for a while, which a test may kill before."""
        node = self.cluster.add_node(num_cpus=1)
        try:
            yield node
        finally:
            if node in self.cluster.worker_nodes:
                self.cluster.remove_node(node)

    def until_idle(self) -> None:
        """Return once no task runs on any node: a task of our own got each node's processor."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        processor = ray.remote(num_cpus=1)(lambda: None)
        affinity = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
        ray.get([processor.options(scheduling_strategy=each).remote() for each in affinity], timeout=60)

    def kill(self, node: Any) -> None:
        """Every process of a node at once (SIGKILL), as when its power is cut."""
        raylets = [info.process.pid for info in node.all_processes["raylet"]]
        workers = [pid for raylet in raylets for pid in _children(raylet)]
        self.cluster.remove_node(node, allow_graceful=False)
        for pid in workers:  # else they would end by themselves, some time later
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def running() -> Iterator[RayCluster]:
    """A head and a worker with one processor each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": _QUICK} | _SMALL)
        cluster.add_node(num_cpus=1)
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    try:
        yield RayCluster(cluster)
    finally:
        ray.shutdown()
        cluster.shutdown()
