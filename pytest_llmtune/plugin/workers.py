"""What the controller of an xdist run keeps for its workers."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune.money.ledger import SharedSpend

if TYPE_CHECKING:
    from contextlib import ExitStack

__all__ = ["Workers", "shared_spend", "width_told"]


def width_told(config: Any) -> int | None:
    """In a worker: how wide the terminal is, which only the controller can see."""
    told = getattr(config, "workerinput", {}).get("llmtune_width")
    return None if told is None else int(told)


def shared_spend(config: Any) -> SharedSpend | None:
    """In a worker of a run with ``--llm-max-spend``: what the other workers spend of it."""
    told = getattr(config, "workerinput", {})
    return SharedSpend(Path(told["llmtune_spend"]), told["workerid"]) if "llmtune_spend" in told else None


class Workers:
    """The workers of a run with ``--llm-max-spend``, as the controller sees them."""

    def __init__(self, open_things: ExitStack) -> None:
        self._open = open_things

    @cached_property
    def _table(self) -> Path:
        """Where they tell each other what they spend; gone at the run's end."""
        return Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="llmtune-"))) / "spend.sqlite"

    def starts(self, node: Any) -> None:
        """A worker is set up: it shares the limit of the run."""
        node.workerinput["llmtune_spend"] = str(self._table)

    def died(self, node: Any) -> None:
        """A worker crashed: what it had in flight counts as spent, so that nobody waits for it."""
        SharedSpend(self._table, "controller").bury(node.workerinput["workerid"])
