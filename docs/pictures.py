"""Makes the pictures of docs/images from the demo project: terminals as SVG, the report page as PNG.

    python docs/pictures.py            needs the extra `report`, selenium and Chromium

Only colours, sizes and times of day differ from run to run; look at them before committing.
"""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT / "tests"))


def pytest(*arguments: str, here: Path, width: int = 100) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("LLMTUNE_", "OPENAI_"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=yes", *arguments]
    done = subprocess.run(
        command, cwd=here, env=environ | {"COLUMNS": str(width)}, capture_output=True, text=True, check=False
    )
    return done.stdout


def terminal(name: str, command: str, output: str, width: int = 100) -> None:
    """A terminal with a command and what it printed, as one file that needs no network."""
    lines = output.splitlines()
    hidden = re.compile(r"^(\x1b\[[\d;]*m)*(=+ test session starts|platform|rootdir|configfile|plugins)")
    kept = "\n".join(line for line in lines if not hidden.match(line)).strip("\n")
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"$ {command}\n{kept}"), soft_wrap=False)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="pytest-llmtune"), flags=re.DOTALL)
    (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8", newline="\n")


def screenshot(page: Path) -> None:
    from support.browser import chromium

    with chromium() as browser:
        for name, width, dark in (("desktop", 1280, False), ("dark", 1280, True), ("phone", 390, False)):
            browser.emulate(width, 900, dark=dark, mobile=width < 700)
            browser.open(page)
            data = browser.driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"]
            (IMAGES / f"report-{name}.png").write_bytes(base64.b64decode(data))
        browser.emulate(1280, 900)
        browser.open(page)
        browser.run(
            "document.querySelector('.examples').scrollIntoView(); document.querySelector('tbody button').click()"
        )
        data = browser.driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"]
        (IMAGES / "report-table.png").write_bytes(base64.b64decode(data))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        pytest("--llm-init", "demo", here=here)
        demo = here / "demo"
        terminal("search", "pytest --llm-tune", pytest("--llm-tune", here=demo))
        terminal("guard", "pytest", pytest(here=demo))
        shop = demo / "shop.py"
        shop.write_text(shop.read_text(encoding="utf-8").replace(" in reply.lower()", " in reply"), encoding="utf-8")
        page = here / "report.html"
        terminal("failure", "pytest", pytest(f"--llm-report={page}", here=demo))
        screenshot(page)


if __name__ == "__main__":
    main()
