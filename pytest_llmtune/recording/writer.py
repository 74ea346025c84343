"""Write recordings in canonical order with stable IDs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from datetime import date
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.files import Spool, write_bytes, write_lines
from pytest_llmtune._util.jsonhash import canonical_json, safe_json, without_n
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording.format import Interaction, canonical_body, redacted, rendered
from pytest_llmtune.recording.housekeeping import remove
from pytest_llmtune.recording.storage import PACKED, Layout, leftovers, load_interactions, pack, part_for, unpacked
from pytest_llmtune.redaction.redactor import ADVICE, REQUEST_IDS, Redactor
from pytest_llmtune.wire.body import is_stream, rewrite
from pytest_llmtune.wire.event_stream import rewritten
from pytest_llmtune.wire.response import parse_object

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


_OBJECTS = frozenset({"chat.completion", "chat.completion.chunk", "text_completion", "response", "file", "batch"})
_ANTHROPIC = frozenset({"message", "message_start", "content_block_start", "message_batch"})
_COHERE = frozenset({"message-start", "tool-call-start", "tool-plan-delta", "citation-start", "message-end"})
_SHAPES = (
    {"candidates", "usageMetadata"},  # Gemini
    {"responseId", "candidates"},
    {"responseId", "usageMetadata"},
    {"id", "message", "finish_reason"},  # Cohere
    {"id", "embeddings", "meta"},
    {"id", "results", "meta"},
    {"output", "stopReason"},  # Bedrock
    {"model", "created_at", "done"},  # Ollama
    {"created", "data", "usage"},  # OpenAI's images
)
"""Sets of keys that identify a provider's document without a type field."""
_IDS = frozenset(
    {"id", "call_id", "item_id", "responseId", "generation_id", "toolUseId", "tool_call_id", "tool_use_id", "file_id"}
)
_TIMES = frozenset({"created", "created_at", "completed_at", "createTime"})
_DURATIONS = frozenset({
    "total_duration", "load_duration", "prompt_eval_duration", "eval_duration", "latencyMs", "invocationLatency",
    "firstByteLatency",
})  # fmt: skip
# server timings (llama.cpp, Groq, Cerebras), and the random padding of OpenAI's streams
_DROPPED = frozenset({"timings", "x_groq", "time_info", "obfuscation"})
_INNER = ("response", "metrics", "message", "amazon-bedrock-invocationMetrics")
"""Fields of an event that contain the response, or a part of it."""
_MODEL_VALUES = frozenset({"input", "args", "arguments", "parameters", "json"})
"""Fields with a model's own data, such as a tool's arguments, whose ``id`` is a value like any other."""
_GENERATED = lazy_regex(
    r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"  # a UUID, whose first part is no prefix even without a digit
    r"|(?=.*\d)([A-Za-z]+[-_])?\S{11,}"  # shorter ones, such as call_0, are counters
    r"|([A-Za-z]+[-_])[A-Za-z]{16,}"  # one in seventy of 24 letters and digits has no digit
    r"|(?=.*[a-z])(?=.*[A-Z0-9])[A-Za-z0-9]{9}"  # Mistral's tool calls
)
_GEMINI = lazy_regex(r"\S{15,}")
"""An ID without a prefix, and sometimes without a digit."""
_DATE = lazy_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*")


def stable(interactions: Iterable[Interaction]) -> Iterator[Interaction]:
    """The interactions, in their order, with IDs that depend only on the requests."""
    names: dict[str, str] = {}
    seen: Counter[bytes] = Counter()
    for interaction in interactions:
        data = parse_object(interaction.body) if names else None
        renamed = _renamed(data, names)  # one lookup per string: there may be as many names as responses
        body = canonical_body(interaction.body if renamed == data else canonical_json(renamed))
        # IDs in the path, as in `/v1/batches/batch_123`
        uri = "/".join(names.get(part, part) for part in interaction.uri.split("/")) if names else interaction.uri
        moved = interaction if uri == interaction.uri else replace(interaction, uri=uri)
        data = parse_object(body)
        key = f"{moved.path} {body if data is None else canonical_json(without_n(data))}"
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        seen[digest] += 1
        naming = _Naming(names, f"{seen[digest]} {key}", interaction.body)
        text, binary = _text(interaction.text, naming), rewritten(interaction.data, naming.rename)
        yield replace(moved, body=body, text=text, data=binary, headers=naming.headers(interaction.headers))


def _text(text: str, naming: _Naming) -> str:
    data = parse_object(text)
    if data is not None:
        new = naming.change(data)
        return text if new == data else safe_json(new)
    if is_stream(text):
        return rewrite(text, naming.change)
    if not text.startswith("{"):
        return text
    lines = text.split("\n")  # JSON Lines, as Ollama streams
    for number, line in enumerate(lines):
        document = parse_object(line)
        if document is not None and (new := naming.change(document)) != document:
            lines[number] = safe_json(new)
    return "\n".join(lines)


@dataclass(slots=True)
class _Naming:
    """Gives stable names to the IDs of one response."""

    names: dict[str, str]
    """Served IDs to their new names, for the whole recording."""
    seed: str
    request: str
    """IDs that occur in the request are not renamed."""
    new_names: dict[str, str] = field(default_factory=dict)

    def change(self, document: Any) -> Any:
        return self.rename(document) if isinstance(document, dict) and _is_of_provider(document) else document

    def rename(self, document: dict[str, Any]) -> dict[str, Any]:
        """An answer, or a part of one, with stable IDs and without times."""
        for found in _ids(document):
            if found[0] not in self.new_names and found[0] not in self.request:
                self._new_name(found, str(len(self.new_names)))
        self.names |= self.new_names
        return _lasting(_renamed(document, self.names))

    def headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Headers with renamed request IDs."""
        renamed = {}
        for name in sorted(REQUEST_IDS & headers.keys()):
            if found := _GENERATED.fullmatch(headers[name]):
                renamed[name] = self._new_name(found, name)
        return {**headers, **renamed} if renamed else headers

    def _new_name(self, found: re.Match[str], position: str) -> str:
        if found[0] not in self.new_names:
            digest = hashlib.sha256(f"{self.seed} {position}".encode("utf-8", "surrogatepass")).hexdigest()[:12]
            prefix = next(filter(None, found.groups()), "")
            # Mistral refuses other lengths than nine
            self.new_names[found[0]] = digest[:9] if len(found[0]) == 9 else prefix + digest
        return self.new_names[found[0]]


def _is_of_provider(document: dict[str, Any]) -> bool:
    """Whether a document, which may be a file or a batch too, has a provider's IDs.

    Stricter than ``capture.traffic.is_answer``: a usage is not enough, so that the IDs of an app's own servers stay.
    """
    kind = document.get("type")
    if document.get("object") in _OBJECTS or kind in _ANTHROPIC or kind in _COHERE or str(kind).startswith("response."):
        return True
    return any(shape <= document.keys() for shape in _SHAPES)


def _ids(data: Any) -> Iterator[re.Match[str]]:
    """The IDs in a response; the groups of a match are its prefix."""
    if isinstance(data, dict):
        for name, value in sorted(data.items()):  # servers use any order of keys
            pattern = _GEMINI if name == "responseId" else _GENERATED
            if name in _IDS and isinstance(value, str) and (found := pattern.fullmatch(value)):
                yield found
            elif name not in _MODEL_VALUES:
                yield from _ids(value)
    elif isinstance(data, list):
        for item in data:
            yield from _ids(item)


def _renamed(data: Any, names: dict[str, str]) -> Any:
    """Rename IDs in all strings that are exactly an ID."""
    if isinstance(data, str):
        return names.get(data, data)
    if isinstance(data, dict):
        return {name: _renamed(value, names) for name, value in data.items()}
    return [_renamed(item, names) for item in data] if isinstance(data, list) else data


def _lasting(document: dict[str, Any]) -> dict[str, Any]:
    """The document without times and timings, including nested parts."""
    kept = {name: value for name, value in document.items() if name not in _DROPPED}
    job = kept.get("object") in ("batch", "file")
    for name, value in kept.items():
        if name in _TIMES or (job and name.endswith("_at")):
            if isinstance(value, str) and _DATE.fullmatch(value):
                kept[name] = "1970-01-01T00:00:00Z"
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                kept[name] = 0
        elif name in _DURATIONS and isinstance(value, (int, float)):
            kept[name] = 0
    for name in _INNER:
        if isinstance(kept.get(name), dict):
            kept[name] = _lasting(kept[name])
    return kept


_FRESH = 7
"""Days within which the same answer, recorded again, leaves its line unchanged."""


def write(
    path: Path,
    interactions: Iterable[Interaction],
    redactor: Redactor | None = None,
    layout: Layout | None = None,
) -> bool:
    """Write exactly these interactions, in canonical order, with secrets removed; in parts above the layout's limit.

    Returns:
        False if the files already had this content.

    Raises:
        RecordingError: a secret is left in the text, or a file cannot be written; the old recording is intact.
    """
    redactor = redactor or Redactor.from_environment()
    before, spool = _recorded_before(path), Spool()
    keys, size = [], 0
    for interaction in _stable(interactions, redactor):
        equal = next(before.get(_digest(interaction), iter(())), None)
        line = (interaction if equal is None else _as_before(equal, interaction)).line()
        spool.put(line)
        keys.append(_key(interaction))
        size += len(line) + 2
    files = (layout or Layout()).files(path, size)
    divided: dict[Path, list[int]] = {file: [] for file in files}
    for number in sorted(range(len(spool)), key=keys.__getitem__):
        divided[part_for(files, keys[number])].append(number)
    for file, numbers in divided.items():
        for number in numbers:  # one at a time, to keep texts out of memory
            _check(spool.get(number), redactor, file)
    changed = [_write(file, spool, numbers) for file, numbers in divided.items()]
    obsolete = leftovers(path, files)
    remove(obsolete)
    return any(changed) or bool(obsolete)


def _check(line: str, redactor: Redactor, file: Path) -> None:
    """Final check of a line: no known secret, and no match of the user's patterns."""
    redactor.check(line, file)
    if redactor.patterns:
        found, patterns_only = Interaction.from_plain(json.loads(line)), replace(redactor, hooks=())
        if redacted(patterns_only, found) != found:
            raise RecordingError(f"{file} was not written: what llmtune_redact names is still in it; {ADVICE}")


def stable_runs(runs: Mapping[tuple[str, int], Sequence[Interaction]], redactor: Redactor) -> Iterator[Interaction]:
    """The calls of a task's runs, without secrets, and with IDs that depend only on the run."""
    for _, calls in sorted(runs.items()):
        ordered = sorted(calls, key=lambda call: call.position.call if call.position else 0)
        yield from stable(redacted(redactor, call) for call in ordered)


def _stable(interactions: Iterable[Interaction], redactor: Redactor) -> Iterator[Interaction]:
    """The interactions without secrets and with stable IDs, which a task's calls already have."""
    placed: list[Interaction] = []

    def loose() -> Iterator[Interaction]:
        for interaction in interactions:
            if interaction.position is not None:
                placed.append(interaction)
            else:
                yield redacted(redactor, interaction)

    yield from stable(loose())  # one at a time: they may not fit in memory
    yield from placed


def _write(file: Path, spool: Spool, numbers: Sequence[int]) -> bool:
    def lines() -> Iterator[bytes]:
        return rendered(map(spool.get, numbers))

    try:
        if file.suffix != PACKED:
            return write_lines(file, lines)
        text = b"".join(lines())
        return not _holds(file, text) and write_bytes(file, pack(text))
    except OSError as error:
        raise RecordingError(f"the recording {file} cannot be written: {error.strerror or error}") from error


def _holds(file: Path, data: bytes) -> bool:
    """Whether a compressed file already has this content; other versions of zstd may encode it differently."""
    try:
        with unpacked(file, len(data)) as known:
            return known.read() == data
    except (OSError, RecordingError):  # missing, or about to be replaced anyway
        return False


def _key(interaction: Interaction) -> str:
    """Sort key of an interaction; those of one request are adjacent, whatever their ``n``."""
    if interaction.position is not None:
        return f"\0{interaction.position.row}\0{interaction.position.run:06}\0{interaction.position.call:06}"
    return f"{interaction.path}\0{interaction.method}\0{body_without_n(interaction)}"


def body_without_n(interaction: Interaction) -> str:
    """The canonical body without ``n``."""
    body = parse_object(interaction.body)
    return interaction.body if body is None else canonical_json(without_n(body))


def _recorded_before(path: Path) -> dict[bytes, Iterator[Interaction]]:
    """The interactions of the existing recording, by digest: an unchanged answer keeps its line, with latency and rate limits."""
    positions: defaultdict[bytes, list[int]] = defaultdict(list)
    try:
        stored = load_interactions(path, lambda position, each: positions[_digest(each)].append(position))
    except RecordingError:  # the file to be replaced may be broken
        return {}
    return {digest: map(stored.__getitem__, each) for digest, each in positions.items()}


def _as_before(before: Interaction, now: Interaction) -> Interaction:
    """The interaction as it was recorded before; the date is updated once it is a week old."""
    if now.recorded and (not before.recorded or days_between(before.recorded, now.recorded) >= _FRESH):
        return replace(before, recorded=now.recorded)
    return before


def days_between(earlier: str, later: str) -> int:
    """Days between two dates, ``YYYY-MM-DD``; 0 if one is not a date."""
    try:
        return (date.fromisoformat(later) - date.fromisoformat(earlier)).days
    except ValueError:
        return 0


def _digest(interaction: Interaction) -> bytes:
    call = interaction.position and (interaction.position.row, interaction.position.run, interaction.position.call)
    lasting = safe_json([interaction.lasting.to_plain(), call])
    return hashlib.sha256(lasting.encode("utf-8", "surrogatepass")).digest()
