"""The history of the suites on the page of ``--llm-report``, and the comment as a browser shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.locks import lock
from support.results import report, scores

from pytest_llmtune._util.serialize import to_plain
from pytest_llmtune.commits.git import Repository
from pytest_llmtune.commits.history import history
from pytest_llmtune.report.html import page

if TYPE_CHECKING:
    from support.locks import Git


def test_scores_from_commit_to_commit(git: Git) -> None:
    """A line for each suite with two states, a row for each state; text of a commit stays text."""
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    git.commit("first", sums=lock(), other=lock("other"))
    git.commit("</script><b>second</b>", sums=lock(wrong=5))
    entries = to_plain(history(Repository.around(git.root), most=10))
    text = page([replace(report(scores(1, 1)), name="sums")], history=entries)
    start = text.index('id="timeline">') + len('id="timeline">')
    [line] = json.loads(text[start : text.index("</script>", start)])["data"]
    assert (line["name"], line["y"]) == ("sums", [0.9, 0.75])
    assert "<b>second" not in text
    assert "All 3 states as a table" in text
    assert len(history(Repository.around(git.root), ("sums",), most=1)) == 1
    assert 'id="history"' not in page([report(scores(1, 1))], history=entries[:1])
