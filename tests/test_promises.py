"""What documents and messages name exists: tests, and extras to install."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml

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
    assert extras - {"docs", "dev", "clients"} <= advised.keys()  # these are for working on this package


def test_the_version_stands_in_one_place() -> None:
    """In pyproject.toml: the package asks its metadata, and nothing else that a release has to change names it."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    files = [*(ROOT / "pytest_llmtune").rglob("*.py"), ROOT / "CITATION.cff", ROOT / "README.md", ROOT / "mkdocs.yml"]
    assert [path.name for path in files if version in path.read_text(encoding="utf-8")] == []


def test_forms_for_issues_and_citation_are_yaml() -> None:
    """What GitHub reads."""
    for path in [*(ROOT / ".github").rglob("*.yml"), ROOT / "CITATION.cff"]:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.parent.name == "ISSUE_TEMPLATE" and path.name != "config.yml":
            assert {"name", "description", "body"} <= found.keys()
        if path.name == "CITATION.cff":
            assert {"cff-version", "message", "title", "authors"} <= found.keys()
