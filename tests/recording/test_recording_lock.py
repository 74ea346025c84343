"""One writer for each file, among threads and processes; and the files of suites that are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_llmtune._util.files import exclusive
from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording.housekeeping import orphans, remove

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from pathlib import Path
from pytest_llmtune._util.files import exclusive
with exclusive(Path(sys.argv[1]), Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    return tmp_path / ".llmtune" / "locks"


def test_another_process_learns_who_holds_it(tmp_path: Path, locks: Path) -> None:
    """The message names file and process; when that process is killed, the lock is free at once."""
    path = tmp_path / "a.cassette.json"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(locks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(
                RecordingError, match=rf"a\.cassette\.json is being written .*\(process {holder.pid}\); wait"
            ),
            exclusive(path, locks),
        ):
            pytest.fail("two writers")
        with exclusive(tmp_path / "b.cassette.json", locks):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    with exclusive(path, locks):
        pass


def test_the_lock_is_given_back_after_an_error(tmp_path: Path, locks: Path) -> None:
    """Left by an exception or not, and by whatever spelling of the path."""
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "a", locks):
        raise ZeroDivisionError
    with exclusive(tmp_path / "x" / ".." / "a", locks), pytest.raises(RecordingError), exclusive(tmp_path / "a", locks):
        pytest.fail("two writers")


def test_a_directory_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    """A file stands where the locks should be."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RecordingError, match=r"cannot create a lock for .* in"),
        exclusive(tmp_path / "a", tmp_path / "file"),
    ):
        pytest.fail("no lock")


def test_files_of_suites_that_are_gone_are_found(tmp_path: Path) -> None:
    """Lock files and recordings in ``llmtune`` directories that no suite uses; nothing else."""
    names = [
        "tests/llmtune/used.lock.yaml",
        "tests/llmtune/used.cassette.json",
        "tests/llmtune/gone.lock.yaml",
        "tests/llmtune/gone.cassette.json",
        "tests/deep/er/llmtune/gone.lock.yaml",
        "tests/llmtune/notes.md",
        "tests/llmtune/data.json",
        "tests/other/gone.cassette.json",
        ".llmtune/llmtune/x.lock.yaml",
        "node_modules/llmtune/x.lock.yaml",
        "venv/llmtune/x.lock.yaml",
        "venv/pyvenv.cfg",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    in_use = [
        tmp_path / "tests" / "x" / ".." / "llmtune" / f"used.{suffix}" for suffix in ("lock.yaml", "cassette.json")
    ]
    found = orphans(tmp_path, in_use)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "tests/deep/er/llmtune/gone.lock.yaml",
        "tests/llmtune/gone.cassette.json",
        "tests/llmtune/gone.lock.yaml",
    ]
    remove(found)
    assert orphans(tmp_path, in_use) == []
    assert (tmp_path / "tests" / "llmtune" / "notes.md").exists()
    assert not (tmp_path / "tests" / "deep" / "er" / "llmtune").exists()
    remove(found)


def test_what_cannot_be_removed_is_one_clear_error(tmp_path: Path) -> None:
    """A directory named like a recording."""
    odd = tmp_path / "llmtune" / "x.cassette.json"
    odd.mkdir(parents=True)
    with pytest.raises(RecordingError, match="cannot be removed"):
        remove([odd])
