"""``--llm-prune``: files whose suite is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Project


def test_files_of_a_suite_that_is_gone_are_removed(tuned: Project) -> None:
    """The suite's own files stay, the orphan goes, and no test runs."""
    directory = tuned.pytester.path / "llmtune"
    orphan = directory / "gone.cassette.json"
    orphan.write_text("{}", encoding="utf-8")
    result = tuned.run("--llm-prune")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*removed llmtune*gone.cassette.json*"])
    assert sorted(path.name for path in directory.iterdir()) == ["sums.cassette.json", "sums.lock.yaml"]


def test_a_selection_is_refused(tuned: Project) -> None:
    """With -k the other suites' files would look like orphans."""
    result = tuned.run("--llm-prune", "-k", "nothing")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert (tuned.pytester.path / "llmtune" / "sums.lock.yaml").exists()
