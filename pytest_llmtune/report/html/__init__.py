"""The HTML report: one file, offline."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytest_llmtune._util.files import write_text
from pytest_llmtune._util.serialize import to_plain
from pytest_llmtune._util.text import dollars
from pytest_llmtune.errors import ReportError
from pytest_llmtune.report.html.view import COLUMNS, flips, headline, suite, tested

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.types import TestCalls

__all__ = ["anchor", "check_installed", "extras", "fragment", "page", "target_of", "write"]


_PAGE = Path(__file__).parent / "page"


def page(reports: Sequence[SuiteReport], calls: Sequence[TestCalls] = ()) -> str:
    """The whole page as HTML.

    Args:
        calls: of the app's own tests.

    Raises:
        ReportError: the extra ``report`` (Jinja2, plotly) is not installed.
    """
    environment = _environment()
    suites = [suite(report) | {"anchor": anchor(report)} for report in reports]
    for shown in suites:
        for name in ("quality", "spending", "progress", "examples", "asks"):
            shown[name] = _data(shown[name])
    figures = any(shown["quality"] or shown["spending"] for shown in suites)
    scripts = {"js": (_PAGE / "page.js").read_text(encoding="utf-8"), "plotly": _plotly() if figures else ""}
    spent = sum(report.spent for report in reports) + sum(each.spent for each in calls)
    text: str = environment.get_template("page.html.j2").render(
        suites=suites,
        columns=COLUMNS,
        headline=headline(reports),
        generator=f"pytest-llmtune {version('pytest-llmtune')}",
        spent=dollars(spent) if spent else "",
        calls=[tested(each) for each in calls],
        css=_markup((_PAGE / "page.css").read_text(encoding="utf-8")),
        script_hashes=_markup(" ".join(_hash(script) for script in scripts.values() if script)),
        **{name: _markup(script) for name, script in scripts.items()},
    )
    return text


def fragment(report: SuiteReport) -> str:
    """A piece of HTML for the suite's row in pytest-html: verdict, gates and flips.

    Raises:
        ReportError: Jinja2, which pytest-html needs too, is not installed.
    """
    text: str = _environment().get_template("fragment.html.j2").render(suite=suite(report), flips=flips(report))
    return text


def check_installed() -> None:
    """Know before the run, and before anything is paid for, that its page can be written.

    Raises:
        ReportError: the extra ``report`` is not installed.
    """
    for name in ("jinja2", "plotly"):
        if find_spec(name) is None:
            raise _missing(name)


def anchor(report: SuiteReport) -> str:
    """The id of a suite's section on the page."""
    return f"suite-{sha256(report.nodeid.encode('utf-8', 'replace')).hexdigest()[:12]}"


def target_of(path: Path) -> Path:
    """The file that the page is written to."""
    return path if path.suffix.lower() in (".html", ".htm") else path / "index.html"


def write(path: Path, reports: Sequence[SuiteReport], calls: Sequence[TestCalls] = ()) -> Path:
    """Write the page to a file that ends in ``.html``, or as ``index.html`` into a directory; gives the file.

    Raises:
        ReportError: the extra is missing, or the file cannot be written.
    """
    target = target_of(path)
    try:
        write_text(target, page(reports, calls))
    except OSError as error:
        raise ReportError(f"{target}: the report cannot be written: {error.strerror or error}") from error
    return target


def _environment() -> Any:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise _missing("jinja2") from None
    return Environment(loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise _missing("plotly") from None
    source: str = get_plotlyjs()
    return source


def _missing(name: str) -> ReportError:
    return ReportError(f"the HTML report needs {name}, which is not installed: pip install 'pytest-llmtune[report]'")


def _markup(text: str) -> Any:
    """Our own code, which must not be escaped."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - files of this package and plotly's, and their hashes; nothing of a run


def _hash(script: str) -> str:
    """The only scripts that the page's content security policy lets run."""
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def _data(value: Any) -> Any:
    """JSON inside of a script element: ASCII, and no character that could end the element. Empty for nothing."""
    if not value:
        return ""
    text = json.dumps(to_plain(value), allow_nan=False)
    return _markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def extras(report: SuiteReport, row_in: Path, page: Path | None) -> list[dict[str, Any]]:
    """For ``report.extras`` of the test's report.

    Args:
        row_in: the file that pytest-html writes.
        page: our own page of this run, as ``--llm-report`` says it; None: there is none.
    """
    from pytest_html import extras as kinds

    found: list[dict[str, Any]] = [kinds.html(fragment(report))]
    if page is not None:
        # from one file to the other, so that both can be moved or served together
        path = Path(os.path.relpath(target_of(page), row_in.parent)).as_posix()
        found.append(kinds.url(f"{quote(path)}#{anchor(report)}", name="llmtune report"))
    return found
