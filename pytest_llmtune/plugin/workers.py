"""Data that an xdist controller shares with its workers."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune.money.ledger import SharedSpend

if TYPE_CHECKING:
    from contextlib import ExitStack


def worker_width(config: Any) -> int | None:
    """In a worker: the terminal's width, known only to the controller."""
    width = getattr(config, "workerinput", {}).get("llmtune_width")
    return None if width is None else int(width)


def shared_spend(config: Any) -> SharedSpend | None:
    """In a worker of a run with ``--llm-max-spend``: the other workers' spending."""
    given = getattr(config, "workerinput", {})
    return SharedSpend(Path(given["llmtune_spend"]), given["workerid"]) if "llmtune_spend" in given else None


class Workers:
    """The controller's view of the workers of a run with ``--llm-max-spend``."""

    def __init__(self, open_things: ExitStack) -> None:
        self._open = open_things

    @cached_property
    def _table(self) -> Path:
        """The table of shared spending, removed at the end of the run."""
        return Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="llmtune-"))) / "spend.sqlite"

    def starts(self, node: Any) -> None:
        """Set up a worker to share the run's limit."""
        node.workerinput["llmtune_spend"] = str(self._table)

    def died(self, node: Any) -> None:
        """Count a crashed worker's reservations as spent, so that others do not wait for them."""
        SharedSpend(self._table, "controller").bury(node.workerinput["workerid"])
