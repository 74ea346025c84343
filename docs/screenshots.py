"""Makes the pictures of the documentation, all of them from real runs: python docs/screenshots.py

    docs/images/guard.svg, failure.svg        the example project, as it is and with one line of its parser broken
    docs/images/search.svg                    a search on a real terminal, in the middle of it
    docs/images/report-desktop.png, -dark.png, -phone.png, -table.png    the page of the broken run, in Chromium

It needs Chromium and chromedriver, and the extra ``dev``; no network and no key.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
WINDOWS = {"desktop": (1280, 1480, False), "dark": (1280, 1480, True), "phone": (390, 844, False)}
WIDTH = 100
PARSER = "if label in text]", 'if f": {label}" in text]'
"""The line of ``cornershop/answers.py`` that breaks, as the README breaks it."""

sys.path.insert(0, str(ROOT / "tests"))
from support.browser import chromium  # noqa: E402
from support.llm_server import LLMServer  # noqa: E402
from support.screen import on_a_terminal  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

SUITE = """
import pytest
from pytest_llmtune import randint, uniform

@pytest.mark.llmtune(
    dataset=[{"question": f"What is {a} plus {b}?", "answer": a + b} for a in range(9) for b in range(9)],
    prompt="{question}", model=["small", "large"], temperature=uniform(0, 1), n=randint(1, 6), max_tokens=20,
    grader="numeric", inference_budget=0.002, optimization_budget=0.5, num_samples=12, min_success_vote=0.9,
    prices={"small": {"input": 5, "output": 20}, "large": {"input": 25, "output": 100}},
)
def test_sums(llmtune):
    llmtune.check()
"""


def save(name: str, text: Text) -> None:
    """A terminal's content as a picture."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    console.print(text)
    console.save_svg(str(IMAGES / f"{name}.svg"), title="pytest-llmtune")


def pytest_in(directory: Path, *arguments: str, watch: Any = lambda _: None) -> str:
    """What pytest prints on a terminal."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--no-header", *arguments]
    seen = on_a_terminal(command, directory, width=WIDTH, watch=watch)
    return seen.sent.decode().replace("\r\n", "\n")


def session(arguments: str, output: Text) -> Text:
    """The command, and what it printed."""
    return Text().append(f"$ pytest {arguments}".rstrip() + "\n", style="bold").append_text(output)


def printed(output: str) -> Text:
    """The lines of a terminal, but those that were there for a moment only."""
    return Text.from_ansi("\n".join(line for line in output.splitlines() if "collecting " not in line))


def guard(project: Path) -> None:
    """The example as it is, then broken: the terminal, and the page."""
    save("guard", session("", printed(pytest_in(project))))
    answers = project / "cornershop" / "answers.py"
    answers.write_text(answers.read_text(encoding="utf-8").replace(*PARSER), encoding="utf-8")
    page = project / "report.html"
    output = pytest_in(project, "tests/test_korean.py", f"--llm-report={page}")
    if "1 failed" not in output:
        raise SystemExit("the broken example does not fail: break another line")
    save("failure", session("tests/test_korean.py", printed(output)))
    photograph(page)


def photograph(page: Path) -> None:
    """The page, once for each window, and its table of examples with one of them open."""
    with chromium() as browser:
        for name, (width, height, dark) in WINDOWS.items():
            browser.emulate(width, height, dark=dark, mobile=width < 500)
            browser.open(page)
            time.sleep(0.5)  # the figures are drawn
            browser.screenshot(IMAGES / f"report-{name}.png")
        browser.emulate(1280, 760)
        browser.open(page)
        browser.one(".examples tbody button").click()
        browser.run("document.querySelector('.examples').scrollIntoView()")
        browser.screenshot(IMAGES / "report-table.png")


def styled(screen: Any) -> Text:
    """The lines of pyte's screen that hold something, with their colours."""
    text = Text()
    for row in range(screen.lines):
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        if any(cell.data.strip() for cell in cells):
            for cell in cells:
                color = {"default": "", "brown": "yellow"}.get(cell.fg, cell.fg)
                color = f"#{color}" if len(color) == 6 and not color.isalpha() else color
                text.append(cell.data, style=f"{'bold ' * cell.bold}{color}".strip())
            text.rstrip()
            text.append("\n")
    return text


def search(directory: Path) -> None:
    """A search against a server on loopback, as it stands somewhere in the middle."""

    def answer(body: dict[str, Any]) -> str:
        words = body["messages"][-1]["content"].replace("?", "").split()
        right = int(words[2]) + int(words[4])
        hard = right % 5 == 0 and body["model"] == "small"
        return f"The answer is {right + hard}."

    moments: dict[str, Text] = {}

    def watch(screen: Any) -> None:
        for line in screen.display:
            if " left" in line and " in flight" in line and " trial " in line:
                moments[line.split(" trial ")[1].split()[0]] = styled(screen)

    (directory / "test_sums.py").write_text(SUITE, encoding="utf-8")
    with LLMServer(answer=answer, latency=0.15) as server:
        os.environ |= {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "none"}
        pytest_in(directory, "--llm-tune", watch=watch)
    middle = moments.get("7") or list(moments.values())[len(moments) // 2]
    save("search", session("--llm-tune", middle))


def main(arguments: Sequence[str]) -> None:
    if arguments:
        sys.exit(__doc__)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory) / "cornershop"
        shutil.copytree(ROOT / "example_project", project, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        guard(project)
        place = Path(directory) / "search"
        place.mkdir()
        search(place)


if __name__ == "__main__":
    main(sys.argv[1:])
