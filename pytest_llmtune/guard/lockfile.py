"""The lock file: the chosen configuration, its baseline and its fingerprints."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.files import open_regular, relative_to_cwd, write_text
from pytest_llmtune._util.jsonhash import json_weight
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.serialize import from_plain, to_plain
from pytest_llmtune._util.text import label, number, per_thousand, quoted
from pytest_llmtune._util.yaml import load
from pytest_llmtune.errors import LockError
from pytest_llmtune.guard.rows import answers_digest, calls_digest
from pytest_llmtune.types import Evaluation, ExampleResult, Interval, Row
from pytest_llmtune.wire.response import facts_of

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.recording.format import Interaction


VERSION = 1
MAX_BYTES = 64_000_000
_MOST_EXAMPLES = 500_000
_HEAVIEST = 1_000_000  # limit in bytes of memory for one example
_SHOWN_ANSWER, _SHOWN_VOTES = 200, 5
_HEADER = (
    "# Written by `pytest --llm-tune` or `--llm-accept` (pytest-llmtune); commit it.\n"
    "# Plain `pytest` holds today's result against this baseline.\n"
)
_CONFLICT = lazy_regex(r"^(<{7}|>{7}|\|{7})( |$)|^={7}$", re.MULTILINE)
# characters that YAML must not contain raw, and bidirectional marks, which mislead the reader of a diff
_ESCAPED = lazy_regex("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Measured:
    """A value and its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: float | Decimal, interval: Interval | None = None) -> Measured:
        """Round to 12 digits: beyond them floats differ between machines, and the file would change for no reason."""
        bounds = (interval.low, interval.high) if interval else ()
        return cls(*(float(f"{float(number):.12g}") for number in (value, *bounds)))

    @property
    def interval(self) -> Interval | None:
        return None if self.low is None or self.high is None else Interval(self.low, self.high)


@dataclass(frozen=True, slots=True)
class LockedExample:
    """The outcome of one example in the baseline; long answers are truncated."""

    id: str
    index: int
    status: Literal["ok", "refused", "unknown"]
    metrics: Mapping[str, float]
    responses: int
    """Number of answers."""
    votes: tuple[tuple[str, int], ...] = ()
    """The most frequent answers with their counts."""
    voted_answer: str | None = None
    asked: str = ""
    """16 hex digits of a hash of the row's prompt columns; empty in files of earlier versions."""
    answers: str = ""
    """8 hex digits of a hash of the graded answers; empty in files of earlier versions."""
    cost: Decimal | None = None
    """USD of this instance; None in files of earlier versions."""
    calls: tuple[str, ...] = ()
    """Hashes of the calls of a task's first run, in order."""
    runs: str = ""
    """8 hex digits of a hash of the calls of all runs of a task; empty if there is one run, and in files of earlier versions."""

    @classmethod
    def of(cls, result: ExampleResult, asked: str = "") -> LockedExample:
        grade = result.grade
        return cls(
            result.example.id,
            result.example.index,
            result.status,
            {name: round(float(value), 6) for name, value in sorted(grade.metrics.items())} if grade else {},
            len(result.responses),
            tuple((short_answer(answer), count) for answer, count in grade.votes[:_SHOWN_VOTES]) if grade else (),
            None if grade is None or grade.voted_answer is None else short_answer(grade.voted_answer),
            asked,
            answers_digest(result.responses) if grade else "",
            result.cost.normalize() if grade else None,
            tuple(call.digest for call in result.runs[0].calls) if result.runs else (),
            calls_digest(result.runs) if len(result.runs) > 1 else "",
        )

    def to_line(self) -> dict[str, Any]:
        """JSON data for its line in the file; suites without a task have no calls."""
        plain: dict[str, Any] = to_plain(self)
        return {name: value for name, value in plain.items() if value or name not in ("calls", "runs")}


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """One configuration tried by a search."""

    number: int
    """From 1."""
    config: Mapping[str, Any]
    score: Measured | None
    """The tuned metric on the tuning rows; None if the trial has none."""
    inference_cost: Decimal | None
    """Mean USD per instance."""
    spent: Decimal
    """USD spent on this trial."""
    status: str
    """``done``, ``stopped``, ``over_budget``, ``constraint`` (over another limit), ``failed``."""

    @property
    def label(self) -> str:
        """Score, cost and configuration, on one line for people."""
        cost = "" if self.inference_cost is None else f" at {per_thousand(self.inference_cost)}"
        return f"{number(self.score.value) if self.score else '-'}{cost}: {label(self.config)}"


@dataclass(frozen=True, slots=True)
class StudySummary:
    """How the configuration was found."""

    trials: tuple[TrialSummary, ...]
    spent: Decimal
    """USD spent on the whole search."""
    stopped_by: str
    optimization_budget: Decimal | None = None
    inference_budget: Decimal | None = None
    num_samples: int | None = None
    seed: int = 0
    winner: int | None = None
    """The number of the winning trial."""
    tuning: Measured | None = None
    """The winner's score on the rows used in the search; optimistic, because it was selected by it."""
    heldout: Measured | None = None
    """The winner's score on rows not used in the search."""
    front: tuple[TrialSummary, ...] = ()
    """With ``prefer: pareto``, the configurations that none is both better and cheaper than, the best first."""
    note: str | None = None
    """What to know before comparing its scores with the suite's own."""


@dataclass(frozen=True, slots=True)
class RecordedAnswers:
    """When the answers of a baseline were given, and by which models."""

    first: str | None = None
    """The day of the oldest, ``YYYY-MM-DD``; None if the recording does not say."""
    last: str | None = None
    """The day of the newest."""
    models: tuple[str, ...] = ()
    """As the responses name them, such as ``gpt-4o-mini-2024-07-18``."""

    @classmethod
    def of(cls, interactions: Iterable[Interaction]) -> RecordedAnswers | None:
        """Of a recording; None if nothing is recorded."""
        days, models, empty = set[str](), set[str](), True
        for interaction in interactions:
            empty = False
            days.add(interaction.recorded)
            models.add(facts_of(interaction.text).model)
        days.discard("")
        models.discard("")
        return None if empty else cls(min(days, default=None), max(days, default=None), tuple(sorted(models)))


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock file's content."""

    suite: str
    config: Mapping[str, Any]
    """OpenAI parameters by their own names, and ``prompt`` or ``messages``."""
    metrics: Mapping[str, Measured]
    """Baseline of every metric, ``inference_cost`` (USD per instance) among them."""
    prices: Mapping[str, Mapping[str, Decimal]]
    """Model to USD per 1M tokens: ``input``, ``output``, ``cached_input``, ``cache_write``."""
    fingerprints: Mapping[str, str]
    """Of ``dataset``, ``prompt``, ``grader``, ...: what the baseline was measured with; ``rows`` are counts, in words."""
    study: StudySummary | None = None
    examples: tuple[LockedExample, ...] = field(default=(), repr=False)
    recording: RecordedAnswers | None = None
    """None in files of earlier versions."""

    @property
    def inference_cost(self) -> Decimal | None:
        """USD per instance, with the digits of the file."""
        figure = self.metrics.get("inference_cost")
        return None if figure is None else Decimal(repr(figure.value))

    @property
    def unknown(self) -> frozenset[str]:
        """The examples, by id, that could not be completed."""
        return frozenset(example.id for example in self.examples if example.status == "unknown")

    @classmethod
    def of(
        cls,
        suite: str,
        evaluation: Evaluation,
        *,
        prices: Mapping[str, Mapping[str, Decimal]],
        fingerprints: Mapping[str, str],
        study: StudySummary | None = None,
        key: Callable[[Row], str] | None = None,
        recording: RecordedAnswers | None = None,
    ) -> Lock:
        """Today's evaluation as the baseline, without latencies, which differ with every run; ``key``: equal for equal questions."""
        figures: dict[str, float | Decimal] = {**evaluation.metrics, "inference_cost": evaluation.inference_cost}
        metrics = {
            name: Measured.of(value, evaluation.intervals.get(name))
            for name, value in sorted(figures.items())
            if not name.startswith("latency")
        }
        found = (LockedExample.of(each, key(each.example.row) if key else "") for each in evaluation.results)
        examples = sorted(_shared(found), key=lambda example: example.id)
        return cls(suite, evaluation.config, metrics, prices, fingerprints, study, tuple(examples), recording)

    @classmethod
    def read(cls, path: Path) -> Lock:
        """The lock at ``path``; LockError if it is missing, too large, damaged, has conflict markers, or is of a later version."""
        try:
            with open_regular(path) as file:
                content = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise LockError(f"{path}: no lock file. Write it: pytest --llm-tune") from None
        except OSError as error:
            raise LockError(f"{path}: the lock file cannot be read: {error.strerror or error}") from error
        return cls.parse(content, path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> Lock:
        """Parse a lock file's content; ``path`` is for messages only. LockError as for ``read``."""
        text = _text(content, path)
        try:
            data, lines = _divided(text)
            version = data.pop("version", None) if isinstance(data, dict) else None
            if version == VERSION:
                lock = from_plain(cls, data)
                read = (
                    from_plain(LockedExample, _read_line(line), f"examples[{index}]")
                    for index, line in enumerate(lines)
                )
                return dataclasses.replace(lock, examples=tuple(_shared(_sound(read if lines else lock.examples))))
        except ValueError as error:
            raise LockError(f"{path}: the lock file is damaged: {error}. {_repair(path)}") from None
        if isinstance(version, int) and version > VERSION:
            raise LockError(
                f"{path}: lock file version {version} was written by a later pytest-llmtune; this one reads up to "
                f"version {VERSION}. Upgrade: pip install -U pytest-llmtune"
            )
        raise LockError(f"{path}: no lock file: 'version' is {version!r}, valid is {VERSION}. {_repair(path)}")

    def text(self) -> str:
        """The file's content; equal locks give equal text."""
        plain = to_plain(dataclasses.replace(self, examples=()))
        del plain["examples"]
        lines = "".join(f"- {json.dumps(example.to_line(), ensure_ascii=False)}\n" for example in self.examples)
        lines = _ESCAPED.sub(lambda match: f"\\u{ord(match.group()):04x}", lines)
        return f"{_HEADER}{head({'version': VERSION, **plain})}examples:{'' if lines else ' []'}\n{lines}"

    def write(self, path: Path) -> bool:
        """Write atomically; False if the file already had this content, LockError if it cannot be written."""
        try:
            return write_text(path, self.text())
        except OSError as error:
            raise LockError(f"{path}: the lock file cannot be written: {error.strerror or error}") from error


def _sound(examples: Iterable[LockedExample]) -> Iterator[LockedExample]:
    """The examples; ValueError if one is there twice, as after a merge that kept both sides, or a metric is no finite number."""
    known: dict[str, int] = {}
    for index, example in enumerate(examples):
        if (first := known.setdefault(example.id, index)) != index:
            raise ValueError(f"examples[{first}] and examples[{index}] have the same id {example.id!r:.60}")
        for name, value in example.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"examples[{index}].metrics.{name} is {value}, not a finite number")
        yield example


def _shared(examples: Iterable[LockedExample]) -> Iterator[LockedExample]:
    """Share equal metrics between examples: a lock file may have hundreds of thousands."""
    known: dict[tuple[tuple[str, float], ...], Mapping[str, float]] = {}
    for example in examples:
        metrics = known.setdefault(tuple(example.metrics.items()), example.metrics)
        voted = example.voted_answer
        if example.votes and example.votes[0][0] == voted:
            voted = example.votes[0][0]
        yield dataclasses.replace(example, id=sys.intern(example.id), metrics=metrics, voted_answer=voted)


def short_answer(answer: str) -> str:
    """An answer as stored in the lock file: at most 200 characters, valid in UTF-8."""
    cut = answer if len(answer) <= _SHOWN_ANSWER else answer[: _SHOWN_ANSWER - 3] + "..."
    return cut.encode("utf-8", "replace").decode()  # lone surrogates cannot be encoded


def _repair(path: Path) -> str:
    return f"Restore it (git checkout -- {quoted(relative_to_cwd(path))}), or search again: pytest --llm-tune"


def _text(content: bytes, path: Path) -> str:
    if len(content) > MAX_BYTES:
        raise LockError(f"{path}: the lock file has more than the limit of {MAX_BYTES:,} bytes")
    try:
        text = content.decode().replace("\r\n", "\n").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise LockError(f"{path}: the lock file is not UTF-8 text (byte {error.start}). {_repair(path)}") from None
    if conflict := _CONFLICT.search(text):
        line = text.count("\n", 0, conflict.start()) + 1
        raise LockError(
            f"{path}, line {line}: git conflict markers in the lock file. Take one side "
            f"(git checkout --ours -- {quoted(relative_to_cwd(path))}, or --theirs), then run: pytest --llm-accept"
        )
    return text


def _divided(text: str) -> tuple[Any, list[str]]:
    """The file's head, and its example lines, which are read as JSON: 100 times faster than as YAML, and one at a time."""
    start, mark, rest = text.partition("\nexamples:\n")
    lines = rest.splitlines() if mark else []
    if len(lines) > _MOST_EXAMPLES:
        raise ValueError(f"it has {len(lines):,} examples, more than the limit of {_MOST_EXAMPLES:,}")
    try:
        for line in lines:
            _read_line(line)
    except (ValueError, RecursionError):
        return load(text), []  # edited by hand: read all as YAML
    return load(start), lines


def _read_line(line: str) -> Any:
    if not line.startswith("- {"):
        raise ValueError("not an example in the expected format")
    if json_weight(line) > _HEAVIEST:
        raise ValueError("an example of more than a megabyte")
    return json.loads(line[2:])


class _Line(dict[str, Any]):
    """A mapping written on one line."""


def head(data: Mapping[str, Any]) -> str:
    """YAML of everything except the examples."""
    import yaml

    study, recording = data.get("study"), data.get("recording")
    if study:  # without unknown values; trials last, one per line
        known = {name: value for name, value in study.items() if value is not None and name != "trials"}
        known |= {name: _filled(known[name]) for name in ("tuning", "heldout") if name in known}
        trials = [
            _Line({**trial, **_money(trial), "config": _Line(trial["config"]), "score": _filled(trial["score"])})
            for trial in study["trials"]
        ]
        study = {**known, **_money(known), "trials": trials}
    shown = {
        **{name: value for name, value in data.items() if name not in ("recording", "study")},
        "metrics": {name: _filled(figure) for name, figure in data["metrics"].items()},
        "prices": {
            model: _Line({name: _Number(usd) for name, usd in price.items()}) for model, price in data["prices"].items()
        },
        **({"recording": _filled(recording)} if recording else {}),
        "study": study,
    }
    text: str = yaml.dump(shown, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=100_000)
    return text


def _filled(figure: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if figure is None else _Line({name: value for name, value in figure.items() if value is not None})


def _money(data: Mapping[str, Any]) -> dict[str, _Number]:
    return {name: _Number(data[name]) for name in _MONEY & data.keys() if data[name] is not None}


_MONEY = {"spent", "optimization_budget", "inference_budget", "inference_cost"}


class _Number(str):
    """The text of a finite ``Decimal``, written without quotes."""

    __slots__ = ()


@cache
def _dumper() -> Any:
    """A safe dumper with our two styles; created on first use, to import yaml lazily."""
    import yaml

    class HeadDumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml names it
            return True  # a lock file has no aliases

    def line(dumper: yaml.SafeDumper, data: _Line) -> yaml.Node:
        return dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True)

    def number(dumper: yaml.SafeDumper, data: _Number) -> yaml.Node:
        digits = format(Decimal(data), "f")
        digits = digits.rstrip("0").rstrip(".") if "." in digits else digits  # 0.10 and 0.1 are the same amount
        if Decimal(digits) != Decimal(repr(float(digits))):  # a YAML reader would lose digits: write a string
            return dumper.represent_scalar("tag:yaml.org,2002:str", digits)
        return dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in digits else 'int'}", digits)

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
        special = any(
            character in data for character in "\x85\u2028\u2029\ufeff"
        )  # line separators that other styles drop
        style = '"' if special else "|" if "\n" in data.strip() else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    HeadDumper.add_representer(_Line, line)
    HeadDumper.add_representer(_Number, number)
    HeadDumper.add_representer(str, text)
    return HeadDumper
