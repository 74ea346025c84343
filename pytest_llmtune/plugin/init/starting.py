"""``--llm-init`` as pytest runs it: where suites go, and what is said of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pytest_llmtune.plugin import init as starter

__all__ = ["start"]


def start(config: Any, name: str) -> None:
    """Write a starter suite, and say so.

    Raises:
        LLMTuneError: it cannot be written.
        OSError: the disk says no.
    """
    here = config.invocation_params.dir
    given = config.args if config.args_source.name == "ARGS" else []
    places = [config.rootpath / place for place in config.getini("testpaths")] or [here / "tests"]
    tests = next((place for place in places if place.is_dir()), here)
    written = starter.write(name, given, here=here, tests=tests, root=config.rootpath)
    shown = [Path(os.path.relpath(path, here)).as_posix() for path in written]
    lines = [f"wrote {path}" for path in shown]
    sys.stdout.write("\n".join([*lines, f"next: pytest --llm-tune-dry-run {shown[0]}", ""]))
