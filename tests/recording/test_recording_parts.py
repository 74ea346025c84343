"""A recording past its size: numbered parts, each a cassette; what changes about one example changes one file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import vcr
from support.exchanges import body_of, exchange
from vcr.persisters.filesystem import FilesystemPersister
from vcr.serializers import jsonserializer

from pytest_llmtune._util.jsonhash import build
from pytest_llmtune.capture.session import Replay
from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording import Recording
from pytest_llmtune.recording import format as cassette_file
from pytest_llmtune.recording.housekeeping import orphans
from pytest_llmtune.recording.storage import Layout, Stored, files_of, pack
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

SMALL = Layout(part_bytes=20_000)
PACKED = Layout(part_bytes=20_000, compressed=True)
ROWS = 200


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llmtune" / "algebra.cassette.json"


def write(path: Path, rows: int = ROWS, layout: Layout = SMALL, changed: Mapping[int, str] | None = None) -> bool:
    """Record so many questions; some with another answer."""
    answers = {number: f"answer {number}" for number in range(rows)} | dict(changed or {})
    exchanges = [exchange(f"question {number}", answer) for number, answer in answers.items()]
    return Recording.write(path, exchanges, Redactor.from_environment(environ={}), layout)


def said(recording: Recording, number: int) -> str | None:
    """The recorded answer to one question."""
    completion = recording.lookup(build(body_of(f"question {number}"), 1))
    return None if completion is None else completion.choices[0].text


def contents(path: Path) -> dict[str, bytes]:
    """Every file beside a recording."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def changes(path: Path, before: Mapping[str, bytes]) -> list[str]:
    """The files whose content is another than before, or that came or went."""
    after = contents(path)
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


@pytest.mark.parametrize("layout", [SMALL, PACKED], ids=["plain", "compressed"])
def test_every_answer_is_found_in_parts(path: Path, layout: Layout) -> None:
    """A large recording has parts of about the size asked for, and takes answers as a small one does."""
    assert write(path, layout=layout)
    assert not write(path, layout=layout)
    files = files_of(path)
    assert len(files) == 8
    assert not path.exists()
    recording = Recording.load(path)
    assert [said(recording, number) for number in range(ROWS)] == [f"answer {number}" for number in range(ROWS)]
    assert (len(recording.interactions), recording.unused_count) == (ROWS, 0)
    assert said(recording, ROWS) is None


def test_the_same_rows_give_the_same_files_whatever_their_order(path: Path, tmp_path: Path) -> None:
    """Parts depend on content alone, so that two people who record the same write the same."""
    write(path)
    other = tmp_path / "other" / path.name
    Recording.write(other, [exchange(f"question {n}", f"answer {n}") for n in reversed(range(ROWS))], layout=SMALL)
    assert contents(path) == contents(other)


@pytest.mark.parametrize("layout", [SMALL, PACKED], ids=["plain", "compressed"])
def test_a_change_of_one_example_changes_one_part(path: Path, layout: Layout) -> None:
    """Another answer, a row more and a row less each touch one file; the others keep their bytes."""
    write(path, layout=layout)
    for change in ({"changed": {17: "another answer"}}, {"rows": ROWS + 1}, {"rows": ROWS}):
        before = contents(path)
        write(path, layout=layout, **change)  # type: ignore[arg-type]
        assert len(changes(path, before)) == (2 if change == {"rows": ROWS + 1} else 1), change


def test_each_part_is_a_cassette_of_stock_vcrpy(path: Path) -> None:
    """vcrpy's own reader takes every part, and together they hold every request once."""
    write(path)
    requests = []
    for file in files_of(path):
        found, responses = FilesystemPersister.load_cassette(file, jsonserializer)
        assert len(found) == len(responses)
        requests += [json.loads(request.body)["messages"][0]["content"] for request in found]
        vcr.use_cassette(str(file), serializer="json", record_mode="none")
    assert sorted(requests) == sorted(f"question {number}" for number in range(ROWS))


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the command zstd is not installed")
def test_a_compressed_part_is_read_by_one_command(path: Path) -> None:
    """``zstd -dc FILE`` prints the cassette."""
    write(path, layout=PACKED)
    shown = subprocess.run(["zstd", "-dc", str(files_of(path)[0])], check=True, capture_output=True).stdout  # noqa: S607
    assert json.loads(shown)["version"] == 1


def test_parts_come_and_go_with_the_size(path: Path) -> None:
    """It becomes one file again where a quarter of the parts would do, and no old file stays."""
    write(path)
    write(path, rows=110)
    assert len(files_of(path)) == 8  # moving all to save a file or two does not pay
    write(path, rows=20)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    write(path, layout=PACKED)
    assert {file.suffix for file in path.parent.iterdir()} == {".zst"}


def test_a_run_killed_while_the_layout_changes_leaves_a_whole_recording(path: Path) -> None:
    """Until the last of the new parts is there the old files are in force; from then on the new ones are."""
    write(path, rows=20)
    old = path.read_bytes()
    write(path, changed={3: "new"})
    *most, last = files_of(path)
    kept, content = path.parent / "kept", last.read_bytes()
    path.write_bytes(old)
    last.rename(kept)
    assert files_of(path) == (path,)
    assert said(Recording.load(path), 3) == "answer 3"
    last.write_bytes(content)
    assert files_of(path) == (*most, last)
    assert said(Recording.load(path), 3) == "new"
    write(path)
    assert not path.exists()


def test_a_missing_part_is_named(path: Path) -> None:
    """A part that was not committed is an error, and no recording with holes."""
    write(path)
    files_of(path)[2].unlink()
    with pytest.raises(
        RecordingError, match=r"algebra.*of 8 parts of the recording 1 are missing, the first is number 3"
    ):
        Recording.load(path)


def test_a_large_recording_stays_on_disk(path: Path) -> None:
    """What is replayed is read from its file then; a file that was changed meanwhile is an error."""
    write(path)
    recording = Recording.load(path)
    assert isinstance(recording.interactions, Stored)
    assert said(recording, 5) == "answer 5"
    write(path, changed=dict.fromkeys(range(ROWS), "rewritten"))
    with pytest.raises(RecordingError, match=r"was changed while it was replayed; run again"):
        said(recording, 6)


@pytest.mark.parametrize("spoil", [b"", b"no zstd", b"\x28\xb5\x2f\xfd", "cut"])
def test_a_damaged_part_is_one_clear_error(path: Path, spoil: bytes | str) -> None:
    """A compressed part that is none, or was cut, is named."""
    write(path, layout=PACKED)
    part = files_of(path)[1]
    part.write_bytes(part.read_bytes()[:-20] if isinstance(spoil, str) else spoil)
    with pytest.raises(RecordingError, match=r"2-of-8\.cassette\.json\.zst"):
        Recording.load(path)


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for what comes out."""
    monkeypatch.setattr("pytest_llmtune.recording.storage.MAX_BYTES", 1_000_000)
    write(path, layout=PACKED)
    files_of(path)[0].write_bytes(pack(b" " * 50_000_000))
    with pytest.raises(RecordingError, match=r"unpacks to more than the limit of 1,000,000 bytes"):
        Recording.load(path)


def test_small_parts_do_not_fill_the_disk_together(tmp_path: Path) -> None:
    """A part that unpacks to more than a thousand times its size is refused, long before the limit of a single file."""
    packed = pack(b'{"version": 1, "interactions": [\n' + b" " * 20_000_000)
    assert len(packed) < 5_000
    path = tmp_path / "suite.cassette.json"
    (tmp_path / "suite.1-of-2.cassette.json.zst").write_bytes(packed)
    (tmp_path / "suite.2-of-2.cassette.json.zst").write_bytes(packed)
    with pytest.raises(RecordingError, match=f"unpacks to more than the limit of {1000 * len(packed):,} bytes"):
        Recording.load(path)


def test_a_secret_in_any_part_leaves_all_as_they_were(path: Path) -> None:
    """Nothing is written before every part has been looked at."""
    write(path)
    before = contents(path)
    key = "sk-proj-" + "Ab3dE6gH9jKl2nOp5rSt8vWx" * 2
    leaky = Redactor.from_environment(environ={"OPENAI_API_KEY": key}, hooks=(lambda text: text.replace("spill", key),))
    with pytest.raises(RecordingError, match="was not written"):
        Recording.write(path, [exchange(f"question {n}", "spill" * (n == 9)) for n in range(ROWS)], leaky, SMALL)
    assert contents(path) == before


def test_parts_of_a_recording_in_use_are_no_orphans(path: Path, tmp_path: Path) -> None:
    """Parts go with their recording: kept with it, found with it when its suite is gone."""
    write(path, layout=PACKED)
    assert orphans(tmp_path, [path]) == []
    assert len(orphans(tmp_path, [])) == 8


def test_calls_of_an_app_are_played_from_parts(path: Path) -> None:
    """A test's own recording may grow large as well; removed calls leave no part behind."""
    write(path, rows=100)
    with Replay(path, Mode.REPLAY, "pytest", Redactor.from_environment(environ={})) as replay:
        assert len(replay.unused) == 100
    with Replay(path, Mode.RECORD_MISSING, "pytest", Redactor.from_environment(environ={}), layout=SMALL):
        pass
    assert list(path.parent.iterdir() if path.parent.exists() else []) == []


WRITER = """
import sys
from pathlib import Path
from pytest_llmtune.recording.storage import Layout
from pytest_llmtune.recording import Recording
from pytest_llmtune.redaction.redactor import Redactor
sys.path.insert(0, sys.argv[2])
from support.exchanges import exchange

for turn in range(10_000):
    print(turn, flush=True)
    rows = [exchange(f"question {n}", f"answer {n} of {turn}") for n in range(60)]
    Recording.write(Path(sys.argv[1]), rows, Redactor.from_environment(environ={}), Layout((2_000, 8_000, 10**6)[turn % 3]))
"""


def test_a_writer_killed_at_any_moment_leaves_every_answer(path: Path) -> None:
    """While the number of parts changes again and again, a kill never leaves less than a whole recording."""
    tests = Path(__file__).parents[1]
    Recording.write(path, [exchange(f"question {n}", f"answer {n} of -1") for n in range(60)])
    for turns in (1, 2, 4, 9, 14):
        command = [sys.executable, "-c", WRITER, str(path), str(tests)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": _package()}) as writer:
            assert writer.stdout is not None
            for _ in range(turns):  # the kill meets the write that follows
                writer.stdout.readline()
            writer.kill()
        recording = Recording.load(path)
        found = [said(recording, number) for number in range(60)]
        assert all(answer and answer.startswith(f"answer {number} of") for number, answer in enumerate(found))


def _package() -> str:
    """Where this package is imported from."""
    return str(Path(cassette_file.__file__).parents[2])
