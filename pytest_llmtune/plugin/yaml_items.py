"""Collect ``*.llmtune.yaml`` files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune._util.files import has_controls
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.plugin.options import value_of
from pytest_llmtune.suite.yaml import declared_suites

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_llmtune.suite import Suite


class SuiteFile(pytest.File):
    """One YAML file of suites."""

    def collect(self) -> Iterator[SuiteItem]:
        if has_controls(str(self.path)):  # pytest prints names unescaped, and terminals and CI systems interpret them
            problem = f"the file name {str(self.path)!a} contains control characters; rename it"
            yield SuiteItem.from_parent(self, name="refused", suite=None, line=1, problem=problem)
            return
        try:
            allowed = value_of("allow-code", self.config) or ()
            found = declared_suites(self.path, shown_as=self.nodeid, root=self.config.rootpath, allow_code=allowed)
        except LLMTuneError as error:  # a collection error would stop the tests of all other files
            name = self.path.name.partition(".")[0]
            yield SuiteItem.from_parent(self, name=name, suite=None, line=1, problem=str(error))
            return
        for each in found:
            yield SuiteItem.from_parent(self, name=each.name, suite=each.suite, line=each.line, problem=each.problem)


class SuiteItem(pytest.Item):
    """A suite as a test; running it calls ``llmtune.check()``."""

    def __init__(self, *, suite: Suite | None, line: int, problem: str = "", **rest: Any) -> None:
        super().__init__(**rest)
        self.suite = suite
        """None if the declaration is invalid."""
        self.line = line
        """From 1."""
        self.problem = problem
        self.add_marker("llmtune")

    def runtest(self) -> None:
        session = self.config.pluginmanager.getplugin("llmtune").session_of(self.config)  # the plugin imports this file
        session.check(session.runs[self.nodeid])

    def reportinfo(self) -> tuple[Path | str, int, str]:
        path = self.nodeid.partition("::")[0] if has_controls(str(self.path)) else self.path
        return path, self.line - 1, self.name

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        # a verdict is a message: a traceback would not help
        return str(excinfo.value) if isinstance(excinfo.value, LLMTuneError) else super().repr_failure(excinfo, style)
