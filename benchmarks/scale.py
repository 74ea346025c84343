"""What one machine does with a large suite: seconds and memory up to 200,000 rows, rows a second by workers, requests a second.

    python benchmarks/scale.py                              all tables (some 20 minutes)
    python benchmarks/scale.py memory --rows 5000 10000
    python benchmarks/scale.py workers shards ray           (ray needs the extra of that name)

Each figure is of a whole ``pytest`` of its own, from its start to its verdict, over a recording of n=5 answers of 50 words,
which this file makes up; no network, no API key. Figures are to be read as ratios of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from replay import ENGLISH, body_of, completion, handler, question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

SYSTEM = "Reason step by step and put the final answer in \\boxed{{}}."
SUITE = """
import pytest

def burn(responses, answer, **_):
    {work}
    return {{"success_vote": float(any(answer in text for text in responses))}}

@pytest.mark.llmtune(
    dataset="data.jsonl",
    messages=[{{"role": "system", "content": {system!r}}}, {{"role": "user", "content": "{{problem}}"}}],
    model="gpt-4o-mini", temperature=0.7, max_tokens=300, n=5, tune_size=1,
    grader={grader},
    min_success_vote=0, max_drop=0.01, max_inference_cost=1,
)
def test_big(llmtune):
    llmtune.check()
"""


@dataclass(frozen=True)
class Kind:
    """What is graded, and by what."""

    grader: str
    answer: Callable[[int], str] = lambda row: f"\\boxed{{{row % 9}}}"
    said: Callable[[int, int], str] = lambda row, _: f"\\boxed{{{row % 9}}}"
    """The end of a response, by its row and its number."""
    work: str = "pass"


KINDS = {
    "numbers": Kind('"math"'),
    "algebra": Kind(
        '{"math": {"symbolic": True}}',
        lambda row: f"\\boxed{{x^2+{2 * row + 2}x+{(row + 1) ** 2}}}",
        lambda row, number: f"\\boxed{{(x+{row + 1})(x+{row + 1}+{number}-{number})}}",
    ),
    "code": Kind(
        '{"python": {"allow_code_execution": True, "reference": "answer"}}',
        lambda row: f"assert f({row}) == {2 * row}",
        lambda _, number: f"\n```python\ndef f(x):\n    return x + x + {number} - {number}\n```\n",
    ),
    "function": Kind("burn", work='sum(i * i % 7 for i in range(100_000))  # some 5 ms'),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One process: seconds on the clock, seconds of CPU with those of its children, MiB at most."""

    clock: float
    cpu: float
    memory: float


def make(kind: Kind, directory: Path, rows: int) -> None:
    """A suite of so many rows with its recording and a lock file, accepted as the baseline."""
    from pytest_llmtune.guard.lockfile import Lock
    from pytest_llmtune.recording import Recording
    from pytest_llmtune.types import Exchange

    def exchange(row: int) -> Exchange:
        body = body_of(row)
        response = completion(body, 50, ENGLISH)
        for number, choice in enumerate(response["choices"]):
            text = choice["message"]["content"].rpartition("\\boxed")[0]
            choice["message"]["content"] = text + kind.said(row, number)
        return Exchange("POST", "https://api.openai.com/v1/chat/completions", body, response, latency=1 + row / 1e6)

    lines = (json.dumps({"problem": question(row), "answer": kind.answer(row)}) for row in range(rows))
    (directory / "data.jsonl").write_text("\n".join(lines))
    suite = SUITE.format(work=kind.work, system=SYSTEM, grader=kind.grader)
    (directory / "test_big.py").write_text(suite)
    (directory / "pytest.ini").write_text("[pytest]\n")
    files = directory / "llmtune"
    Recording.write(files / "big.cassette.json", map(exchange, range(rows)))
    config = {name: value for name, value in body_of(0).items() if name != "messages"}
    config["messages"] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "{problem}"}]
    prices = {"gpt-4o-mini": {"input": Decimal("0.15"), "output": Decimal("0.6")}}
    Lock("big", config, {}, prices, {}).write(files / "big.lock.yaml")
    run(directory, "--llm-accept")


def made(name: str, directory: str, rows: int) -> Path:
    """``make`` in a process of its own: a process inherits its parent's greatest size."""
    subprocess.run([sys.executable, __file__, "--make", name, directory, str(rows)], check=True)
    return Path(directory)


def run(
    directory: Path, *args: str, processes: int | None = None, variables: Mapping[str, str] | None = None, ends: int = 0
) -> Measured:
    """One pytest, which must end with this exit code.

    Args:
        processes: worker processes for grading. There is no option for it: workers of xdist divide the processors, and
            the environment says how many there are.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    shared = {} if processes is None else {"PYTEST_XDIST_WORKER_COUNT": str((os.cpu_count() or 1) // processes)}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            command, cwd=directory, stdout=out, stderr=out, env=os.environ | shared | dict(variables or {})
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        assert process.returncode == ends, out.read().decode()[-2000:]
    return Measured(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def memory(sizes: list[int]) -> None:
    """The curve to 200,000 rows."""
    table("rows, n=5", "recording", "seconds of CPU", "ms a row", "MiB at most", "KiB a row past the first size")
    first: tuple[int, float] | None = None
    for rows in sizes:
        with tempfile.TemporaryDirectory() as name:
            directory = made("numbers", name, rows)
            files = list((directory / "llmtune").glob("*.cassette.json"))
            size = sum(file.stat().st_size for file in files)
            got = run(directory)
        first = first or (rows, got.memory)
        slope = f"{(got.memory - first[1]) * 1024 / (rows - first[0]):.2f}" if rows > first[0] else "-"
        figures = f"{got.cpu:.1f}", f"{got.cpu / rows * 1000:.2f}", f"{got.memory:,.0f}", slope
        line(f"{rows:,}", f"{size / 1e6:,.0f} MB, {len(files)} files", *figures)


ROWS = {"algebra": 600, "code": 100, "function": 2_000, "numbers": 20_000}
"""By what is graded."""


def workers(_: list[int]) -> None:
    """Rows a second of one and of two processes that grade, and of two workers of xdist that share a suite or do not."""
    table("what is graded", "rows", "by", "rows a second", "ratio")
    for name, rows in ROWS.items():
        with tempfile.TemporaryDirectory() as temporary:
            directory = made(name, temporary, rows)
            if name in {"algebra", "code"}:
                ways = {f"{count} grading process(es)": run(directory, processes=count) for count in (1, 2)}
            else:
                ways = {
                    "pytest": run(directory),
                    "pytest -n 2, not shared": run(directory, "-n", "2", f"--llm-share-rows={rows}"),
                    "pytest -n 2, shared": run(directory, "-n", "2", f"--llm-share-rows={rows // 2}"),
                }
        first = next(iter(ways.values())).clock
        for way, got in ways.items():
            line(name, f"{rows:,}", way, f"{rows / got.clock:,.0f}", f"{first / got.clock:.2f} x")


def shards(_: list[int]) -> None:
    """Seconds of CPU of two shards and of merging them, beside those of the whole run."""
    table("what is graded", "rows", "whole run", "dearer of two shards", "merge", "whole / (shard + merge)")
    for name in ("function", "numbers"):
        rows = ROWS[name]
        with tempfile.TemporaryDirectory() as temporary:
            directory = made(name, temporary, rows)
            whole = run(directory).cpu
            each = [run(directory, f"--llm-shard={k}/2", f"--llm-json=shards/{k}.json").cpu for k in (1, 2)]
            merge = run(directory, "--llm-merge=shards").cpu
        figures = f"{whole:.1f} s", f"{max(each):.1f} s", f"{merge:.1f} s"
        line(name, f"{rows:,}", *figures, f"{whole / (max(each) + merge):.2f} x")


def asking(_: list[int]) -> None:
    """Requests a second of ``--llm-live`` to a server on this machine, which needs a good part of it for itself."""
    table("requests in flight", "requests", "requests a second", "ms of CPU a request")
    rows = 2_000
    with tempfile.TemporaryDirectory() as temporary, served() as url:
        directory = made("numbers", temporary, rows)
        for concurrency in (1, 16, 64, 256):
            live = ("--llm-live", f"--llm-base-url={url}", f"--llm-concurrency={concurrency}")
            got = run(directory, *live, variables={"OPENAI_API_KEY": "sk-any"}, ends=1)  # other answers
            line(str(concurrency), f"{rows:,}", f"{rows / got.clock:,.0f}", f"{got.cpu / rows * 1000:.1f}")


def ray(_: list[int]) -> None:
    """Rows and requests a second of this process, and of a Ray cluster of two nodes with a processor each, on this machine."""
    table("what is done", "rows", "by", "rows a second", "ratio")
    with clustered() as address, served() as url:
        engines = {"this process": (), "Ray, 2 nodes": (f"--llm-engine=ray://{address}",)}
        for name, rows in ROWS.items():
            with tempfile.TemporaryDirectory() as temporary:
                directory = made(name, temporary, rows)
                ways = {way: run(directory, *engine, processes=1).clock for way, engine in engines.items()}
            compared(f"graded: {name}", rows, ways)
        rows = 2_000
        with tempfile.TemporaryDirectory() as temporary:
            directory = made("numbers", temporary, rows)
            live = ("--llm-live", f"--llm-base-url={url}", "--llm-concurrency=64")
            key = {"OPENAI_API_KEY": "sk-any"}
            ways = {way: run(directory, *live, *engine, variables=key, ends=1).clock for way, engine in engines.items()}
        compared("asked", rows, ways)


def compared(what: str, rows: int, ways: Mapping[str, float]) -> None:
    first = next(iter(ways.values()))
    for way, clock in ways.items():
        line(what, f"{rows:,}", way, f"{rows / clock:,.0f}", f"{first / clock:.2f} x")


@contextmanager
def child(option: str) -> Iterator[str]:
    """This file in a process of its own; the line that it says first."""
    process = subprocess.Popen(
        [sys.executable, __file__, option], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()  # its end
        process.wait()
        process.stdout.close()


def served() -> AbstractContextManager[str]:
    """The server of ``replay.py``."""
    return child("--serve")


def clustered() -> AbstractContextManager[str]:
    """A Ray cluster."""
    return child("--cluster")


def serve() -> None:
    """In the child: answer until the parent is done."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(50, ENGLISH)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
        sys.stdin.read()
        server.shutdown()


def cluster() -> None:
    """In the child: two nodes until the parent is done."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    started.add_node(num_cpus=1)
    print(started.address, flush=True)
    sys.stdin.read()
    started.shutdown()


def table(*names: str) -> None:
    print()
    line(*names)
    line(*["---"] * len(names))


def line(*cells: str) -> None:
    print("|", " | ".join(cells), "|", flush=True)


TABLES = {table.__name__: table for table in (workers, shards, asking, ray, memory)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"out of {', '.join(TABLES)} (default: all)")
    parser.add_argument("--rows", type=int, nargs="+", default=[12_500, 25_000, 50_000, 100_000, 200_000])
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cluster", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
    elif given.cluster:
        cluster()
    elif given.make:
        name, directory, rows = given.make
        make(KINDS[name], Path(directory), int(rows))
    else:
        for name in given.tables or TABLES:
            TABLES[name](given.rows)


if __name__ == "__main__":
    main()
