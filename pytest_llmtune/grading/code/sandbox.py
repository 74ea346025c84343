"""Walls around one process that runs a model's code: limits, no network, no other process, no file outside its directory.

Stands alone (standard library only): ``code_runner.py`` loads it by path, in the process that is walled in. Three layers:
the kernel's resource limits; on Linux a seccomp filter that refuses sockets, signals, new processes and programs; and
everywhere CPython's audit hooks, which refuse the same, and files, in Python's terms. The hooks alone stop accidents, not
an attacker.
"""

from __future__ import annotations

import errno
import platform
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["limit", "refuse_in_python", "refuse_system_calls"]


_LARGEST_FILE = 16 * 2**20
_MOST_FILES = 64

_SYSTEM_CALLS: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    # machine: (architecture's audit number, clone, clone3, refused)
    "x86_64": (0xC000003E, 56, 435, (41, 42, 44, 46, 53, 57, 58, 59, 62, 101, 200, 234, 302, 310, 311, 322, 424, 425)),
    "aarch64": (0xC00000B7, 220, 435, (198, 199, 203, 206, 211, 221, 117, 129, 130, 131, 261, 270, 271, 281, 424, 425)),
}
"""Refused: socket, socketpair, connect, sendto, sendmsg, (v)fork, execve(at), (t)kill, tgkill, pidfd_send_signal, prlimit64,
ptrace, process_vm_readv and _writev, io_uring_setup."""
_CLONE_THREAD = 0x00010000
_OTHER_ABI = 0x40000000  # x32's calls have the same architecture and other numbers
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2  # of prctl

_REFUSED_EVENTS = (
    "socket.",
    "subprocess.",
    "os.fork",
    "os.forkpty",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.startfile",
    "os.kill",
    "pty.",
    "ctypes.",
    "winreg.",
    "webbrowser.",
    "urllib.",
    "http.",
    "ftplib.",
    "smtplib.",
    "sys.addaudithook",
)
_REFUSED_MODULES = {"ctypes", "_ctypes", "cffi", "_cffi_backend", "_posixsubprocess", "_winapi"}
_WRITING_EVENTS = {
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "os.utime", "shutil.rmtree", "shutil.move", "os.chdir", "os.listdir", "os.scandir",
}  # fmt: skip


def limit(memory: int, seconds: float) -> None:
    """Cap address space (bytes), CPU time, file size and open files of this process, for good."""
    import resource

    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, max(1, int(seconds) + 1)),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed))


def refuse_system_calls() -> bool:
    """Install the seccomp filter; False where the platform or the kernel has none."""
    known = _SYSTEM_CALLS.get(platform.machine())
    if sys.platform != "linux" or known is None:
        return False
    import ctypes

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    code = _filter(*known)
    program = Program(len(code) // 8, code)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return not prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) and not prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)


def _filter(architecture: int, clone: int, clone3: int, refused: Sequence[int]) -> bytes:
    """Classic BPF over ``struct seccomp_data``: the call's number at 0, the architecture at 4, the arguments from 16."""
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, missing = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
    count = len(refused)
    program = [
        # (operation, lines to skip if true, lines to skip if false, operand)
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (give, 0, 0, refuse),
        (load, 0, 0, 0),
        (at_least, 0, 1, _OTHER_ABI),
        (give, 0, 0, refuse),
        (equal, 0, 1, clone3),
        (give, 0, 0, missing),  # its flags are out of sight; libc then falls back to clone
        (equal, 0, 2, clone),
        (load, 0, 0, 16),
        (any_bit, count, count + 1, _CLONE_THREAD),  # a thread is no process
        *((equal, count - place, 0, number) for place, number in enumerate(refused)),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in program)


def refuse_in_python(directory: Path) -> None:
    """Install audit hooks that cannot be taken off: nothing is written outside ``directory``, nothing private is read."""
    home = str(directory.resolve())
    code = {sys.prefix, sys.base_prefix, sys.exec_prefix, *(str(Path(entry).resolve()) for entry in sys.path if entry)}
    readable = tuple({home, *code, "/dev/null", "/dev/urandom", "/usr/share/zoneinfo", "/etc/localtime"})

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_REFUSED_EVENTS):
            raise PermissionError(f"not allowed here: {event}")
        if event == "import" and arguments[0] in _REFUSED_MODULES:
            raise ImportError(f"not allowed here: import {arguments[0]}")
        if event == "open":
            path, mode, flags = arguments
            writes = bool((flags or 0) & 0o3) or (isinstance(mode, str) and any(char in mode for char in "wax+"))
            _within(path, (home,) if writes else readable)
        elif event in _WRITING_EVENTS:
            for path in arguments[:2]:
                if isinstance(path, (str, bytes)):
                    _within(path, readable if event in ("os.listdir", "os.scandir") else (home,))

    sys.addaudithook(hook)


def _within(path: Any, roots: Sequence[str]) -> None:
    if isinstance(path, int):  # a file that is open already
        return
    real = str(Path(path.decode() if isinstance(path, bytes) else path).resolve())
    if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in roots):
        raise PermissionError(f"not allowed here: {real}")
