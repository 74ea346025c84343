"""Recordings and lock files whose suite is gone: found for a report, removed by ``--llm-prune``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording.parts import whole

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

__all__ = ["orphans", "remove"]


_DIRECTORY = "llmtune"
_SUFFIXES = (".cassette.json", ".cassette.json.zst", ".lock.yaml")


def orphans(root: Path, in_use: Collection[Path]) -> list[Path]:
    """The files of suites below ``root`` that no suite uses.

    Only files named as ours, in directories named ``llmtune``, are looked at; hidden directories and virtual
    environments are not entered.

    Args:
        in_use: the lock files and recordings of every suite that there is, collected without any selection.
    """
    used = {path.resolve() for path in in_use}
    return sorted(path for path in _files(root) if whole(path).resolve() not in used)


def remove(paths: Iterable[Path]) -> None:
    """Remove the files, where they are, and directories that they leave empty.

    Raises:
        RecordingError: one cannot be removed.
    """
    for path in paths:
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()
        except OSError as error:
            raise RecordingError(f"{path} cannot be removed: {error.strerror or error}") from error


def _files(root: Path) -> Iterator[Path]:
    for name, directories, files in os.walk(root):
        directory = Path(name)
        directories[:] = [
            child
            for child in directories
            if not child.startswith(".") and child != "node_modules" and not (directory / child / "pyvenv.cfg").exists()
        ]
        if directory.name == _DIRECTORY:
            yield from (directory / file for file in files if file.endswith(_SUFFIXES))
