"""Files are written whole or not at all, and only regular ones are opened."""

from __future__ import annotations

import ast
import os
import re
import signal
import stat
import sys
import threading
from decimal import Decimal
from pathlib import Path
from subprocess import run
from typing import TYPE_CHECKING, Any

import pytest

import pytest_llmtune
from pytest_llmtune._util.files import exclusive, refuse_links, write_text
from pytest_llmtune.completions.batch_api import BatchNotes
from pytest_llmtune.completions.cache import Cache
from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.data.dataset import load
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.guard import results_file
from pytest_llmtune.guard.lockfile import Lock
from pytest_llmtune.guard.shards import Shards
from pytest_llmtune.money.spend_log import SpendLog
from pytest_llmtune.recording import Recording
from pytest_llmtune.recording.housekeeping import RerecordSession
from pytest_llmtune.redaction.keys import KeySources
from pytest_llmtune.suite.yaml import declared_suites
from pytest_llmtune.tuning.journal import StudyLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


# what stands where a file should


def _locked(path: Path) -> None:
    """The lock file's name is a hash of the path that it is for."""
    stands = next(path.parent.iterdir())
    with exclusive(path.parent / "any", path.parent / "locks"):
        (path.parent / "locks").rename(path.parent / "made")
    (name,) = [each.name for each in (path.parent / "made").iterdir()]
    (path.parent / "locks").mkdir()
    stands.rename(path.parent / "locks" / name)
    with exclusive(path.parent / "any", path.parent / "locks"):
        pass


def _anew(path: Path) -> None:
    session = RerecordSession.of(path.parent / "a.cassette.json", path.parent)
    session.file.parent.mkdir(parents=True)
    path.rename(session.file)
    session.begin()


READ: dict[str, Callable[[Path], Any]] = {
    "a.lock.yaml": Lock.read,
    "a.cassette.json": Recording.load,
    "a.1-of-1.cassette.json": lambda path: Recording.load(path.with_name("a.cassette.json")),
    "a.1-of-1.cassette.json.zst": lambda path: Recording.load(path.with_name("a.cassette.json")),
    "a.llmtune.yaml": lambda path: declared_suites(path, root=path.parent, allow_code=()),
    **{
        f"a.{ending}": lambda path: load(path.name, base_dir=path.parent, root=path.parent)
        for ending in ("jsonl", "json", "csv", "tsv", "yaml", "parquet", "jsonl.gz", "zip")
    },
    "endpoints.json": lambda path: endpoints_of(path.name, root=path.parent, environ={}),
    "endpoints.yaml": lambda path: endpoints_of(path.name, root=path.parent, environ={}),
    "key_openai.txt": lambda path: endpoints_of(".", root=path.parent, environ={}),
    ".env": lambda path: KeySources.of(path.parent, {}),
    "results.json": results_file.read,
    "shard.json": lambda path: Shards.read(path.parent),
}
OWN: dict[str, Callable[[Path], Any]] = {
    "study.jsonl": lambda path: StudyLog.open(path, "study").note("key", 0, Decimal(1)),
    "peeked.jsonl": lambda path: StudyLog.peek(path, "study"),
    "1-a.log": lambda path: SpendLog(path.parent).earlier(),
    "batch.json": lambda path: BatchNotes(path.parent).holding(["id"]),
    "anew.txt": _anew,
    "run.lock": _locked,
    "cache.db": lambda path: Cache(path.parent).get("key"),
    "cache.db-wal": lambda path: Cache(path.parent).get("key"),
    "cache.db-journal": lambda path: Cache(path.parent).get("key"),
}
"""Below .llmtune/, where only this package writes."""


@pytest.fixture
def at_once() -> Iterator[None]:
    """Whoever waits for a pipe is interrupted."""

    def late(*_: object) -> None:
        raise TimeoutError("it waits")  # an OSError, told as a reason

    signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes and devices as files")
@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "link"])
@pytest.mark.parametrize("name", [*READ, *OWN])
@pytest.mark.usefixtures("at_once")
def test_only_regular_files_are_opened(tmp_path: Path, name: str, kind: str) -> None:
    """In the place of every kind of file that is read: our own error at once, and nothing outside is read or changed."""
    outside = tmp_path / "outside"
    outside.write_text('{"study": "study"}\n"SECRET\n')
    path = tmp_path / "project" / name
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else outside)
    said = ""
    try:
        (READ | OWN)[name](path)
    except LLMTuneError as error:
        said = str(error)
    assert "it waits" not in said
    assert "SECRET" not in said
    assert outside.read_text() == '{"study": "study"}\n"SECRET\n'
    assert said or name in (".env", "1-a.log", "batch.json", "key_openai.txt", "shard.json") or (kind, name) in TAKEN


TAKEN = {("directory", "peeked.jsonl")}


OPENED_ELSEWHERE = {
    "capture/isolation.py": {"Path.write_text"},  # /proc
    "capture/traffic.py": {"Path.read_text"},  # /proc
    "completions/cache.py": {"sqlite3.connect"},  # after the file, and those beside it, were opened by open_regular
    "completions/disk.py": {"sqlite3.connect"},  # likewise
    "data/readers.py": {
        "Path.read_text",
        "stack.enter_context.open",
        "gzip.open",
        "zipfile.ZipFile",
    },  # /proc; what was opened by open_regular
    "demo/__init__.py": {"files.joinpath.read_text"},  # of the package
    "grading/code/runner.py": {"os.open"},  # /dev/null
    "guard/results_schema.py": {"PATH.write_text"},  # run by developers
    "money/ledger.py": {"sqlite3.connect"},  # in a directory of this run, whose name nobody knows
    "plugin/init/__init__.py": {"path.open", "file.read_bytes", ".write_bytes"},  # new files; of the package
    "plugin/session.py": {"os.fdopen"},  # a copy of standard output
    "recording/storage.py": {"zstd.open"},  # what was opened by open_regular
    "redaction/patterns.py": {"Path.with_name.read_text"},  # of the package
    "report/ci.py": {"path.open"},  # $GITHUB_STEP_SUMMARY
    "report/html/__init__.py": {".read_text"},  # of the package
    "suite/schema.py": {"PATH.write_text"},  # run by developers
    "suite/signature.py": {"PATH.write_text"},
    "workflow/search.py": {"StudyLog.open"},
}


def _called(node: ast.expr) -> str:
    """``Path(x).open`` is ``Path.open``; what is neither a name nor a call is left out."""
    if isinstance(node, ast.Call):
        return _called(node.func)
    if isinstance(node, ast.Attribute):
        return f"{_called(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_files_are_opened_in_one_place() -> None:
    """By the functions of _util/files.py; whatever else opens something is listed above, with the reason."""
    opening = re.compile(r"open|.*(fdopen|\.open|\.(?:read|write)_(?:text|bytes)|sqlite3\.connect|ZipFile)")
    root, found = Path(pytest_llmtune.__file__).parent, {}
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root).as_posix()
        if place == "_util/files.py" or place.startswith("demo/project/"):
            continue
        calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
        named = {(_called(call.func), bool(call.args or call.keywords)) for call in calls}
        # a file's .open() is given a mode; .open() of something else is not
        if names := {
            name for name, given in named if opening.fullmatch(name) and (given or not name.endswith(".open"))
        }:
            found[place] = names
    assert found == OPENED_ELSEWHERE
