"""The log of a study, from which an interrupted search resumes."""

from __future__ import annotations

import errno
import json
import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.files import open_append, open_regular, write_text
from pytest_llmtune._util.text import dollars, parse_dollars
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.wire.response import parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_llmtune.types import Completion, CompletionRequest


_MAX_BYTES = 128_000_000
_MAX_LINE = 100_000


@dataclass(slots=True)
class StudyLog:
    """What this study paid for, in this run and in killed earlier ones.

    The answers are in the cache, and the search is deterministic; so resuming means starting again, and counting earlier
    payments once.
    """

    path: Path | None = None
    """None: nothing is logged."""
    spent_earlier: Decimal = Decimal(0)
    """USD paid by killed runs of this study, including for answers that were lost."""
    uncounted: dict[tuple[str, int], Decimal] = field(default_factory=dict)
    """Exchange (request key, index in the cache) to USD paid by the study, until first used."""
    ended: bool = False
    """Whether the study was complete, and is repeated from the cache."""
    torn: bool = False
    """Whether a kill truncated the last line."""

    @property
    def earlier(self) -> str | None:
        """Note on killed or interrupted runs; None if there were none."""
        if self.ended or not self.spent_earlier:
            return None
        return f"earlier runs of this search, which did not end, had spent {dollars(self.spent_earlier)}; it counts in its budget"

    @classmethod
    def open(cls, path: Path, study: str) -> StudyLog:
        """Resume the log at ``path`` if it is of the same study, else start a new one.

        A complete study is repeated from the cache, with the same result and without cost.

        Args:
            study: identifies the study: a hash of suite, rows, grader, budgets and seed.

        Raises:
            LLMTuneError: the file cannot be written, or is something else.
        """
        try:
            log = _read(path, study)
            if log is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps({"study": study}) + "\n")
            elif log.torn:
                log.write({})  # ends the line
        except OSError as error:
            raise _unusable(path, error) from error
        return log or cls(path)

    @classmethod
    def peek(cls, path: Path, study: str) -> StudyLog:
        """What ``open`` would resume, without writing anything, now or later."""
        try:
            log = _read(path, study) or cls()
        except OSError as error:
            raise _unusable(path, error) from error
        log.path = None
        return log

    def note(self, key: str, index: int, usd: Decimal) -> None:
        """Log a paid exchange. Must be called before it is stored, so that everything stored is in the log.

        Args:
            key: the request's key.
            index: number of exchanges of the request already stored.
        """
        self.uncounted[key, index] = usd
        self.write({"key": key, "place": index, "paid": str(usd)})

    def paid(self, request: CompletionRequest, completion: Completion) -> Decimal:
        """USD paid by the study, now or before a kill, for exchanges used for the first time.

        A search only requests the first answers to a request, never a later draw.
        """
        if completion.cache_keys:
            usd = (self.uncounted.pop((name, 0), Decimal(0)) for name in completion.cache_keys)
            return max(sum(usd, Decimal(0)), completion.paid)  # two concurrent runs may have paid for the same call
        used = ((request.key, index) for index in range(len(completion.exchanges)))
        noted = sum((self.uncounted.pop(each, Decimal(0)) for each in used), Decimal(0))
        return noted or completion.paid  # from a source without a journal

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append a line."""
        if self.path is not None:
            with open_append(self.path) as log:
                log.write(json.dumps(entry, ensure_ascii=False, default=str) + "\n")


def _read(path: Path, study: str) -> StudyLog | None:
    """The log of this study; None if there is none."""
    if not os.path.lexists(path):
        return None
    log = StudyLog(path)
    with open_regular(path, follow=False) as lines:
        first = lines.readline(_MAX_LINE)
        header = parse_object(first.decode(errors="replace")) or {}
        if first and "study" not in header:
            raise FileExistsError(errno.EEXIST, "it is something else, and is not overwritten")
        if header.get("study") != study:
            return None
        if os.fstat(lines.fileno()).st_size > _MAX_BYTES:
            raise OSError(errno.EFBIG, f"larger than the limit of {_MAX_BYTES:,} bytes")
        while line := lines.readline(_MAX_LINE):
            log.torn = not line.endswith(b"\n")
            match parse_object(line.decode(errors="replace")):  # None: a kill truncated it, or it is none of ours
                case {"key": str(key), "place": int(index), "paid": str(usd)}:
                    paid = parse_dollars(usd) or Decimal(0)
                    log.uncounted[key, index] = paid  # the last line for an index is that of the stored exchange
                    log.spent_earlier += paid
                case {"finished": _}:
                    log.ended = True
    return log


def _unusable(path: Path, error: OSError) -> LLMTuneError:
    return LLMTuneError(f"{path}: the study's log cannot be kept there: {error.strerror or error}; name another file")
