"""``--llm-init`` as pytest runs it: where suites go, and what is said of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pytest_llmtune import starter
from pytest_llmtune.errors import LLMTuneError

__all__ = ["start"]


def start(config: pytest.Config, name: str) -> int:
    """Write a starter suite; gives the exit code.

    Raises:
        pytest.UsageError: it cannot be written.
    """
    here = config.invocation_params.dir
    given = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
    places = [config.rootpath / place for place in config.getini("testpaths")] or [here / "tests"]
    tests = next((place for place in places if place.is_dir()), here)
    try:
        written = starter.write(name, given, here=here, tests=tests, root=config.rootpath)
    except (LLMTuneError, OSError) as error:
        raise pytest.UsageError(str(error)) from None
    shown = [Path(os.path.relpath(path, here)).as_posix() for path in written]
    lines = [f"wrote {path}" for path in shown]
    sys.stdout.write("\n".join([*lines, f"next: pytest --llm-tune-dry-run {shown[0]}", ""]))
    return pytest.ExitCode.OK
