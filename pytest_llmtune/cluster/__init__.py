"""The Ray engine: batches of requests and grades run as tasks on a cluster, and one actor holds the budget.

pytest's process decides what to request and stores the answers in its cache, as without a cluster. Ray schedules the
tasks and detects lost machines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune.cluster.connection import Connection
from pytest_llmtune.cluster.grading import ClusterGrader, RemoteGrading
from pytest_llmtune.cluster.requester import ClusterRequester
from pytest_llmtune.grading.base import GraderWrapper
from pytest_llmtune.grading.custom import CompositeGrader

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.grading import Grader


@dataclass(frozen=True, slots=True, eq=False)
class Engine(Connection):
    """A Ray cluster that sends requests and grades instead of this process."""

    def requester(self, source: LiveSource) -> ClusterRequester:
        """The requester for a source."""
        return ClusterRequester(self, source)

    def grader(self, grader: Grader, root: Path) -> Grader:
        """The grader, running on the cluster; a judge stays here, but its requests are sent by the cluster.

        Args:
            root: the project's root, whose modules are sent along.
        """
        if isinstance(grader, GraderWrapper):
            return replace(grader, inner=self.grader(grader.inner, root))
        if isinstance(grader, CompositeGrader):
            return replace(grader, graders=tuple(self.grader(each, root) for each in grader.graders))
        if grader.models:  # its requests need this process's cache and budget
            return grader
        return ClusterGrader(grader, RemoteGrading(self, grader, root))
