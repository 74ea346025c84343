"""How long ``llmtune history`` takes on a large repository, and what it needs of memory.

    python benchmarks/history.py [--commits=1000] [--suites=20] [--rows=50]

The repository is made with ``git fast-import``: each commit changes the lock file of every suite.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from pytest_llmtune.guard.lockfile import Lock, LockedExample, Measured


def locked(name: str, commit: int, rows: int) -> bytes:
    """A lock file that differs from commit to commit."""
    right = [float((index + commit) % 7 > 0) for index in range(rows)]
    examples = tuple(
        LockedExample(f"{index:016x}", index, "ok", {"success_vote": value}, 1, (("4", 1),), "4", f"{index:016x}")
        for index, value in enumerate(right)
    )
    made = Lock(
        name,
        {
            "model": f"model-{commit // 100}",
            "temperature": 0.5,
            "prompt": f"Answer, please ({commit // 50}): {{question}}",
        },
        {"success_vote": Measured(sum(right) / rows, 0.5, 1.0), "inference_cost": Measured(1e-5 * (1 + commit))},
        {"model": {"input": Decimal("0.1"), "output": Decimal("0.4")}},
        {"dataset": "d"},
    )
    return replace(made, examples=examples).text().encode()


def write(root: Path, commits: int, suites: int, rows: int) -> None:
    subprocess.run(["git", "init", "-q", "-b", "main", str(root)], check=True)  # noqa: S607
    importing = subprocess.Popen(["git", "-C", str(root), "fast-import", "--quiet"], stdin=subprocess.PIPE)  # noqa: S607
    assert importing.stdin is not None
    for commit in range(commits):
        said = f"change {commit}".encode()
        head = f"commit refs/heads/main\ncommitter a <a@b> {1_700_000_000 + 3600 * commit} +0000\ndata {len(said)}\n"
        importing.stdin.write(head.encode() + said + b"\n")
        for suite in range(suites):
            content = locked(f"suite{suite}", commit, rows)
            path = f"tests/llmtune/suite{suite}.lock.yaml"
            importing.stdin.write(f"M 100644 inline {path}\ndata {len(content)}\n".encode() + content + b"\n")
    importing.stdin.close()
    assert importing.wait() == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("commits", 1000), ("suites", 20), ("rows", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        write(root, given.commits, given.suites, given.rows)
        for arguments in (["history", "--format=csv"], ["history", "suite3"], ["compare", "HEAD~1", "HEAD"]):
            began = time.perf_counter()
            command = [sys.executable, "-m", "pytest_llmtune.cli", *arguments]
            done = subprocess.run(command, cwd=root, check=True, capture_output=True)
            seconds = time.perf_counter() - began
            most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(
                f"llmtune {' '.join(arguments)}: {len(done.stdout.splitlines())} lines, {seconds:.1f} s, {most:.0f} MiB"
            )


if __name__ == "__main__":
    main()
