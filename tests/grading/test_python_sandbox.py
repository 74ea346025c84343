"""Attacks on the sandbox of the `python` grader: an answer computes, and reaches nothing."""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import cautions_of, check, resolve
from pytest_llmtune.grading.code import sandbox as sandboxes
from pytest_llmtune.types import Example

if TYPE_CHECKING:
    from collections.abc import Iterator

ISOLATION = os.environ.get("LLMTUNE_ISOLATION")
"""To attack a container: ``LLMTUNE_ISOLATION=podman:IMAGE pytest tests/grading/test_python_sandbox.py``."""
IN_A_CONTAINER = ISOLATION is not None
GRADER = {"python": {"allow_code_execution": True, "time_limit": 5.0, "memory_mb": 512}}
ROW = {"question": "add", "tests": "assert add(1, 2) == 3"}
EXAMPLES = [Example("1", 0, ROW)]
GOOD = "def add(a, b):\n    return a + b\n"
LIBC = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"


def _refusal() -> str:
    try:
        sandboxes.sandbox_for(ISOLATION)
    except SuiteError as error:
        return str(error)
    return ""


sandboxed = pytest.mark.skipif(bool(_refusal()), reason=f"no sandbox here: {_refusal()}")


def passed(*codes: str, **options: object) -> list[bool]:
    """Whether each code passes the row's tests; each is a right answer that first does something else."""
    grader = resolve({"python": {**GRADER["python"], "isolation": ISOLATION, **options}})
    return [bool(answer.correct) for answer in grader.answers([f"```python\n{code}\n```" for code in codes], ROW)]  # type: ignore[attr-defined]


def outcome(code: str, **options: object) -> str:
    """What came of one answer."""
    grader = resolve({"python": {**GRADER["python"], "isolation": ISOLATION, **options}})
    return grader.answers([f"```python\n{code}\n{GOOD}```"], ROW)[0].text  # type: ignore[attr-defined]


def named(what: str) -> str:
    """Code by which an answer gives its process a name that is seen from outside."""
    return f"{LIBC}libc.prctl(15, b'{what}-{os.getpid()}', 0, 0, 0)\n"


def processes_named(what: str) -> list[Path]:
    """The processes of this machine with such a name."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (path / "comm").read_text() == f"{what}-{os.getpid()}\n":
                found.append(path)
    return found


@pytest.fixture
def listener() -> Iterator[tuple[int, str, list[object]]]:
    """A port, the name of an abstract socket, and who came."""
    came: list[object] = []
    name = f"\0llmtune-{os.getpid()}"
    done = threading.Event()

    def accept(server: socket.socket) -> None:
        while not done.is_set():
            try:
                came.append(server.accept())
            except TimeoutError:
                continue

    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(name)
        local.listen()
        threads = [threading.Thread(target=accept, args=(each,)) for each in (server, local)]
        for each, thread in zip((server, local), threads, strict=True):
            each.settimeout(0.1)
            thread.start()
        yield server.getsockname()[1], name, came
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("entry_point", ["", "add"])
@pytest.mark.parametrize(
    "tests",
    [
        "assert True",
        "assert 1 == 1",
        "assert 'add'",
        "if False: assert add(1, 2) == 3",
        "if 0:\n    raise ValueError",
        "while False: add()",
    ],
)
def test_tests_that_cannot_fail_are_refused(tests: str, entry_point: str) -> None:
    grader = resolve({"python": {"allow_code_execution": True}})
    for text in (tests, "def check(add):\n    " + tests.replace("\n", "\n    ")):
        with pytest.raises(SuiteError, match="assert nothing"):
            grader.reference({"tests": text, "entry_point": entry_point})
    for text in (
        f"{tests}\nassert add(1, 2) == 3",
        "if True: assert add(1, 2) == 3",
        "if False: pass\nelse: assert add(1, 2) == 3",
    ):
        assert grader.reference({"tests": text, "entry_point": entry_point}) == text


@pytest.mark.parametrize(
    "tests",
    ["def check(f):\n    assert f(1) == 1", "def test_it():\n    assert add(1, 2) == 3", "check = lambda: add(1, 2) == 3",
     "class T:\n    def test(self):\n        assert add(1, 2) == 3"],
)  # fmt: skip
def test_tests_that_nothing_calls_are_refused(tests: str) -> None:
    grader = resolve({"python": {"allow_code_execution": True}})
    with pytest.raises(SuiteError, match="assert nothing"):
        grader.reference({"tests": tests})
    for called in (f"{tests}\nassert add(1, 2) == 3", f"class U:\n    assert add(1, 2) == 3\n{tests}"):
        assert grader.reference({"tests": called}) == called


@sandboxed
@pytest.mark.parametrize(
    "trick",
    [
        "import builtins\nbuiltins.compile = lambda *a, **k: (lambda: 0).__code__",
        "import builtins\nbuiltins.exec = lambda *a, **k: None",
        "import sys\nframe = sys._getframe()\nwhile frame:\n    if 'request' in frame.f_locals:\n"
        "        frame.f_locals['request']['tests'] = ''\n    frame = frame.f_back",
    ],
)
def test_code_does_not_replace_its_tests(trick: str) -> None:
    assert passed(f"{trick}\ndef add(a, b):\n    return 0\n") == [False]


@sandboxed
def test_consent_is_needed() -> None:
    """Nothing runs without the option, and nothing but True is consent."""
    for options in ({}, {"allow_code_execution": False}, {"allow_code_execution": "yes"}, {"allow_code_execution": 1}):
        with pytest.raises(SuiteError, match="allow_code_execution"):
            resolve({"python": options})
    assert passed(GOOD) == [True]


@sandboxed
def test_code_reaches_nothing_outside(tmp_path: Path, listener: tuple[int, str, list[object]]) -> None:
    """Files, network, processes, signals, the environment: an answer that tries is no right answer, and leaves no trace."""
    port, name, came = listener
    secret, trace = tmp_path / "secret.txt", tmp_path / "trace"
    secret.write_text("x")
    tries = [
        f"open({str(secret)!r}).read()",
        f"open({str(trace)!r}, 'w')",
        f"import os; os.open({str(trace)!r}, os.O_CREAT | os.O_WRONLY)",
        f"import pathlib; pathlib.Path({str(trace)!r}).mkdir()",
        f"import os; os.listdir({str(tmp_path)!r})",
        f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
        f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}')",
        f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})",
        f"import subprocess; subprocess.run(['touch', {str(trace)!r}])",
        f"import os; assert os.system('touch {trace}') == 0",
        "import os; os.fork()",
        f"import os; os.kill({os.getpid()}, 0)",
        f"{LIBC}assert libc.kill({os.getpid()}, 0) == 0",
        "import os; assert 'the-value' in os.environ.values()",
        f"import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'open({str(trace)!r}, chr(119))'])",
        # without Python's own hooks in the way
        f"{LIBC}assert libc.open({str(trace).encode()!r}, 0o101, 0o644) >= 0",
        f"import os; os.mkfifo({str(trace)!r})",
        f"import os; os.setxattr({str(secret)!r}, 'user.x', b'x')",
        f"import sqlite3; sqlite3.connect({str(trace)!r}).execute('create table t (a)')",
        f"import readline; readline.write_history_file({str(trace)!r})",
        f"import dbm.dumb; dbm.dumb.open({str(trace)!r}, 'c')",
        "import mmap, os; os.open('/dev/mem', os.O_RDWR)",
    ]
    os.environ["A_SECRET_KEY"] = "the-value"
    try:
        found = passed(*(f"{attempt}\n{GOOD}" for attempt in tries))
    finally:
        del os.environ["A_SECRET_KEY"]
    assert [attempt for attempt, right in zip(tries, found, strict=True) if right] == []
    assert not trace.exists()
    assert secret.read_text() == "x"
    assert os.listxattr(secret) == [] if hasattr(os, "listxattr") else True
    assert came == []


@sandboxed
def test_a_native_module_writes_no_conftest(tmp_path: Path) -> None:
    """An answer unpacks a native module into its directory, imports it, and calls the kernel directly."""
    project = Path(__file__).parents[2]
    planted = [tmp_path / "conftest.py"]
    if not project.is_relative_to("/tmp"):  # noqa: S108 - there the sandbox has directories of its own, in memory
        planted.append(project / "conftest.py")
    code = f"""
import importlib.util, shutil, sys, _ctypes
native = shutil.copy(_ctypes.__file__, '/tmp/' + _ctypes.__file__.rpartition('/')[2])
sys.modules.pop('_ctypes')
spec = importlib.util.spec_from_file_location('_ctypes', native)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert module.__file__ == native
sys.modules['_ctypes'] = module
{LIBC}
for path in {[str(path).encode() for path in planted]!r}:
    for steps in (b'', b'/proc/1/root', b'/proc/self/root', b'../../..'):
        assert libc.open(steps + path, 0o101, 0o644) < 0
{GOOD}"""
    assert passed(code) == [True]
    assert not any(path.exists() for path in planted)


@sandboxed
@pytest.mark.skipif(IN_A_CONTAINER, reason="an image has files and a /proc of its own")
def test_nothing_of_the_machine_is_seen() -> None:
    """The environment, other processes, open descriptors, the file system: what there is, is Python."""
    bound = {path.parts[2] for path in map(Path, (*sys.path, sys.prefix)) if path.is_relative_to("/tmp")}  # noqa: S108
    code = (
        f"""
import ctypes, os
libc = ctypes.CDLL(None)
assert set(os.listdir('/tmp')) <= {bound!r}
"""
        """
assert set(os.environ) <= {'HOME', 'TMPDIR', 'PATH', 'PWD', 'LC_ALL', 'LC_CTYPE', 'OPENBLAS_NUM_THREADS'}, os.environ
assert not os.path.exists('/proc/self'), 'proc'
assert not any(os.path.exists(path) for path in ('/etc/passwd', '/etc/ssl', '/home', '/var', '/sys', '/run', '/usr/bin/env'))
assert os.getuid() == os.geteuid() == 65534 or os.getuid() >= 1000, os.getuid()
for number in range(3, 64):
    try:
        assert not os.path.isdir(f'/dev/fd/{number}') and os.fstat(number).st_mode & 0o170000 != 0o040000, number
    except OSError:
        pass
for call in ('unshare', 'setns'):
    assert getattr(libc, call)(0x10000000, 0) != 0, call  # a user namespace of its own
assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) != 0
assert libc.chroot(b'/tmp') != 0
assert libc.setuid(0) != 0 or os.getuid() == 0
try:
    open('/tmp/x', 'w').close()
    os.chmod('/tmp/x', 0o4755)
    import sys
    open(sys.executable, 'r+b')
    raise AssertionError('the interpreter can be changed')
except OSError:
    pass
"""
    )
    assert outcome(code) == "passes"


@sandboxed
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has somebody to become")
def test_root_becomes_nobody() -> None:
    """On the machine, not only inside: what only root may read cannot be read, even where it is bound."""
    answer = threading.Thread(target=passed, args=(f"{named('somebody')}while True: pass",), kwargs={"time_limit": 1.0})
    answer.start()
    while not (seen := processes_named("somebody")):
        assert answer.is_alive()
    assert {path.stat().st_uid for path in seen if path.exists()} <= {65534}
    answer.join()


@sandboxed
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
        "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b' passes\\n')\n    except OSError: pass\nos._exit(0)",
        "import os\nwhile True: os.write(3, b'x' * 65536)",
        "import threading\nfor _ in range(100): threading.Thread(target=threading.Event().wait).start()",
    ]
    assert passed(*(f"{attempt}\n{GOOD}" for attempt in tries), time_limit=1.0) == [False] * len(tries)
    assert list(tmp_path.iterdir()) == []


@sandboxed
def test_the_disk_is_small() -> None:
    """3 GB in many small files: the sandbox has 16 MiB, wherever it can write."""
    code = """
written = 0
for place in ('/tmp', '/dev/shm', '/dev', '/', '/usr', '/dev/mqueue', '/var/tmp'):
    for number in range(300):
        try:
            with open(f'{place}/{number}', 'wb') as file:
                written += file.write(b'x' * 2**20)
        except OSError as error:
            break
raise AssertionError(written // 2**20)
"""
    assert 10 <= int(outcome(code).removeprefix("AssertionError: ")) <= 18


@sandboxed
def test_processes_are_counted() -> None:
    """A fork bomb stops at once; a suite may allow some, and all are gone when the answer has ended."""
    assert outcome("import os\nwhile True: os.fork()").startswith("BlockingIOError")
    workers = (
        named("left")
        + """
import os, signal
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        os.setsid(), signal.pause(), os._exit(0)
    children.append(child)
try:
    os.fork()
    raise AssertionError('a fourth')
except BlockingIOError:
    pass
"""
    )
    assert outcome(workers, processes=4) == "passes"
    for process in processes_named("left"):  # the kernel ends a namespace soon after its first process
        with suppress(ProcessLookupError):
            ended = os.pidfd_open(int(process.name))
            assert select.select([ended], [], [], 10)[0]
            os.close(ended)


@sandboxed
def test_answers_do_not_meet() -> None:
    """Each answer runs in its own process and directory, so none finds files of another."""
    leave = """
import builtins
builtins.left = 1
for place in ('/tmp/left', '/dev/shm/left'):
    try:
        open(place, 'w').close()
    except OSError:
        assert place != '/tmp/left'
"""
    look = """
import builtins, os
assert not hasattr(builtins, 'left')
assert not os.path.exists('/tmp/left') and not os.path.exists('/dev/shm/left')
"""
    assert [outcome(code) for code in (leave, look, leave, look)] == ["passes"] * 4


def test_without_bubblewrap_a_suite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing installed, or no user namespaces: an error with the next command; nothing is run without walls instead."""
    monkeypatch.delenv("LLMTUNE_ISOLATION", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SuiteError, match="bubblewrap, which is not installed: sudo apt-get install bubblewrap"):
        check(resolve(GRADER), EXAMPLES)
    for name in ("bwrap", "setpriv"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(
        SuiteError, match=r"cannot start here: bwrap: No permissions to create new namespace\. It needs user namespaces"
    ):
        check(resolve(GRADER), EXAMPLES)


@pytest.mark.parametrize("runtime", ["podman", "docker"])
def test_a_container_runtime_takes_its_place(runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment variable or the option; without network, read-only, as nobody, and removed when it is late."""
    log = tmp_path / "log"
    (tmp_path / runtime).write_text(
        f'#!/bin/sh\necho "$@" >>{log}\n[ "$1" = run ] && exec "{sys.executable}" -I -S "{sandboxes._RUNNER}"\n'
    )
    (tmp_path / runtime).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert passed(GOOD, isolation=f"{runtime}:python:3.13-slim") == [True]
    monkeypatch.setenv("LLMTUNE_ISOLATION", f"{runtime}:python:3.13-slim")
    assert passed("import time; time.sleep(60)", time_limit=0.1) == [False]
    run, end, *_ = log.read_text().splitlines()
    assert "nr_inodes" not in run  # podman does not know it
    assert "--env=PATH=" not in run.split()  # nothing would find Python then
    for part in (
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--user=65534:65534",
        "--pull=never",
        "--pids-limit=1",
    ):
        assert part in run.split()
    own = "--read-only-tmpfs=false" in run.split()  # docker does not know it
    assert own is (runtime == "podman")
    assert run.split()[run.split().index("python3") - 1] == "python:3.13-slim"
    name = next(part for part in run.split() if part.startswith("--name=")).removeprefix("--name=")
    assert end == f"rm --force {name}"


@pytest.mark.parametrize("said", ["docker", "docker:", "podman:--privileged", "chroot", "bubblewrap:x", "None"])
def test_an_isolation_that_there_is_not(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip is no leave to run without walls, in Python or in the environment; neither is ``none`` in the environment."""
    with pytest.raises(SuiteError, match=r"isolation='.*'; expected bubblewrap, podman:IMAGE or docker:IMAGE"):
        resolve({"python": {**GRADER["python"], "isolation": said}})
    for value in (said, "none"):
        monkeypatch.setenv("LLMTUNE_ISOLATION", value)
        with pytest.raises(SuiteError, match=r"LLMTUNE_ISOLATION='.*'; expected"):
            check(resolve(GRADER), EXAMPLES)


def test_without_walls_every_report_says_so() -> None:
    """``isolation='none'`` runs answers as the user, within limits of time and memory; it is a caution, and no other suite."""
    free = resolve({"python": {**GRADER["python"], "isolation": "none"}})
    assert "without a sandbox" in cautions_of(free)[0]
    assert (
        "without a sandbox" in cautions_of(resolve(["exact", {"python": {**GRADER["python"], "isolation": "none"}}]))[0]
    )
    assert passed(GOOD, "while True: pass", isolation="none", time_limit=1.0) == [True, False]
    if not _refusal():
        assert cautions_of(resolve(GRADER)) == ()
        assert free.fingerprint == resolve(GRADER).fingerprint
