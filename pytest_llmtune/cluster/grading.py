"""Run graders on the cluster."""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.batches import Gathering, evenly
from pytest_llmtune.cluster.node import installed
from pytest_llmtune.grading.base import Grader, GraderWrapper

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from pytest_llmtune.cluster.connection import Connection
    from pytest_llmtune.types import Answer, ExampleGrade, Row


_MOST = 64
"""Rows per task."""


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    responses: Sequence[str]
    row: Row
    found: asyncio.Future[Any]


@dataclass(slots=True, eq=False)
class RemoteGrading:
    """Sends the calls of one grader to the cluster as tasks."""

    engine: Connection
    grader: Grader
    root: Path
    _sent: Any = None
    _gathering: Gathering[_Call] | None = None
    _loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)

    async def call(self, method: str, responses: Sequence[str], row: Row) -> Any:
        """Call a grader's method remotely; raises what it raises."""
        loop = asyncio.get_running_loop()
        if self._gathering is None or self._loop is not loop:  # each run of a suite has its own loop
            self._gathering, self._loop = Gathering(self._run, evenly(_MOST), self.engine.width), loop
        call = _Call(method, responses, row, loop.create_future())
        self._gathering.add(call)
        return await call.found

    async def _run(self, calls: list[_Call]) -> None:
        try:
            if self._sent is None:
                ray = self.engine.ray
                with _by_value(ray.cloudpickle, self.root):
                    self._sent = ray.put(ray.cloudpickle.dumps(self.grader))
            packed = [(call.method, call.responses, call.row) for call in calls]
            found = await self.engine.grade_batch.remote(installed(), self._sent, packed)
        except Exception as error:  # noqa: BLE001  # raised again in each waiting call
            found = [self.engine.failure(error)] * len(calls)
        for call, each in zip(calls, found, strict=True):
            if call.found.done():
                continue
            if isinstance(each, BaseException):
                call.found.set_exception(each)
            else:
                call.found.set_result(each)


@dataclass(frozen=True)
class ClusterGrader(GraderWrapper):
    """A grader that runs on the cluster."""

    remote: RemoteGrading

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:  # noqa: ARG002
        grade: ExampleGrade = await self.remote.call("grade", responses, row)
        return grade

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:  # noqa: ARG002
        answers: tuple[Answer, ...] = await self.remote.call("answers", responses, row)
        return answers


@contextmanager
def _by_value(cloudpickle: Any, root: Path) -> Iterator[None]:
    """Pickle the project's own modules by value: a node has installed packages, but not the project's tests."""
    own = [module for module in list(sys.modules.values()) if _is_below(module, root)]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def _is_below(module: ModuleType, root: Path) -> bool:
    file = getattr(module, "__file__", None)
    if not file or module.__name__.partition(".")[0] in ("pytest_llmtune", "__main__"):
        return False
    path = Path(file)
    return path.is_relative_to(root) and not {"site-packages", "dist-packages"} & set(path.parts)
