"""Every benchmark in turn, each a process of its own: what fits in ten minutes, or all of them.

    python -m benchmarks            the quick ones
    python -m benchmarks --all      the others too (hours)
    python -m benchmarks replay     only these

Each prints the tables that the docs hold, under its own command. Ends with 1 where one of them failed. Those that need data or servers
which the project does not ship (tune.py, grading.py on public sets, peers/run.py) are run by hand; their docstrings say how.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
"""More threads make a search's small matrices slower, and its CPU time many times as long."""

QUICK = {
    "startup": (),
    "replay": ("--stock", "100", "200"),
    "app_tests": ("--calls", "50,200", "--tests", "50", "--files", "500", "--times", "2"),
    "tasks": ("500",),
    "bills faults": (),
    "bills caps": (),
    "simulate": ("--seeds", "2", "--peers", "halving", "tpe", "dearest"),
    "simulate --growth": (),
    "reliability": ("--requests", "60"),
    "history": ("--commits=200",),
}
REST = {
    "scale": (),
    "load": (),
    "kills": (),
    "page": ("5000", "5"),
    "hostile_files": (),
    "migrations": (),
    "simulate --seeds 20": ("--peers", "halving", "tpe", "dearest"),
    "mutants": (),
    "client_table": (),
}


def run(name: str, options: tuple[str, ...]) -> bool:
    """One benchmark; whether it ended well."""
    script, *words = name.split()
    command = [sys.executable, str(HERE / f"{script}.py"), *words, *options]
    print(f"\n$ python benchmarks/{script}.py {' '.join([*words, *options])}".rstrip(), flush=True)
    start = time.monotonic()
    code = subprocess.run(command, check=False, env=ENVIRONMENT).returncode
    print(f"({time.monotonic() - start:.0f} s{f', FAILED with {code}' if code else ''})", flush=True)
    return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join({**QUICK, **REST})}")
    parser.add_argument("--all", action="store_true", help="the slow ones too")
    given = parser.parse_args()
    known = QUICK | REST
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"no benchmark {', '.join(unknown)}; valid: {', '.join(known)}")
    chosen = given.names or (known if given.all else QUICK)
    return int(sum(run(name, known[name]) for name in chosen) < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
