"""A connection to Ray."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune.cluster import node
from pytest_llmtune.cluster.budget_actor import BudgetActor
from pytest_llmtune.cluster.node import installed
from pytest_llmtune.errors import LLMTuneError

if TYPE_CHECKING:
    from pytest_llmtune.money.ledger import Ledger


_CALLS = 100_000
"""Requests that may wait for the budget at once: the concurrency of the actor in Ray."""

_REACHED = 10.0
"""Time limit in seconds for reaching the head of a cluster."""


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """A connection to a cluster, and its size."""

    ray: Any
    """The module."""
    width: int
    """Concurrent batches: one per processor."""
    own: bool
    """Whether this object opened the connection, and must close it."""
    _budget: Any
    """The budget actor, on this machine, so that it survives the loss of others."""
    ask_batch: Any
    """``node.ask_batch`` as a remote function: ``ask_batch.remote(...)`` runs it as a task."""
    grade_batch: Any
    """``node.grade_batch`` as a remote function."""

    @classmethod
    def connect(cls, address: str) -> Self:
        """Connect to a cluster, or reuse this process's connection.

        Args:
            address: ``HOST:PORT`` of the head node; empty: ``RAY_ADDRESS``, else a new one on this machine.

        Raises:
            LLMTuneError: Ray is not installed, or there is no cluster.
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # disable Ray's telemetry
        try:
            import ray
        except ImportError:
            raise LLMTuneError("--llm-engine=ray needs the extra 'ray': pip install 'pytest-llmtune[ray]'") from None
        cluster: Any = ray
        own = not ray.is_initialized()
        if own:
            try:
                host, colon, port = address.rpartition(":")
                if colon:  # a server must listen there, because Ray would retry for minutes
                    socket.create_connection((host, int(port)), timeout=_REACHED).close()
                ray.init(address or None, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            except Exception as error:  # Ray has many exceptions for a missing cluster
                message = " ".join(str(error).split())[:300]
                raise LLMTuneError(
                    f"--llm-engine=ray{'://' if address else ''}{address}: no cluster could be joined: {message}; start "
                    "one with `ray start --head` and give its HOST:PORT, on a machine that belongs to it"
                ) from error
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        this_node = NodeAffinitySchedulingStrategy(cluster.get_runtime_context().get_node_id(), soft=False)
        return cls(
            cluster,
            max(1, int(cluster.cluster_resources().get("CPU", 1))),
            own,
            cluster.remote(num_cpus=0, max_concurrency=_CALLS, scheduling_strategy=this_node)(BudgetActor),
            # Ray must not retry paid requests; grading again is free
            cluster.remote(max_retries=0, scheduling_strategy="SPREAD")(node.ask_batch),
            cluster.remote(max_retries=3, scheduling_strategy="SPREAD")(node.grade_batch),
        )

    def close(self) -> None:
        """Disconnect; a cluster started for this run is stopped."""
        if self.own:
            self.ray.shutdown()

    def budget(self, ledger: Ledger) -> Any:
        """A budget actor with the remaining budget of a ledger."""
        return self._budget.remote(_picklable(ledger))

    def failure(self, error: Exception) -> LLMTuneError:
        """A node's error, in one line."""
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, LLMTuneError):
            return cause
        message = " ".join(str(cause).split())[:300]
        return LLMTuneError(
            f"the cluster failed: {type(cause).__name__}: {message}; every node needs the packages of this machine, "
            f"pytest-llmtune[ray]=={installed()} among them"
        )


def _picklable(ledger: Ledger) -> Ledger:
    """A picklable copy of a ledger and its parents."""
    parent = None if ledger.parent is None else _picklable(ledger.parent)
    return replace(ledger, parent=parent, queue=deque(), shared=None)
