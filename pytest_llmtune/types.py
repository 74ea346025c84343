"""Values shared by all rooms: rows, requests, completions, evaluations, events."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, overload

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune.errors import MissingToolError

if TYPE_CHECKING:
    import pandas
    import polars


Row = Mapping[str, Any]
"""One record of a dataset: column name to value."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a dataset, with an ID that survives reordering."""

    id: str
    """First 16 hex digits of the SHA-256 of the row's canonical JSON; ``-2``, ``-3`` for repeated rows."""
    index: int
    """Position in the dataset as loaded, from 0; for messages only."""
    row: Row


CHEAPER = frozenset({"flex", "batch"})
"""Service tiers that cost no more than the ordinary one."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens billed for one or more responses."""

    prompt_tokens: int
    """All input, including tokens read from or written to the provider's cache."""
    completion_tokens: int
    """All output over all choices, including hidden reasoning."""
    cached_tokens: int = 0
    """Tokens of ``prompt_tokens`` that were read from the provider's cache."""
    estimated: bool = False
    """Whether the tokens were estimated from text, because the server reported nothing usable."""
    cache_write_tokens: int = 0
    """Tokens of ``prompt_tokens`` that were written to the provider's cache."""
    units: tuple[tuple[str, float], ...] = ()
    """Other billed units under genai-prices' names, sorted: ``input_audio_tokens``, ``web_searches``, ``audio_seconds``."""
    tier: str = ""
    """The service tier named in the response, such as ``flex`` or ``priority``."""
    requests: int = field(default=0, compare=False)
    """Number of HTTP requests, for prices per request; 0 counts as one."""

    def __add__(self, other: Usage) -> Usage:
        units = dict(self.units)
        for name, count in other.units:
            units[name] = units.get(name, 0) + count
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.estimated or other.estimated,
            self.cache_write_tokens + other.cache_write_tokens,
            tuple(sorted(units.items())),
            self._tier_with(other),
            self.requests + other.requests,
        )

    def _tier_with(self, other: Usage) -> str:
        """The tier that both are priced at; where they differ, the dearer one."""
        counted = [each for each in (self, other) if each.prompt_tokens or each.completion_tokens or each.units]
        tiers = {each.tier for each in counted or (self, other)}
        return tiers.pop() if len(tiers) == 1 else " ".join(sorted(tiers - CHEAPER - {""}))


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """Usage and cost of one model."""

    usage: Usage = Usage(0, 0)
    """Tokens; ``usage.requests`` HTTP requests that were answered."""
    cost: Decimal = Decimal(0)
    """USD."""

    def __add__(self, other: ModelUsage) -> ModelUsage:
        return ModelUsage(self.usage + other.usage, self.cost + other.cost)


@dataclass(frozen=True, slots=True)
class Accept:
    """When the answers of a cascade's step are accepted, so that no more expensive step is needed."""

    margin: float = 0.0
    """Required lead of the most frequent answer over the next, as a share of all answers; unreadable ones don't vote."""
    regex: str | None = None
    """Pattern that every answer must match (``re.search``)."""
    grader: Any = None
    """How answers are read for the vote, as a suite declares it; None: by equal text. A suite uses its own grader."""
    schema: Mapping[str, Any] | None = None
    """JSON schema that every answer must fit."""
    function: Any = None
    """Called with the text of each answer; False: it is refused. Locked as ``{"callable": "module:name"}``."""

    def is_clear(self, votes: Sequence[int], answers: int) -> bool:
        """Whether the most frequent answer leads the next by the margin.

        Args:
            votes: count of each readable answer, most frequent first.
            answers: count of all answers.
        """
        lead = votes[0] - (votes[1] if len(votes) > 1 else 0) if votes else 0
        return bool(votes) and lead >= self.margin * answers - 1e-9


@dataclass(frozen=True, slots=True)
class Escalation:
    """The next step of a cascade, and the condition that avoids it."""

    accept: Accept
    request: CompletionRequest


@dataclass(frozen=True, slots=True)
class TestCalls:
    """Model calls made by the code under one test, recorded, replayed or live."""

    __test__ = False  # not a test class

    nodeid: str
    calls: int
    """Answered calls."""
    usage: Mapping[str, Usage]
    """By the requested model."""
    cost: Decimal
    """USD at current prices, whether paid now or earlier; excludes calls that ``problem`` describes."""
    spent: Decimal = Decimal(0)
    """USD billed in this run."""
    problem: str = ""
    """Why the cost of a call is unknown; empty if all costs are known."""


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """The request for one example under one configuration."""

    body: Mapping[str, Any]
    """The JSON body of ``POST /chat/completions`` without ``n``: model, messages, sampling parameters."""
    n: int
    """Number of answers requested."""
    key: str
    """SHA-256 hex of the canonical JSON of ``body``."""
    sample_index: int = 0
    """Sample index: 0 for the first ``n`` answers, 1 for the next ``n``, ...: equal rows get separate samples."""
    escalation: Escalation | None = None
    """The cascade's next step, sent if the answers are not accepted."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One complete, successful request and its response as sent over the wire, secrets removed."""

    method: str
    """HTTP method."""
    uri: str
    """Address of the request."""
    request: Mapping[str, Any]
    """The request's JSON body, ``n`` included."""
    response: Mapping[str, Any]
    """The response's JSON body."""
    status: int = 200
    """HTTP status."""
    latency: float = 0.0
    """Seconds from sending to the last byte."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Allow-listed response headers."""
    recorded: str = ""
    """Date of the request, ``YYYY-MM-DD``; empty if unknown."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call made by a model."""

    name: str
    arguments: Any
    """JSON data, or the raw text if the model did not write JSON."""
    id: str = ""
    result: str | None = None
    """The result that the app sent back in a later call of the same run; None if none was seen."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One HTTP call made by a task."""

    number: int
    """Position in its run, from 1."""
    model: str
    """As requested; empty if the call was not to a model (a search, a database)."""
    messages: tuple[Mapping[str, Any], ...] = field(default=(), metadata={"plain": False})
    """The messages sent to the model, as ``{"role": ..., "content": ...}`` where the provider's shape has such; the recording
    holds it, and reports leave it out."""
    text: str = ""
    """The answer."""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage(0, 0)
    usd: Decimal = Decimal(0)
    """At current prices."""
    latency: float = 0.0
    """Seconds."""
    path: str = ""
    """Path of the URL."""
    status: int = 200
    digest: str = ""
    """8 hex digits of a hash of request and response: equal for equal calls."""

    @property
    def tokens(self) -> int:
        """Total tokens: prompt plus completion."""
        return self.usage.prompt_tokens + self.usage.completion_tokens


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One run of a task on one row."""

    number: int
    """From 1."""
    text: str
    """The text to grade; empty if the task raised."""
    data: Any = None
    """Of ``Outcome``."""
    calls: Sequence[ModelCall] = ()
    """In order; each is read when somebody looks."""
    error: str | None = None
    """Last line of the app's exception."""
    latency: float = 0.0
    """Seconds from the run's start to its last answer."""
    cost: Decimal = Decimal(0)
    """USD of its calls."""


class RunText(str):
    """A response's text with the run that produced it, for graders of traces."""

    __slots__ = ("run",)
    run: TaskRun

    def __new__(cls, text: str, run: TaskRun) -> RunText:
        created = super().__new__(cls, text)
        created.run = run
        return created

    def __reduce__(self) -> tuple[Any, ...]:
        return RunText, (str(self), self.run)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a model's answers."""

    text: str
    finish_reason: str
    """``stop``, ``length``, ``content_filter``, ``tool_calls``; as served."""
    tokens: int | None = None
    """Exact length in tokens, if known: the only choice of its response, or reported."""
    run: TaskRun | None = None
    """The task run that produced it."""

    @property
    def judged(self) -> str:
        """The text to grade: empty if a content filter stopped the answer, which counts as wrong."""
        if self.run is not None:
            return RunText(self.run.text, self.run)
        return "" if self.finish_reason == "content_filter" else self.text


@dataclass(frozen=True, slots=True)
class Completion:
    """The n answers to one request, live, cached or recorded."""

    choices: tuple[Choice, ...]
    """The answers, each with ``text``, ``finish_reason`` and ``tokens``."""
    usage: Usage
    """Tokens billed for requesting exactly these answers."""
    exchanges: tuple[Exchange, ...]
    """The exchanges that the answers come from."""
    served_model: str = ""
    """The model that the server names."""
    latency: float = 0.0
    """Seconds taken by the slowest exchange."""
    paid: Decimal = Decimal(0)
    """USD spent now: 0 from a recording or the cache."""
    cost: Decimal | None = None
    """USD at current prices, for a task, whose calls may use several models; None: priced from ``usage``."""
    calls: tuple[Any, ...] = field(default=(), repr=False)
    """A task's recorded interactions."""
    cache_keys: tuple[str, ...] = field(default=(), repr=False)
    """Of a task's calls."""

    @property
    def kept(self) -> tuple[str, ...]:
        """The former name of ``cache_keys``."""
        return self.cache_keys

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each answer as graders see it; tool calls without text are given as JSON."""
        return tuple(choice.text for choice in self.choices)

    @property
    def text(self) -> str:
        """The text of the first answer."""
        return self.choices[0].text


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer that a grader extracted from one response."""

    key: str | None
    """Normal form: equal keys vote together. None if no answer could be read; such a response never votes."""
    text: str
    """The answer as displayed."""
    correct: bool


@dataclass(frozen=True, slots=True)
class ExampleGrade:
    """Grades of the n responses of one example."""

    metrics: Mapping[str, float]
    """At least expected_success, success and success_vote, each 0..1."""
    votes: tuple[tuple[str, int], ...] = ()
    """(answer, count), most frequent first; ties in order of appearance."""
    voted_answer: str | None = None
    """The elected answer; None if no response could be read."""
    answers: tuple[Answer, ...] = ()
    """One per response; empty if the grader is a plain callable."""


@dataclass(frozen=True, slots=True)
class ExampleResult:
    """One example under one configuration."""

    example: Example
    """The row, as ``row``, with its ``id`` and its ``index`` from 0."""
    status: Literal["ok", "refused", "unknown"]
    """``refused``: a content filter stopped every choice (counts as wrong); ``unknown``: not completed."""
    grade: ExampleGrade | None
    """None if and only if the status is ``unknown``."""
    responses: Sequence[str] = ()
    """Texts of the model."""
    usage: Usage = Usage(0, 0)
    """Tokens of this instance."""
    cost: Decimal = Decimal(0)
    """USD of this instance at current prices."""
    latency: float = 0.0
    """Seconds."""
    error: str | None = None
    """Why the status is ``unknown``; for a task, also the last line of the exception it raised."""
    runs: tuple[TaskRun, ...] = ()
    """Runs of a task; empty if there are very many examples."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float
    confidence: float = 0.95


class _Metrics:
    """Gives metrics as attributes: ``evaluation.success_vote`` for ``evaluation.metrics["success_vote"]``.

    The metrics of every suite are annotated, so that type checkers reject a misspelled name. Metrics of custom graders
    are in ``metrics``.
    """

    success_vote: float
    success: float
    expected_success: float
    refused: float
    latency: float
    latency_p50: float
    latency_p90: float
    latency_p95: float
    latency_p99: float

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> float:
            if name == "metrics" or name.startswith("__"):  # not set yet, while copying or unpickling
                raise AttributeError(name)
            try:
                return self.metrics[name]
            except KeyError:
                import difflib

                near = difflib.get_close_matches(name, self.metrics, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise AttributeError(
                    f"no metric {name!r}{hint}; there are: {', '.join(sorted(self.metrics))}"
                ) from None


@dataclass(frozen=True)
class Evaluation(_Metrics):
    """The results of one configuration over a list of examples."""

    config: Mapping[str, Any]
    """OpenAI parameters, and ``prompt`` or ``messages``, as in the lock file."""
    results: Sequence[ExampleResult]
    """One per example; long lists are stored on disk, and each access builds a new object."""
    metrics: Mapping[str, float]
    """Aggregated over all examples whose status is not ``unknown``."""
    intervals: Mapping[str, Interval]
    """By metric: ``low``, ``high`` and ``confidence``."""
    inference_cost: Decimal
    """Mean USD per instance at current prices."""
    cost: Decimal
    """USD actually spent on this evaluation; 0 in replay."""

    @cached_property
    def unknown(self) -> tuple[ExampleResult, ...]:
        """The examples that could not be completed."""
        return tuple(result for result in self.results if result.status == "unknown")

    @overload
    def frame(self, kind: Literal["pandas"]) -> pandas.DataFrame: ...
    @overload
    def frame(self, kind: Literal["polars"]) -> polars.DataFrame: ...
    @overload
    def frame(self, kind: None = None) -> Any: ...
    def frame(self, kind: Literal["pandas", "polars"] | None = None) -> Any:
        """A table for notebooks, one row per example.

        Columns: ``index``, ``id``, ``status``, ``voted_answer``, ``responses`` (a list), ``cost`` (USD, a float), ``latency``
        (seconds), ``prompt_tokens``, ``completion_tokens``, ``error``; each metric by its name, empty where the status is
        ``unknown``; and the row's own columns as ``row.NAME``.

        Args:
            kind: the library; None: pandas if it is installed, else polars.

        Raises:
            MissingToolError: it is not installed, or neither is.
        """
        import importlib

        if kind not in (None, "pandas", "polars"):
            raise MissingToolError(
                f"frame({kind!r}): valid: 'pandas', 'polars', or nothing for the one that is installed"
            )
        for name in ("pandas", "polars") if kind is None else (kind,):
            try:
                library = importlib.import_module(name)
            except ImportError:
                continue
            columns = _columns(self.results, self.metrics)
            return library.DataFrame(columns, strict=False) if name == "polars" else library.DataFrame(columns)
        missing = kind or "pandas or polars"
        raise MissingToolError(f"a frame needs {missing}, which is not installed: pip install {kind or 'pandas'}")


_COLUMNS: Mapping[str, Callable[[ExampleResult], Any]] = {
    "index": lambda result: result.example.index,
    "id": lambda result: result.example.id,
    "status": lambda result: result.status,
    "voted_answer": lambda result: result.grade and result.grade.voted_answer,
    "responses": lambda result: [str(text) for text in result.responses],
    "cost": lambda result: float(result.cost),
    "latency": lambda result: result.latency,
    "prompt_tokens": lambda result: result.usage.prompt_tokens,
    "completion_tokens": lambda result: result.usage.completion_tokens,
    "error": lambda result: result.error,
}
"""Those that any frame has."""


def _columns(results: Sequence[ExampleResult], metrics: Iterable[str]) -> dict[str, list[Any]]:
    """The columns of ``Evaluation.frame``, all of the same length."""
    rows = []
    for result in results:  # once: they may be on disk
        scores = result.grade.metrics if result.grade else {}
        rows.append(
            {name: read(result) for name, read in _COLUMNS.items()}
            | {name: float(value) for name, value in scores.items()}
            | {f"row.{name}": value for name, value in result.example.row.items()}
        )
    present = dict.fromkeys(name for row in rows for name in row)
    names = dict.fromkeys([*_COLUMNS, *(name for name in metrics if name in present), *present])
    return {name: [row.get(name) for row in rows] for name in names}


@dataclass(frozen=True, slots=True)
class Started:
    """A suite starts a step that takes time or money."""

    suite: str
    task: Literal["tune", "record", "live"]
    total: int | None = None
    """Number of trials of a search, else of examples; None if only the budget decides."""
    budget: Decimal | None = None
    """Limit in USD."""


@dataclass(frozen=True, slots=True)
class TrialDone:
    """One trial of a search is finished."""

    suite: str
    trial: int
    """From 1."""
    config: str
    """One-line summary."""
    score: float | None
    """The tuned metric; None if the trial has none."""
    inference_cost: Decimal | None
    """Mean USD per instance."""
    spent: Decimal
    """USD spent by the search so far."""
    best: float | None
    """The best score so far."""
    status: str = "done"


@dataclass(frozen=True, slots=True)
class RowsDone:
    """More examples are finished; sent at any interval."""

    suite: str
    done: int
    total: int | None
    spent: Decimal
    """USD spent so far."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A request was sent or answered."""

    suite: str
    requests: int
    """Requests sent and not yet answered."""
    paid: Decimal
    """USD for all answers of this step."""
    retrying: str = ""
    """What a retry waits for: the server's fault, the next attempt, and when."""
    answered: int = 0
    """Requests that were answered in this step."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A suite has finished its step."""

    suite: str
    spent: Decimal
    """Total USD."""
    note: str = ""
    """Why it stopped, if worth reporting."""


Event = Started | TrialDone | RowsDone | InFlight | Finished
Listener = Callable[[Event], None]


_MOST_SHARDS = 10_000


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``index`` of ``count``. A row's content decides its shard, so appended rows do not move others."""

    index: int
    """From 1."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse ``2/5``.

        Raises:
            ValueError: not a valid shard; the message says what is.
        """
        match = re.fullmatch(r"\s*(\d{1,5})\s*/\s*(\d{1,5})\s*", text)
        index, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= index <= count <= _MOST_SHARDS:
            raise ValueError(f"is {text!r}; valid: K/N, with K from 1 to N, such as 2/5")
        return cls(index, count)

    def holds(self, example: Example) -> bool:
        """Whether a row belongs to this shard; equal rows belong to the same."""
        return int(example.id[:16], 16) % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """Describes a shard's results, so that only shards of the same run are merged."""

    index: int
    count: int
    rows: int
    """Number of rows of the suite, over all shards."""
    state: Mapping[str, str]
    """Fingerprints of everything that the results depend on: ``dataset``, ``grader``, ``prompt``, ``lock``, ..."""

    @property
    def name(self) -> str:
        """The value of ``--llm-shard``."""
        return f"{self.index}/{self.count}"
