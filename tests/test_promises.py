"""What documents and messages name exists: tests, and extras to install."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("document", ["security.md"])
def test_every_test_that_is_named_exists(document: str) -> None:
    """A promise is held by a test of that name, in that file."""
    named = NAMED.findall((ROOT / "docs" / document).read_text(encoding="utf-8"))
    assert len(named) > 30
    for path, name in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"^(?:async )?def {name}\(", text, re.MULTILINE), f"{path}::{name}"


EXTRA = re.compile(r"pytest-llmtune\[([\w, -]+)\]|\bextra ['`]?([a-z]\w*)['`]")


def test_every_extra_that_is_advised_can_be_installed() -> None:
    """In messages, documents and the examples of CI; and a message advises each extra that only some suites need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    advised: dict[str, set[str]] = {}
    for path in chain((ROOT / "pytest_llmtune").rglob("*.py"), (ROOT / "docs").rglob("*.*"), ROOT.glob("*.md")):
        if path.suffix in (".py", ".md", ".yml"):
            for several, one in EXTRA.findall(path.read_text(encoding="utf-8")):
                for name in (several or one).split(","):
                    advised.setdefault(name.strip(), set()).add(path.relative_to(ROOT).as_posix())
    extras = project["optional-dependencies"].keys()
    assert {name: where for name, where in advised.items() if name not in extras} == {}
    assert extras - {"docs", "dev"} <= advised.keys()
