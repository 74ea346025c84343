"""A project's files under stress: two runs at once, workers, a read-only checkout, a full disk, odd paths, git on Windows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from support.llm_server import LLMServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Project

UNSHARE, GIT = (shutil.which(name) or "" for name in ("unshare", "git"))
APP = """
import pytest

def ask(client, question):
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="good", messages=messages).choices[0].message.content

@pytest.mark.parametrize("a", range(4))
def test_app(llm_client, a):
    assert ask(llm_client, f"What is {a} plus 1?")
"""


SUITE = """
import pytest

@pytest.mark.llmtune(
    dataset="data.jsonl", prompt="{q}", model="good", temperature=[0, 1], n=[1, 3], max_tokens=20, grader="numeric",
    prices={"good": {"input": 1, "output": 2}}, tune_size=12, num_samples=2, min_success_vote=0.9,
)
def test_sums(llmtune):
    llmtune.check()
"""


def added(question: str) -> str:
    return f"The answer is {sum(map(int, re.findall(r'[0-9]+', question)))}."


def pytest_command(*args: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]


def tree(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and directory: kind, time of change, content."""
    found = {}
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        found[str(path.relative_to(root))] = (
            state.st_mode,
            state.st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
    return found


def recorded_files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "llmtune").iterdir())}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LLMServer, Path]]:
    """A tuned project that each test gets a copy of, and its server."""
    path = tmp_path_factory.mktemp("template")
    with LLMServer(answer=lambda body: added(body["messages"][-1]["content"]), max_n=2) as server:
        (path / "data.jsonl").write_text(
            "".join(f'{{"q": "{a} plus {b}", "answer": "{a + b}"}}\n' for a in range(6) for b in range(5))
        )
        (path / "test_sums.py").write_text(SUITE, encoding="utf-8")
        env = os.environ | {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-test-secret-0123456789"}
        subprocess.run(pytest_command("--llm-tune"), cwd=path, env=env, check=True)
        yield server, path


@pytest.fixture
def tuned(project: Project, template: tuple[LLMServer, Path], monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the template."""
    project.server, path = template
    project.server.latency = 0
    monkeypatch.setenv("OPENAI_BASE_URL", project.server.base_url)
    shutil.copytree(path, project.pytester.path, dirs_exist_ok=True)
    return project


# runs at once


def test_a_second_run_learns_who_records(tuned: Project) -> None:
    """While one process records a suite another is refused with the first one's number; the first one's files are whole."""
    refused, before = threading.Event(), tuned.server.count

    def once_all_were_refused(body: dict[str, Any]) -> float:
        """The first request of the first run waits."""
        if tuned.server.count == before + 1:
            refused.wait(60)
        return 0

    tuned.server.latency = once_all_were_refused
    first = subprocess.Popen(
        pytest_command("--llm-record=all", "--llm-concurrency=1"),
        cwd=tuned.pytester.path,
        stdout=subprocess.PIPE,
        text=True,
    )
    with first:
        try:
            tuned.server.until(lambda: tuned.server.count > before, first)
            assert first.poll() is None
            for mode in ("--llm-record=all", "--llm-record=missing", "--llm-accept"):
                result = tuned.run(mode)
                result.assert_outcomes(failed=1)
                result.stdout.fnmatch_lines(
                    [f"*sums.cassette.json is being written by another run (process {first.pid})*"]
                )
            tuned.run().assert_outcomes(passed=1)  # replay needs no lock
            assert first.poll() is None
        finally:
            refused.set()
        said = first.communicate()[0]
    assert first.returncode == 0, said
    tuned.run().assert_outcomes(passed=1)


@pytest.mark.slow
def test_four_workers_record_and_replay_every_file_once(tuned: Project) -> None:
    """With -n 4, suites and tests write files of their own, nothing is asked twice, and the replay passes offline."""
    path = tuned.pytester.path
    lock = (path / "llmtune" / "sums.lock.yaml").read_text(encoding="utf-8")
    for number in range(2):
        text = (path / "test_sums.py").read_text(encoding="utf-8").replace("test_sums(", f"test_sums_{number}(")
        (path / f"test_sums_{number}.py").write_text(text, encoding="utf-8")
        name = f"sums_{number}"
        (path / "llmtune" / f"{name}.lock.yaml").write_text(
            lock.replace("suite: sums", f"suite: {name}"), encoding="utf-8"
        )
    (path / "test_app.py").write_text(APP, encoding="utf-8")
    before = len(tuned.server.answered)
    tuned.run("--llm-record=all", "-n", "4").assert_outcomes(passed=7)
    asked = [json.dumps(body, sort_keys=True) for body in tuned.server.answered[before:]]
    assert len(recorded_files(path)) == 3 * 2 + 4
    # three suites ask the same; what one of them had paid for, another may have taken from the cache they share
    assert {asked.count(body) for body in asked if '"n"' in body} <= {1, 2, 3}
    assert sum("plus 1?" in body for body in asked) == 4
    count = tuned.server.count
    files = recorded_files(path)
    tuned.run().assert_outcomes(passed=7)
    assert (tuned.server.count, recorded_files(path)) == (count, files)


# places that cannot be written to


def test_replay_writes_nothing(tuned: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a plain run every file and every directory is as it was, times of change included."""
    (tuned.pytester.path / "test_app.py").write_text(APP, encoding="utf-8")
    tuned.run("--llm-record=missing").assert_outcomes(passed=5)
    shutil.rmtree(tuned.pytester.path / ".llmtune")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    before = tree(tuned.pytester.path)
    done = subprocess.run(pytest_command(), cwd=tuned.pytester.path, capture_output=True, text=True, check=False)
    assert "5 passed" in done.stdout, done.stdout
    assert tree(tuned.pytester.path) == before


OWN_MOUNTS = [UNSHARE, "--user", "--map-root-user", "--mount", "sh", "-ec"]
"""A shell whose file systems nobody else sees, and which are gone when it ends."""


def on_a_small_disk(project: Path, tmp_path: Path, script: str) -> str:
    """What a script says that runs in a copy of the project, ``$disk/project``, on a file system of a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs {disk}"
    if not UNSHARE or subprocess.run([*OWN_MOUNTS, mount], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    shutil.rmtree(project / ".llmtune")
    whole = f"{mount}\ncp -r {project} {disk}/project\ncd {disk}/project\n{script}"
    env = os.environ | {"disk": str(disk), "pytest": " ".join(pytest_command()), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*OWN_MOUNTS, whole], env=env, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout
    return done.stdout


def test_a_read_only_checkout_replays(tuned: Project, tmp_path: Path) -> None:
    """As CI may have it: the replay passes; recording says in one line that it cannot write, and asks nothing."""
    count = tuned.server.count
    script = "mount -o remount,ro $disk\n$pytest\n! $pytest --llm-record=all"
    replayed, _, recorded = on_a_small_disk(tuned.pytester.path, tmp_path, script).partition("1 passed")
    assert "failed" not in replayed
    assert "cannot create a lock for" in recorded
    assert "Read-only file system" in recorded
    assert "1 failed" in recorded
    assert tuned.server.count == count


def test_a_full_disk_loses_nothing(tuned: Project, tmp_path: Path) -> None:
    """Where nothing can be written, recording fails with the reason and the old files stay; with room again it works."""
    script = """
        mkdir -p .llmtune/locks; cp -r llmtune $disk/before
        ! cat /dev/zero > $disk/filler
        ! $pytest --llm-record=all
        diff -r llmtune $disk/before; echo nothing changed
        rm $disk/filler
        $pytest --llm-record=all
        $pytest
    """
    full, _, roomy = on_a_small_disk(tuned.pytester.path, tmp_path, script).partition("nothing changed")
    assert "free disk space" in full
    assert "1 failed" in full
    assert roomy.count("1 passed") == 2


# what somebody else committed


@pytest.mark.parametrize("name", ["llmtune/sums.cassette.json", "llmtune/sums.lock.yaml", "llmtune", ".llmtune"])
def test_no_link_leads_out_of_the_project(tuned: Project, tmp_path: Path, name: str) -> None:
    """A symbolic link in a checkout reads nothing elsewhere into a message, and writes nothing there."""
    outside, path = tmp_path / "outside", tuned.pytester.path / name
    shutil.move(path, outside)
    path.symlink_to(outside)
    before = {str(file): file.read_bytes() for file in (outside, *outside.rglob("*")) if file.is_file()}
    for mode in (["--llm-record=all"], *([] if name == ".llmtune" else [[]])):
        result = tuned.run(*mode)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "is a symbolic link that leads out of the project" in result.stdout.str() + result.stderr.str()
    assert {str(file): file.read_bytes() for file in (outside, *outside.rglob("*")) if file.is_file()} == before
    shutil.move(outside, inside := tuned.pytester.path / "inside")
    path.unlink()
    path.symlink_to(inside)
    tuned.run().assert_outcomes(passed=1)


def test_nobody_pays_for_a_lock_file_outside_the_search_space(tuned: Project) -> None:
    """A lock file that asks for more than the suite allows is stale in every mode, before anything is sent."""
    path = tuned.pytester.path / "llmtune" / "sums.lock.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("max_tokens: 20", "max_tokens: 2000000"), encoding="utf-8")
    count = tuned.server.count
    for mode in ("--llm-record=all", "--llm-record=missing", "--llm-live"):
        result = tuned.run(mode)
        result.assert_outcomes(failed=1)
        assert "is outside the search space" in " ".join(result.stdout.str().split())
    assert tuned.server.count == count


# the cache


@pytest.mark.parametrize("kind", ["garbage", "foreign", "later"])
def test_a_cache_that_is_not_ours_is_set_aside_and_reported(tuned: Project, kind: str) -> None:
    """Whatever replaced the cache, the run continues with a new one, and its summary says where the old one is."""
    import sqlite3

    folder = tuned.pytester.path / ".llmtune" / "cache"
    if kind == "later":
        with (folder / "cache.db").open("r+b") as file:
            file.seek(60)
            file.write((7).to_bytes(4, "big"))
    else:
        shutil.rmtree(folder)
        folder.mkdir()
        if kind == "garbage":
            (folder / "cache.db").write_bytes(b"\x00garbage" * 999)
        else:
            with sqlite3.connect(folder / "cache.db") as database:
                database.execute("CREATE TABLE Cache (key TEXT)")
            database.close()
    result = tuned.run("--llm-record=all")
    result.assert_outcomes(passed=1)
    (aside,) = folder.parent.glob("cache.set-aside-*")
    assert f"was set aside as {aside.name}" in " ".join(result.stdout.str().split())
    said = {"garbage": "not written by", "foreign": "not written by", "later": "it has version 7"}
    assert said[kind] in " ".join(result.stdout.str().split())


# paths and names


@pytest.mark.parametrize("name", ["a b  c", "한글 ñ é ’", "x" * 200, "#100% & 'q'; (y)"])
def test_projects_in_odd_places(tuned: Project, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces, other scripts, 200 characters, characters that shells know: recorded, replayed, reported."""
    project = tuned.pytester.path / "odd" / name
    ours = shutil.ignore_patterns("odd", ".llmtune", "__pycache__")
    shutil.copytree(tuned.pytester.path, project, ignore=ours)
    (project / "pytest.ini").write_text("[pytest]\n")
    (project / "test_app.py").write_text(APP.replace("range(4)", "range(1)"), encoding="utf-8")
    monkeypatch.chdir(project)
    result = tuned.run("--llm-record=all", "--llm-report=out/report.html", "--llm-json=out/a b.json")
    result.assert_outcomes(passed=2)
    count = tuned.server.count
    tuned.run().assert_outcomes(passed=2)
    assert tuned.server.count == count
    assert sorted(path.name for path in (project / "out").iterdir()) == ["a b.json", "report.html"]
    assert (project / "llmtune" / "sums.cassette.json").read_bytes()


CLASHING = """
import pytest
from test_app import ask

class TestOne:
    def test_it(self, llm_client):
        assert ask(llm_client, "one plus 1 and 1")

class TestTwo:
    def test_it(self, llm_client):
        assert ask(llm_client, "two plus 2 and 2")

@pytest.mark.parametrize("q", ["a/b", "a_b", "A_b", "a:b", "con", "c" * 300, "가" * 100, "x.", "NUL"])
def test_each(llm_client, q):
    assert ask(llm_client, f"{q} 1 and 1")
"""


def test_no_two_tests_share_a_file_on_any_system(project: Project) -> None:
    """Methods of two classes, ids that differ in case or in what a file name cannot hold: a short, safe file for each."""
    (project.pytester.path / "test_sums.py").unlink()
    (project.pytester.path / "test_app.py").write_text(APP.partition("@pytest")[0], encoding="utf-8")
    (project.pytester.path / "test_clash.py").write_text(CLASHING, encoding="utf-8")
    project.run("--llm-record=missing").assert_outcomes(passed=11)
    names = list(recorded_files(project.pytester.path))
    assert len({name.casefold() for name in names}) == 11
    assert all(len(name.encode()) <= 160 and not set(name) & set('<>:"/\\|?* \t') for name in names)
    project.run().assert_outcomes(passed=11)


def test_suites_whose_names_differ_in_case_are_refused(project: Project) -> None:
    """Their files would be one on Windows and macOS."""
    text = (project.pytester.path / "test_sums.py").read_text(encoding="utf-8")
    (project.pytester.path / "test_more.py").write_text(text.replace("test_sums", "test_Sums"), encoding="utf-8")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "the suite 'sums' is also declared at" in result.stdout.str() + result.stderr.str()


# git on Windows

YAML = """
name: table
dataset: table.csv
prompt: |
  What is {question}?
  Give a number.
model: [good, bad]
temperature: 0
n: 1
max_tokens: 20
grader: numeric
prices: {good: {input: 1, output: 2}, bad: {input: 1, output: 2}}
tune_size: 4
num_samples: 2
"""


def git(project: Path, *args: str) -> str:
    settings = ["-c", "user.name=x", "-c", "user.email=x@y", "-c", "core.autocrlf=true", "-c", "core.safecrlf=false"]
    return subprocess.run(
        [GIT, *settings, *args], cwd=project, check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout


@pytest.mark.skipif(not GIT, reason="needs git")
def test_a_checkout_with_crlf_is_the_same_project(project: Project) -> None:
    """With core.autocrlf nothing is stale, cells of several lines included, and recording anew shows no change to git."""
    path = project.pytester.path
    rows = "".join(f'"{a}\nplus 1",{a + 1}\n' for a in range(9))
    (path / "table.csv").write_text("question,answer\n" + rows, encoding="utf-8", newline="")
    (path / "table.llmtune.yaml").write_text(YAML, encoding="utf-8", newline="")
    project.run("--llm-tune").assert_outcomes(passed=2)
    (path / ".gitignore").write_text(".llmtune/\n__pycache__/\n", newline="")
    git(path, "init", "-q")
    git(path, "add", ".")
    git(path, "commit", "-qm", "all")
    for name in git(path, "ls-files").split():
        (path / name).unlink()
    git(path, "checkout", "-q", ".")
    for name in (
        "table.csv",
        "table.llmtune.yaml",
        "llmtune/table.lock.yaml",
        "llmtune/table.cassette.json",
        "data.jsonl",
    ):
        assert (path / name).read_bytes().count(b"\r\n") > 2
    project.run().assert_outcomes(passed=2)
    count = project.server.count
    for mode in ("--llm-accept", "--llm-record=missing"):
        project.run(mode).assert_outcomes(passed=2)
        assert git(path, "status", "--porcelain") == ""
    assert project.server.count == count


# names and kinds of files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize(
    "name", ["llmtune/sums.lock.yaml", "llmtune/sums.cassette.json", "data.jsonl", "a.llmtune.yaml", ".env"]
)
def test_a_pipe_is_not_waited_for(tuned: Project, name: str) -> None:
    """A pipe in the place of a file: one error, at once; nothing is read from it."""
    path = tuned.pytester.path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    result = tuned.pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=60)
    if name in (".env", "a.llmtune.yaml"):  # no mode that needs no key reads it; pytest collects files only
        assert result.ret == pytest.ExitCode.OK
        return
    assert result.ret not in (pytest.ExitCode.OK, pytest.ExitCode.INTERNAL_ERROR)
    said = " ".join((result.stdout.str() + result.stderr.str()).split())
    assert "not a regular file" in said or "no file" in said


@pytest.mark.parametrize(
    "name", ["a\n::warning::owned\x1b[31m.llmtune.yaml", "d\n::error::owned/a.llmtune.yaml", "a\u202e.llmtune.yaml"]
)
def test_names_that_terminals_and_ci_systems_obey(project: Project, name: str) -> None:
    """A suite's file whose name holds a line end, an escape or a mark of direction is refused, with the name escaped."""
    path = project.pytester.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("dataset: data.jsonl\n", encoding="utf-8")
    result = project.run("--junitxml=junit.xml")
    assert result.ret not in (pytest.ExitCode.OK, pytest.ExitCode.INTERNAL_ERROR)
    junit = (project.pytester.path / "junit.xml").read_text(encoding="utf-8")
    ElementTree.fromstring(junit)  # noqa: S314 - pytest wrote it
    said = result.stdout.str() + result.stderr.str() + junit
    assert "contains control characters; rename it" in " ".join(said.split())
    assert not any(line.startswith("::") for line in said.splitlines())
    assert "\x1b[31m" not in said
    assert "\u202e" not in said


@pytest.mark.parametrize("place", ["key", "model of the lock file"])
def test_texts_of_files_that_terminals_and_ci_systems_obey(
    tuned: Project, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a message quotes of a suite or of a lock file is escaped in it."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    text = json.dumps("x\x1b[31m\n::error::owned\u202e")
    if place == "key":
        (tuned.pytester.path / "new.llmtune.yaml").write_text(f"dataset: data.jsonl\n{text}: 1\n", encoding="utf-8")
    else:
        [path] = (tuned.pytester.path / "llmtune").glob("*.lock.yaml")
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text(
            "".join(re.sub(r"^  model: .*", lambda _: f"  model: {text}", line) for line in lines), encoding="utf-8"
        )
    result = tuned.run("--junitxml=junit.xml")
    junit = (tuned.pytester.path / "junit.xml").read_text(encoding="utf-8")
    said = result.stdout.str() + result.stderr.str() + junit
    assert "owned" in said
    assert not any(line.lstrip().startswith("::error::owned") for line in said.splitlines())
    assert "\x1b[31m" not in said
    assert "\u202e" not in said


def test_data_whose_name_is_obeyed(project: Project) -> None:
    """Also a file that a glob finds."""
    (project.pytester.path / "data\n::error::owned.jsonl").write_text("{}", encoding="utf-8")
    suite = project.pytester.path / "test_sums.py"
    suite.write_text(suite.read_text(encoding="utf-8").replace('"data.jsonl"', '"data*.jsonl"'), encoding="utf-8")
    result = project.run()
    said = result.stdout.str() + result.stderr.str()
    assert "contains control characters; rename the file" in said
    assert not any(line.startswith("::") for line in said.splitlines())


@pytest.mark.parametrize("mode", ["--llm-tune", "--llm-record=all"])
def test_nothing_is_paid_for_that_could_not_be_kept(tuned: Project, mode: str) -> None:
    """Where the directory of lock file and recording cannot be written to, no request is sent."""
    ours = tuned.pytester.path / "llmtune"
    kept = ours.rename(tuned.pytester.path / "kept")
    ours.write_text("a file stands here")
    before = tuned.server.count
    tuned.run(mode).assert_outcomes(failed=1)
    assert tuned.server.count == before
    ours.unlink()
    ours.symlink_to("/proc/self/fd" if mode == "--llm-tune" else kept)
    if mode == "--llm-tune":
        assert tuned.run(mode).ret == pytest.ExitCode.USAGE_ERROR
        assert tuned.server.count == before


def test_a_union_merge_is_a_conflict(tuned: Project) -> None:
    """Two lines that answer one request differently are told; the same line twice is no matter; recording mends it."""
    path = tuned.pytester.path / "llmtune" / "sums.cassette.json"
    head, *lines, tail = path.read_text(encoding="utf-8").splitlines()
    lines = [line.rstrip(",") for line in lines]
    good = next(number for number, line in enumerate(lines) if "The answer is" in line)
    other = lines[good].replace("The answer is", "The answer was")

    def write(*merged: str) -> None:
        path.write_text("\n".join([head, ",\n".join(merged), tail, ""]), encoding="utf-8")

    write(*lines, lines[good])
    tuned.run().assert_outcomes(passed=1)
    write(*lines, other)
    result = tuned.run()
    result.assert_outcomes(failed=1)
    said = " ".join(result.stdout.str().split())
    assert f"line {good + 2} and line {len(lines) + 2} answer the same request differently" in said
    tuned.run("--llm-record=missing").assert_outcomes(passed=1)
    tuned.run().assert_outcomes(passed=1)


def test_damaged_settings_of_the_cache_are_set_aside(tuned: Project) -> None:
    """Also where a letter of a name is no letter any more."""
    file = tuned.pytester.path / ".llmtune" / "cache" / "cache.db"
    content = file.read_bytes()
    assert b"disk_min_file_size" in content
    file.write_bytes(content.replace(b"disk_min_file_size", b"disk_m\xffn_file_size"))
    result = tuned.run("--llm-record=all")
    result.assert_outcomes(passed=1)
    assert len(list(file.parent.parent.glob("cache.set-aside-*"))) == 1
