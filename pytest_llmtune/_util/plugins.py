"""Load graders, engines, reporters and completion sources that other distributions register as entry points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmtune.errors import LLMTuneError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints


def installed(kind: str) -> EntryPoints:
    """The entry points of ``pytest_llmtune.<kind>``."""
    from importlib.metadata import entry_points  # slow: reads the metadata of every distribution

    return entry_points(group=f"pytest_llmtune.{kind}")


def load(kind: str, name: str) -> Any:
    """Load the object registered under a name; None if there is none.

    Raises:
        LLMTuneError: several distributions register the name, or the object cannot be imported.
    """
    found = {
        entry.value: entry for entry in installed(kind) if entry.name == name
    }  # an editable install lists it twice
    if len(found) > 1:
        raise LLMTuneError(f"several packages register {name!r} in pytest_llmtune.{kind}: {', '.join(found)}")
    for entry in found.values():
        try:
            return entry.load()
        except Exception as error:  # importing someone else's module can raise anything
            raise LLMTuneError(f"{name!r} (pytest_llmtune.{kind}, {entry.value}) cannot be loaded: {error}") from error
    return None
