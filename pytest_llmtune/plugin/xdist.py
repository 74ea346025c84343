"""Share suites, budgets and results between xdist workers."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pytest_llmtune.guard.results_file as report_json
from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.files import claimed
from pytest_llmtune.guard.shards import Shards
from pytest_llmtune.plugin.collection import declare
from pytest_llmtune.plugin.options import uses_llmtune
from pytest_llmtune.settings import Mode
from pytest_llmtune.types import Shard

if TYPE_CHECKING:
    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.plugin.session import Session
    from pytest_llmtune.workflow.modes import SuiteRun


_PAUSE = 0.05  # seconds between checks of other workers' progress


@dataclass(frozen=True, slots=True)
class Shared:
    """A suite shared by several processes of one machine.

    A part is claimed by a file lock, which the operating system releases when its holder ends, so that another process
    takes over from a killed one. The holder of a part never waits, so there is no deadlock.
    """

    directory: Path
    """Directory of this suite in this run."""
    count: int
    """Number of parts."""

    def help(self, run: SuiteRun, first: int = 1) -> bool:
        """Do all unclaimed parts, starting with ``first``; returns whether all are done."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._done.exists():
            return True
        for step in range(self.count):
            shard = Shard((first - 1 + step) % self.count + 1, self.count)
            result = self._result(shard.index)
            if result.exists():
                continue
            with claimed(self.directory / f"{shard.index}.lock") as mine:
                if mine and not result.exists() and not self._done.exists():
                    report_json.write(result, [_part(run, shard)])
        return all(self._result(number).exists() for number in range(1, self.count + 1))

    def gather(self, run: SuiteRun) -> Shards:
        """Do the remaining parts, wait for the others, and return all results."""
        while not self.help(run):
            time.sleep(_PAUSE)
        found = Shards.read(self.directory)
        self._done.touch()
        for number in range(1, self.count + 1):
            self._result(number).unlink()
        return found

    @property
    def _done(self) -> Path:
        """Exists once the verdict is given, so that late helpers have nothing to do."""
        return self.directory / "done"

    def _result(self, number: int) -> Path:
        return self.directory / f"{number}.json"


def _part(run: SuiteRun, shard: Shard) -> SuiteReport:
    """A shard's results, reusing the loaded suite."""
    part = replace(run, settings=replace(run.settings, shard=shard), gather=None)
    vars(part).update({name: value for name, value in vars(run).items() if name in ("split", "grader")})
    return part.report


class Helper(pytest.Item):
    """An item that does parts of another test's suite; only that test gives the verdict."""

    def __init__(self, *, helped: pytest.Item, run: SuiteRun, shared: Shared, number: int, **rest: Any) -> None:
        super().__init__(**rest)
        self._helped, self._run, self._shared, self._number = helped, run, shared, number

    def runtest(self) -> None:
        self._shared.help(self._run, self._number)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        path, line, _ = self._helped.reportinfo()
        return path, line, self.name


def share(session: Session, items: list[pytest.Item]) -> None:
    """Share large suites between workers, which all collect the same tests.

    Only suites whose rows are read at collection can be shared, not those from a function or a hub.
    """
    settings, workerinput = session.settings, session.config.workerinput  # type: ignore[attr-defined]  # xdist's
    workers = int(workerinput["workercount"])
    shareable = settings.shard is None and settings.merge is None and settings.mode is Mode.REPLAY
    if not shareable or workers < 2:
        return
    declare(session, [item for item in items if uses_llmtune(item)])
    groups = []
    for item in items:
        run = session.runs.get(item.nodeid)
        if item.parent is None or run is None or "split" not in vars(run):
            continue
        if len(run.split.test) > settings.share_rows:
            shared = Shared(_directory(workerinput["testrunuid"]) / run.suite.name, workers)
            run.gather = shared.gather
            helpers = [
                Helper.from_parent(
                    item.parent, name=f"{item.name}[part {number}]", helped=item, run=run, shared=shared, number=number
                )
                for number in range(2, workers + 1)
            ]
            groups.append([item, *helpers])
    items[:] = _spread(items, groups, workers)


def _directory(run: str) -> Path:
    """Directory in which the workers of a run share suites; its name is a UUID known only to them."""
    return Path(tempfile.gettempdir()) / f"llmtune-{run}"


def tidy(run: str) -> None:
    """Remove the workers' shared directory, in the controller at the end of the run."""
    shutil.rmtree(_directory(run), ignore_errors=True)


def _spread(items: list[pytest.Item], groups: list[list[pytest.Item]], workers: int) -> list[pytest.Item]:
    """An order in which xdist's initial distribution gives each worker one test of each group."""
    grouped = {item for group in groups for item in group}
    rest = [item for item in items if item not in grouped]
    total = len(rest) + len(grouped)
    if total < 2 * workers:  # distributed one by one
        return [*(item for group in groups for item in group), *rest]
    chunk = max(2, total // workers // 4)  # distributed in chunks
    ordered = []
    for worker in range(workers):
        mine = [group[(worker + index) % workers] for index, group in enumerate(groups)]
        size = max(0, chunk - len(mine))
        ordered += [*mine, *rest[:size]]
        rest = rest[size:]
    return [*ordered, *rest]
