"""The ``Grader`` base class and voting."""

from __future__ import annotations

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util import jsonhash
from pytest_llmtune._util.functions import qualified_name, source_of
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import shown
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.grading.workers import WorkerPool, off_thread
from pytest_llmtune.suite.keys import SCORES
from pytest_llmtune.suite.suite import REFERENCE_COLUMNS
from pytest_llmtune.types import Answer, ExampleGrade, RunText

if TYPE_CHECKING:
    from pytest_llmtune.types import Row, TaskRun


Vote = Literal["equivalence", "medoid"] | Callable[[Sequence[str]], int]
"""``equivalence``: the most frequent answer; ``medoid``: the text most similar to all others; or a function that takes the
texts of the answers and returns the index of the elected one."""

VOTES = ("equivalence", "medoid")

_WORD = lazy_regex(r"[a-z0-9]+|[^\W_]")
"""A word of Latin letters and digits, or one letter of any other script, some of which use no spaces."""


def check_vote(vote: object, where: str = "vote") -> Vote:
    """Raise SuiteError if ``vote`` is not a valid way to vote."""
    if callable(vote) or (isinstance(vote, str) and vote in VOTES):
        return vote  # type: ignore[return-value]
    raise SuiteError(f"{where}: vote={vote!r} is not one of {', '.join(VOTES)} or a function of the answers' texts")


def grade_answers(answers: Sequence[Answer], vote: Vote = "equivalence") -> ExampleGrade:
    """Elect an answer, and compute the metrics.

    ``expected_success`` is 1-(1-p)^n, with p the fraction of correct answers among all n, readable or not: the probability
    that n fresh samples include a correct one. ``success``: any answer is correct. ``success_vote``: the elected one is. An
    answer with key None is unreadable, and never elected. Ties go to the first seen, in every way of voting.
    """
    n = len(answers)
    known: dict[Answer, Answer] = {}
    answers = tuple(known.setdefault(answer, answer) for answer in answers)  # share equal ones
    right = sum(answer.correct for answer in answers)
    readable = [answer for answer in answers if answer.key is not None]
    by_key: dict[str | None, list[Answer]] = {}
    for answer in readable:
        by_key.setdefault(answer.key, []).append(answer)
    groups = sorted(by_key.values(), key=len, reverse=True)  # a stable sort: ties in order of appearance
    elected = _elect(readable, groups, vote) if readable else None
    return ExampleGrade(
        metrics=_metrics(right, n, elected is not None and elected.correct),
        votes=tuple((group[0].text, len(group)) for group in groups),
        voted_answer=elected.text if elected else None,
        answers=answers,
    )


def run_of(response: str) -> TaskRun | None:
    """The run that produced a response; None for the completion of a prompt."""
    return response.run if isinstance(response, RunText) else None


def raised_is_wrong(answers: Sequence[Answer], responses: Sequence[str]) -> tuple[Answer, ...]:
    """The answers; those of failed runs of a task count as unreadable and wrong."""
    runs = map(run_of, responses)
    return tuple(
        Answer(None, run.error, correct=False) if run is not None and run.error is not None else answer
        for answer, run in zip(answers, runs, strict=True)
    )


def checked(grade: object, name: str) -> ExampleGrade:
    """What the grader of this name returned; SuiteError unless it is a grade whose metrics are finite, and scores from 0 to 1."""
    if not isinstance(grade, ExampleGrade):
        raise SuiteError(f"the grader {name} returned {grade!r:.60}; expected an ExampleGrade")
    for metric, value in grade.metrics.items():
        try:
            finite = math.isfinite(value)
        except (TypeError, ValueError, OverflowError):
            finite = False
        if not finite:
            raise SuiteError(f"the grader {name} returned {metric}={value!r:.60}; a metric is a finite number")
        if metric in SCORES and not 0 <= value <= 1:
            raise SuiteError(
                f"the grader {name} returned {metric}={value!r:.60}; {metric} is a share, from 0 to 1: divide it, "
                "or give the metric a name of its own"
            )
    return grade


@contextmanager
def blamed(grader: Grader, row: Row) -> Iterator[None]:
    """Turn an exception of somebody's own grader into a SuiteError that names the grader and the row."""
    try:
        yield
    except LLMTuneError:
        raise
    except Exception as error:
        if all(isinstance(part, BuiltIn) for part in grader.parts):
            raise
        raise SuiteError(
            f"the grader {grader.name} raised {type(error).__name__}: {error}; on the row {shown(dict(row))}"
        ) from error


def regraded(grade: ExampleGrade, responses: Sequence[str], grader: Grader) -> ExampleGrade:
    """The grade of a grader, checked, with runs that raised as wrong.

    Where a function judges all responses together, it is wrong if all runs raised.
    """
    grade = checked(grade, grader.name)
    raised = [run is not None and run.error is not None for run in map(run_of, responses)]
    if grade.answers and any(raised):
        found = grade_answers(raised_is_wrong(grade.answers, responses), grader.vote)
        own = {name: value for name, value in found.metrics.items() if name in grade.metrics}
        return replace(found, metrics={**grade.metrics, **own})
    if all(raised) and not grade.answers:
        scores = {name: 0.0 if name in SCORES else value for name, value in grade.metrics.items()}
        return ExampleGrade(scores)
    return grade


@lru_cache(maxsize=10_000)
def _metrics(right: int, n: int, voted: bool) -> Mapping[str, float]:
    """The metrics, shared between examples with equal results."""
    return {
        "expected_success": 1 - (1 - right / n) ** n if n else 0.0,
        "success": float(right > 0),
        "success_vote": float(voted),
    }


def _elect(readable: Sequence[Answer], groups: Sequence[Sequence[Answer]], vote: Vote) -> Answer:
    if vote == "equivalence":
        return groups[0][0]
    texts = [answer.text for answer in readable]
    try:
        index = _medoid(texts) if vote == "medoid" else vote(texts)
    except Exception as error:
        if vote == "medoid":
            raise
        raise SuiteError(f"the vote function raised {type(error).__name__}: {error}; on {shown(texts)}") from error
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(texts):
        raise SuiteError(f"the vote function returned {index!r}; expected a position from 0 to {len(texts) - 1}")
    return readable[index]


def _medoid(texts: Sequence[str]) -> int:
    """Index of the text with the greatest total similarity to all others: Dice's coefficient over words."""
    words = [Counter(_WORD.findall(text.casefold())) for text in texts]
    sizes = [bag.total() for bag in words]
    totals = [0.0] * len(texts)
    for i, one in enumerate(words):
        for j in range(i):
            shared = (one & words[j]).total()
            likeness = 2 * shared / (sizes[i] + sizes[j]) if shared else 0.0
            totals[i] += likeness
            totals[j] += likeness
    return max(range(len(texts)), key=lambda index: (round(totals[index], 9), -index))


JUDGED, LABELLED = "judged_pass", "labelled_pass"
"""For a row with a hand label: whether the judge passes the labelled response, and whether its label does."""


class QuestionError(SuiteError):
    """A row has no question to show to a judge."""


class OtherExtras(NamedTuple):
    """The same suite's grader on a machine with, or without, an optional extra."""

    fingerprint: str
    why: str
    """What a baseline from such a machine means here, and what to do."""


class Grader(ABC):
    """Turns the n responses of one example into metrics. Base class for custom graders.

    A subclass implements ``fingerprint``, ``reference`` and ``grade``. One that judges each response separately sets
    ``per_response`` and implements ``answers``, so that a search can vote over any subset without grading again.
    """

    @property
    def vote(self) -> Vote:
        """How an answer is elected."""
        return "equivalence"

    @property
    def reference_column(self) -> str | None:
        """The reference column; None: the first of the usual names."""
        return None

    @property
    def caution(self) -> str:
        """A caution about grading that every report must show."""
        return ""

    @property
    def probe_rows(self) -> int:
        """Number of rows on which nonsense answers are tried before anything is spent; 0: a probe would cost money."""
        return 50

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 hex of everything that grades depend on: kind, options, source of callables."""

    @property
    def per_response(self) -> bool:
        """Whether ``answers`` judges each response separately, and without model requests."""
        return False

    @property
    def reads_answers(self) -> bool:
        """Whether ``aanswers`` judges each response separately, possibly with model requests."""
        return self.per_response

    @property
    def parts(self) -> tuple[Grader, ...]:
        """The graders of a list; otherwise only itself."""
        return (self,)

    @property
    def models(self) -> tuple[str, ...]:
        """Models that it sends requests to."""
        return ()

    @property
    def min_agreement(self) -> float | None:
        """Minimum agreement with hand labels for its metrics to be gated."""
        return None

    @property
    def with_other_extras(self) -> OtherExtras | None:
        """The same grader on a machine with other extras; None if extras make no difference."""
        return None

    def ready(self) -> None:  # noqa: B027 - most graders need nothing
        """Raise MissingToolError if this machine lacks something the grader needs; the message says how to get it."""

    def metric_names(self, rows: Sequence[Row]) -> frozenset[str] | None:  # noqa: ARG002
        """The metrics that the rows will get; None if unknown before grading."""
        return None

    @abstractmethod
    def reference(self, row: Row) -> str:
        """The row's reference as read by the grader, for display; SuiteError if unusable."""

    @abstractmethod
    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        """The metrics of one example."""

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:  # noqa: ARG002
        """The answer read from each response; only if ``per_response``."""
        raise TypeError(f"the grader {self.name} judges all responses together")

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:  # noqa: ARG002
        """Like ``grade``, without blocking the event loop; ``ask`` completes a request."""
        return self.grade(responses, row)

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:  # noqa: ARG002
        """Like ``answers``, without blocking the event loop; only if ``reads_answers``."""
        return self.answers(responses, row)


class _OfInner:
    """An attribute or method of the grader in ``inner``, by its own name there."""

    def __init__(self, default: tuple[Any, ...], convert: Callable[[Any], Any] | None) -> None:
        self._default, self._convert = default, convert

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, wrapper: Any, owner: type) -> Any:
        if wrapper is None:
            return self
        found = getattr(wrapper.inner, self._name, *self._default)
        return found if self._convert is None else self._convert(found)


def of_inner(*default: Any, convert: Callable[[Any], Any] | None = None) -> Any:
    """Delegates an attribute or method to ``inner``; where that lacks it, the default, or an AttributeError without one."""
    return _OfInner(default, convert)


@dataclass(frozen=True)
class GraderWrapper(Grader):
    """Is in everything like another grader, but for what a subclass changes."""

    inner: Grader

    vote = of_inner()
    reference_column = of_inner()
    caution = of_inner()
    probe_rows = of_inner()
    name = of_inner()
    fingerprint = of_inner()
    per_response = of_inner()
    reads_answers = of_inner()
    parts = of_inner()
    models = of_inner()
    with_other_extras = of_inner()
    ready = of_inner()
    metric_names = of_inner()
    reference = of_inner()
    grade = of_inner()
    answers = of_inner()
    agrade = of_inner()
    aanswers = of_inner()


@dataclass(frozen=True, kw_only=True)
class BuiltIn(Grader):
    """A grader that judges each response separately, and lets them vote. Its dataclass fields are its options."""

    kind: ClassVar[str]
    time_allowed: ClassVar[float] = 5.0
    """CPU seconds for reading one long response; after that it counts as unreadable."""
    longest_in_process: ClassVar[int | None] = 5_000
    """Characters; longer responses are read in a worker process, which can be killed. None: all are read here."""
    reference_column: str | None = None
    alias: str | None = None
    """Another name, for the metrics of later graders in a list."""
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
        return digest({"kind": self.kind, **self._options(), **changed})

    def _options(self, *without: str) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name not in without}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle only the options: pools and caches are created again."""
        return self._options()

    def metric_names(self, rows: Sequence[Row]) -> frozenset[str]:  # noqa: ARG002
        return frozenset(SCORES)

    @abstractmethod
    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        """The answer read from each response, in this process and without a time limit."""

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        """Like ``read_answers``, but with a time limit for long responses."""
        longest = self.longest_in_process
        if longest is None or not self._waits(responses):
            return self._readable(responses, row)
        self.reference(row)  # raises here if it is unusable
        short = iter(self._readable([text for text in responses if len(text) <= longest], row))
        return tuple(next(short) if len(text) <= longest else self._answer_in_worker(text, row) for text in responses)

    def _readable(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        """What can be read; a response may be nested too deeply, such as JSON in JSON."""
        try:
            return self.read_answers(responses, row)
        except RecursionError:
            if len(responses) > 1:
                return tuple(answer for text in responses for answer in self._readable([text], row))
            return (Answer(None, "nested too deeply", correct=False),)

    def _answer_in_worker(self, text: str, row: Row) -> Answer:
        options = self._options("vote", "alias")
        request = {"kind": self.kind, "options": options, "responses": [text], "row": dict(row)}
        plain = json.loads(json.dumps(request, default=str))
        found = self._pool.call(plain, getattr(self, "time_limit", self.time_allowed))
        if found is None:
            return Answer(None, "not read within the time limit", correct=False)
        [(key, shown, correct)] = found["answers"]
        return Answer(key, shown, correct)

    @cached_property
    def _pool(self) -> WorkerPool:
        return WorkerPool("grade", "pytest_llmtune.grading.registry")

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        return grade_answers(self.answers(responses, row), self.vote)

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:  # noqa: ARG002
        if self._waits(responses):
            return await off_thread(self.answers, responses, row)
        return self.answers(responses, row)

    def _waits(self, responses: Sequence[str]) -> bool:
        """Whether reading these needs a worker process."""
        return self.longest_in_process is not None and any(len(text) > self.longest_in_process for text in responses)

    async def agrade(self, responses: Sequence[str], row: Row, ask: Any) -> ExampleGrade:
        return grade_answers(await self.aanswers(responses, row, ask), self.vote)


def awaits(grader: Grader) -> bool:
    """Whether a part of the grader is somebody's own, with coroutines that may need an event loop."""
    plain = (Grader.agrade, Grader.aanswers)
    return any(not isinstance(one, BuiltIn) and (type(one).agrade, type(one).aanswers) != plain for one in grader.parts)


def reference_names(column: str | None) -> tuple[str, ...]:
    """The columns that may hold the reference, in the order of preference."""
    return REFERENCE_COLUMNS if column is None else (column,)


def reference_values(row: Row, column: str | None) -> Sequence[Any]:
    """The references of a row whose reference column may hold a list of them; SuiteError if there is none."""
    value = reference_value(row, column)
    values = value if isinstance(value, (list, tuple)) else [value]
    if not values:
        raise SuiteError("the reference is an empty list")
    for item in values:  # str() would make an answer of what is missing: "None", "nan"
        if _is_missing(item) or isinstance(item, (Mapping, list, tuple, set, frozenset, bytes)):
            raise SuiteError(f"the reference holds {shown(item, 60)}, which is no text, number or truth value")
    return values


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    )


def reference_value(row: Row, column: str | None) -> Any:
    """The value of the reference column; SuiteError if the row has none, or the cell is empty."""
    names = reference_names(column)
    found = next((name for name in names if name in row), None)
    if found is None:
        missing = f"no column {column!r}" if column is not None else f"no reference column ({', '.join(names)})"
        columns = ", ".join(repr(name) for name in row) or "none"
        raise SuiteError(f"{missing}; the columns are {columns}; name one with the grader's option `reference`")
    value = row[found]
    if _is_missing(value):
        raise SuiteError(f"the reference in column {found!r} is empty")
    return value


def digest(value: Any) -> str:
    """SHA-256 hex of a value's plain form; callables are hashed by qualified name and source."""
    return jsonhash.digest(_plain(value))


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
