"""The log of a study: what it paid for, one JSON line a request, so that a killed search goes on within its budget."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_llmtune.model import CompletionRequest

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
    earlier: Mapping[tuple[str, int, int], Decimal] = field(default_factory=dict)
    """Request (key, n, draw) to USD that a killed run paid for it."""

    @classmethod
    def open(cls, path: Path, study: str) -> StudyLog:
        """Go on with the log at ``path`` where it is one of the same study, else begin a new one.

        A study that had ended is repeated from the cache: it finds the same again and pays nothing.

        Args:
            study: what makes two studies the same: a digest of suite, rows, grader, budgets and seed.
        """
        earlier = _read(path, study)
        if earlier is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"study": study}) + "\n", encoding="utf-8")
        return cls(path, earlier or {})

    @property
    def spent_earlier(self) -> Decimal:
        """USD."""
        return sum(self.earlier.values(), Decimal(0))

    def paid(self, request: CompletionRequest, now: Decimal) -> Decimal:
        """USD that the study paid for a completion, ``now`` or before it was killed."""
        if not now:
            return self.earlier.get((request.key, request.n, request.draw), now)
        self.write({"key": request.key, "n": request.n, "draw": request.draw, "paid": str(now)})
        return now

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append a line."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry, ensure_ascii=False, default=str) + "\n")


def _read(path: Path, study: str) -> dict[tuple[str, int, int], Decimal] | None:
    """What a log of this study lists; None: there is none."""
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return None
    paid: dict[tuple[str, int, int], Decimal] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        if _entry(next(lines, "")).get("study") != study:
            return None
        for line in lines:
            match _entry(line):
                case {"key": str(key), "n": int(n), "draw": int(draw), "paid": str(usd)}:
                    paid[key, n, draw] = _dollars(usd)
    return paid


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
