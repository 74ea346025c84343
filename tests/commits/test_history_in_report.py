"""The history of the suites on the page of ``--llm-report``, and the comment as a browser shows it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.browser import chromium
from support.locks import CONFIG, lock
from support.results import report, scores

from pytest_llmtune._util.serialize import to_plain
from pytest_llmtune.cli import main
from pytest_llmtune.commits.git import Repository
from pytest_llmtune.commits.history import history
from pytest_llmtune.guard.result import Migration
from pytest_llmtune.guard.verdict import Criteria
from pytest_llmtune.report.ci import comment
from pytest_llmtune.report.html import page

if TYPE_CHECKING:
    from pathlib import Path

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


ATTACK = "<script>alert(1)</script> </details> @everyone [x](http://evil) ![i](http://evil/i) | `rm` # *b* \n- x\n1. y\n    z\n"


def rendered(comment: str) -> str:
    """As GitHub shows it: CommonMark with tables, and with HTML."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(comment)
    return f"<!doctype html><meta charset=utf-8><style>td,th{{border:1px solid #ccc;padding:4px}}</style>{body}"


def test_comments_in_a_browser(git: Git, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One table and folded details; nothing of a model is a link, a picture, an element or a request."""
    git.commit("first", sums=lock(wrong=0), other=lock("other"))
    rows = tuple(replace(one, voted_answer=ATTACK, votes=((ATTACK, 1),)) for one in lock(wrong=3).examples)
    config = {**CONFIG, "prompt": f"Answer kindly: {ATTACK}", "stop": ATTACK, "model": ATTACK}
    git.commit("second", sums=lock(wrong=3, examples=rows, config=config))
    assert main(["compare", "HEAD~1", "--format=markdown"]) == 0
    compared = capsys.readouterr().out
    failed = report(scores(1, 0), lock(scores(1, 1)), Criteria(max_drop=0.02), notes=(ATTACK,))
    failed = replace(failed, name=ATTACK, migrations=(Migration(ATTACK, "worse", ATTACK, flips=failed.verdict.flips),))
    commented = comment([failed])
    assert "@everyone" not in re.sub(r"(`+) .*? \1", "", compared + commented)  # a code span is no mention
    for name, text in (("compare", compared), ("run", commented)):
        page = tmp_path / f"{name}.html"
        page.write_text(rendered(text), encoding="utf-8")
        with chromium() as browser:
            browser.open(page)
            assert browser.all("a, img, script, h1, li li, blockquote li, pre") == []
            assert len(browser.all("table")) == {"compare": 1, "run": 3}[name]
            cells = {len(row.find_elements("css selector", "td, th")) for row in browser.all("table:first-of-type tr")}
            assert len(cells) == 1 or name == "run"
            assert len(browser.all("details")) == len(browser.all("summary")) == 1
            assert not any(part.is_displayed() for part in browser.all("details > :not(summary)"))
            browser.run("document.querySelector('details').open = true")
            assert [url for url in browser.requests() if "evil" in url] == []
            browser.screenshot(tmp_path / f"{name}.png")
