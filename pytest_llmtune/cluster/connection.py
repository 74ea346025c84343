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
from pytest_llmtune.cluster.job_spec import installed
from pytest_llmtune.errors import LLMTuneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.cluster.job_spec import Item, JobSpec
    from pytest_llmtune.completions.routing import ServerFacts
    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.types import Row

__all__ = ["Connection"]


_CALLS = 100_000
"""Requests that may wait for dollars at once: Ray runs so many calls of an actor side by side."""

_KNOCK = 10.0
"""Seconds for the head of a cluster to be reached."""


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """A cluster, and how much of it there is."""

    ray: Any
    """The module."""
    width: int
    """Batches at once: one for each processor."""
    own: bool
    """Whether this connection was made here, and is closed here."""
    _purse: Any
    """An actor beside this process, so that no lost machine takes it along."""
    _ask: Any
    _grade: Any

    @classmethod
    def connect(cls, address: str) -> Self:
        """Join a cluster, or the one this process has joined already.

        Args:
            address: ``HOST:PORT`` of the head node, or empty: as ``RAY_ADDRESS`` says, else one on this machine.

        Raises:
            LLMTuneError: Ray is not installed, or there is no cluster.
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # what Ray would tell its makers is nobody's business
        try:
            import ray
        except ImportError:
            raise LLMTuneError("--llm-engine=ray needs the extra 'ray': pip install 'pytest-llmtune[ray]'") from None
        cluster: Any = ray
        own = not ray.is_initialized()
        if own:
            try:
                _knock(address)
                ray.init(address or None, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            except Exception as error:  # whatever of a cluster is not there, Ray has an exception of its own for it
                said = " ".join(str(error).split())[:300]
                raise LLMTuneError(
                    f"--llm-engine=ray{'://' if address else ''}{address}: no cluster could be joined: {said}; start "
                    "one with `ray start --head` and give its HOST:PORT, on a machine that belongs to it"
                ) from error
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(cluster.get_runtime_context().get_node_id(), soft=False)
        return cls(
            cluster,
            max(1, int(cluster.cluster_resources().get("CPU", 1))),
            own,
            cluster.remote(num_cpus=0, max_concurrency=_CALLS, scheduling_strategy=here)(BudgetActor),
            # Ray must not repeat what had answers that are paid for; grading again costs nothing
            cluster.remote(max_retries=0, scheduling_strategy="SPREAD")(node.ask_batch),
            cluster.remote(max_retries=3, scheduling_strategy="SPREAD")(node.grade_batch),
        )

    def close(self) -> None:
        """Leave the cluster; one that was started for this run ends with it."""
        if self.own:
            self.ray.shutdown()

    def purse(self, ledger: Ledger) -> Any:
        """A purse with what is left of a ledger."""
        return self._purse.remote(_alone(ledger))

    def ask_batch(self, order: JobSpec, purse: Any, batch: int, items: Sequence[Item], known: ServerFacts) -> Any:
        """A batch of requests as a task."""
        return self._ask.remote(order, purse, batch, items, known)

    def grade_batch(self, packed: Any, calls: Sequence[tuple[str, Sequence[str], Row]]) -> Any:
        """A batch of grades as a task.

        Args:
            packed: the grader, as ``ray.put`` gives it.
        """
        return self._grade.remote(installed(), packed, calls)

    def failure(self, error: Exception) -> LLMTuneError:
        """What went wrong on a node, in one line."""
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, LLMTuneError):
            return cause
        said = " ".join(str(cause).split())[:300]
        return LLMTuneError(
            f"the cluster failed: {type(cause).__name__}: {said}; every node needs the packages of this machine, "
            f"pytest-llmtune[ray]=={installed()} among them"
        )


def _knock(address: str) -> None:
    """Whether anybody is there: Ray itself would try for minutes.

    Raises:
        OSError: nobody.
        ValueError: the port is no number.
    """
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=_KNOCK).close()


def _alone(ledger: Ledger) -> Ledger:
    """A ledger, with those around it, as another process can have it."""
    above = None if ledger.parent is None else _alone(ledger.parent)
    return replace(ledger, parent=above, queue=deque(), shared=None)
