"""A git repository with lock files in it, and the command ``llmtune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.locks import Git

from pytest_llmtune.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    root = tmp_path / "a project"
    root.mkdir()
    made = Git(root)
    made("init", "-q")
    monkeypatch.chdir(root)
    return made


@pytest.fixture
def llmtune(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command: exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run
