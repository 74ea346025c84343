"""Makes the pictures of docs/images from the example project, offline: a terminal as SVG, the report page as PNG.

    python docs/pictures.py            needs the extra `report`, selenium and Chromium

Only colours and sizes differ from run to run: what depends on how busy the machine is is left out.
Look at them before committing.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
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
    hidden = re.compile(
        r"^(\x1b\[[\d;]*m)*(=+ test session starts|platform|rootdir|configfile|plugins|.* in \d+\.\d+s\b)"
    )
    kept = "\n".join(line for line in lines if not hidden.match(line)).strip("\n")
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"$ {command}\n{kept}"), soft_wrap=False)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="pytest-llmtune"), flags=re.DOTALL)
    (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8", newline="\n")


def screenshot(page: Path) -> None:
    from support.browser import chromium

    with chromium() as browser:
        browser.emulate(1280, 900)
        browser.open(page)
        data = browser.driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"]
        (IMAGES / "report-desktop.png").write_bytes(base64.b64decode(data))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory) / "shop"
        shutil.copytree(ROOT / "example_project", here, ignore=shutil.ignore_patterns(".llmtune", "__pycache__"))
        page = here / "report.html"
        pytest(f"--llm-report={page}", "tests/test_orders.py", here=here)
        screenshot(page)
        orders = here / "cornershop" / "orders.py"
        broken = orders.read_text(encoding="utf-8").replace('"delivery": "trace"', '"delivery": "track"')
        orders.write_text(broken, encoding="utf-8")
        command = "pytest tests/test_orders.py"
        terminal("failure", command, pytest(*command.split()[1:], here=here))


if __name__ == "__main__":
    main()
