"""The loop of a worker process: one JSON request per line, one answer per line."""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


_MEMORY = 4 * 2**30  # bytes of address space


def main() -> None:
    paths, script, job, needs = sys.argv[1:]
    sys.path[:] = json.loads(paths)
    work = getattr(_module(script), job)
    if needs:
        importlib.import_module(needs)
    _limit_memory()
    out = sys.stdout
    sys.stdout = sys.stderr
    print("{}", file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        _limit_cpu(request["limit"])
        answer = work(request)
        _limit_cpu(0)
        print(json.dumps(answer), file=out, flush=True)


def _module(path: str) -> ModuleType:
    """Load only the file: importing its package would take longer than most answers."""
    spec = importlib.util.spec_from_file_location("work", path)
    assert spec is not None  # noqa: S101 - the file is there
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _limit_memory() -> None:
    with suppress(ImportError):  # Windows
        import resource

        try:
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        except ValueError:  # macOS has the limit, but refuses to set it
            if sys.platform != "darwin":
                raise


def _limit_cpu(seconds: float) -> None:
    """Limit CPU time by SIGPROF, which ends the process; 0: no limit."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    main()
