"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path
from subprocess import run

import pytest

from pytest_llmtune._util.files import refuse_links, write_text
from pytest_llmtune.errors import SuiteError


def test_a_new_file_is_written_with_its_directory(tmp_path: Path) -> None:
    """Missing directories are made; nothing else is left beside the file."""
    path = tmp_path / "a" / "b" / "file.yaml"
    assert write_text(path, "één\n")
    assert path.read_bytes() == "één\n".encode()
    assert [child.name for child in path.parent.iterdir()] == ["file.yaml"]


def test_the_same_text_is_not_written_again(tmp_path: Path) -> None:
    """An unchanged file is not touched, so that a read-only checkout can be accepted too."""
    path = tmp_path / "file"
    write_text(path, "x")
    before = path.stat().st_ino
    assert not write_text(path, "x")
    assert path.stat().st_ino == before
    assert write_text(path, "y")


def test_a_windows_checkout_is_the_same_text(tmp_path: Path) -> None:
    """A file that differs by its line ends only is left alone: git would show it as changed."""
    path = tmp_path / "file"
    path.write_bytes(b"a\r\nb\r\n")
    assert not write_text(path, "a\nb\n")
    assert path.read_bytes() == b"a\r\nb\r\n"
    assert write_text(path, "a\nc\n")
    assert path.read_bytes() == b"a\nc\n"


@pytest.mark.parametrize("text", ["a\nb", "a\n", "a\nb\nc\n", "", "a\nB\n", "a\n\nb\n"])
def test_any_other_text_is_written(tmp_path: Path, text: str) -> None:
    """Shorter, longer, another letter, another end: nothing of it is taken for what the file holds."""
    path = tmp_path / "file"
    path.write_bytes(b"a\nb\n")
    assert write_text(path, text)
    assert path.read_bytes() == text.encode()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    """The umask decides, as for any file: a team can read what one member wrote."""
    code = (
        "import os, sys; from pathlib import Path; from pytest_llmtune._util.files import write_text\n"
        "os.umask(0o027); write_text(Path(sys.argv[1]), 'x')"
    )
    run([sys.executable, "-c", code, str(tmp_path / "file")], check=True)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_name_at_the_limit_can_be_written(tmp_path: Path) -> None:
    """The temporary name is short, whatever the file's own length."""
    path = tmp_path / ("x" * 255)
    assert write_text(path, "x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file size limit")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """Where the new text does not fit, the old file stays and no temporary file is left."""
    path = tmp_path / "file"
    write_text(path, "old")
    code = (
        "import resource, signal; from pathlib import Path; from pytest_llmtune._util.files import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "import sys; write_text(Path(sys.argv[1]), 'new' * 1000)"
    )
    done = run([sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_readers_see_the_old_or_the_new_text_only(tmp_path: Path) -> None:
    """While one thread rewrites a file, every read gives a whole version."""
    path = tmp_path / "file"
    versions = ["a" * 50_000, "b" * 50_000]
    write_text(path, versions[0])
    stop = threading.Event()

    def rewrite() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            write_text(path, versions[turn % 2])

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        seen = {path.read_text() for _ in range(200)}
    finally:
        stop.set()
        thread.join()
    assert seen <= set(versions)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes as files")
def test_no_pipe_and_no_way_out_is_taken_along(tmp_path: Path) -> None:
    """Whatever a mode that pays reads or writes below .llmtune/: a log of spending, a state, the cache."""
    kept = tmp_path / "project" / ".llmtune"
    (kept / "anew").mkdir(parents=True)
    (kept / "anew" / "a.txt").write_text("x")
    (kept / "inside").symlink_to(kept / "anew" / "a.txt")
    (kept / "gone").symlink_to(kept / "anew" / "b.txt")
    refuse_links([kept, tmp_path / "none"], tmp_path / "project")
    os.mkfifo(kept / "anew" / "pipe.txt")
    with pytest.raises(SuiteError, match=r"pipe\.txt is not a regular file; remove it"):
        refuse_links([kept], tmp_path / "project")
    (kept / "anew" / "pipe.txt").unlink()
    (kept / "null").symlink_to("/dev/null")
    with pytest.raises(SuiteError, match="null is a symbolic link that leads out of the project"):
        refuse_links([kept], tmp_path / "project")
