"""What Windows and macOS lack, taken away here: the package is imported, opens and locks files, and stops processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmtune.grading.code import runner
from pytest_llmtune.grading.workers import loop

resource: Any = pytest.importorskip("resource")

LIMITS = {"memory": 1, "seconds": 1, "disk": 1, "processes": 1}
AS_ON_WINDOWS = r"""
import asyncio, concurrent.futures, email, http.client, importlib, json, multiprocessing, os, pathlib, pkgutil, shutil, signal, socket
import sqlite3, ssl, subprocess, sys, tempfile, types, urllib.request, zipfile

sys.path[:] = json.loads(sys.argv[1])
import httpx, openai, pytest, yaml

for module, names in (
    (os, "killpg getuid getgid geteuid getegid setsid fork mkfifo sched_getaffinity O_NOFOLLOW O_NONBLOCK O_DIRECTORY unshare"),
    (signal, "SIGALRM SIGPROF setitimer alarm"),
    (socket, "AF_UNIX AF_NETLINK"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"):
    sys.modules[name] = None
locked = []
sys.modules["msvcrt"] = types.SimpleNamespace(locking=lambda *given: locked.append(given), LK_NBLCK=2)
sys.platform = "win32"

import pytest_llmtune

for module in pkgutil.walk_packages(pytest_llmtune.__path__, "pytest_llmtune."):
    if ".cluster" not in module.name and ".workers." not in module.name:
        importlib.import_module(module.name)

from pytest_llmtune._util.files import lock_file, open_append, open_regular
from pytest_llmtune.grading.code import _Process
from pytest_llmtune.grading.workers import workers_each
from pytest_llmtune.data.readers import _memory_limited

path = pathlib.Path(sys.argv[2])
with open_append(path / "lock") as file:
    assert lock_file(file) and locked
with open_regular(path / "lock") as file:
    assert file.read() == b""
with _memory_limited(1):
    pass
assert workers_each(4) >= 1
process = _Process([sys.executable, "-c", "input()"], str(path))
process.end()
assert process.end() != 0
print("fine")
"""


def test_as_on_windows(tmp_path: Path) -> None:
    """No fcntl, resource, process groups, O_NOFOLLOW or Unix sockets."""
    done = subprocess.run(
        [sys.executable, "-c", AS_ON_WINDOWS, json.dumps([str(Path(__file__).parents[1]), *sys.path]), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.parametrize("job", [loop, runner])
def test_as_on_macos(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of memory is there, but cannot be set."""

    def refused(*_: Any) -> None:
        raise ValueError("current limit exceeds maximum limit")

    fake = SimpleNamespace(**{**vars(resource), "setrlimit": refused})
    monkeypatch.setitem(sys.modules, "resource", fake)
    limit = loop._limit_memory if job is loop else lambda: runner._limit(LIMITS)
    with pytest.raises(ValueError, match="current limit"):
        limit()
    monkeypatch.setattr(sys, "platform", "darwin")
    limit()
