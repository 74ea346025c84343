"""Fifty SIGKILLs of a real ``pytest --llm-tune``, and fifty of a real ``pytest --llm-record=all``, at random moments.

    python benchmarks/kills.py                      50 of each (some 6 minutes)
    python benchmarks/kills.py --kills 10 --seed 2

A run is killed at a moment drawn from the whole time that an undisturbed one takes, and begun again, until it ends; then
the next project begins, until all kills were made. The server is a process of its own. It counts the answers it sent to
clients that were still there, by request and sample, and the files are compared with those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]
from support.kills import MODES, Project, Server, serving  # noqa: E402


def killed(mode: str, whole: Project, begun: Project | None, server: Server, *, kills: int, seed: int) -> None:
    """Kill runs of one mode, and print what came of it."""
    moments, started = random.Random(seed), time.monotonic()
    whole.run(mode)
    seconds, seen = time.monotonic() - started, server.counts("forget")
    done = rounds = requests = lost = unanswered = 0
    while done < kills:
        rounds += 1
        name = f"{mode}-{rounds}"
        project = begun.copy(name) if begun else Project(whole.path.with_name(name), server)
        while not project.run(mode, seconds=moments.uniform(0, seconds) if done + project.kills < kills else None):
            pass
        found = server.counts("forget")
        assert found.answered == seen.answered, f"{name}: other samples were paid for"
        assert found.requests == seen.requests + found.lost, f"{name}: paid twice"
        assert project.files() == whole.files(), f"{name}: other files"
        done, requests, lost = done + project.kills, requests + found.requests, lost + found.lost
        unanswered += found.arrived - found.requests
    unique = rounds * seen.requests
    print(
        f"| `{MODES[mode]}` | {done} | {rounds} | {unique} | {requests} | {lost} | {unanswered} | {rounds} of {rounds} |"
    )


def main() -> None:
    """Both modes, as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(
        "| run | kills | runs to an end | unique requests | answered | of them lost | gone unanswered | files as undisturbed |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with serving() as server, tempfile.TemporaryDirectory() as directory:
        searched = Project(Path(directory) / "searched", server)
        killed("tune", searched, None, server, kills=given.kills, seed=given.seed)
        killed("record", searched.copy("recorded"), searched, server, kills=given.kills, seed=given.seed)


if __name__ == "__main__":
    main()
