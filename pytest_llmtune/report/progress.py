"""Progress of a search or a recording: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from decimal import Decimal
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.text import cell_cut, counted, dollars, number, one_line, per_thousand, wrapped
from pytest_llmtune.types import Event, Finished, InFlight, RowsDone, Started, TrialDone

if TYPE_CHECKING:
    from types import TracebackType


_VERBS = {"tune": "tuning", "record": "recording", "live": "asking live"}
_PAUSE = 10.0  # seconds between plain lines about examples
_SILENCE = 60.0  # seconds after which a plain line says that requests are still being answered
_WIDE = 100  # cells; a narrower bar has a shorter name
_CLOCK = 12  # cells for the time


@dataclass(frozen=True, slots=True)
class _State:
    """State of one suite's step."""

    started: Started
    done: int = 0
    """Trials of a search, else examples."""
    spent: Decimal = Decimal(0)
    best: float | None = None
    in_flight: int = 0
    answered: int = 0
    """Requests."""
    retrying: str = ""

    @property
    def share(self) -> float | None:
        """Fraction done, by the nearer limit; None without a limit."""
        started = self.started
        shares = [self.done / started.total] if started.total else []
        shares += [float(self.spent / started.budget)] if started.budget else []
        return min(1.0, max(shares)) if shares else None

    def after(self, event: Event) -> _State:
        match event:
            case TrialDone():
                return replace(self, done=event.trial, spent=event.spent, best=event.best)
            case RowsDone() if self.started.task != "tune":
                return replace(self, done=event.done, spent=event.spent)
            case InFlight():
                return replace(
                    self,
                    in_flight=event.requests,
                    answered=event.answered,
                    spent=max(self.spent, event.paid),
                    retrying=event.retrying,
                )
            case Finished():
                return replace(self, spent=event.spent, in_flight=0, retrying="")
        return self

    @property
    def timed(self) -> float | None:
        """Fraction done that tells how much time is left; None if nothing does.

        Trials do not: after the last one has started, a search continues with more rows. Its budget is at least a limit.
        """
        if self.started.task != "tune":
            return self.share
        return float(self.spent / self.started.budget) if self.started.budget else None

    def text(self, room: int = 1_000) -> str:
        """A summary of at most ``room`` cells, as far as shortening its parts allows."""
        what, mark, when = one_line(self.retrying).partition(" (attempt")
        waits = [f"retrying: {what}{mark}{when}"] if what else []
        short = [f"retrying: {what.partition(': ')[0]}{mark}{when}"] if what else []  # HTTP 500
        flying = [f"{self.in_flight} in flight"] if self.in_flight else []
        figures, brief = self._figures(), self._figures(brief=True)
        forms = ([*waits, *figures, *flying], [*short, *figures, *flying], [*short, *figures], [*short, *brief])
        lines = [", ".join(parts) for parts in forms]
        return next((line for line in lines if len(line) <= room), lines[-1])

    def _figures(self, *, brief: bool = False) -> list[str]:
        started, per = self.started, "/" if brief else " of "
        total = f"{per}{started.total}" if started.total else ""
        budget = f"{per}{dollars(started.budget)}" if started.budget else ""
        return [
            f"{'trial' if started.task == 'tune' else 'example'} {self.done}{total}",
            f"{dollars(self.spent, 2 if brief else 3)}{budget}",
            *([f"best {number(self.best, 3 if brief else 4)}"] if self.best is not None else []),
            *([counted(self.answered, "request") + ("" if brief else " answered")] if self.answered else []),
        ]


@dataclass(slots=True)
class Progress:
    """Displays events; a context manager that restores the terminal.

    ``file`` must be the real terminal or log, not a captured stream, so that it never mixes with tests' output.
    """

    file: TextIO
    terminal: bool = False
    """Whether ``file`` supports cursor movements."""
    color: bool = False
    quiet: bool = False
    worker: bool = False
    """Whether this is an xdist worker: others write to the same terminal, so only a line every ten seconds."""
    _states: dict[str, _State] = field(default_factory=dict)
    _tasks: dict[str, Any] = field(default_factory=dict)
    _bar: Any = None
    _fit: Any = None
    _begun: bool = False
    _last: float = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_bar()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self.quiet:
            return
        if isinstance(event, Started):
            self._states[event.suite] = _State(event)
        elif event.suite not in self._states:
            return  # an event after the end of its step
        self._states[event.suite] = state = self._states[event.suite].after(event)
        if isinstance(event, Finished):
            del self._states[event.suite]
        if self.worker:
            if isinstance(event, Started):
                self._last = monotonic()
            else:
                self._pause_line(event.suite, state, _PAUSE)
        elif self.terminal:
            self._draw(event, state)
        else:
            self._print(event, state)

    def _print(self, event: Event, state: _State) -> None:
        match event:
            case Started():
                bounds = [f"{event.total} {'trials' if event.task == 'tune' else 'examples'}"] if event.total else []
                bounds += [f"at most {dollars(event.budget)}"] if event.budget else []
                self._line(event.suite, ", ".join([_VERBS[event.task], *bounds]))
            case TrialDone():
                score = "no score" if event.score is None else f"score {number(event.score)}"
                cost = "" if event.inference_cost is None else f" at {per_thousand(event.inference_cost)}"
                status = "" if event.status == "done" else f" ({one_line(event.status)})"
                self._line(event.suite, f"{state.text()}: {score}{cost}{status}: {one_line(event.config)}")
            case InFlight():
                self._pause_line(event.suite, state, _PAUSE if state.retrying else _SILENCE)
            case RowsDone() if state.started.task != "tune":
                self._pause_line(event.suite, state, _PAUSE)
            case Finished():
                note = f": {one_line(event.note)}" if event.note else ""
                verb = _VERBS[state.started.task]
                self._line(event.suite, f"{verb} done, {dollars(event.spent)}{note}")

    def _pause_line(self, suite: str, state: _State, pause: float) -> None:
        """A line, if the last one is so many seconds old."""
        if monotonic() - self._last >= pause:
            self._line(suite, state.text())

    def _line(self, suite: str, text: str, width: int = 10_000) -> None:
        self._last = monotonic()
        start = "" if self._begun else "\n"  # pytest has written the test's name without a newline
        self._begun = True
        self.file.write(f"{start}{wrapped(f'{one_line(suite)}: {text}', width)}\n")
        self.file.flush()

    def _draw(self, event: Event, state: _State) -> None:
        bar = self._running_bar()
        suite, width = event.suite, bar.console.width
        name = cell_cut(one_line(suite), 24 if width >= _WIDE else 16)
        if suite not in self._tasks:
            self._tasks[suite] = bar.add_task(name, total=None, text="", timed=None, search=False)
        share = state.share
        bar.update(
            self._tasks[suite],
            text=state.text(width - len(name) - _CLOCK - 7),  # four for the bar, three between columns
            timed=state.timed,
            search=state.started.task == "tune",
            completed=share or 0,
            total=None if share is None else 1,
        )
        if isinstance(event, TrialDone):
            bar.refresh()
        if isinstance(event, Finished):
            bar.remove_task(self._tasks.pop(suite))
            if not self._tasks:
                self._stop_bar()
            note = f": {one_line(event.note)}" if event.note else ""
            head = f"{_VERBS[state.started.task]} done, "
            self._line(suite, f"{head}{state.text(width - len(one_line(suite)) - len(head) - 2)}{note}", width)

    def _running_bar(self) -> Any:
        if self._bar is None:
            from pytest_llmtune.report.progress_bar import bar, fit

            if not self._begun:
                self.file.write("\n")
                self._begun = True
            self._bar, self._fit = bar(self.file, color=self.color), fit
            self._fit(self._bar)
            self._bar.start()
        self._fit(self._bar)
        return self._bar

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._tasks.clear()
