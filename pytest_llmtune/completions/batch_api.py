"""Ask through a provider's batch API: submit, wait, resume, cancel."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pytest_llmtune._util.files import write_text
from pytest_llmtune.wire.response import parse_object

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import openai

__all__ = ["BatchNote", "BatchNotes", "Batcher", "Batching"]


_OLDEST = 2 * 86_400.0
"""Seconds after which a note counts no more: batches end after a day."""
_MAX_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class BatchNote:
    """One batch."""

    name: str
    """A digest of its requests."""
    requests: frozenset[str]
    """The ids of its requests; nothing of what they say."""
    batch: str | None = None
    """The provider's name for it; None: it was about to be created."""


@dataclass(frozen=True, slots=True)
class BatchNotes:
    """The notes in a directory."""

    directory: Path

    def holding(self, ids: Sequence[str]) -> tuple[list[BatchNote], Collection[str]]:
        """The notes that hold any of these requests, and the requests that none holds; a request is in one note."""
        rest, found = set(ids), []
        for note in self._all():
            if mine := rest & note.requests:
                found.append(replace(note, requests=frozenset(mine)))
                rest -= mine
        return found, rest

    def begin(self, ids: Sequence[str]) -> BatchNote:
        """Note a batch that is about to be created."""
        name = hashlib.sha256("\n".join([*ids, str(time.time())]).encode()).hexdigest()[:32]
        note = BatchNote(name, frozenset(ids))
        self._write(note)
        return note

    def created(self, note: BatchNote, batch: str) -> BatchNote:
        """The provider has it."""
        whole = self._read(self._path(note)) or note
        self._write(replace(whole, batch=batch))
        return replace(note, batch=batch)

    def forget(self, note: BatchNote) -> None:
        """Everything that was in it has arrived, or nothing ever will."""
        self._path(note).unlink(missing_ok=True)

    def _path(self, note: BatchNote) -> Path:
        return self.directory / f"{note.name}.json"

    def _write(self, note: BatchNote) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        document = {"batch": note.batch, "requests": sorted(note.requests)}
        write_text(self._path(note), json.dumps(document))

    def _all(self) -> list[BatchNote]:
        paths = sorted(self.directory.glob("*.json")) if self.directory.is_dir() else []
        fresh = [path for path in paths if time.time() - path.stat().st_mtime < _OLDEST]
        return [note for path in fresh if (note := self._read(path)) is not None]

    def _read(self, path: Path) -> BatchNote | None:
        """None where it is not a note of ours."""
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return None
        match parse_object(path.read_text(encoding="utf-8", errors="replace")):
            case {"batch": str() | None as batch, "requests": list(requests)}:
                return BatchNote(path.stem, frozenset(map(str, requests)), batch)
        return None


_URL: Final = "/v1/chat/completions"
_ENDED = frozenset({"completed", "expired", "cancelled"})
_SLOWEST = 60.0
"""Seconds between two looks at a batch, at most."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests become batches."""

    directory: Path
    """Where batches under way are noted."""
    price: Decimal = Decimal("0.5")
    """What a batch costs, as a part of the ordinary price."""
    quiet: float = 0.5
    """Seconds without another request that end the gathering."""
    pause: float = 2.0
    """Seconds before the second look at a batch; each further one comes later."""
    most: int = 50_000
    """Requests in a batch; OpenAI takes no more."""
    most_bytes: int = 150_000_000
    """Of a batch's file; OpenAI takes 200 MB."""
    patience: float = 26 * 3600.0
    """Seconds for one request: a batch has a day."""


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    id: str
    """Equal for the same request in another process: its content, and how often it was sent before."""
    text: str
    answer: asyncio.Future[str]


@dataclass(slots=True, eq=False)
class Batcher:
    """The batches of one key of one endpoint."""

    client: openai.AsyncOpenAI
    batching: Batching
    origin: str
    """The endpoint's address."""
    _sent: Counter[str] = field(default_factory=Counter)
    _waiting: list[_Line] = field(default_factory=list)
    _gathering: asyncio.Task[None] | None = None
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _delivered: list[BatchNote] = field(default_factory=list)

    async def post(self, body: Mapping[str, Any]) -> str:
        """The text of the answer to a chat completion, once its batch has ended; raises what the openai client raises.

        A request that failed or expired inside the batch gives a document of its error, as routers do.
        """
        text = json.dumps(body, sort_keys=True)
        digest = hashlib.sha256(f"{self.origin}\n{text}".encode()).hexdigest()[:40]
        line = _Line(f"{digest}-{self._sent[digest]}", text, asyncio.get_running_loop().create_future())
        self._sent[digest] += 1
        self._waiting.append(line)
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._gather())
        return await line.answer

    async def aclose(self) -> None:
        """Forget what was delivered; a batch under way goes on at the provider, and is collected by the next run."""
        tasks = [*self._running, *([self._gathering] if self._gathering else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for note in self._delivered:
            self._notes.forget(note)

    @property
    def _notes(self) -> BatchNotes:
        return BatchNotes(self.batching.directory)

    async def _gather(self) -> None:
        """Wait until nothing more comes, then send what is there."""
        seen = 0
        while seen < len(self._waiting) < self.batching.most:
            seen = len(self._waiting)
            await asyncio.sleep(self.batching.quiet)
        lines, self._waiting, self._gathering = self._waiting, [], None
        for part in _parts(lines, self.batching):
            task = asyncio.create_task(self._run(part))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, lines: Sequence[_Line]) -> None:
        try:
            kept, rest = self._notes.holding([line.id for line in lines])
            groups = [(note, [line for line in lines if line.id in note.requests]) for note in kept]
            if new := [line for line in lines if line.id in rest]:
                groups.append((await self._create(new), new))
            await asyncio.gather(*(self._collect(note, group) for note, group in groups))
        except Exception as error:  # noqa: BLE001  # each request raises it where it waits
            for line in lines:
                if not line.answer.done():
                    line.answer.set_exception(error)

    async def _create(self, lines: Sequence[_Line]) -> BatchNote:
        note = self._notes.begin([line.id for line in lines])
        data = "\n".join(
            f'{{"custom_id": "{line.id}", "method": "POST", "url": "{_URL}", "body": {line.text}}}' for line in lines
        )
        file = await self.client.files.create(file=("requests.jsonl", data.encode()), purpose="batch")
        batch = await self.client.batches.create(
            input_file_id=file.id, endpoint=_URL, completion_window="24h", metadata={"llmtune": note.name}
        )
        return self._notes.created(note, batch.id)

    async def _collect(self, note: BatchNote, lines: Sequence[_Line]) -> None:
        if note.batch is None and (note := await self._found(note)).batch is None:
            self._notes.forget(note)  # the run died before the batch was created
            await self._collect(await self._create(lines), lines)
            return
        batch = await self._ended(str(note.batch))
        rows: dict[str, Any] = {}
        for file in (batch.output_file_id, batch.error_file_id):
            if file:
                content = await self.client.files.content(file)
                parsed = (parse_object(text) for text in content.text.splitlines())
                rows |= {str(row.get("custom_id")): row for row in parsed if row}
        errors = getattr(batch.errors, "data", None) or ()
        why = "; ".join(str(error.message) for error in errors) or f"the batch {batch.id} has {batch.status}"
        for line in lines:
            if not line.answer.done():
                line.answer.set_result(_text_of(rows.get(line.id), why, passing=batch.status in _ENDED))
        self._delivered.append(note)

    async def _found(self, note: BatchNote) -> BatchNote:
        """A batch whose creation was begun: at the provider, if it got there."""
        async for batch in self.client.batches.list(limit=100):
            if (batch.metadata or {}).get("llmtune") == note.name:
                return self._notes.created(note, batch.id)
        return note

    async def _ended(self, batch_id: str) -> Any:
        """The batch, once it has come to an end; a fault while looking is waited out."""
        import openai

        pause = self.batching.pause
        while True:
            try:
                batch = await self.client.batches.retrieve(batch_id)
            except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError):
                batch = None  # looked at again later
            if batch is not None and (batch.status in _ENDED or batch.status == "failed"):
                return batch
            await asyncio.sleep(pause)
            pause = min(_SLOWEST, pause * 1.5)


def _text_of(row: Mapping[str, Any] | None, why: str, *, passing: bool) -> str:
    """What the endpoint would have answered to this request alone."""
    response = (row or {}).get("response") or {}
    body, status = response.get("body"), response.get("status_code")
    if status == 200 and isinstance(body, dict):
        return json.dumps(body)
    if isinstance(status, int) and isinstance(body, dict) and isinstance(body.get("error"), dict):
        return json.dumps({"error": {**body["error"], "code": status}})
    said = ((row or {}).get("error") or {}).get("message") or why
    return json.dumps({"error": {"message": said, "code": 503 if passing else 400}})


def _parts(lines: Sequence[_Line], batching: Batching) -> list[list[_Line]]:
    """Batches within the provider's limits."""
    parts: list[list[_Line]] = [[]]
    size = 0
    for line in lines:
        length = len(line.text.encode()) + 200
        if parts[-1] and (len(parts[-1]) == batching.most or size + length > batching.most_bytes):
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += length
    return parts
