"""Hook specifications of the plugin."""

from __future__ import annotations

import pluggy

_spec = pluggy.HookspecMarker("pytest")


@_spec
def pytest_llmtune_redact(text: str) -> str | None:
    """Return a text without secrets; None leaves it unchanged. Each plugin gets the previous one's result.

    Called for every URL, header value and string of a request or response, before it is graded, stored or looked up, from
    any thread and possibly repeatedly, so it must be idempotent.
    """
