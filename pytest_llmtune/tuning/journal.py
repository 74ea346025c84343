"""The log of a study, kept so that an interrupted search resumes."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.files import write_text
from pytest_llmtune._util.text import dollars
from pytest_llmtune.errors import LLMTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_llmtune.types import Completion, CompletionRequest

__all__ = ["StudyLog"]


_MAX_BYTES = 256_000_000


@dataclass(slots=True)
class StudyLog:
    """What this study paid for, in this run and in the ones that were killed before it.

    The answers themselves are in the cache, and the search repeats its decisions; so going on where it was means to
    begin again and to count what was paid for earlier at its price, once.
    """

    path: Path | None = None
    """None: nothing is kept."""
    spent_earlier: Decimal = Decimal(0)
    """USD that killed runs of this study paid, answers included that they died too early to keep."""
    uncounted: dict[tuple[str, int], Decimal] = field(default_factory=dict)
    """Exchange (its request's key, its place in the cache) to USD that the study paid, until it is first used."""
    ended: bool = False
    """Whether it had come to its end, and is repeated from the cache."""

    @property
    def earlier(self) -> str | None:
        """What is to be said of runs that were killed or interrupted; None where there were none."""
        if self.ended or not self.spent_earlier:
            return None
        return f"earlier runs of this search, which did not end, had spent {dollars(self.spent_earlier)}; it counts in its budget"

    @classmethod
    def open(cls, path: Path, study: str) -> StudyLog:
        """Go on with the log at ``path`` where it is one of the same study, else begin a new one.

        A study that had ended is repeated from the cache: it finds the same again and pays nothing.

        Args:
            study: what makes two studies the same: a digest of suite, rows, grader, budgets and seed.

        Raises:
            LLMTuneError: no file can be written there.
        """
        try:
            log = _read(path, study)
            if log is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps({"study": study}) + "\n")
            elif not path.read_bytes().endswith(b"\n"):
                log.write({})  # ends the line that a kill tore
        except OSError as error:
            why = error.strerror or error
            raise LLMTuneError(f"{path}: the study's log cannot be kept there: {why}; name another file") from error
        return log or cls(path)

    @classmethod
    def peek(cls, path: Path, study: str) -> StudyLog:
        """What ``open`` would go on with; nothing is written, now or later."""
        log = _read(path, study) or cls()
        log.path = None
        return log

    def note(self, key: str, place: int, usd: Decimal) -> None:
        """An exchange was paid for. To be called before it is stored: what is stored is then in the log, always.

        Args:
            key: of the request.
            place: how many exchanges of the request are stored already.
        """
        self.uncounted[key, place] = usd
        self.write({"key": key, "place": place, "paid": str(usd)})

    def paid(self, request: CompletionRequest, completion: Completion) -> Decimal:
        """USD that the study paid for what it uses now for the first time, be it before it was killed.

        A search asks for the first answers to a request only, never for a later draw.
        """
        if completion.kept:
            kept = (self.uncounted.pop((name, 0), Decimal(0)) for name in completion.kept)
            return max(sum(kept, Decimal(0)), completion.paid)  # two runs may have paid for one call at the same time
        used = ((request.key, place) for place in range(len(completion.exchanges)))
        noted = sum((self.uncounted.pop(each, Decimal(0)) for each in used), Decimal(0))
        return noted or completion.paid  # of a source that notes nothing

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append a line."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry, ensure_ascii=False, default=str) + "\n")


def _read(path: Path, study: str) -> StudyLog | None:
    """The log of this study; None: there is none."""
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return None
    log = StudyLog(path)
    with path.open(encoding="utf-8", errors="replace") as lines:
        if _entry(next(lines, "")).get("study") != study:
            return None
        for line in lines:
            match _entry(line):
                case {"key": str(key), "place": int(place), "paid": str(usd)}:
                    log.uncounted[key, place] = _dollars(
                        usd
                    )  # the last line of a place is of the exchange stored there
                    log.spent_earlier += _dollars(usd)
                case {"finished": _}:
                    log.ended = True
    return log


def _entry(line: str) -> dict[str, Any]:
    """A line's object; nothing where a kill tore it."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _dollars(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        return Decimal(0)
    return found if found.is_finite() and found > 0 else Decimal(0)
