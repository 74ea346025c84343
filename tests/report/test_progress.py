"""Progress on a real pseudo-terminal, in a plain file, and not at all."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from dataclasses import replace
from decimal import Decimal

import pytest

from pytest_llmtune.report import progress
from pytest_llmtune.report.progress import Progress
from pytest_llmtune.types import Event, Finished, InFlight, RowsDone, Started, TrialDone

SEARCH: tuple[Event, ...] = (
    Started("algebra", "tune", 3, Decimal(1)),
    InFlight("algebra", 16, Decimal("0.01")),
    TrialDone("algebra", 1, "gpt-4o n=2", 0.5, Decimal("0.0012"), Decimal("0.1"), 0.5),
    TrialDone("algebra", 2, "gpt-4o n=5", None, None, Decimal("0.2"), 0.5, "failed"),
    TrialDone("algebra", 3, "gpt-4o n=3", 0.75, Decimal("0.002"), Decimal("0.3"), 0.75),
    Finished("algebra", Decimal("0.3"), "all trials done"),
)


def shown(events: tuple[Event, ...], **keys: bool) -> str:
    file = io.StringIO()
    with Progress(file, **keys) as listener:
        for event in events:
            listener(event)
    return file.getvalue()


def on_a_terminal(events: tuple[Event, ...]) -> str:
    """What a pseudo-terminal receives; read by a thread, since its buffer is small."""
    import pty

    reader, writer = pty.openpty()
    received: list[bytes] = []

    def receive() -> None:
        try:
            while data := os.read(reader, 10_000):
                received.append(data)
        except OSError:  # how Linux says that the other end is closed
            os.close(reader)

    thread = threading.Thread(target=receive)
    thread.start()
    with open(writer, "w", encoding="utf-8") as file, Progress(file, terminal=True, color=True) as listener:  # noqa: PTH123
        for event in events:
            listener(event)
    thread.join()
    return b"".join(received).decode()


def test_a_log_gets_one_line_a_trial() -> None:
    """Without a terminal there is no cursor movement: one line at the start, one a trial, one at the end."""
    assert shown(SEARCH).splitlines() == [
        "",
        "algebra: tuning, 3 trials, at most $1.00",
        "algebra: trial 1 of 3, $0.10 of $1.00, best 0.5, 16 in flight: score 0.5 at $1.20 per 1,000 instances: gpt-4o n=2",
        "algebra: trial 2 of 3, $0.20 of $1.00, best 0.5, 16 in flight: no score (failed): gpt-4o n=5",
        "algebra: trial 3 of 3, $0.30 of $1.00, best 0.75, 16 in flight: score 0.75 at $2.00 per 1,000 instances: gpt-4o n=3",
        "algebra: tuning done, $0.30: all trials done",
    ]


def test_quiet_is_silent() -> None:
    """Under -q nothing is written, on a terminal or elsewhere."""
    assert shown(SEARCH, quiet=True) == ""
    assert shown(SEARCH, quiet=True, terminal=True) == ""


def test_a_recording_reports_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log is not flooded by examples: a line comes only after a pause."""
    events = (
        Started("a", "record", 1000),
        *(RowsDone("a", i, 1000, Decimal(0)) for i in range(1000)),
        Finished("a", Decimal(0)),
    )
    assert shown(events).splitlines() == ["", "a: recording, 1000 examples", "a: recording done, $0"]
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    assert "a: example 999 of 1000, $0" in shown(events).splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    """On a terminal a bar shows trial, dollars and best; at the end one line stays and the cursor is visible again."""
    output = on_a_terminal(SEARCH)
    assert "trial 1 of 3, $0.10 of $1.00, best 0.5, 16 in flight" in re.sub(r"\x1b\[[0-9;]*m", "", output)
    assert output.rstrip().endswith("algebra: tuning done, trial 3 of 3, $0.30 of $1.00, best 0.75: all trials done")
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")


def test_the_bar_fills_with_what_is_done() -> None:
    """Half of the trials, or half of the dollars where these are nearer to their end, is half a bar."""
    file = io.StringIO()
    with Progress(file, terminal=True) as listener:
        listener(Started("a", "record", 10))
        listener(RowsDone("a", 5, 10, Decimal(0)))
        (task,) = listener._bar.tasks
        assert task.percentage == 50
        listener(Started("b", "tune"))
        assert [task.total for task in listener._bar.tasks] == [1, None]


def test_what_is_waited_out_is_shown_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the bar at once, in a log now and then; gone with the next answer."""
    waits = "HTTP 500: overloaded (attempt 3, next in 8 s)"
    events = (SEARCH[0], InFlight("algebra", 1, Decimal(0), waits), InFlight("algebra", 1, Decimal(0)), SEARCH[-1])
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", on_a_terminal((*events[:2], SEARCH[2], *events[2:])))
    assert "retrying: HTTP 500 (attempt 3, next in 8 s)" in plain
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    lines = shown(events).splitlines()
    assert f"algebra: retrying: {waits}, trial 0 of 3, $0 of $1.00, 1 in flight" in lines
    assert sum("retrying" in line for line in lines) == 1


def test_a_log_is_never_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last trial has started, a search may go on for long: what it pays is in the log now and then."""
    events = (SEARCH[0], InFlight("algebra", 4, Decimal("0.01"), answered=17), SEARCH[-1])
    assert "17 requests answered" not in shown(events)
    monkeypatch.setattr(progress, "_SILENCE", 0.0)
    assert "algebra: trial 0 of 3, $0.01 of $1.00, 17 requests answered, 4 in flight" in shown(events).splitlines()


def test_python_shows_the_bar_where_a_person_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """``tune()`` and ``evaluate()``: in a terminal and in a notebook; else they only log."""
    from pytest_llmtune import api

    for terminal, notebook in ((True, False), (False, True), (False, False)):
        file = io.StringIO()
        monkeypatch.setattr(file, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(sys, "stderr", file)
        if notebook:
            monkeypatch.setitem(sys.modules, "ipykernel", sys)
        else:
            monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
        listener = api._listener()
        for event in SEARCH:
            listener(event)
        assert ("tuning done" in file.getvalue()) == (terminal or notebook)


def test_a_bar_counts_requests_on_any_terminal() -> None:
    """What does not fit into the room is shortened: first the reason for waiting, last the figures."""
    in_flight = InFlight("a", 16, Decimal("0.00147"), "HTTP 500: overloaded (attempt 3, next in 8 s)", 395)
    state = progress._State(Started("a", "tune", 8, Decimal("0.02")), done=7, best=0.83333).after(in_flight)
    waits, full = "retrying: HTTP 500", "trial 7 of 8, $0.00147 of $0.02, best 0.8333, 395 requests answered"
    assert state.text() == f"{waits}: overloaded (attempt 3, next in 8 s), {full}, 16 in flight"
    assert state.text(130) == f"{waits} (attempt 3, next in 8 s), {full}, 16 in flight"
    calm = replace(state, retrying="")
    assert calm.text(70) == full
    assert calm.text(54) == "trial 7/8, $0.0015/$0.02, best 0.833, 395 requests"


def test_time_left_is_not_guessed_from_trials() -> None:
    """All trials have begun, and the search goes on: only dollars limit it, and where few are spent, nothing does."""
    file = io.StringIO()
    with Progress(file, terminal=True) as listener:
        listener(Started("a", "tune", 3, Decimal(1)))
        listener(TrialDone("a", 3, "x", 1.0, None, Decimal("0.01"), 1.0))
        (task,) = listener._bar.tasks
        task.start_time -= 60
        clock = listener._bar.columns[-1]
        assert clock.render(task).plain == "1:00 so far"
        listener(InFlight("a", 1, Decimal("0.25")))
        assert clock.render(task).plain == "<3:00 left"
        listener(Started("b", "record", 10))
        listener(RowsDone("b", 5, 10, Decimal(0)))
        task = listener._bar.tasks[-1]
        task.start_time -= 30
        assert clock.render(task).plain == "0:30 left"


def test_the_last_line_fits_the_terminal() -> None:
    """It stays on the screen, and no word of it is broken."""
    file = io.StringIO()
    with Progress(file, terminal=True) as listener:
        listener(SEARCH[0])
        listener(InFlight("algebra", 0, Decimal("0.01234"), answered=1395))
        listener(SEARCH[4])
        listener(Finished("algebra", Decimal("0.3"), "stopped because the server refused the key"))
    *_, first, second, end = file.getvalue().split("\n")
    first = first.rpartition("\r")[2]
    assert first.startswith("algebra: tuning done, trial 3/3, $0.30/$1.00, best 0.75, 1395 requests: stopped")
    assert (max(len(first), len(second)) <= 80, second[:4], end) == (True, " " * 4, "")


def test_an_error_leaves_the_terminal_usable() -> None:
    """A bar that is interrupted is taken down: the cursor is shown again."""
    file = io.StringIO()

    def interrupted() -> None:
        with Progress(file, terminal=True) as listener:
            listener(SEARCH[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l")


def test_no_colour_where_there_is_none() -> None:
    """Without colour, a bar still moves the cursor, but sets no colour."""
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown(SEARCH, terminal=True, color=False))


def test_a_budget_alone_moves_the_bar() -> None:
    """A search without a number of trials is measured by its dollars, one without any bound has no share."""
    state = progress._State(Started("a", "tune", None, Decimal(2)), spent=Decimal(1))
    assert state.share == 0.5
    assert progress._State(Started("a", "tune", 10, Decimal(2)), done=9, spent=Decimal(1)).share == 0.9
    assert progress._State(Started("a", "tune"), done=9).share is None


def test_labels_cannot_steer_the_terminal() -> None:
    """A suite or configuration with control characters or markup is shown, not obeyed."""
    nasty = "\x1b[31m[red]x\x07\n::error::y"
    events = (Started(nasty, "tune"), TrialDone(nasty, 1, nasty, 1.0, None, Decimal(0), 1.0, nasty))
    for terminal in (False, True):
        output = shown(events, terminal=terminal)
        assert "[red]" in output
        assert not any(character in output for character in ("\x1b[31m", "\x07"))
        assert not re.search(r"^::", output, re.MULTILINE)
