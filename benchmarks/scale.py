"""What one machine does with a large suite: rows a second replayed and graded, seconds and memory up to 200,000 rows.

    python benchmarks/scale.py                        all tables (some 20 minutes)
    python benchmarks/scale.py memory --rows 5000 10000
    python benchmarks/scale.py workers shards

Each figure is of a whole `pytest` of its own, from its start to its verdict, over a recording of n=5 answers of 50 words,
which this file makes up; no network, no API key. Figures are to be read as ratios of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay import ENGLISH, body_of, completion, question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SUITE = """
name: big
dataset: data.jsonl
messages:
  - {role: system, content: "Reason step by step and put the final answer in \\\\boxed{{}}."}
  - {role: user, content: "{problem}"}
model: gpt-4o-mini
temperature: 0.7
max_tokens: 300
n: 5
tune_size: 1
grader: GRADER
min_success_vote: 0
max_drop: 0.01
max_inference_cost: 1
"""
NUMERIC = "math"
ALGEBRA = "{name: math, symbolic: true}"


@dataclass(frozen=True)
class Measured:
    """One process: seconds on the clock, seconds of CPU with those of its children, MiB at most."""

    clock: float
    cpu: float
    memory: float


def project(
    directory: Path, rows: int, *, boxed: Callable[[int, int], str], answer: Callable[[int], str], grader: str
) -> None:
    """A suite of so many rows with its recording and a lock file, accepted as the baseline.

    Args:
        boxed: the final answer of a row's response number so and so.
        answer: a row's reference.
    """
    from pytest_llmtune.completions.recording import Recording
    from pytest_llmtune.lock import Lock
    from pytest_llmtune.model import Exchange

    def exchange(index: int) -> Exchange:
        body = body_of(index)
        response = completion(body, 50, ENGLISH)
        for number, choice in enumerate(response["choices"]):
            text = choice["message"]["content"].rpartition("\\boxed")[0]
            choice["message"]["content"] = f"{text}\\boxed{{{boxed(index, number)}}}"
        return Exchange("POST", "https://api.openai.com/v1/chat/completions", body, response, latency=1 + index / 1e6)

    lines = (json.dumps({"problem": question(index), "answer": answer(index)}) for index in range(rows))
    (directory / "data.jsonl").write_text("\n".join(lines))
    (directory / "big.llmtune.yaml").write_text(SUITE.replace("GRADER", grader))
    (directory / "pytest.ini").write_text("[pytest]\n")
    Recording.write(directory / "llmtune" / "big.cassette.json", map(exchange, range(rows)))
    config = {name: value for name, value in body_of(0).items() if name != "messages"}
    config["messages"] = [
        {"role": "system", "content": "Reason step by step and put the final answer in \\boxed{{}}."},
        {"role": "user", "content": "{problem}"},
    ]
    Lock("big", config, {}, {"gpt-4o-mini": {"input": Decimal("0.15"), "output": Decimal("0.6")}}, {}).write(
        directory / "llmtune" / "big.lock.yaml"
    )
    run(directory, "--llm-accept")


def run(directory: Path, *args: str) -> Measured:
    """One pytest, which must pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, cwd=directory, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        assert process.returncode == 0, out.read().decode()
    return Measured(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def easy(directory: Path, rows: int) -> None:
    """Answers that are compared as text and as numbers."""
    project(
        directory, rows, boxed=lambda row, _: str(row % 9), answer=lambda row: f"\\boxed{{{row % 9}}}", grader="math"
    )


def apart(what: str, directory: Path, rows: int) -> None:
    """Make a project in a process of its own: a process inherits its parent's greatest size."""
    subprocess.run([sys.executable, __file__, "--make", what, str(directory), str(rows)], check=True)


def memory(sizes: Iterable[int]) -> None:
    """The curve to 200,000 rows."""
    table("rows, n=5", "recording", "seconds of CPU", "ms a row", "MiB at most", "KiB a row past the first size")
    first: tuple[int, float] | None = None
    for rows in sizes:
        with tempfile.TemporaryDirectory() as name:
            apart("easy", Path(name), rows)
            files = list(Path(name, "llmtune").glob("*.cassette.json"))
            size = sum(file.stat().st_size for file in files)
            got = run(Path(name))
        first = first or (rows, got.memory)
        slope = f"{(got.memory - first[1]) * 1024 / (rows - first[0]):.2f}" if rows > first[0] else "-"
        line(
            f"{rows:,}", f"{size / 1e6:,.0f} MB, {len(files)} files", f"{got.cpu:.1f}", f"{got.cpu / rows * 1000:.2f}",
            f"{got.memory:,.0f}", slope,
        )  # fmt: skip


def table(*names: str) -> None:
    line(*names)
    line(*["---"] * len(names))


def line(*cells: str) -> None:
    print("|", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=["memory"], metavar="memory")
    parser.add_argument("--rows", type=int, nargs="+", default=[12_500, 25_000, 50_000, 100_000, 200_000])
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    given: Any = parser.parse_args()
    if given.make:
        what, directory, rows = given.make
        {"easy": easy}[what](Path(directory), int(rows))
        return
    if "memory" in given.tables:
        memory(given.rows)


if __name__ == "__main__":
    main()
