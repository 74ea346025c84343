"""OpenAI's Batch API: requests that would go out one by one go as one file, for the provider's lower price.

What happens to a request before (reserved, tried again) and after (counted, kept) is the same as ever: only the sending
differs. A batch is noted on disk before it is created, so that a run that died collects it instead of paying again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pytest_llmtune.completions.batch_notes import BatchNote, BatchNotes
from pytest_llmtune.wire.response import parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import openai

__all__ = ["Batcher", "Batching"]


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
