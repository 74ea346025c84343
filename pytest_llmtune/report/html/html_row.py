"""What a suite adds to its row in pytest-html's report: the table of its verdict, and a link to its place on our page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytest_llmtune.report import html

if TYPE_CHECKING:
    from pytest_llmtune.guard.result import SuiteReport

__all__ = ["extras"]


def extras(report: SuiteReport, row_in: Path, page: Path | None) -> list[dict[str, Any]]:
    """For ``report.extras`` of the test's report.

    Args:
        row_in: the file that pytest-html writes.
        page: our own page of this run, as ``--llm-report`` says it; None: there is none.
    """
    from pytest_html import extras as kinds

    found: list[dict[str, Any]] = [kinds.html(html.fragment(report))]
    if page is not None:
        # from one file to the other, so that both can be moved or served together
        path = Path(os.path.relpath(html.target_of(page), row_in.parent)).as_posix()
        found.append(kinds.url(f"{quote(path)}#{html.anchor(report)}", name="llmtune report"))
    return found
