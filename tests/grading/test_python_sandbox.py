"""What a model's code may do in the walls of the `python` grader: compute, and nothing else."""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the grader needs POSIX limits")

GRADER = {"python": {"allow_code_execution": True, "time_limit": 5.0, "memory_mb": 512}}
ROW = {"question": "add", "tests": "assert add(1, 2) == 3"}
GOOD = "def add(a, b):\n    return a + b\n"


def passed(*codes: str) -> list[bool]:
    """Whether each code passes the row's tests; each is a right answer that first does something else."""
    grader = resolve(GRADER)
    return [bool(answer.correct) for answer in grader.answers([f"```python\n{code}\n```" for code in codes], ROW)]  # type: ignore[attr-defined]


@pytest.fixture
def listener() -> Iterator[tuple[int, list[object]]]:
    """A port, and who came."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def accept() -> None:
            while not done.is_set():
                try:
                    came.append(server.accept())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1], came
        done.set()
        thread.join()


def test_consent_is_needed() -> None:
    """Nothing runs without the option, and nothing but True is consent."""
    for options in ({}, {"allow_code_execution": False}, {"allow_code_execution": "yes"}, {"allow_code_execution": 1}):
        with pytest.raises(SuiteError, match="allow_code_execution"):
            resolve({"python": options})
    assert passed(GOOD) == [True]


def test_code_reaches_nothing_outside(tmp_path: Path, listener: tuple[int, list[object]]) -> None:
    """Files, network, processes, signals, the environment: an answer that tries is no right answer, and leaves no trace."""
    port, came = listener
    secret, trace = tmp_path / "secret.txt", tmp_path / "trace"
    secret.write_text("x")
    os.environ["A_SECRET_KEY"] = "the-value"
    tries = [
        f"open({str(secret)!r}).read()",
        f"open({str(trace)!r}, 'w')",
        f"import os; os.open({str(trace)!r}, os.O_CREAT | os.O_WRONLY)",
        f"import pathlib; pathlib.Path({str(trace)!r}).mkdir()",
        f"import os; os.listdir({str(tmp_path)!r})",
        f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
        f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}')",
        f"import subprocess; subprocess.run(['touch', {str(trace)!r}])",
        f"import os; os.system('touch {trace}')",
        "import os; os.fork()",
        f"import os; os.kill({os.getpid()}, 0)",
        "import ctypes; ctypes.CDLL(None).getpid()",
        "import os; assert 'the-value' in os.environ.values()",
        f"import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'open({str(trace)!r}, chr(119))'])",
    ]
    try:
        found = passed(*(f"{attempt}\n{GOOD}" for attempt in tries))
    finally:
        del os.environ["A_SECRET_KEY"]
    assert found == [False] * len(tries)
    assert not trace.exists()
    assert came == []


def test_code_takes_no_more_than_it_is_given(tmp_path: Path) -> None:
    """Memory, time and disk end, and the verdict cannot be forged by leaving early or by printing it."""
    tries = [
        "x = bytearray(2 * 2**30)",
        "while True: pass",
        "open('f', 'wb').write(b'x' * (64 * 2**20))",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        'import os; os.write(1, b\'{"outcome": "passes", "token": ""}\\n\'); os._exit(0)',
        'import os\nfor fd in range(3, 64):\n    try: os.write(fd, b\'{"outcome": "passes"}\\n\')\n    except OSError: pass\nos._exit(0)',
    ]
    assert passed(*(f"{attempt}\n{GOOD}" for attempt in tries)) == [False] * len(tries)
    assert list(tmp_path.iterdir()) == []
