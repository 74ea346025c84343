"""Send requests through a provider's batch API: submit, wait, resume, cancel."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from decimal import Decimal
from functools import partial
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Any, Literal

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.batches import Gathering
from pytest_llmtune._util.files import read_regular, write_text
from pytest_llmtune.wire.response import lines_of, parse_object, wants_embedding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    import openai


_OLDEST = 2 * 86_400.0
"""Seconds after which a note expires: batches end after a day."""
_MAX_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class BatchNote:
    """A note of one batch."""

    name: str
    """Hash of its requests."""
    requests: frozenset[str]
    """IDs of its requests, without their content."""
    batch: str | None = None
    """The provider's batch ID; None: it was about to be created."""


@dataclass(frozen=True, slots=True)
class BatchNotes:
    """The notes in a directory."""

    directory: Path

    def holding(self, ids: Sequence[str]) -> tuple[list[BatchNote], Collection[str]]:
        """The notes that have any of these requests, and the requests in no note; a request is in one note only."""
        rest, found = set(ids), []
        for path in sorted(self.directory.glob("*.json")):
            fresh = time.time() - path.lstat().st_mtime < _OLDEST
            if fresh and (note := self._read(path)) is not None and (mine := rest & note.requests):
                found.append(replace(note, requests=frozenset(mine)))
                rest -= mine
        return found, rest

    def begin(self, ids: Sequence[str]) -> BatchNote:
        """Save a note of a batch that is about to be created."""
        name = hashlib.sha256("\n".join([*ids, str(time.time())]).encode()).hexdigest()[:32]
        note = BatchNote(name, frozenset(ids))
        self._write(note)
        return note

    def created(self, note: BatchNote, batch: str) -> BatchNote:
        """Save the batch ID."""
        stored = self._read(self._path(note)) or note
        self._write(replace(stored, batch=batch))
        return replace(note, batch=batch)

    def forget(self, note: BatchNote) -> None:
        """Delete a note: all answers have arrived, or none will."""
        self._path(note).unlink(missing_ok=True)

    def taken(self, note: BatchNote) -> None:
        """Take these requests, which have their answers, out of the stored note; delete it with the last one."""
        path = self._path(note)
        stored = self._read(path)
        if stored is None or not (rest := stored.requests - note.requests):
            self.forget(note)
            return
        written = path.lstat().st_mtime
        self._write(replace(stored, requests=rest))
        os.utime(path, (written, written))  # the batch is as old as it was

    def _path(self, note: BatchNote) -> Path:
        return self.directory / f"{note.name}.json"

    def _write(self, note: BatchNote) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        document = {"batch": note.batch, "requests": sorted(note.requests)}
        write_text(self._path(note), json.dumps(document))

    def _read(self, path: Path) -> BatchNote | None:
        """None if it is not one of our notes."""
        try:
            text = read_regular(path, _MAX_BYTES, follow=False).decode(errors="replace")
        except OSError:
            return None
        match parse_object(text):
            case {"batch": str() | None as batch, "requests": list(requests)}:
                return BatchNote(path.stem, frozenset(map(str, requests)), batch)
        return None


_ENDED = frozenset({"completed", "expired", "cancelled"})
_SLOWEST = 60.0
"""Maximum seconds between two polls of a batch."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests are grouped into batches."""

    directory: Path
    """Directory of notes of running batches."""
    price: Decimal = Decimal("0.5")
    """Price of a batch, as a fraction of the normal price."""
    quiet: float = 0.5
    """Seconds without a new request after which a batch is submitted."""
    pause: float = 2.0
    """Seconds between the first two polls of a batch; later ones are less frequent."""
    most: int = 50_000
    """Maximum number of requests in a batch, OpenAI's limit."""
    most_bytes: int = 150_000_000
    """Maximum size of a batch's file; OpenAI's limit is 200 MB."""
    patience: float = 26 * 3600.0
    """Seconds for one request: a batch may take a day."""

    def fitting(self, lines: Sequence[_Line], _: int) -> int:
        """The number of requests, at least one, that fit into one batch within the provider's limits."""
        sizes = accumulate(len(line.text.encode()) + 200 for line in lines[: self.most])
        return max(1, sum(1 for _ in takewhile(lambda size: size <= self.most_bytes, sizes)))


_Url = Literal["/v1/chat/completions", "/v1/embeddings"]


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    url: _Url
    id: str
    """The same in another process for the same request: hash of its content, and how often it was sent before."""
    text: str
    answer: asyncio.Future[str]


@dataclass(slots=True, eq=False)
class Batcher:
    """The batches of one key of one endpoint."""

    client: openai.AsyncOpenAI
    batching: Batching
    origin: str
    """The endpoint's URL."""
    _sent: Counter[str] = field(default_factory=Counter)
    _again: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Numbers of requests whose batch may have answers for them that could not be read: asked for again under the same ID."""
    _delivered: list[BatchNote] = field(default_factory=list)
    _gatherings: dict[_Url, Gathering[_Line]] = field(default_factory=dict)
    """By URL: a batch is for one."""

    async def post(self, body: Mapping[str, Any]) -> str:
        """The response to a chat completion or an embedding, once its batch has ended; raises the openai client's exceptions.

        A request that failed or expired in the batch returns an error document, like those of routers.
        """
        text = json.dumps(body, sort_keys=True)
        digest = hashlib.sha256(f"{self.origin}\n{text}".encode()).hexdigest()[:40]
        url: _Url = "/v1/embeddings" if wants_embedding(body) else "/v1/chat/completions"
        if again := self._again[digest]:
            number = again.pop(0)
        else:
            number = self._sent[digest]
            self._sent[digest] += 1
        line = _Line(url, f"{digest}-{number}", text, asyncio.get_running_loop().create_future())
        if url not in self._gatherings:
            batching = self.batching
            self._gatherings[url] = Gathering(self._run, batching.fitting, quiet=batching.quiet, enough=batching.most)
        self._gatherings[url].add(line)
        return await line.answer

    async def aclose(self) -> None:
        """Forget delivered batches; a running batch continues at the provider, and the next run collects it."""
        await asyncio.gather(*(gathering.aclose() for gathering in self._gatherings.values()))
        for note in self._delivered:
            self._notes.taken(note)

    @property
    def _notes(self) -> BatchNotes:
        return BatchNotes(self.batching.directory)

    async def _run(self, lines: Sequence[_Line]) -> None:
        try:
            notes, rest = self._notes.holding([line.id for line in lines])
        except Exception as error:  # noqa: BLE001  # raised again in each waiting request
            self._failed(lines, error)
            return
        groups: list[tuple[BatchNote | None, list[_Line]]] = [
            (note, [line for line in lines if line.id in note.requests]) for note in notes
        ]
        if new := [line for line in lines if line.id in rest]:
            groups.append((None, new))
        await asyncio.gather(*(self._group(note, group) for note, group in groups))

    async def _group(self, note: BatchNote | None, lines: Sequence[_Line]) -> None:
        """One batch; its failure is that of its own requests."""
        try:
            await self._collect(note or await self._create(lines), lines)
        except Exception as error:  # noqa: BLE001  # raised again in each waiting request
            self._failed(lines, error)

    def _failed(self, lines: Sequence[_Line], error: Exception) -> None:
        for line in lines:
            if not line.answer.done():
                digest, _, number = line.id.rpartition("-")
                self._again[digest].append(int(number))
                line.answer.set_exception(error)

    async def _create(self, lines: Sequence[_Line]) -> BatchNote:
        note = self._notes.begin([line.id for line in lines])
        data = "\n".join(
            f'{{"custom_id": "{line.id}", "method": "POST", "url": "{line.url}", "body": {line.text}}}'
            for line in lines
        )
        file = await self.client.files.create(file=("requests.jsonl", data.encode()), purpose="batch")
        batch = await self.client.batches.create(
            input_file_id=file.id, endpoint=lines[0].url, completion_window="24h", metadata={"llmtune": note.name}
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
                content = await self._patiently(partial(self.client.files.content, file))
                parsed = (parse_object(text) for text in lines_of(content.text))
                for row in filter(None, parsed):
                    name = str(row.get("custom_id"))
                    if not _succeeded(rows.get(name)):  # an answer is paid for, whatever else is said of it
                        rows[name] = row
        errors = getattr(batch.errors, "data", None) or ()
        why = "; ".join(str(error.message) for error in errors) or f"the batch {batch.id} has {batch.status}"
        # a request that nobody waits for any more stays noted, for the next run
        taken = [line for line in lines if not line.answer.done()]
        for line in taken:
            line.answer.set_result(_text_of(rows.get(line.id), why, passing=batch.status in _ENDED))
        self._delivered.append(replace(note, requests=frozenset(line.id for line in taken)))

    async def _found(self, note: BatchNote) -> BatchNote:
        """A batch whose creation was interrupted, if the provider has it."""
        async for batch in self.client.batches.list(limit=100):
            if (batch.metadata or {}).get("llmtune") == note.name:
                return self._notes.created(note, batch.id)
        return note

    async def _ended(self, batch_id: str) -> Any:
        """The batch, once it has ended; errors while polling are retried."""
        pause = self.batching.pause
        while True:
            batch = await self._patiently(lambda: self.client.batches.retrieve(batch_id))
            if batch.status in _ENDED or batch.status == "failed":
                return batch
            await asyncio.sleep(pause)
            pause = min(_SLOWEST, pause * 1.5)

    async def _patiently(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """What a request returns that only reads, and is repeated while the provider cannot answer: the batch goes on meanwhile."""
        import openai

        pause = self.batching.pause
        while True:
            try:
                return await read()
            except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError):
                await asyncio.sleep(pause)
                pause = min(_SLOWEST, pause * 1.5)


def _succeeded(row: Mapping[str, Any] | None) -> bool:
    response = (row or {}).get("response")
    return isinstance(response, dict) and response.get("status_code") == 200


def _text_of(row: Mapping[str, Any] | None, why: str, *, passing: bool) -> str:
    """The response that the endpoint would have given to this request alone."""
    response = (row or {}).get("response") or {}
    body, status = response.get("body"), response.get("status_code")
    if status == 200 and isinstance(body, dict):
        return json.dumps(body)
    if isinstance(status, int) and isinstance(body, dict) and isinstance(body.get("error"), dict):
        return json.dumps({"error": {**body["error"], "code": status}})
    message = ((row or {}).get("error") or {}).get("message") or why
    return json.dumps({"error": {"message": message, "code": 503 if passing else 400}})
