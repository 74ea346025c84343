"""The page under axe-core, in real Chromium: no rule of WCAG or of good practice is broken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import chromium
from support.results import compared, evaluation, lock, report, result, scores

from pytest_llmtune.report import html

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.browser import Browser

AXE = Path(__file__).parents[2] / ".venv-axe" / "node_modules" / "axe-core" / "axe.min.js"
RUN = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]})
  .then((found) => done(found.violations.map((one) => `${one.id} (${one.impact}): ${one.nodes[0].html.slice(0, 200)}`)));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not AXE.is_file():
        pytest.skip("needs axe-core: npm install --prefix .venv-axe axe-core")
    with chromium() as window:
        yield window


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)], ids=["desk", "dark", "phone"])
def test_no_violation(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    """A failed, a passed and a compared suite, with details open."""
    before = evaluation([result(i, 1.0) for i in range(6)])
    now = evaluation([result(i, float(i > 1)) for i in range(6)], {"model": "m", "prompt": "{q}\nNew"})
    suites = [
        report(now, lock(before)),
        report(scores(1, 1), compared=[compared("one", 0.5, "0.001")], nodeid="test_b.py::test_b"),
    ]
    browser.emulate(width, 900, dark=dark, mobile=width < 700)
    browser.open(html.write(tmp_path / "page.html", suites))
    browser.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    browser.one("tbody button").click()
    browser.driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.run(AXE.read_text(encoding="utf-8"))
    assert browser.driver.execute_async_script(RUN) == []
