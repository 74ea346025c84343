"""Isolation for code that a model wrote: bubblewrap, or a container runtime that the user names.

They provide the isolation: namespaces for mounts, processes, network and IPC, a read-only interpreter, an empty
environment, a small tmpfs. This module only builds command lines. Inside, ``runner.py`` sets the resource limits.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune.errors import MissingToolError, SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


VARIABLE = "LLMTUNE_ISOLATION"
"""Environment variable with the default container runtime and image."""
UNCONFINED = "none"
_BUBBLEWRAP = "bubblewrap"
DISK = 16 * 2**20
"""Limit in bytes for all files that an answer writes."""

_RUNNER = Path(__file__).with_name("runner.py")
_HOME = "/tmp"  # noqa: S108 - inside the sandbox: a tmpfs of its own
_SHARED_MEMORY = 2**20
_NOBODY = 65534
_ENVIRONMENT = {"HOME": _HOME, "TMPDIR": _HOME, "PATH": "", "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}
"""The complete environment of an answer."""
_PYTHON = ("-I", "-S", "-B", "-X", "utf8")  # without site: no .pth file runs, and Python starts in a fifth of the time
_INSTALL = (
    "sudo apt-get install bubblewrap (or dnf, pacman, apk add), or name a container image: "
    f"{VARIABLE}=podman:python:3.13-slim. A Python suite may say isolation='none' to run answers without any walls"
)


class Sandbox(ABC):
    """A way to start the runner."""

    @abstractmethod
    def command(self, memory: int, processes: int) -> list[str]:
        """Command to run for one answer; ``memory`` in bytes."""

    def search_path(self) -> list[str]:
        """Directories of installed packages, for ``sys.path`` in the sandbox."""
        return _installed()

    def after_kill(self, command: Sequence[str]) -> None:  # noqa: B027 - nothing does where one process ends all others
        """End processes that survive killing the started one."""


@dataclass(frozen=True, slots=True)
class Bubblewrap(Sandbox):
    """bwrap with separate user, mount, process, network, IPC and host name namespaces.

    Root first becomes *nobody*, because the kernel does not limit root's processes. Files that only root can read are bound
    by an outer bwrap, so that an interpreter below ``/root`` is usable.
    """

    program: str
    setpriv: str | None = None
    """The program that drops root privileges; None if this process is not root."""

    def command(self, memory: int, processes: int) -> list[str]:  # noqa: ARG002 - the runner limits itself
        interpreter = _interpreter()
        # of the library directories of the dynamic loader, on a merged /usr the short names are links
        libraries = [
            path for path in ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache") if Path(path).exists()
        ]
        shared = [*_bound([*libraries, *interpreter, str(_RUNNER)])]
        inner = [
            *("--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
            *("--new-session", "--die-with-parent", "--clearenv", "--hostname", "sandbox"),
            *(part for name, value in _ENVIRONMENT.items() for part in ("--setenv", name, value)),
            *("--size", str(DISK), "--tmpfs", _HOME),
            *shared,
            *("--dev", "/dev", "--size", str(_SHARED_MEMORY), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108
            *("--remount-ro", "/", "--chdir", _HOME),
            *("--", interpreter[0], *_PYTHON, str(_RUNNER)),
        ]
        if self.setpriv is None:
            return [self.program, *inner]
        return [
            *(self.program, "--die-with-parent", "--clearenv", "--tmpfs", _HOME, *shared),
            *_bound([self.program, self.setpriv]),
            # the inner bwrap writes its user map there, and leaves the directory
            *("--dev", "/dev", "--bind", "/proc", "/proc", "--chdir", "/"),
            *("--", self.setpriv, f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"),
            *("--", self.program, *inner),
        ]


@dataclass(frozen=True, slots=True)
class Container(Sandbox):
    """``podman run`` or ``docker run`` of an existing image with Python."""

    program: str
    image: str

    def command(self, memory: int, processes: int) -> list[str]:
        return [
            *(self.program, "run", "--rm", "--interactive", "--pull=never"),
            f"--name=llmtune-{secrets.token_hex(8)}",
            # podman makes /dev/shm, /run and /var/tmp writable without this
            *(("--read-only-tmpfs=false",) if Path(self.program).name == "podman" else ()),
            *("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
            *(f"--user={_NOBODY}:{_NOBODY}", "--ipc=none", "--ulimit=core=0", f"--pids-limit={processes}"),
            *(f"--memory={memory}", f"--memory-swap={memory}", f"--tmpfs={_HOME}:rw,size={DISK},mode=1777"),
            # by the image's own PATH the runtime finds Python
            *(f"--env={name}={value}" for name, value in _ENVIRONMENT.items() if name != "PATH"),
            *(f"--volume={_RUNNER}:/runner.py:ro", f"--workdir={_HOME}"),
            *(self.image, "python3", *_PYTHON, "/runner.py"),
        ]

    def search_path(self) -> list[str]:
        return []  # the runner finds the image's own

    def after_kill(self, command: Sequence[str]) -> None:
        name = next(part for part in command if part.startswith("--name=")).removeprefix("--name=")
        subprocess.run(  # noqa: S603 - the runtime that the user named
            [self.program, "rm", "--force", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )


@dataclass(frozen=True, slots=True)
class Unconfined(Sandbox):
    """No isolation: the answer has the user's rights, with resource limits only."""

    def command(self, memory: int, processes: int) -> list[str]:  # noqa: ARG002 - the runner limits itself
        return [sys.executable, *_PYTHON, str(_RUNNER)]


def sandbox_for(isolation: str | None) -> Sandbox:
    """The sandbox of a suite.

    Args:
        isolation: ``"bubblewrap"``, ``"podman:IMAGE"``, ``"docker:IMAGE"`` or ``"none"``; None: what the environment
            variable ``LLMTUNE_ISOLATION`` gives (never none), else bubblewrap.

    Raises:
        MissingToolError: not installed, or cannot start; the message says how to install it.
    """
    if isolation == UNCONFINED:
        return Unconfined()
    chosen = isolation or os.environ.get(VARIABLE) or _BUBBLEWRAP
    check_isolation(chosen, "isolation" if isolation else VARIABLE)
    if chosen != _BUBBLEWRAP:
        runtime, _, image = chosen.partition(":")
        if (program := shutil.which(runtime)) is None:
            raise MissingToolError(f"{runtime} is not installed; this grader needs a sandbox: {_INSTALL}")
        return Container(program, image)
    if (program := shutil.which("bwrap")) is None:
        raise MissingToolError(f"this grader runs answers in bubblewrap, which is not installed: {_INSTALL}")
    return _bubblewrap(program)


def check_isolation(isolation: str, where: str) -> None:
    """Raise SuiteError if it is neither bubblewrap nor a container image."""
    runtime, _, image = isolation.partition(":")
    if isolation != _BUBBLEWRAP and (runtime not in ("podman", "docker") or not image or image.startswith("-")):
        raise SuiteError(f"{where}={isolation!r}; expected {_BUBBLEWRAP}, podman:IMAGE or docker:IMAGE")


@cache
def _bubblewrap(program: str) -> Bubblewrap:
    """Start bubblewrap once, to find out before anything is spent whether this machine allows it."""
    setpriv = None
    if os.geteuid() == 0 and (setpriv := shutil.which("setpriv")) is None:
        raise MissingToolError(
            "as root this grader also needs setpriv to become nobody: install util-linux, or run as a user"
        )
    sandbox = Bubblewrap(str(Path(program).resolve()), setpriv and str(Path(setpriv).resolve()))
    *start, _ = sandbox.command(0, 1)
    tried = subprocess.run(  # noqa: S603 - our own command
        [*start, "-c", "print(6 * 7)"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
        env={},
        cwd="/",
    )
    if tried.stdout.strip() != "42":
        raise MissingToolError(
            f"bubblewrap cannot start here: {' '.join(tried.stderr.split())[-300:] or f'exit code {tried.returncode}'}. "
            "It needs user namespaces: on Ubuntu 24.04 sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, "
            "on Debian kernel.unprivileged_userns_clone=1, in a container --security-opt seccomp=unconfined; "
            f"else {_INSTALL.partition(', or ')[2]}"
        )
    return sandbox


@cache
def _interpreter() -> tuple[str, ...]:
    """Paths of the base interpreter, its standard library and the installed packages, without the project."""
    program = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    shared = (f"{sys.base_prefix}/lib", f"{sys.base_prefix}/lib64")  # libpython, and libraries of extension modules
    return program, *(path for path in (sysconfig.get_path("stdlib"), *shared, *_installed()) if Path(path).is_dir())


@cache
def _installed() -> list[str]:
    known = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    found = (entry for entry in sys.path if entry in known or Path(entry).name in ("site-packages", "dist-packages"))
    return [entry for entry in dict.fromkeys(found) if Path(entry).is_dir()]


def _bound(paths: Iterable[str]) -> Iterable[str]:
    """Arguments that bind each path read-only under its own name, in directories with search permission for all."""
    created: set[Path] = set()
    bound: set[Path] = set()
    for path in sorted(set(paths), key=lambda path: (path.count("/"), path)):
        if bound.intersection(Path(path).parents):
            continue
        bound.add(Path(path))
        if path in ("/lib", "/lib64") and Path(path).is_symlink():
            yield from ("--symlink", str(Path(path).readlink()), path)
            continue
        for parent in reversed(Path(path).parents[:-1]):
            if parent not in created and str(parent) != _HOME:
                created.add(parent)
                yield from ("--perms", "0755", "--dir", str(parent))
        yield from ("--ro-bind", path, path)
