"""Progress of a search or a recording: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from decimal import Decimal
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.text import cell_cut, counted, dollars, number, one_line, per_thousand
from pytest_llmtune.types import Asked, Finished, InFlight, Started, TrialDone

if TYPE_CHECKING:
    from types import TracebackType

    from pytest_llmtune.types import Event

__all__ = ["Progress"]


_VERBS = {"tune": "tuning", "record": "recording", "live": "asking live"}
_PAUSE = 10.0  # seconds between plain lines about examples
_WIDE = 110


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
            case Asked() if self.started.task != "tune":
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

    def text(self, width: int = _WIDE) -> str:
        """A summary; lines narrower than ``_WIDE`` cells omit the number of requests."""
        unit = "trial" if self.started.task == "tune" else "example"
        parts = [f"{unit} {self.done}" + (f" of {self.started.total}" if self.started.total else "")]
        parts.append(dollars(self.spent, 3) + (f" of {dollars(self.started.budget)}" if self.started.budget else ""))
        if self.best is not None:
            parts.append(f"best {number(self.best)}")
        if self.answered and width >= _WIDE:
            parts.append(f"{counted(self.answered, 'request')} answered")
        if self.in_flight:
            parts.append(f"{self.in_flight} in flight")
        if self.retrying:
            what, mark, when = one_line(self.retrying).partition(" (attempt")
            short = what if width >= _WIDE else what.partition(": ")[0]  # HTTP 500
            parts.insert(0, f"retrying: {short}{mark}{when}")
        return ", ".join(parts)


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
            elif monotonic() - self._last >= _PAUSE:
                self._line(event.suite, state.text())
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
                if state.retrying and monotonic() - self._last >= _PAUSE:
                    self._line(event.suite, state.text())
            case Asked():
                if state.started.task != "tune" and monotonic() - self._last >= _PAUSE:
                    self._line(event.suite, state.text())
            case Finished():
                note = f": {one_line(event.note)}" if event.note else ""
                verb = _VERBS[state.started.task]
                self._line(event.suite, f"{verb} done, {dollars(event.spent)}{note}")

    def _line(self, suite: str, text: str) -> None:
        self._last = monotonic()
        start = "" if self._begun else "\n"  # pytest has written the test's name without a newline
        self._begun = True
        self.file.write(f"{start}{one_line(suite)}: {text}\n")
        self.file.flush()

    def _draw(self, event: Event, state: _State) -> None:
        bar = self._running_bar()
        suite = event.suite
        if suite not in self._tasks:
            self._tasks[suite] = bar.add_task(cell_cut(one_line(suite), 24), total=None, text="")
        share = state.share
        text = state.text(bar.console.width)
        bar.update(self._tasks[suite], text=text, completed=share or 0, total=None if share is None else 1)
        if isinstance(event, TrialDone):
            bar.refresh()
        if isinstance(event, Finished):
            bar.remove_task(self._tasks.pop(suite))
            if not self._tasks:
                self._stop_bar()
            verb = _VERBS[state.started.task]
            self._line(suite, f"{verb} done, {state.text()}" + (f": {one_line(event.note)}" if event.note else ""))

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
