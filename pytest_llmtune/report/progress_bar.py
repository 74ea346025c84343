"""The progress bar, drawn with rich."""

from __future__ import annotations

import os
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

_EARLY = 0.05
"""Fraction that must be done before the remaining time is estimated."""


class _TimeLeft(ProgressColumn):
    """Estimated time left by the average speed so far; rich's own column uses only the last 30 seconds.

    A search may end before its budget does, so its time is a limit. Where nothing can be estimated: time so far.
    """

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        elapsed, timed = task.elapsed or 0.0, task.fields["timed"]
        if timed is None or timed < _EARLY:
            return Text(f"{_clock(elapsed)} so far")
        remaining = elapsed * max(0.0, 1 - timed) / timed
        return Text(f"{'<' if task.fields['search'] else ''}{_clock(max(1, round(remaining)))} left")


def _clock(elapsed: float) -> str:
    minutes, seconds = divmod(round(elapsed), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def bar(file: TextIO, *, color: bool) -> Progress:
    """One line with suite, bar, ``update(text=...)`` and time left; the bar takes the remaining width."""
    console = Console(file=file, force_terminal=True, no_color=not color, highlight=False, emoji=False)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
        TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        _TimeLeft(table_column=Column(no_wrap=True)),
    )
    return Progress(
        *columns, console=console, transient=True, expand=True, redirect_stdout=False, redirect_stderr=False
    )


def fit(shown: Progress) -> None:
    """Adapt to the terminal's width: rich would ask the standard streams, which pytest has captured."""
    try:
        width = os.get_terminal_size(shown.console.file.fileno()).columns
    except OSError:  # not a terminal, or not a system file
        width = 0
    shown.console.width = width or 80
