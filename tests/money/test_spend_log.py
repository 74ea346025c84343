"""What a killed run had spent is told by the next run that ends."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune.money.spend_log import SpendLog

if TYPE_CHECKING:
    from pathlib import Path


def kill(log: SpendLog) -> None:
    """As the system closes a process's files."""
    for file in (*log._killed, *filter(None, [log._file])):
        file.close()


def test_runs_that_are_killed_one_after_the_other_are_told_together(tmp_path: Path) -> None:
    first, second, third, beside = (SpendLog(tmp_path) for _ in range(4))
    first.note(Decimal(1))
    assert second.earlier() == 0, "the first is alive"
    kill(first)
    assert second.earlier() == 1
    second.note(Decimal(2))
    kill(second)
    assert third.earlier() == 3
    assert beside.earlier() == 0, "the third will tell it"
    third.close()
    beside.close()
    assert not list(tmp_path.iterdir())
