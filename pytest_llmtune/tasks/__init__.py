"""Run an app's function, with every model call inside captured, priced, recorded and replayed."""

from __future__ import annotations

from pytest_llmtune.tasks.source import Miss, TaskSource

__all__ = ["Miss", "TaskSource"]
