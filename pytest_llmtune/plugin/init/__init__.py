"""``--llm-init``: a starter suite for a data file, in YAML and in Python."""

from __future__ import annotations

from pytest_llmtune.plugin.init.files import write

__all__ = ["write"]
