"""The ``Grader`` base class and voting."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.functions import qualified_name, source_of
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.workers import WorkerPool, off_thread
from pytest_llmtune.suite.columns import REFERENCE_COLUMNS
from pytest_llmtune.suite.keys import SCORES
from pytest_llmtune.types import Answer, ExampleGrade

if TYPE_CHECKING:
    from pytest_llmtune.types import Row

__all__ = [
    "JUDGED",
    "LABELLED",
    "VOTES",
    "BuiltIn",
    "Elsewhere",
    "Grader",
    "QuestionError",
    "Vote",
    "check_vote",
    "digest",
    "grade_answers",
    "reference_value",
]


Vote = Literal["equivalence", "medoid"] | Callable[[Sequence[str]], int]
"""``equivalence``: the most frequent answer; ``medoid``: the text most like all others; or a function that is given the
texts of the answers and returns the position of the elected one."""

VOTES = ("equivalence", "medoid")

_WORD = lazy_regex(r"[a-z0-9]+|[^\W_]")
"""A word of Latin letters and digits, or one letter of any other script, some of which put no spaces."""


def check_vote(vote: object, where: str = "vote") -> Vote:
    """Raises SuiteError where ``vote`` is none of the ways to vote."""
    if callable(vote) or (isinstance(vote, str) and vote in VOTES):
        return vote  # type: ignore[return-value]
    raise SuiteError(f"{where}: vote={vote!r} is not one of {', '.join(VOTES)} or a function of the answers' texts")


def grade_answers(answers: Sequence[Answer], vote: Vote = "equivalence") -> ExampleGrade:
    """Elect an answer and count.

    ``expected_success`` is 1-(1-p)^n, with p the share of right answers among all n, readable or not: the chance that n fresh
    draws hold a right one. ``success``: any answer is right. ``success_vote``: the elected one is. An answer with key None
    was not readable: it is never elected and never counted. Ties go to the first seen, in every way of voting.
    """
    n = len(answers)
    known: dict[Answer, Answer] = {}
    answers = tuple(known.setdefault(answer, answer) for answer in answers)  # equal ones are kept once
    right = sum(answer.correct for answer in answers)
    readable = [answer for answer in answers if answer.key is not None]
    groups = _groups(readable)
    elected = _elect(readable, groups, vote) if readable else None
    return ExampleGrade(
        metrics=_metrics(right, n, elected is not None and elected.correct),
        votes=tuple((group[0].text, len(group)) for group in groups),
        voted_answer=elected.text if elected else None,
        answers=answers,
    )


@lru_cache(maxsize=10_000)
def _metrics(right: int, n: int, voted: bool) -> Mapping[str, float]:
    """One mapping for all examples that did alike."""
    return {
        "expected_success": 1 - (1 - right / n) ** n if n else 0.0,
        "success": float(right > 0),
        "success_vote": float(voted),
    }


def _groups(readable: Sequence[Answer]) -> list[list[Answer]]:
    """Answers by key, the largest group first, ties in order of appearance."""
    groups: dict[str | None, list[Answer]] = {}
    for answer in readable:
        groups.setdefault(answer.key, []).append(answer)
    return sorted(groups.values(), key=len, reverse=True)  # a stable sort


def _elect(readable: Sequence[Answer], groups: Sequence[Sequence[Answer]], vote: Vote) -> Answer:
    if vote == "equivalence":
        return groups[0][0]
    texts = [answer.text for answer in readable]
    place = _medoid(texts) if vote == "medoid" else vote(texts)
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(texts):
        raise SuiteError(f"the vote function returned {place!r}; expected a position from 0 to {len(texts) - 1}")
    return readable[place]


def _medoid(texts: Sequence[str]) -> int:
    """The place of the text with the greatest total similarity to all others: Dice's coefficient over words."""
    words = [Counter(_WORD.findall(text.casefold())) for text in texts]
    sizes = [bag.total() for bag in words]
    totals = [0.0] * len(texts)
    for i, one in enumerate(words):
        for j in range(i):
            shared = (one & words[j]).total()
            likeness = 2 * shared / (sizes[i] + sizes[j]) if shared else 0.0
            totals[i] += likeness
            totals[j] += likeness
    return max(range(len(texts)), key=lambda place: (round(totals[place], 9), -place))


JUDGED, LABELLED = "judged_pass", "labelled_pass"
"""Of a row with a hand label: whether the judge lets the labelled response pass, and whether its label does."""


class QuestionError(SuiteError):
    """A row has no question that a judge could be shown."""


class Elsewhere(NamedTuple):
    """A grader as the same suite has it on a machine where an extra is installed that is not here, or the other way round."""

    fingerprint: str
    why: str
    """What a baseline from there means here, and what to do."""


class Grader(ABC):
    """Turns the n responses of one example into metrics. Subclass it for a grader of your own.

    A subclass gives ``fingerprint``, ``reference`` and ``grade``. One that judges each response by itself sets
    ``per_response`` and gives ``answers``, so that a search can vote over any subset of them without grading again.
    """

    @property
    def vote(self) -> Vote:
        """How one of the answers is elected."""
        return "equivalence"

    @property
    def reference_column(self) -> str | None:
        """The column that holds the reference; None: the first of the usual names."""
        return None

    @property
    def caution(self) -> str:
        """A sentence that every report must say of how answers are graded."""
        return ""

    @property
    def probe_rows(self) -> int:
        """Rows that nonsense is tried on before anything is paid for; 0: a probe would cost money."""
        return 50

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 hex of what the grades depend on: kind, options, source text of callables."""

    @property
    def per_response(self) -> bool:
        """Whether ``answers`` judges each response by itself and at once."""
        return False

    @property
    def reads_answers(self) -> bool:
        """Whether ``aanswers`` judges each response by itself, if not at once."""
        return self.per_response

    @property
    def parts(self) -> tuple[Grader, ...]:
        """The graders of a list; else this one."""
        return (self,)

    @property
    def models(self) -> tuple[str, ...]:
        """Models that it asks, at the caller's expense."""
        return ()

    @property
    def min_agreement(self) -> float | None:
        """The share of hand labels below which nothing is gated on what it says."""
        return None

    @property
    def elsewhere(self) -> Elsewhere | None:
        """The same grader on a machine with other extras; None: extras make no difference."""
        return None

    def ready(self) -> None:  # noqa: B027 - most graders need nothing
        """Raises MissingToolError where this machine lacks what the grader needs; says how to get it."""

    def metric_names(self, rows: Sequence[Row]) -> frozenset[str] | None:  # noqa: ARG002
        """The metrics that some rows get, known without grading; None where only grading tells."""
        return None

    @abstractmethod
    def reference(self, row: Row) -> str:
        """The row's reference as the grader reads it, for people; SuiteError where it is unusable."""

    @abstractmethod
    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        """The metrics of one example."""

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:  # noqa: ARG002
        """What was read from each response; only where ``per_response``."""
        raise TypeError(f"the grader {self.name} judges all responses together")

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:  # noqa: ARG002
        """As ``grade``, without blocking the event loop; ``ask`` completes a request at the caller's expense."""
        return self.grade(responses, row)

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:  # noqa: ARG002
        """As ``answers``, without blocking the event loop; only where ``reads_answers``."""
        return self.answers(responses, row)


@dataclass(frozen=True, kw_only=True)
class BuiltIn(Grader):
    """A grader that judges each response by itself and lets them vote. Its dataclass fields are its options."""

    kind: ClassVar[str]
    time_allowed: ClassVar[float] = 5.0
    """Seconds of CPU that reading one long response may take; past them it has no answer."""
    longest_here: ClassVar[int | None] = 5_000
    """Characters; longer responses are read in a worker process, which can be stopped. None: all are read here."""
    reference_column: str | None = None
    alias: str | None = None
    """Another name, for the metrics of the second and later graders of a list."""
    vote: Vote = "equivalence"

    @property
    def name(self) -> str:
        return self.alias or self.kind

    @property
    def per_response(self) -> bool:
        return True

    @property
    def fingerprint(self) -> str:
        return self._fingerprint()

    def _fingerprint(self, **changed: Any) -> str:
        options = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return digest({"kind": self.kind, **options, **changed})

    def __getstate__(self) -> dict[str, Any]:
        """On another machine there is nothing but the options: pools and caches are made anew."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}

    def metric_names(self, rows: Sequence[Row]) -> frozenset[str]:  # noqa: ARG002
        """The metrics that some rows have, known without grading."""
        return frozenset(SCORES)

    @abstractmethod
    def answers_here(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        """What was read from each response, in this process and without a time limit."""

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        """As ``answers_here``; what was not read in time is no answer."""
        longest = self.longest_here
        if longest is None or not self._waits(responses):
            return self.answers_here(responses, row)
        self.reference(row)  # what is wrong with it is said here
        short = iter(self.answers_here([text for text in responses if len(text) <= longest], row))
        return tuple(next(short) if len(text) <= longest else self._answer_apart(text, row) for text in responses)

    def _answer_apart(self, text: str, row: Row) -> Answer:
        options = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.name not in ("vote", "alias")
        }
        request = {"kind": self.kind, "options": options, "responses": [text], "row": dict(row)}
        plain = json.loads(json.dumps(request, default=str))
        found = self._apart.call(plain, getattr(self, "time_limit", self.time_allowed))
        if found is None:
            return Answer(None, "not read within the time limit", correct=False)
        [(key, shown, correct)] = found["answers"]
        return Answer(key, shown, correct)

    @cached_property
    def _apart(self) -> WorkerPool:
        return WorkerPool(Path(__file__).parent / "workers" / "grader_job.py")

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        return grade_answers(self.answers(responses, row), self.vote)

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:  # noqa: ARG002
        """As ``answers``; without blocking the event loop where that takes a worker."""
        return (
            await off_thread(self.answers, responses, row) if self._waits(responses) else self.answers(responses, row)
        )

    def _waits(self, responses: Sequence[str]) -> bool:
        """Whether reading these takes a worker process."""
        return self.longest_here is not None and any(len(text) > self.longest_here for text in responses)

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:
        """As ``grade``, without keeping the event loop from other examples."""
        return grade_answers(await self.aanswers(responses, row, ask), self.vote)


def reference_value(row: Row, column: str | None) -> Any:
    """The cell that holds the reference.

    Raises:
        SuiteError: the row has no such column, or the cell is empty.
    """
    names = REFERENCE_COLUMNS if column is None else (column,)
    found = next((name for name in names if name in row), None)
    if found is None:
        wanted = f"no column {column!r}" if column is not None else f"no reference column ({', '.join(names)})"
        there = ", ".join(repr(name) for name in row) or "none"
        raise SuiteError(f"{wanted}; the columns are {there}; name one with the grader's option `reference`")
    value = row[found]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise SuiteError(f"the reference in column {found!r} is empty")
    return value


def digest(value: Any) -> str:
    """SHA-256 hex of a value's plain form; callables count by qualified name and source text."""
    text = json.dumps(_plain(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, Path):
        return value.as_posix()
    return {"callable": qualified_name(value), "source": source_of(value)}
