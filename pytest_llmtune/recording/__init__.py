"""The recording of a suite: constant-time lookup, atomic writes."""

from __future__ import annotations

import json
from array import array
from dataclasses import fields
from decimal import Decimal
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.files import Spool
from pytest_llmtune._util.jsonhash import canonical_json, request_key
from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording import mismatch
from pytest_llmtune.recording.format import Interaction, MalformedError, repair_advice
from pytest_llmtune.recording.storage import load_interactions
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.types import Exchange
from pytest_llmtune.wire.response import (
    answers_in,
    choices_of,
    embedding_in,
    fault_of,
    is_refusal,
    parse_object,
    wants_embedding,
)
from pytest_llmtune.wire.tokens import completion_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from pytest_llmtune.recording.storage import Layout
    from pytest_llmtune.types import Completion, CompletionRequest

_KEY = 32  # bytes
_MOST_KEYS = 20_000  # kept; each takes some 200 bytes
_MOST_INTERACTIONS = 1_000_000
_NOWHERE: array[int] = array("L")
_ROUTES = ("/chat/completions", "/embeddings")


@dataclass(slots=True)
class Recording:
    """A recording in memory. It tracks which interactions were used, and so also which are unused."""

    path: Path
    interactions: Sequence[Interaction] = ()
    redactor: Redactor | None = None
    """Redacts requests before lookup, in the same way as when the recording was written."""
    _index: dict[bytes, array[int]] = field(default_factory=dict)
    """Positions of interactions by request key."""
    _keys: dict[str, bytes] = field(default_factory=dict)
    """Request keys to the keys of the redacted requests; each is looked up more than once."""
    _counts: array[int] = field(default_factory=lambda: array("L"))
    """Number of answers of each interaction according to the file; 0 if not given."""
    _used: set[int] = field(default_factory=set)
    oldest: str = ""
    """The day, ``YYYY-MM-DD``, of the oldest used answer; empty if unknown."""
    _runs: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    """Positions of a task's interactions by row and run."""
    _torn: bool = False
    """Whether interactions that hold no answer are passed over."""

    @classmethod
    def load(cls, path: Path, redactor: Redactor | None = None, *, torn: bool = False) -> Recording:
        """Read and index a recording; empty if there is no file.

        Args:
            torn: read what is there even if parts are missing or damaged.

        Raises:
            RecordingError: the file is damaged; the message names the line.
        """
        recording = cls(path, (), redactor, _torn=torn)
        recording.interactions = load_interactions(path, recording._add, torn=torn)
        return recording

    def _add(self, position: int, interaction: Interaction) -> None:
        if position >= _MOST_INTERACTIONS:
            raise RecordingError(
                f"the recording {self.path} has more than the limit of {_MOST_INTERACTIONS:,} interactions"
            )
        self._counts.append(interaction.answers)
        if interaction.position is not None:
            runs = self._runs.setdefault(interaction.position.row, {})
            runs.setdefault(interaction.position.run, []).append(position)
            return
        body = parse_object(interaction.body) if interaction.path.endswith(_ROUTES) else None
        if body is not None and not (self._torn and _no_answer(interaction)):
            key = bytes.fromhex(request_key(body))
            self._index.setdefault(key, array("L")).append(position)

    def lookup(self, request: CompletionRequest) -> Completion | None:
        """The recorded answers to a request, or None if fewer than ``request.n`` are recorded.

        Exchanges are joined in recorded order, so that a repeated request gets the same answers. A request whose ``sample_index``
        is 1 gets the next ``n`` answers, and so on.

        Raises:
            RecordingError: a recorded body is not a chat completion.
        """
        exchanges: list[Exchange] = []
        answers, skip = 0, request.sample_index * request.n
        positions = self._index.get(self._key(request), _NOWHERE)
        for count, position in enumerate(positions, 1):
            exchange = self._exchange(position)
            exchanges.append(exchange)
            answers += answers_in(exchange)
            if answers >= skip + request.n:
                self._used.update(positions[:count])
                self._date(exchange.recorded for exchange in exchanges)
                return completion_of(exchanges, request.n, skip=skip)
        return None

    def _date(self, days: Iterable[str]) -> None:
        self.oldest = min(filter(None, (self.oldest, *days)), default="")

    def has(self, request: CompletionRequest) -> bool:
        """Whether ``lookup`` would find enough answers, by the file's own counts, without marking them as used."""
        positions = self._index.get(self._key(request), _NOWHERE)
        return sum(map(self._answers, positions)) >= (request.sample_index + 1) * request.n

    def mark_used(self, request: CompletionRequest) -> None:
        """Mark the answers to this request as used, because another process takes them."""
        positions, answers = self._index.get(self._key(request), _NOWHERE), 0
        for position in positions:
            self._used.add(position)
            answers += self._answers(position)
            if answers >= (request.sample_index + 1) * request.n:
                return

    def has_run(self, row: str, run: int) -> bool:
        """Whether a call of this run of a task is recorded."""
        return run in self._runs.get(row, {})

    def calls_of(self, row: str, run: int) -> list[Interaction]:
        """The recorded calls of one run of a task, in order, marked as used."""
        positions = self._runs.get(row, {}).get(run, ())
        self._used.update(positions)
        found = [self.interactions[position] for position in positions]
        self._date(interaction.recorded for interaction in found)
        return sorted(found, key=lambda each: each.position.call if each.position else 0)

    def run_costs(self, charge: Callable[[Interaction], Any]) -> list[tuple[int, Decimal]]:
        """Number of calls and cost in USD of each recorded run of a task.

        Args:
            charge: prices a call; returns an object with ``usd``.
        """
        return [
            (len(positions), sum((charge(self.interactions[each]).usd for each in positions), Decimal(0)))
            for runs in self._runs.values()
            for positions in runs.values()
        ]

    def mark_row_used(self, row: str) -> None:
        """Mark the runs of this row as used, because another process replays them."""
        for positions in self._runs.get(row, {}).values():
            self._used.update(positions)

    def rows_with_runs(self) -> frozenset[str]:
        """The rows (IDs of examples) with recorded runs of a task."""
        return frozenset(self._runs)

    @classmethod
    def of(cls, path: Path, interactions: Sequence[Interaction], redactor: Redactor | None = None) -> Recording:
        """A recording of interactions that are about to be written."""
        recording = cls(path, tuple(interactions), redactor)
        for position, interaction in enumerate(interactions):
            recording._add(position, interaction)
        return recording

    def explain(self, request: CompletionRequest) -> str:
        """How an unrecorded request differs from the nearest recorded one; empty if nothing is recorded."""
        if positions := self._index.get(self._key(request)):
            answers = sum(answers_in(self._exchange(position)) for position in positions)
            return f"{answers} of the {(request.sample_index + 1) * request.n} requested answers are recorded"
        from pytest_llmtune.recording.writer import body_without_n

        _, body = (self.redactor or Redactor()).clean_request("", canonical_json(request.body))
        recorded = (self.interactions[positions[0]] for positions in self._index.values())
        return mismatch.explain(body, (replace(item, body=body_without_n(item)) for item in recorded))

    @property
    def unused_count(self) -> int:
        """Number of interactions not used so far."""
        return len(self.interactions) - len(self._used)

    @property
    def unused(self) -> tuple[Interaction, ...]:
        """The interactions not used so far."""
        return tuple(item for position, item in enumerate(self.interactions) if position not in self._used)

    def refuse_conflicts(self) -> None:
        """Check, after all requests were taken, that no unused interaction answers the same request differently.

        git's union merge puts both sides' lines into one file.

        Raises:
            RecordingError: names both lines.
        """
        for positions in self._index.values():
            taken = [position for position in positions if position in self._used]
            for position in positions if taken and len(taken) < len(positions) else ():
                if position in self._used:
                    continue
                extra = self.interactions[position]
                for other in taken:
                    known = self.interactions[other]
                    if known.body == extra.body and known.text != extra.text:
                        raise RecordingError(
                            f"{self.path}: {self._line(other)} and {self._line(position)} answer the same request "
                            "differently, as after a union merge; keep one of the lines, or keep the first of each: "
                            "pytest --llm-record=missing"
                        )

    def _line(self, position: int) -> str:
        """Location of an interaction for messages; in our layout each has its own line, after a header line."""
        return f"line {position + 2}" if isinstance(self.interactions, tuple) else f"interaction {position + 1}"

    def _key(self, request: CompletionRequest) -> bytes:
        own = bytes.fromhex(request.key)
        if self.redactor is None or own in self._index:  # recorded as it is, so it has no secrets
            return own
        if (known := self._keys.get(request.key)) is not None:
            return known
        text = canonical_json(request.body)
        _, clean = self.redactor.clean_request("", text)
        found = bytes.fromhex(request.key if clean == text else request_key(parse_object(clean) or {}))
        if len(self._keys) < _MOST_KEYS:
            self._keys[request.key] = found
        return found

    def _answers(self, position: int) -> int:
        return self._counts[position] or answers_in(self._exchange(position))

    def _exchange(self, position: int) -> Exchange:
        try:
            exchange = self.interactions[position].exchange()
        except MalformedError as error:
            raise self._corrupt(position, str(error)) from None
        if missing := _missing(exchange):
            raise self._corrupt(position, f"the response has {missing}")
        return exchange

    def _corrupt(self, position: int, what: str) -> RecordingError:
        return RecordingError(f"{self.path}: interaction {position + 1} is corrupt: {what}; {repair_advice(self.path)}")

    @staticmethod
    def write(
        path: Path,
        exchanges: Iterable[Exchange],
        redactor: Redactor | None = None,
        layout: Layout | None = None,
        calls: Iterable[Interaction] = (),
    ) -> bool:
        """Write exactly these exchanges, in canonical order, with secrets removed.

        Exchanges of one request keep the given order.

        Args:
            calls: calls of a task's runs, as returned by ``writer.stable_runs``.

        Returns:
            False if the file already had this content.

        Raises:
            RecordingError: a secret is left in the text, or the file cannot be written; the old file is intact.
        """
        from pytest_llmtune.recording.writer import write

        return write(path, chain(map(Interaction.of, exchanges), calls), redactor, layout)


@dataclass(slots=True)
class Gathered:
    """Collects a run's completions in any order, and returns them in the order of a recording."""

    _spool: Spool = field(default_factory=Spool)
    """The exchanges of each added completion."""
    _keys: bytearray = field(default_factory=bytearray)
    """Keys of their requests."""
    _sample_indices: array[int] = field(default_factory=lambda: array("L"))
    _answers: array[int] = field(default_factory=lambda: array("L"))
    runs: dict[tuple[str, int], tuple[Interaction, ...]] = field(default_factory=dict)
    """A task's calls by row and run."""

    def add(self, request: CompletionRequest, completion: Completion) -> None:
        """Add a completion; of two for the same request and draw, the longer counts."""
        runs: dict[tuple[str, int], list[Interaction]] = {}
        for call in completion.calls:
            runs.setdefault((call.position.row, call.position.run), []).append(call)
        self.runs |= {key: tuple(calls) for key, calls in runs.items()}  # whole: run again, it may make fewer
        if not completion.exchanges:
            return
        plain = [[getattr(exchange, each.name) for each in fields(exchange)] for exchange in completion.exchanges]
        self._spool.put(json.dumps(plain, default=dict))
        self._keys += bytes.fromhex(request.key)
        self._sample_indices.append(request.sample_index)
        self._answers.append(len(completion.choices))

    @property
    def exchanges(self) -> Iterator[Exchange]:
        """Each exchange once; those of one request in the order of draws."""
        order = sorted(
            range(len(self._spool)), key=lambda at: (self._key(at), self._sample_indices[at], -self._answers[at])
        )
        for _, numbers in groupby(order, key=self._key):
            answers, before = 0, -1
            for number in numbers:
                if (sample_index := self._sample_indices[number]) == before:
                    continue
                shared = answers > sample_index * self._answers[number]  # the previous draw ended within an exchange
                for packed in json.loads(self._spool.get(number))[shared:]:
                    exchange = Exchange(*packed)
                    answers += answers_in(exchange)
                    yield exchange
                before = sample_index

    def _key(self, number: int) -> bytes:
        return bytes(self._keys[_KEY * number : _KEY * (number + 1)])


def _missing(exchange: Exchange) -> str:
    """What a response lacks to be an answer, or a refusal; else the empty string."""
    if is_refusal(exchange):
        return ""
    if wants_embedding(exchange.request):
        return "" if embedding_in(exchange.response) else "no embedding of finite numbers"
    return "" if isinstance(exchange.response.get("choices"), list) else "no list of 'choices'"


def _no_answer(interaction: Interaction) -> bool:
    """Whether a recorded response cannot be read, or is a fault of the provider's."""
    try:
        exchange = interaction.exchange()
    except MalformedError:
        return True
    return bool(_missing(exchange)) or (not is_refusal(exchange) and any(map(fault_of, choices_of(exchange))))
