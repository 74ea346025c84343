"""The script inside the sandbox: executes a model's code and then the tests of one row, within resource limits.

Reports that it is ready, reads one value from standard input, written by ``marshal`` (tests, setup, code, entry_point,
search_path, memory in bytes, seconds of CPU, processes, disk in bytes, and a token), and writes one line: the token, a blank
and the outcome. Code that leaves early, by ``os._exit`` or a crash, never writes the token. Imports next to nothing: each
answer has a new process.
"""

from __future__ import annotations

import marshal
import os
import sys
from typing import Any

_LONGEST_MESSAGE = 200
_MOST_FILES = 64
_OTHER_PROCESSES = 1  # bwrap's own process, the first in the namespace


def main() -> None:
    os.write(1, b"ready\n")
    request = marshal.loads(sys.stdin.buffer.read())  # noqa: S302 - from our own process
    out = os.dup(1)
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    os.closerange(max(out, silent) + 1, 1024)
    if not (packages := request.pop("search_path")):  # in a container: Python was started without site-packages
        import sysconfig

        packages = list({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    sys.path += packages
    token = request.pop("token")
    _limit(request)
    outcome = run(request)
    os.write(out, f"{token} {outcome}\n".encode(errors="backslashreplace"))
    os._exit(0)  # even if the code has started threads


def _limit(request: dict[str, Any]) -> None:
    """Set permanent resource limits, which apply to each of an answer's processes."""
    try:
        import resource
    except ImportError:  # Windows, without a sandbox
        return
    limits = {
        resource.RLIMIT_AS: request["memory"],
        resource.RLIMIT_CPU: max(1, int(request["seconds"]) + 1),
        resource.RLIMIT_FSIZE: request["disk"],
        resource.RLIMIT_NOFILE: _MOST_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if request["processes"] and hasattr(resource, "RLIMIT_NPROC"):
        limits[resource.RLIMIT_NPROC] = request["processes"] + _OTHER_PROCESSES
    for what, most in limits.items():
        _, hard = resource.getrlimit(what)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(what, (allowed, allowed))
        except ValueError:  # macOS has RLIMIT_AS, but refuses to set it
            if sys.platform != "darwin":
                raise


def run(request: dict[str, Any]) -> str:
    """``passes``, or a description of the failure."""
    names: dict[str, Any] = {"__name__": "answer"}
    execute = exec  # the code may replace the builtins, or find the tests' text in memory
    try:
        parts = [compile(request[part], f"<{part}>", "exec") for part in ("setup", "code", "tests")]
        for part in parts:
            execute(part, names)
        if request["entry_point"]:
            names["check"](names[request["entry_point"]])
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are failures too
        return _described(error)
    return "passes"


def _described(error: BaseException) -> str:
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            line = f" (line {trace.tb_lineno} of the tests)"
            break
        trace = trace.tb_next
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}{line}"[:_LONGEST_MESSAGE]


if __name__ == "__main__":
    main()
