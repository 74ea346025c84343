"""Objects that other distributions register as entry points."""

from __future__ import annotations

from importlib import metadata

import pytest

from pytest_llmtune._util import plugins
from pytest_llmtune.errors import LLMTuneError


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> list[metadata.EntryPoint]:
    """The entry points that are found, to be filled."""
    found: list[metadata.EntryPoint] = []
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [each for each in found if each.group == group])
    return found


def entry(value: str, name: str = "mine", kind: str = "graders") -> metadata.EntryPoint:
    return metadata.EntryPoint(name, value, f"pytest_llmtune.{kind}")


def test_what_is_registered_once_is_loaded(register: list[metadata.EntryPoint]) -> None:
    """An editable install lists it twice; another kind, or another name, is another thing."""
    register += [
        entry("json:dumps"),
        entry("json:dumps"),
        entry("os:getcwd", "other"),
        entry("os:system", kind="engines"),
    ]
    import json

    assert plugins.load("graders", "mine") is json.dumps
    assert plugins.load("graders", "unknown") is None
    assert [each.name for each in plugins.installed("engines")] == ["mine"]


def test_a_name_of_two_packages_is_nobodys(register: list[metadata.EntryPoint]) -> None:
    """Which of them is meant cannot be known."""
    register += [entry("json:dumps"), entry("json:loads")]
    with pytest.raises(
        LLMTuneError, match=r"several packages register 'mine' in pytest_llmtune.graders: json:dumps, json"
    ):
        plugins.load("graders", "mine")


@pytest.mark.parametrize("value", ["no_such_module:grade", "json:no_such_function"])
def test_what_cannot_be_imported_is_an_error_that_names_it(register: list[metadata.EntryPoint], value: str) -> None:
    """Whatever the import raises."""
    register.append(entry(value))
    with pytest.raises(LLMTuneError, match=rf"'mine' \(pytest_llmtune.graders, {value}\) cannot be loaded: "):
        plugins.load("graders", "mine")
