"""Small files that become gigabytes: refused in time and in memory, with the option that allows more."""

from __future__ import annotations

import gc
import gzip
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune._util.jsonhash import request_key
from pytest_llmtune.data.dataset import load
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.guard import lockfile
from pytest_llmtune.guard.lockfile import Lock
from pytest_llmtune.guard.shards import Shards
from pytest_llmtune.recording import Recording
from pytest_llmtune.types import CompletionRequest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")

SCALE = int(os.environ.get("LLMTUNE_BOMBS", "10"))
"""1 makes the files of docs/security.md, with the limits that users have; 10 a tenth of both."""
MOST_MEMORY = 1_000 // SCALE + 60  # MB


def read(work: Callable[[], Any]) -> str:
    """What comes of the work; the memory that it took is limited."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, begun = _megabytes("VmRSS"), time.process_time()
    try:
        said = f"read {work()}"
    except LLMTuneError as error:
        said = str(error)
    memory = _megabytes("VmHWM") - before
    print(f"{said[:100]} | {memory} MB | {time.process_time() - begun:.1f} s")  # noqa: T201 - the table of docs/security.md
    assert memory < MOST_MEMORY
    return said


def _megabytes(name: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) // 1000


def _gz(unit: bytes, count: int, head: bytes = b"", tail: bytes = b"") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(head)
            block = unit * (100_000 // len(unit) + 1)
            for _ in range(count // SCALE * len(unit) // len(block) + 1):
                file.write(block)
            file.write(tail)

    return write


def _parquet(make: Callable[[Any], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(make(pyarrow), path, compression="zstd", write_statistics=False)

    return write


HALF = 4_000_000 // SCALE


def _lying(make: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Its footer says that each column has one byte."""

    def write(path: Path) -> None:
        _parquet(make)(path)
        from pyarrow import parquet

        data = path.read_bytes()
        with parquet.ParquetFile(path) as file:
            group = file.metadata.row_group(0)
            sizes = {group.total_byte_size, group.column(0).total_uncompressed_size}
        start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        footer = data[start:-8]
        for size in sizes:
            number = _varint(size << 1)
            assert number in footer
            footer = footer.replace(number, b"\x82" + b"\x80" * (len(number) - 2) + b"\0")
        path.write_bytes(data[:start] + footer + data[-8:])

    return write


def _varint(number: int) -> bytes:
    """As thrift's compact protocol writes it."""
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


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
    "text.parquet": _parquet(lambda arrow: arrow.table({"q": ["x" * (1_000_000 // SCALE)] * 300})),
    "cell.parquet": _parquet(lambda arrow: arrow.table({"q": ["x" * (210_000_000 // SCALE)]})),
    "lists.parquet": _parquet(
        lambda arrow: arrow.table({"q": arrow.ListArray.from_arrays([0, HALF, 2 * HALF], arrow.nulls(2 * HALF))})
    ),
    "lying.parquet": _lying(lambda arrow: arrow.table({"q": ["x" * 300_000_000]})),
}


@pytest.mark.parametrize("name", BOMBS)
def test_data(tmp_path: Path, name: str) -> None:
    """A few megabytes at most on disk; unpacked, or as Python's objects, more than a machine has."""
    BOMBS[name](tmp_path / name)
    assert (tmp_path / name).stat().st_size < 12_000_000
    if name == "lying.parquet":  # the writer took it, and keeps it
        gc.collect()
    said = read(lambda: len(load(name, base_dir=tmp_path, root=tmp_path, max_bytes=50_000_000 // SCALE).examples))
    if name == "wide.jsonl.gz":  # one wide character makes all others of its text four times as large: just within
        assert said == "read 1"
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
    "refusals": (_cassette(_interaction(ASKED | {"n": 10**9}, '{"error": {}}', 400)), "read None"),
    "facts": (_cassette(_interaction(answers=10**30)), "a.cassette.json:2: the recording is corrupt: 'answers'"),
    "latency": (
        _cassette(_interaction(latency=float("nan"))),
        "a.cassette.json:2: the recording is corrupt: 'latency'",
    ),
    "same request": (_cassette(*[_interaction()] * (100_000 // SCALE)), "read 1000"),
    "line": (_cassette("[" + "[]," * 4_000_000 + "[]]"), "a.cassette.json:2: the recording unpacks to more than"),
    "foreign": (
        _cassette("[]," * 4_000_000 + "[]", head='{"interactions": ['),
        "a.cassette.json:1: the recording unpacks",
    ),
    "long line": (
        _cassette('"' + "x" * 70_000_000 + '"'),
        "a.cassette.json:2: the recording has more than the limit of",
    ),
    "answer": (
        _cassette(_interaction(text='{"choices": [' + "[]," * 4_000_000 + "[]]}")),
        "a.cassette.json:2: the recording unpacks",
    ),
}


@pytest.mark.parametrize("name", CASSETTES)
def test_recordings(tmp_path: Path, name: str) -> None:
    """Numbers multiply nothing, one request is looked up as fast as many, and JSON is weighed before it is read."""
    text, said = CASSETTES[name]
    (tmp_path / "a.cassette.json").write_text(text)
    n = 10**9 if name == "refusals" else 1000 if name == "same request" else 1
    request = CompletionRequest(ASKED, n, request_key(ASKED))

    def work() -> int | None:
        recording = Recording.load(tmp_path / "a.cassette.json")
        recording.has(request)
        taken = recording.lookup(request)
        return len(taken.choices) if taken else None

    assert said in read(work)


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ('- {"id": ' + "[" + "[]," * 1_500_000 + "[]]}\n", "limit of 4,000,000"),
        ("- {}\n" * 600_000, "600,000 examples, more than the limit of 500,000"),
        ("- {" + '"a": {}, ' * 3_000 + '"b": {}}\n', "more than the limit of 2,000 values"),
    ],
)
def test_lock_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: str, said: str) -> None:
    """Its examples are weighed one by one, and counted."""
    monkeypatch.setattr(lockfile, "load", partial(lockfile.load, max_nodes=2_000))
    (tmp_path / "a.lock.yaml").write_text(f"version: 1\nsuite: a\nexamples:\n{examples}")
    assert said in read(lambda: Lock.read(tmp_path / "a.lock.yaml"))


def test_results_that_are_merged(tmp_path: Path) -> None:
    """All files together have one limit, which the option raises."""
    head = '{"format": "pytest-llmtune results", "version": 1, "suites": ['
    (tmp_path / "1.json").write_text(head + "]}")
    (tmp_path / "2.json").write_text(head + "[]," * 500_000 + "[]]}")
    assert "2.json: unpacks to more than the limit of" in read(lambda: Shards.read(tmp_path, most=25_000_000))
    assert "2.json: suites[0] is [], not a mapping" in read(lambda: Shards.read(tmp_path, most=100_000_000))
