"""Run as a script in a process of its own: executes a model's code and then the tests of one row, behind walls.

Reads one JSON line (code, tests, setup, entry_point, memory in bytes, seconds, and a token) from standard input, and
writes one JSON line: the token with the outcome. Code that leaves early, by ``os._exit`` or a crash, never says the
token.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType


_LONGEST_MESSAGE = 200


def main() -> None:
    request = json.loads(sys.stdin.readline())
    out = os.dup(1)
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    sandbox = _sandbox()
    sandbox.limit(request["memory"], request["seconds"])
    sandbox.refuse_system_calls()
    for name in ("ctypes", "_ctypes"):
        sys.modules.pop(name, None)
    sandbox.refuse_in_python(Path.cwd())
    token = request.pop("token")
    outcome = run(request)
    os.write(out, json.dumps({"token": token, "outcome": outcome}).encode() + b"\n")
    os._exit(0)  # whatever threads the code has started


def _sandbox() -> ModuleType:
    """The module beside this file, without its package: importing that would cost more than most tests."""
    spec = importlib.util.spec_from_file_location("sandbox", Path(__file__).with_name("sandbox.py"))
    assert spec is not None  # noqa: S101 - the file is there
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(request: dict[str, Any]) -> str:
    """``passes``, or what failed and how."""
    names: dict[str, Any] = {"__name__": "answer"}
    try:
        for part in ("setup", "code", "tests"):
            exec(compile(request[part], f"<{part}>", "exec"), names)  # noqa: S102 - this is what the process is for
        if request["entry_point"]:
            names["check"](names[request["entry_point"]])
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are failures too
        return _described(error)
    return "passes"


def _described(error: BaseException) -> str:
    line = _line_of_tests(error)
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}{line}"[:_LONGEST_MESSAGE]


def _line_of_tests(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            return f" (line {trace.tb_lineno} of the tests)"
        trace = trace.tb_next
    return ""


if __name__ == "__main__":
    main()
