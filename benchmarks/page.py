"""The report page with many examples in real headless Chromium: python benchmarks/page.py [EXAMPLES [RESPONSES]]

Prints the file's size, the seconds to write it, and the milliseconds until it is loaded, filtered, searched and sorted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]
from support.browser import chromium  # noqa: E402
from support.results import evaluation, lock, report, result  # noqa: E402

from pytest_llmtune.report.html import write  # noqa: E402  # noqa: E402  # noqa: E402  # noqa: E402

_TEXT = "The quick brown fox jumps over the lazy dog and thinks step by step. " * 8
_TIMED = """
const begun = performance.now();
const root = document.querySelector(".examples");
const [what, value] = arguments;
if (what === "filter") { root.querySelector("select").value = value; root.querySelector("select").dispatchEvent(new Event("change")); }
if (what === "search") { root.querySelector("input").value = value; root.querySelector("input").dispatchEvent(new Event("input")); }
if (what === "sort") root.querySelector(`[data-sort=${value}]`).click();
root.getBoundingClientRect();
return performance.now() - begun;
"""


def main(examples: int = 5_000, responses: int = 5) -> None:
    """Write it, open it, use it."""
    today = evaluation([result(i, float(i % 3 > 0), responses=[f"{_TEXT}{i}"] * responses) for i in range(examples)])
    before = evaluation([result(i, float(i % 5 > 0)) for i in range(examples)])
    with tempfile.TemporaryDirectory() as directory, chromium() as browser:
        begun = time.perf_counter()
        page = write(Path(directory), [report(today, lock(before))])
        print(f"{examples} examples of {responses} answers: {page.stat().st_size / 1e6:.1f} MB, ", end="")
        print(f"written in {time.perf_counter() - begun:.1f} s")
        browser.open(page)
        loaded = browser.run(
            "const [n] = performance.getEntriesByType('navigation'); return n.loadEventEnd - n.startTime"
        )
        print(f"loaded in {loaded:.0f} ms")
        for what, value in (
            ("filter", "failed"),
            ("filter", "all"),
            ("search", "4998"),
            ("search", ""),
            ("sort", "question"),
        ):
            print(f"{what} {value!r}: {browser.run(_TIMED, what, value):.0f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
