"""Suites of YAML files, all of which must be valid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite.yaml import declared_suites

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.suite import Suite


def read_suites(path: Path, **arguments: Any) -> list[tuple[Suite, int]]:
    """The suites of a file, each with the first line of its document, from 1; arguments as of ``declared_suites``.

    Raises:
        SuiteError: the problems of all suites, one per line.
    """
    found = declared_suites(path, **arguments)
    if wrong := [each.problem for each in found if each.problem]:
        raise SuiteError("\n".join(wrong))
    return [(each.suite, each.line) for each in found if each.suite]
