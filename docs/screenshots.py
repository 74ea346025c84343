"""Makes the pictures of the documentation from a real run; run it from the project's root.

    pytest --llm-json=results.json                                     # in the example project
    python docs/screenshots.py page results.json                       # docs/images/report-{desktop,dark,phone}.png
    python docs/screenshots.py terminal NAME COMMAND [ARGUMENT ...]    # docs/images/NAME.svg: what the command prints

The page needs Chromium, chromedriver and selenium; the terminal needs rich, which the package depends on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
WINDOWS = {"desktop": (1280, 1500, False), "dark": (1280, 1500, True), "phone": (390, 844, False)}


def page(results: Path) -> None:
    """Open the report of these results in Chromium, once for each window."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.browser import chromium

    from pytest_llmtune.report import html, json

    with tempfile.TemporaryDirectory() as directory, chromium() as browser:
        target = html.write(Path(directory), json.read(results))
        for name, (width, height, dark) in WINDOWS.items():
            browser.emulate(width, height, dark=dark, mobile=width < 500)
            browser.open(target)
            browser.screenshot(IMAGES / f"report-{name}.png")


def terminal(name: str, command: list[str]) -> None:
    """Run a command as on a terminal of 100 columns and keep what it prints as a picture."""
    from rich.console import Console
    from rich.text import Text

    environment = os.environ | {"COLUMNS": "100", "FORCE_COLOR": "1", "PY_COLORS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603 - the user's own
    console = Console(record=True, width=100, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    console.print(Text(f"$ {' '.join(command)}", style="bold"))
    console.print(Text.from_ansi(done.stdout.rstrip()))
    console.save_svg(str(IMAGES / f"{name}.svg"), title="pytest-llmtune")


def main(arguments: list[str]) -> None:
    IMAGES.mkdir(exist_ok=True)
    match arguments:
        case ["page", results]:
            page(Path(results))
        case ["terminal", name, *command] if command:
            terminal(name, command)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
