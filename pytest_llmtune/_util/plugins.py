"""Find what other distributions register through entry points: graders, engines, reporters, sources of completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmtune.errors import LLMTuneError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

__all__ = ["installed", "load"]


def installed(kind: str) -> EntryPoints:
    """The entry points of ``pytest_llmtune.<kind>``."""
    from importlib.metadata import entry_points  # reads the metadata of every distribution: only when asked

    return entry_points(group=f"pytest_llmtune.{kind}")


def load(kind: str, name: str) -> Any:
    """The object that a distribution registers under a name; None where none does.

    Raises:
        LLMTuneError: two distributions register the name, or it cannot be imported.
    """
    found = {
        entry.value: entry for entry in installed(kind) if entry.name == name
    }  # an editable install lists it twice
    if len(found) > 1:
        raise LLMTuneError(
            f"{name!r} is registered by several packages as one of pytest_llmtune.{kind}: {', '.join(found)}"
        )
    for entry in found.values():
        try:
            return entry.load()
        except Exception as error:  # whatever a stranger's module does when it is imported
            raise LLMTuneError(f"{name!r} (pytest_llmtune.{kind}, {entry.value}) cannot be loaded: {error}") from error
    return None
