"""Hooks that this plugin offers."""

from __future__ import annotations

import pluggy

__all__ = ["pytest_llmtune_redact"]


_spec = pluggy.HookspecMarker("pytest")


@_spec
def pytest_llmtune_redact(text: str) -> str | None:
    """Give a text without what must not be kept; None leaves it as it is. Each plugin gets what the one before gave.

    Called for every URL, header value and text of a request or response, before it is judged, stored or looked up, from
    any thread and possibly more than once: what it gives for its own result must be that result.
    """
