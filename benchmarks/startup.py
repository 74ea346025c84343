"""What a guard costs over bare pytest, and what it does, in one run.

    python benchmarks/startup.py              ratios, with and without cached bytecode
    python benchmarks/startup.py --trace      the files that one green guard enters, and how often it goes from one to another

The guard is the suite `till` of the example project, replayed offline. Bare pytest is given an empty plugin in the same
way as ours, because pytest reads the metadata of all installed packages for each `-p`. Every figure is CPU seconds of a process, the least
of several, taken by turns so that other work on the machine falls on all of them. Imports are those that `-X importtime`
lists, each by the least of its times.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

HERE = Path(__file__).parent.parent
PLUGIN = ("-p", "pytest_llmtune.plugin")
WAYS: dict[str, tuple[str, ...]] = {
    "python": ("-c", "pass"),
    "import pytest": ("-c", "import pytest"),
    "bare pytest": ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "empty_plugin", "test_nothing.py"),
    "idle": ("-m", "pytest", "-q", "-p", "no:cacheprovider", *PLUGIN, "test_nothing.py"),
    "guard": ("-m", "pytest", "-q", "-p", "no:cacheprovider", *PLUGIN, "shop/tests/test_till.py"),
}


def project(directory: Path) -> None:
    """An empty test, an empty plugin, and the example project beside them."""
    (directory / "empty_plugin.py").touch()
    (directory / "test_nothing.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
    (directory / "pytest.ini").write_text("[pytest]\npythonpath = shop\n", encoding="utf-8")
    shutil.copytree(HERE / "example_project", directory / "shop")


def environment(*, cached: bool) -> dict[str, str]:
    """No other plugins; ours from this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LLMTUNE", "OPENAI"))}
    kept |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(HERE)}
    return kept if cached else kept | {"PYTHONDONTWRITEBYTECODE": "1"}


def run(way: str, directory: Path, env: dict[str, str], *python: str, more: tuple[str, ...] = ()) -> tuple[float, str]:
    """CPU seconds, and what was written on standard error, where pytest does not capture it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *python, *WAYS[way], *more],
        cwd=directory,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-2000:])
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stderr


def seconds(directory: Path, env: dict[str, str], times: int) -> dict[str, float]:
    """The least CPU seconds of every way."""
    found = {way: [run(way, directory, env)[0]] for way in WAYS}
    for _ in range(times):
        for way, taken in found.items():
            taken.append(run(way, directory, env)[0])
    return {way: min(taken[1:]) for way, taken in found.items()}


def imports(directory: Path, times: int) -> tuple[int, int, int]:
    """Microseconds of `import pytest`, those of what a guard imports besides, and the number of our modules among it."""
    least: dict[str, dict[str, int]] = {"bare pytest": {}, "guard": {}}
    for _ in range(times):
        for way, known in least.items():
            _, written = run(way, directory, environment(cached=True), "-X", "importtime", more=("--capture=no",))
            for own, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", written, re.MULTILINE):
                known[name] = min(known.get(name, int(own)), int(own))
    names = list(least["bare pytest"])
    first, last = names.index("site") + 1, names.index("pytest") + 1
    more = {name: own for name, own in least["guard"].items() if name not in least["bare pytest"]}
    ours = [name for name in more if name.startswith("pytest_llmtune")]
    return sum(least["bare pytest"][name] for name in names[first:last]), sum(more.values()), len(ours)


def trace(directory: Path) -> None:
    """Print our files that a green guard enters, with the number of calls, and the number of switches between files."""
    os.chdir(directory)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import pytest

    calls: collections.Counter[str] = collections.Counter()
    switches, last = 0, ""

    def called(frame: FrameType, event: str, _: Any) -> None:
        nonlocal switches, last
        if event != "call":
            return
        _, within, file = frame.f_code.co_filename.rpartition("/pytest_llmtune/")
        if within and frame.f_code.co_name != "<module>":
            calls[file] += 1
            switches += file != last
            last = file

    sys.setprofile(called)
    code = pytest.main(list(WAYS["guard"][2:]))
    sys.setprofile(None)
    for file, count in calls.most_common():
        print(f"{count:8,}  {file}")
    print(
        f"{len(calls)} files entered, {sum(calls.values()):,} calls, {switches:,} switches between files; exit code {code:d}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=7, help="how often each is run")
    parser.add_argument("--trace", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        project(directory)
        if given.trace:
            trace(directory)
            return
        print("| CPU seconds | bare pytest | idle, more | guard, more | import pytest |\n|---|---|---|---|---|")
        for cached in (True, False):
            if not cached:
                for folder in (HERE / "pytest_llmtune").rglob("__pycache__"):
                    shutil.rmtree(folder)
            found = seconds(directory, environment(cached=cached), given.times)
            bare = found["bare pytest"]
            figures = (bare, found["idle"] - bare, found["guard"] - bare, found["import pytest"] - found["python"])
            shown = " | ".join(f"{figure:.3f}" for figure in figures)
            print(f"| {'bytecode cached' if cached else 'our modules without bytecode'} | {shown} |", flush=True)
        pytests, ours, count = imports(directory, given.times)
        print(f"\nimports of the guard, {count} of them our modules: {ours / pytests:.2f} x import pytest")


if __name__ == "__main__":
    main()
