"""Values shared by all rooms: rows, requests, completions, evaluations, events."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

__all__ = [
    "Accept",
    "Answer",
    "Asked",
    "Choice",
    "Completion",
    "CompletionRequest",
    "Escalation",
    "Evaluation",
    "Event",
    "Example",
    "ExampleGrade",
    "ExampleResult",
    "Exchange",
    "Finished",
    "InFlight",
    "Interval",
    "Listener",
    "ModelCall",
    "Row",
    "RunText",
    "Shard",
    "ShardFacts",
    "Started",
    "TaskRun",
    "TestCalls",
    "ToolCall",
    "TrialDone",
    "Usage",
]


Row = Mapping[str, Any]
"""One record of a dataset: column name to value."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a dataset, with an identity that survives re-ordering."""

    id: str
    """First 16 hex digits of the SHA-256 of the row's canonical JSON; ``-2``, ``-3`` for repeated rows."""
    index: int
    """Position in the dataset as loaded, from 0; for messages only."""
    row: Row


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens billed for one or more responses."""

    prompt_tokens: int
    """All input, read from or written to the provider's cache included."""
    completion_tokens: int
    """All output, over all choices, hidden reasoning included."""
    cached_tokens: int = 0
    """The part of ``prompt_tokens`` that was read from the provider's cache."""
    estimated: bool = False
    """True where the server reported nothing usable and the tokens were estimated from text."""
    cache_write_tokens: int = 0
    """The part of ``prompt_tokens`` that was written to the provider's cache."""
    units: tuple[tuple[str, float], ...] = ()
    """Other billed units by genai-prices' names, sorted: ``input_audio_tokens``, ``web_searches``, ``audio_seconds``."""
    tier: str = ""
    """The service tier as served, where the response names one: ``flex``, ``priority``."""
    requests: int = field(default=0, compare=False)
    """HTTP requests behind it, for prices by the request; 0 counts as one."""

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
            self.tier or other.tier,
            self.requests + other.requests,
        )


@dataclass(frozen=True, slots=True)
class Accept:
    """When the answers of a cascade's step are taken, and no dearer step is asked."""

    margin: float = 0.0
    """By how much of all answers the most frequent one must lead the next, 0 to 1; an unreadable answer votes for none."""
    regex: str | None = None
    """What must be found in every answer."""
    grader: Any = None
    """How answers are read for the vote, as a suite declares it; None: equal texts are equal answers. A suite uses its own."""

    def accepts(self, votes: Sequence[int], texts: Sequence[str]) -> bool:
        """Whether the answers are taken.

        Args:
            votes: how often each readable answer came, most frequent first.
            texts: of all answers.
        """
        if not votes or (self.regex is not None and not all(re.search(self.regex, text) for text in texts)):
            return False
        lead = votes[0] - (votes[1] if len(votes) > 1 else 0)
        return lead >= self.margin * len(texts) - 1e-9


@dataclass(frozen=True, slots=True)
class Escalation:
    """The next step of a cascade, and when it is needed."""

    accept: Accept
    request: CompletionRequest


@dataclass(frozen=True, slots=True)
class TestCalls:
    """What the code under one test asked of models, recorded, replayed or live."""

    __test__ = False  # no test class

    nodeid: str
    calls: int
    """Calls that were answered."""
    usage: Mapping[str, Usage]
    """By model, as asked for."""
    cost: Decimal
    """USD at the prices in force, whoever paid and when; without the calls that ``problem`` tells of."""
    spent: Decimal = Decimal(0)
    """USD of it that was billed in this run."""
    problem: str = ""
    """Why the cost of a call is not known; empty where all are."""


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What one example asks under one configuration."""

    body: Mapping[str, Any]
    """The JSON body of ``POST /chat/completions`` without ``n``: model, messages, sampling parameters."""
    n: int
    """How many answers are wanted."""
    key: str
    """SHA-256 hex of the canonical JSON of ``body``; see ``completions.request``."""
    draw: int = 0
    """0 for the first answers to this request, 1 for the next ``n``, ...: equal rows get samples of their own."""
    escalation: Escalation | None = None
    """What is asked instead where the answers are not accepted; a cascade's next step."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One complete, successful request and its response, as they went over the wire, secrets removed."""

    method: str
    uri: str
    request: Mapping[str, Any]
    """The request's JSON body, ``n`` included."""
    response: Mapping[str, Any]
    """The response's JSON body."""
    status: int = 200
    latency: float = 0.0
    """Seconds from sending to the last byte."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Allow-listed response headers."""
    recorded: str = ""
    """The day on which the server was asked, ``YYYY-MM-DD``; empty where nobody noted it."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that a model asked for."""

    name: str
    arguments: Any
    """As JSON data; text where the model wrote no JSON."""
    id: str = ""
    result: str | None = None
    """What the app sent back for it in a later call of the same run; None: nothing was seen."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One HTTP call of a task."""

    number: int
    """In its run, from 1."""
    model: str
    """As asked for; empty where no model was asked (a search, a database)."""
    messages: tuple[Mapping[str, Any], ...] = ()
    """What the model was told, as ``{"role": ..., "content": ...}`` where the provider's shape has such."""
    text: str = ""
    """What it answered."""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage(0, 0)
    usd: Decimal = Decimal(0)
    """At the prices in force."""
    latency: float = 0.0
    """Seconds."""
    path: str = ""
    """Of the URL."""
    status: int = 200
    digest: str = ""
    """8 hex digits of what was asked and answered: equal for equal calls."""

    @property
    def tokens(self) -> int:
        """Of prompt and answer."""
        return self.usage.prompt_tokens + self.usage.completion_tokens


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One run of a task on one row."""

    number: int
    """From 1."""
    text: str
    """What is graded; empty where the task raised."""
    data: Any = None
    """Of ``Outcome``."""
    calls: tuple[ModelCall, ...] = ()
    """In order."""
    error: str | None = None
    """The last line of the app's exception."""
    latency: float = 0.0
    """Seconds from the run's start to its last answer."""

    def shown(self) -> TaskRun:
        """As reports keep it: without what the models were told, which the recording holds."""
        return replace(self, calls=tuple(replace(call, messages=()) for call in self.calls))

    @property
    def cost(self) -> Decimal:
        """USD of its calls."""
        return sum((call.usd for call in self.calls), Decimal(0))


class RunText(str):
    """A response that knows the run it came from: graders of traces look there."""

    __slots__ = ("run",)
    run: TaskRun

    def __new__(cls, text: str, run: TaskRun) -> RunText:
        made = super().__new__(cls, text)
        made.run = run
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return RunText, (str(self), self.run)


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer of a model."""

    text: str
    finish_reason: str
    """``stop``, ``length``, ``content_filter``, ``tool_calls``; as served."""
    tokens: int | None = None
    """Length in tokens where it is known exactly: the only choice of its response, or reported."""
    run: TaskRun | None = None
    """The run of a task that gave it."""

    @property
    def judged(self) -> str:
        """The text that a grader sees: nothing where a content filter stopped the answer, which counts as wrong."""
        if self.run is not None:
            return RunText(self.run.text, self.run)
        return "" if self.finish_reason == "content_filter" else self.text


@dataclass(frozen=True, slots=True)
class Completion:
    """The n answers to one request, from wherever they came."""

    choices: tuple[Choice, ...]
    usage: Usage
    """What asking for exactly these answers bills."""
    exchanges: tuple[Exchange, ...]
    """The wire exchanges the answers were taken from."""
    served_model: str = ""
    latency: float = 0.0
    """Seconds, of the slowest exchange."""
    paid: Decimal = Decimal(0)
    """USD spent now to get them: 0 from a recording or the cache."""
    cost: Decimal | None = None
    """USD at the prices in force, where they are not of one model: of a task's calls."""
    calls: tuple[Any, ...] = field(default=(), repr=False)
    """The interactions of a task's runs, as a recording holds them."""
    kept: tuple[str, ...] = field(default=(), repr=False)
    """Under which names the cache keeps a task's calls."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each answer, as graders see it; calls of tools, where there is no text, as JSON."""
        return tuple(choice.text for choice in self.choices)

    @property
    def text(self) -> str:
        """The text of the first answer."""
        return self.choices[0].text


@dataclass(frozen=True, slots=True)
class Answer:
    """What a grader read from one response."""

    key: str | None
    """Normal form: equal keys vote together. None: no answer could be read; it never gets a vote."""
    text: str
    """The answer as shown to people."""
    correct: bool


@dataclass(frozen=True, slots=True)
class ExampleGrade:
    """How the n responses of one example did."""

    metrics: Mapping[str, float]
    """At least expected_success, success and success_vote, each 0..1."""
    votes: tuple[tuple[str, int], ...] = ()
    """(answer, count), most frequent first; ties in order of appearance."""
    voted_answer: str | None = None
    answers: tuple[Answer, ...] = ()
    """One for each response; empty where the grader is a plain callable."""


@dataclass(frozen=True, slots=True)
class ExampleResult:
    """One example under one configuration."""

    example: Example
    status: Literal["ok", "refused", "unknown"]
    """``refused``: every choice was stopped by a content filter (counts as wrong); ``unknown``: not completed."""
    grade: ExampleGrade | None
    """None exactly where the status is ``unknown``."""
    responses: Sequence[str] = ()
    usage: Usage = Usage(0, 0)
    cost: Decimal = Decimal(0)
    """USD of this instance at the prices in force."""
    latency: float = 0.0
    error: str | None = None
    """Why it is unknown; of a task also the last line of what it raised."""
    runs: tuple[TaskRun, ...] = ()
    """Of a task; empty where there are very many examples."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float
    confidence: float = 0.95


class _Metrics:
    """``evaluation.success_vote`` for ``evaluation.metrics["success_vote"]``, which reads better in an assert.

    The metrics that every suite has are annotated, so that a misspelled name is an error for type checkers. A metric of
    your own grader is in ``metrics``.
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
    """One configuration over a list of examples."""

    config: Mapping[str, Any]
    """OpenAI parameters by their own names, and ``prompt`` or ``messages``, as in the lock file."""
    results: Sequence[ExampleResult]
    """One for each example; many of them lie on disk and are made anew whenever they are looked at."""
    metrics: Mapping[str, float]
    """Aggregated over the examples that are not unknown."""
    intervals: Mapping[str, Interval]
    inference_cost: Decimal
    """Mean USD per instance at the prices in force."""
    cost: Decimal
    """USD really spent to get this evaluation; 0 in replay."""

    @cached_property
    def unknown(self) -> tuple[ExampleResult, ...]:
        return tuple(result for result in self.results if result.status == "unknown")


@dataclass(frozen=True, slots=True)
class Started:
    """A suite starts to spend time or money."""

    suite: str
    task: Literal["tune", "record", "live"]
    total: int | None = None
    """Trials of a search, else examples; None where only the budget decides."""
    budget: Decimal | None = None
    """USD that may be spent at most."""


@dataclass(frozen=True, slots=True)
class TrialDone:
    """One configuration of a search has been judged."""

    suite: str
    trial: int
    """From 1."""
    config: str
    """One line for people."""
    score: float | None
    """The tuned metric; None where the trial has none."""
    inference_cost: Decimal | None
    """Mean USD per instance."""
    spent: Decimal
    """USD of the search so far."""
    best: float | None
    """The best score so far."""
    status: str = "done"


@dataclass(frozen=True, slots=True)
class Asked:
    """Some more examples are finished; sent as often as the sender likes."""

    suite: str
    done: int
    total: int | None
    spent: Decimal
    """USD so far."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A request was sent, or came back."""

    suite: str
    requests: int
    """Sent and not yet answered."""
    paid: Decimal
    """USD for all that has been answered in this step."""
    retrying: str = ""
    """What is being waited out: the server's fault, which attempt is next, and when."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A suite is done with its step."""

    suite: str
    spent: Decimal
    """USD in all."""
    note: str = ""
    """Why it stopped, where that is worth a word."""


Event = Started | TrialDone | Asked | InFlight | Finished
Listener = Callable[[Event], None]


_MOST_SHARDS = 10_000


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``index`` of ``count``. A row's own content decides where it goes: rows that are appended move no other."""

    index: int
    """From 1."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From ``2/5``.

        Raises:
            ValueError: no such part; says what is valid.
        """
        match = re.fullmatch(r"\s*(\d{1,5})\s*/\s*(\d{1,5})\s*", text)
        index, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= index <= count <= _MOST_SHARDS:
            raise ValueError(f"is {text!r}; valid: K/N, with K from 1 to N, such as 2/5")
        return cls(index, count)

    def holds(self, example: Example) -> bool:
        """Whether a row is of this part; equal rows are of the same."""
        return int(example.id[:16], 16) % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What the results of a shard say of themselves, so that only what belongs together is merged."""

    index: int
    count: int
    rows: int
    """Of the suite, over all shards."""
    state: Mapping[str, str]
    """Fingerprints of all that the results depend on: ``dataset``, ``grader``, ``prompt``, ``lock``, ``prices``, ..."""

    @property
    def name(self) -> str:
        """As the option says it."""
        return f"{self.index}/{self.count}"
