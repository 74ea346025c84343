"""Ray: batches of requests and grades as tasks on a cluster, one actor that holds the dollars.

pytest's process decides what to request, and answers end in its cache, exactly as without a cluster; only
the asking and the grading happen elsewhere. Ray does the scheduling, and the noticing of lost machines.
"""

from pytest_llmtune.cluster.engine import Engine

__all__ = ["Engine"]
