"""The tutorial runs as written: each command on the page, in order, and what it shows is what comes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def steps() -> list[tuple[str, list[str]]]:
    """Each command with the lines that the page shows of its output."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(BLOCK.findall(PAGE.read_text(encoding="utf-8"))).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def as_pattern(line: str) -> re.Pattern[str]:
    """A line as shown, with other figures: another search of a later version may choose and lose other rows."""
    text = re.sub(r"row \d+ \[.*", "row ...", re.sub(r" +", " ", line.strip()))
    text = re.sub(r"praise|complaint|question", "LABEL", text) if "votes)" in text or "expected" in text else text
    text = re.escape(text).replace(re.escape("..."), ".*").replace("LABEL", r"\w+")
    return re.compile(r" *" + re.sub(r"\d[\d.]*(?:\\\.\d+)*", r"[\\d.]+", text).replace(r"\ ", " +"))


def test_tutorial(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """From `--llm-init demo` on: tune, guard, break, record, accept, against the stand-in that the package ships."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")  # the demo's own server takes its place
    monkeypatch.setenv("COLUMNS", "120")
    for command, shown in steps():
        program, *arguments = command.split()
        if program == "cd":
            monkeypatch.chdir(pytester.path / arguments[0])
        elif program == "sed":
            subprocess.run(command, shell=True, check=True)  # noqa: S602  # our own page
        elif program == "pytest":
            result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)
            failed = any(re.match(r"\S+ (failed|is stale):", line) for line in shown)
            assert result.ret == failed, command
            lines = iter(result.outlines)
            for expected in shown:
                pattern = as_pattern(expected)
                assert any(pattern.fullmatch(line) for line in lines), f"{command}: {expected}"
        else:
            assert program == "pip", command
