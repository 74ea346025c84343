"""Check that a recorded task makes the same requests when replayed unchanged.

Once in this process, and once in two others whose sets are ordered otherwise (``PYTHONHASHSEED``).
"""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import replace
from pytest_llmtune._util.functions import load_function
from pytest_llmtune.capture.tariff import Tariff
from pytest_llmtune.errors import CompletionError, RecordingError
from pytest_llmtune.guard.evaluation import all_of
from pytest_llmtune.recording import Recording
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.suite.prompts import TaskRequest
from pytest_llmtune.suite.task import Task
from pytest_llmtune.tasks.source import Miss, TaskSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.recording.format import Interaction
    from pytest_llmtune.types import Completion, CompletionRequest

_PROCESSES = 2
"""Other processes, each with its own order of sets."""
_ROWS_ELSEWHERE = 25
"""Number of rows replayed by the other process."""
_TIMEOUT = 300
"""Time limit of the other process in seconds."""
_UNCHECKED = (
    "it was not checked whether the task asks the same where sets have another order, in a process of its own: {}"
)


def recorded_steps(requests: Iterable[CompletionRequest], recording: Recording) -> Iterator[CompletionRequest]:
    """Each request, and of a cascade's later steps those that were needed, and so are recorded."""
    for request in requests:
        step: CompletionRequest | None = request
        while step is not None:
            following = None if step.escalation is None else step.escalation.request
            yield replace(step, escalation=None)
            needed = isinstance(following, TaskRequest) and recording.has_run(following.row.id, following.earlier + 1)
            step = following if needed else None


async def replay_misses(source: TaskSource, requests: Iterable[CompletionRequest], concurrency: int) -> dict[str, Miss]:
    """Replay every request; returns unrecorded calls by row.

    Args:
        source: a source with only the recording.
    """
    todo = iter(requests)

    async def work() -> None:
        for request in todo:  # shared: each worker takes the next
            try:
                await source.complete(request)
            except CompletionError:
                continue  # the miss is recorded

    try:
        await all_of(work() for _ in range(concurrency))
    finally:
        await source.aclose()
    return source.misses


def check_repeatable(misses: dict[str, Miss], rows: int) -> None:
    """Fail if replaying the new recording made unrecorded calls.

    Raises:
        RecordingError: a run made another request; the message names row, run and call, and shows the difference.
    """
    if not misses:
        return
    first = next(iter(misses.values()))
    raise RecordingError(
        f"the task asks something else when its recording is replayed unchanged, on {len(misses)} of {rows} rows; "
        f"{first.detail}\n"
        "nothing was written: such a recording could never be replayed. Make the task repeatable: take the time, random "
        "numbers and ids out of what it asks (or from the row), and sort sets. What was paid for is kept in the cache"
    )


def replay_elsewhere(
    requested: Sequence[CompletionRequest],
    interactions: Sequence[Interaction],
    prices: PriceBook,
    note: Callable[[str], None],
) -> dict[str, Miss]:
    """As ``replay_misses``, of some rows, in processes in which sets have another order.

    Args:
        note: called with the reason where that cannot be: the task is a lambda, or its module cannot be imported elsewhere.
    """
    requests = [request for request in requested if isinstance(request, TaskRequest)]
    if os.environ.get("PYTHONHASHSEED", "random") != "random" or not requests:
        return {}  # the user has fixed the order
    chosen = requests[:: max(1, len(requests) // _ROWS_ELSEWHERE)]
    rows = {request.row.id for request in chosen}
    calls = [each for each in interactions if each.position and each.position.row in rows]
    job = io.BytesIO()
    try:
        pickle.dump(sys.path, job)
        _Pickler(job).dump((chosen, calls, prices))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        note(_UNCHECKED.format(error))
        return {}
    data = job.getvalue()
    base = zlib.crc32(repr(hash("llmtune")).encode())
    with ThreadPoolExecutor(_PROCESSES) as pool:  # of three names in a set, one order in six is the same by chance
        found = list(pool.map(lambda number: _replay_in_process(data, (base + number) % 2**32 or 1), range(_PROCESSES)))
    for each in found:
        if isinstance(each, str):
            note(_UNCHECKED.format(each))
    return next((each for each in found if each and not isinstance(each, str)), {})


def _replay_in_process(data: bytes, seed: int) -> dict[str, Miss] | str:
    """What another process misses whose sets are ordered by this seed; the reason where it could not be run."""
    try:
        ended = subprocess.run(
            [sys.executable, "-c", "from pytest_llmtune.tasks.verify import main; main()"],
            input=data,
            capture_output=True,
            timeout=_TIMEOUT,
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=True,
        )
        found: dict[str, Miss] = pickle.loads(ended.stdout.rpartition(_MARK)[2])  # noqa: S301  # our own process
    except subprocess.CalledProcessError as error:
        return next(reversed(error.stderr.decode(errors="replace").strip().splitlines()), str(error))
    except (subprocess.SubprocessError, OSError, EOFError, pickle.UnpicklingError) as error:
        return str(error)
    return found


_MARK = b"\n--llmtune--\n"


class _Pickler(pickle.Pickler):
    """Writes a task as the place that its function is imported from."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Task):
            return NotImplemented
        if value.found_in is not None:
            return _imported, (value.name, value.name, *value.found_in)
        if not hasattr(value.function, "__qualname__"):
            return NotImplemented  # an object with ``__call__``
        return _imported, (value.name, f"{value.function.__module__}:{value.function.__qualname__}", Path.cwd(), None)


def _imported(name: str, path: str, base_dir: Path, root: Path | None) -> Task:
    return Task(name, load_function(path, base_dir, root))


def main() -> None:
    """Entry point of the other process: replay the job on standard input, and write misses to standard output."""
    import asyncio

    sys.path[:] = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the parent process
    requests, interactions, prices = pickle.load(sys.stdin.buffer)  # noqa: S301
    recording = Recording.of(Path("recording"), interactions)
    source = TaskSource(_NoJudge(), Tariff(prices), Redactor(), recording, concurrency=8)
    misses = asyncio.run(replay_misses(source, requests, 8))
    sys.stdout.flush()
    sys.stdout.buffer.write(_MARK + pickle.dumps(misses))


class _NoJudge:
    async def complete(self, request: CompletionRequest) -> Completion:
        raise CompletionError(f"{request.key}: a judge is not available here")

    async def aclose(self) -> None:
        """Nothing to close."""
