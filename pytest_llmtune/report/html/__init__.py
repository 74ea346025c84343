"""The HTML report: a single self-contained file."""

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
from pytest_llmtune.report.ci import headline
from pytest_llmtune.report.html import charts
from pytest_llmtune.report.html.view import COLUMNS, flips, suite, tested
from pytest_llmtune.report.tables import all_suites, flipped, moves

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.types import TestCalls


_PAGE = Path(__file__).parent / "page"


def page(
    reports: Sequence[SuiteReport], calls: Sequence[TestCalls] = (), history: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The complete HTML page; ReportError if the extra ``report`` (Jinja2, plotly) is not installed.

    Args:
        calls: calls of the app's own tests.
        history: the suites' former states, as ``llmtune history --format=json`` has them.
    """
    environment = _environment()
    suites = [suite(report) | {"anchor": anchor(report)} for report in reports]
    for shown in suites:
        for name in ("quality", "spending", "progress", "examples", "asks"):
            shown[name] = _data(shown[name])
    timeline = _data(charts.timeline(history))
    figures = timeline or any(shown["quality"] or shown["spending"] for shown in suites)
    scripts = {"js": (_PAGE / "page.js").read_text(encoding="utf-8"), "plotly": _plotly() if figures else ""}
    digests = (sha256(script.encode()).digest() for script in scripts.values() if script)
    hashes = [f"'sha256-{b64encode(digest).decode()}'" for digest in digests]  # for the content security policy
    spent = sum(report.spent for report in reports) + sum(each.spent for each in calls)
    text: str = environment.get_template("page.html.j2").render(
        suites=suites,
        columns=COLUMNS,
        headline=headline(reports),
        generator=f"pytest-llmtune {version('pytest-llmtune')}",
        spent=dollars(spent) if spent else "",
        calls=[tested(each) for each in calls],
        tables=list(_tables(reports)),
        timeline=timeline,
        states=[charts.state(entry) for entry in reversed(history)],
        css=_markup((_PAGE / "page.css").read_text(encoding="utf-8")),
        script_hashes=_markup(" ".join(hashes)),
        **{name: _markup(script) for name, script in scripts.items()},
    )
    return text


def _tables(reports: Sequence[SuiteReport]) -> Iterator[dict[str, Any]]:
    """Tables over all suites: a title and rows of text, the first of them the head."""
    if any(report.migrations for report in reports):
        yield {"id": "moves", "title": "Other models", "rows": moves(reports)}
        yield {"id": "all_suites", "title": "What each move costs and saves", "rows": all_suites(reports)}
        if rows := flipped(reports):
            yield {"id": "flipped", "title": "Rows that flip", "rows": rows}


def fragment(report: SuiteReport) -> str:
    """HTML fragment for the suite's row in pytest-html: verdict, gates and flips; ReportError without Jinja2."""
    text: str = _environment().get_template("fragment.html.j2").render(suite=suite(report), flips=flips(report))
    return text


def check_installed() -> None:
    """Raise ReportError before the run, and before anything is spent, if the extra ``report`` is not installed."""
    for name in ("jinja2", "plotly"):
        if find_spec(name) is None:
            raise _missing(name)


def anchor(report: SuiteReport) -> str:
    """The ID of a suite's section on the page."""
    return f"suite-{sha256(report.nodeid.encode('utf-8', 'replace')).hexdigest()[:12]}"


def target_of(path: Path) -> Path:
    """The path of the page."""
    return path if path.suffix.lower() in (".html", ".htm") else path / "index.html"


def write(
    path: Path,
    reports: Sequence[SuiteReport],
    calls: Sequence[TestCalls] = (),
    history: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write the page to a file that ends in ``.html``, or as ``index.html`` into a directory; ReportError if that fails."""
    target = target_of(path)
    try:
        write_text(target, page(reports, calls, history))
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
    """Mark our own code as safe, so that it is not escaped."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - files of this package and plotly's, and their hashes; nothing of a run


def _data(value: Any) -> Any:
    """JSON for a script element, in ASCII and without characters that could end the element; empty for None."""
    if not value:
        return ""
    text = json.dumps(to_plain(value), allow_nan=False)
    return _markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def extras(report: SuiteReport, row_in: Path, page: Path | None) -> list[dict[str, Any]]:
    """For ``report.extras`` of a test's report in pytest-html's file ``row_in``; ``page``: ours, if there is one."""
    from pytest_html import extras as kinds

    found: list[dict[str, Any]] = [kinds.html(fragment(report))]
    if page is not None:
        # a relative link, so that both files can be moved or served together
        path = Path(os.path.relpath(target_of(page), row_in.parent)).as_posix()
        found.append(kinds.url(f"{quote(path)}#{anchor(report)}", name="llmtune report"))
    return found
