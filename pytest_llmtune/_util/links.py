"""Symbolic links in a checkout: none of ours may lead out of the project, neither to read there nor to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["refuse_links"]


def refuse_links(directories: Iterable[Path], root: Path) -> None:
    """Look at directories of ours and everything in them; one that is not there is fine.

    Raises:
        SuiteError: one of them is a link that leads out of the project, and out of the directory that holds it.
    """
    for directory in directories:
        allowed = (root.resolve(), directory.parent.resolve())
        for path in (directory, *directory.rglob("*")):
            if path.is_symlink() and not any(path.resolve().is_relative_to(place) for place in allowed):
                raise SuiteError(f"{path} is a symbolic link that leads out of the project {root}; remove it")
