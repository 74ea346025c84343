"""Small files that become gigabytes: refused in time and in memory, with the option that allows more."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune.data.dataset import load
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")

MOST_MEMORY = 1_000  # MB, of the whole process
READ = """
import resource, sys
sys.path[:0] = {path!r}
from pathlib import Path
from pytest_llmtune.errors import LLMTuneError
{work}
try:
    work(Path({directory!r}))
    print("read")
except LLMTuneError as error:
    print(str(error)[:2000])
status = Path("/proc/self/status").read_text()  # getrusage has the peak of the process that started this one
print(int(status.partition("VmHWM:")[2].split()[0]) // 1000, "MB", resource.getrusage(resource.RUSAGE_SELF).ru_utime, "s")
"""
DATA = """
from pytest_llmtune.data.dataset import load
def work(directory):
    load({name!r}, base_dir=directory, root=directory)
"""


def read_apart(directory: Path, work: str) -> str:
    """What comes of the work in a process of its own; it took less than 1 GB and a minute of CPU."""
    code = READ.format(path=sys.path, work=work, directory=str(directory))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    said, figures = done.stdout.rstrip().rsplit("\n", 1)
    memory, _, seconds, _ = figures.split()
    print(f"{said[:100]} | {memory} MB | {float(seconds):.1f} s")  # noqa: T201 - the table of docs/security.md
    assert int(memory) < MOST_MEMORY
    assert float(seconds) < 60
    return said


def _gz(unit: bytes, count: int, head: bytes = b"", tail: bytes = b"") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(head)
            block = unit * (1_000_000 // len(unit) + 1)
            for _ in range(count * len(unit) // len(block) + 1):
                file.write(block)
            file.write(tail)

    return write


def _parquet(make: Callable[[Any], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(make(pyarrow), path, compression="zstd")

    return write


BOMBS = {
    "rows.jsonl.gz": _gz(b'{"q":1}\n', 7_000_000),
    "wide.jsonl.gz": _gz(b"x", 49_000_000, '{"q": "\U0001f600'.encode(), b'"}\n'),
    "lists.json.gz": _gz(b"[],", 15_000_000, b"[", b"[]]"),
    "mappings.json.gz": _gz(b'{"a":{}},', 5_000_000, b"[", b"{}]"),
    "line.jsonl.gz": _gz(b"[],", 15_000_000, b'{"q":[', b"[]]}\n"),
    "cell.csv.gz": _gz(b"x", 60_000_000, b'q\n"', b'"\n'),
    "cells.csv.gz": _gz(b",", 45_000_000, b"q\n"),
    "rows.csv.gz": _gz(b"a\n", 24_000_000, b"q\n"),
    "nodes.yaml.gz": _gz(b"a,", 5_000_000, b"[", b"a]"),
    "text.parquet": _parquet(lambda arrow: arrow.table({"q": ["x" * 1_000_000] * 300})),
    "cell.parquet": _parquet(lambda arrow: arrow.table({"q": ["x" * 210_000_000]})),
    "lists.parquet": _parquet(
        lambda arrow: arrow.table({"q": arrow.ListArray.from_arrays([0, 4_000_000, 8_000_000], arrow.nulls(8_000_000))})
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_data(tmp_path: Path, name: str) -> None:
    """A few megabytes at most on disk; unpacked, or as Python's objects, more than a machine has."""
    BOMBS[name](tmp_path / name)
    assert (tmp_path / name).stat().st_size < 12_000_000
    said = read_apart(tmp_path, DATA.format(name=name))
    if name == "wide.jsonl.gz":  # one wide character makes all others of its text four times as large: just within
        assert said == "read"
    else:
        assert "limit of" in said
        assert name in said


def test_the_limit_is_raised_by_its_option(tmp_path: Path) -> None:
    """Megabytes of files, unpacked; rows may take four times as much memory."""
    rows = [{"q": str(number), "answer": "1"} for number in range(3_000)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(load("a.jsonl", base_dir=tmp_path, max_bytes=1_000_000).examples) == 3_000
    with pytest.raises(SuiteError, match=r"a\.jsonl: larger than the limit of 50,000 bytes; .*--llm-max-data=MB"):
        load("a.jsonl", base_dir=tmp_path, max_bytes=50_000)
    with pytest.raises(
        SuiteError, match=r"a\.jsonl:\d+: unpacks to more than the limit of 400,000 bytes of memory; .*--llm-max-data"
    ):
        load("a.jsonl", base_dir=tmp_path, max_bytes=100_000)


RECORDED = """
from pytest_llmtune._util.jsonhash import request_key
from pytest_llmtune.recording import Recording
from pytest_llmtune.types import CompletionRequest
def work(directory):
    recording = Recording.load(directory / "a.cassette.json")
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    request = CompletionRequest(body, {n}, request_key(body))
    recording.holds(request)
    taken = recording.take(request)
    print(len(taken.choices) if taken else "too few")
"""
LOCKED = """
from pytest_llmtune.guard.lockfile import Lock
def work(directory):
    Lock.read(directory / "a.lock.yaml")
"""
ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = {"choices": [{"message": {"content": "ok"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


def _interaction(asked: Any = ASKED, text: str = json.dumps(ANSWER), status: int = 200, **facts: Any) -> str:
    return json.dumps(
        {
            "request": {
                "method": "POST",
                "uri": "http://h/v1/chat/completions",
                "body": json.dumps(asked),
                "headers": {},
            },
            "response": {"status": {"code": status, "message": ""}, "headers": {}, "body": {"string": text}},
            "llmtune": facts,
        }
    )


def _cassette(*lines: str, head: str = '{"version": 1, "interactions": [\n', tail: str = "\n]}\n") -> str:
    return head + ",\n".join(lines) + tail


CASSETTES = {
    "refusals": (_cassette(_interaction(ASKED | {"n": 10**9}, '{"error": {}}', 400)), "too few"),
    "facts": (_cassette(_interaction(answers=10**30)), "a.cassette.json:2: the recording is corrupt: 'answers'"),
    "latency": (
        _cassette(_interaction(latency=float("nan"))),
        "a.cassette.json:2: the recording is corrupt: 'latency'",
    ),
    "same request": (_cassette(*[_interaction()] * 100_000), "1000"),
    "line": (_cassette("[" + "[]," * 15_000_000 + "[]]"), "a.cassette.json:2: the recording unpacks to more than"),
    "foreign": (
        _cassette("[]," * 15_000_000 + "[]", head='{"interactions": ['),
        "a.cassette.json:1: the recording unpacks",
    ),
    "long line": (
        _cassette('"' + "x" * 70_000_000 + '"'),
        "a.cassette.json:2: the recording has more than the limit of",
    ),
    "answer": (
        _cassette(_interaction(text='{"choices": [' + "[]," * 15_000_000 + "[]]}")),
        "a.cassette.json:2: the recording unpacks",
    ),
}


@pytest.mark.parametrize("name", CASSETTES)
def test_recordings(tmp_path: Path, name: str) -> None:
    """Numbers multiply nothing, one request is looked up as fast as many, and JSON is weighed before it is read."""
    text, said = CASSETTES[name]
    (tmp_path / "a.cassette.json").write_text(text)
    work = RECORDED.replace("{n}", "10**9" if name == "refusals" else "1000" if name == "same request" else "1")
    assert said in read_apart(tmp_path, work)


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ('- {"id": ' + "[" + "[]," * 10_000_000 + "[]]}\n", "limit of 4,000,000"),
        ("- {}\n" * 600_000, "600,000 examples, more than the limit of 500,000"),
        ("- {" + '"a": {}, ' * 300_000 + '"b": {}}\n', "more than the limit of 200,000 values"),
    ],
)
def test_lock_files(tmp_path: Path, examples: str, said: str) -> None:
    """Its examples are weighed one by one, and counted."""
    (tmp_path / "a.lock.yaml").write_text(f"version: 1\nsuite: a\nexamples:\n{examples}")
    assert said in read_apart(tmp_path, LOCKED)
