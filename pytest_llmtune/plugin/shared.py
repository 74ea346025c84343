"""One suite, several processes: each claims parts of its rows, and the verdict is given where all are done."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_llmtune._util.files import claimed
from pytest_llmtune.guard import results_file as report_json
from pytest_llmtune.guard.sharding import Shard
from pytest_llmtune.guard.shards import Shards

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.workflow.modes import SuiteRun

__all__ = ["Shared"]


_PAUSE = 0.05  # seconds between two looks at what others are doing


@dataclass(frozen=True, slots=True)
class Shared:
    """A suite that processes of one machine share.

    A part is claimed by a lock that the operating system gives back when its holder ends: what a killed process has
    begun is done by another. Nobody who holds a part waits for anything, so that all come to an end.
    """

    directory: Path
    """Of this suite, in this run."""
    count: int
    """Into how many parts its rows fall."""

    def help(self, run: SuiteRun, first: int = 1) -> bool:
        """Do every part that nobody has begun, from ``first`` on.

        Returns:
            Whether all are done.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._done.exists():
            return True
        for place in range(self.count):
            self._try(run, Shard((first - 1 + place) % self.count + 1, self.count))
        return all(self._result(number).exists() for number in range(1, self.count + 1))

    def gather(self, run: SuiteRun) -> Shards:
        """Do what is left to do, wait for the others, and give what all have found."""
        while not self.help(run):
            time.sleep(_PAUSE)
        found = Shards.read(self.directory)
        self._done.touch()
        for number in range(1, self.count + 1):
            self._result(number).unlink()
        return found

    @property
    def _done(self) -> Path:
        """There once the verdict is given: who comes to help later has nothing to do."""
        return self.directory / "done"

    def _try(self, run: SuiteRun, shard: Shard) -> None:
        result = self._result(shard.index)
        if result.exists():
            return
        with claimed(self.directory / f"{shard.index}.lock") as mine:
            if mine and not result.exists() and not self._done.exists():
                report_json.write(result, [_part(run, shard)])

    def _result(self, number: int) -> Path:
        return self.directory / f"{number}.json"


def _part(run: SuiteRun, shard: Shard) -> SuiteReport:
    """A shard's results, with what is known of its suite already."""
    part = replace(run, settings=replace(run.settings, shard=shard), gather=None)
    vars(part).update({name: value for name, value in vars(run).items() if name in ("split", "grader", "prices")})
    return part.report
