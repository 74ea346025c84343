"""Recorded interactions and the vcrpy cassette format."""

from __future__ import annotations

import base64
import binascii
import json
import os
from codecs import BOM_UTF8
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.files import relative_to_cwd
from pytest_llmtune._util.jsonhash import MAX_JSON, canonical_json, is_heavy, safe_json
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import quoted
from pytest_llmtune.errors import DamagedRecordingError, RecordingError
from pytest_llmtune.redaction.redactor import KEPT_HEADERS, RATE_LIMITS, named_secrets, recorded_headers
from pytest_llmtune.types import Exchange
from pytest_llmtune.wire.response import facts_of, parse_object
from pytest_llmtune.wire.tokens import annotated, reports_one_choice_only

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pytest_llmtune.redaction.redactor import Redactor


_DAY = lazy_regex(r"\d{4}-\d\d-\d\d")
_DEPLOYMENT = lazy_regex(r'"system_fingerprint":\s*"[^"]*",?')
_ALWAYS = frozenset({"choices", "content", "finish_reason"})
_JSON = {"content-type": "application/json"}


class MalformedError(ValueError):
    """Data that is not an interaction; the caller adds file and line."""


@dataclass(frozen=True, slots=True)
class CallPosition:
    """Identifies the call of a suite's task that an interaction is."""

    row: str
    """The example's ID."""
    run: int
    """From 1."""
    call: int
    """Number of the call in its run, from 1."""
    elapsed: float = field(default=0.0, compare=False)
    """Seconds from the start of the run to the answer."""

    def __lt__(self, other: CallPosition) -> bool:
        return (self.row, self.run, self.call) < (other.row, other.run, other.call)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> CallPosition | None:
        """Read it from the facts next to an interaction; None if it does not belong to a run."""
        row, run, call, elapsed = (facts.get(name) for name in ("row", "run", "call", "elapsed"))
        if not isinstance(row, str) or not isinstance(run, int) or not isinstance(call, int):
            return None
        return cls(row, run, call, float(elapsed) if isinstance(elapsed, (int, float)) else 0.0)

    def to_facts(self) -> dict[str, Any]:
        return {"row": self.row, "run": self.run, "call": self.call, "elapsed": round(self.elapsed, 3)}


@dataclass(frozen=True, slots=True)
class Interaction:
    """One HTTP exchange whose bodies are text."""

    method: str
    uri: str
    body: str
    """The request's body; canonical in our recordings, unchanged in those of other tools."""
    status: int
    text: str
    """The response's body, decoded."""
    reason: str = ""
    request_headers: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    latency: float = 0.0
    """Seconds, rounded to milliseconds in the file."""
    answers: int = 0
    """Number of choices according to the file's facts; 0 if not given."""
    data: bytes = b""
    """The response's body if binary; ``text`` is then empty."""
    recorded: str = ""
    """Date of the request, ``YYYY-MM-DD``; empty if unknown."""

    position: CallPosition | None = None
    """Set for a task's call."""

    @property
    def content(self) -> bytes:
        """The response's body as bytes."""
        return self.data or self.text.encode()

    @property
    def lasting(self) -> Interaction:
        """The interaction without what varies between two recordings of one answer: times, rate limits, deployments."""
        headers = {name: value for name, value in self.headers.items() if not name.startswith(RATE_LIMITS)}
        text = _DEPLOYMENT.sub("", self.text)
        return replace(self, text=text, headers=headers, latency=0.0, recorded="", answers=0)

    @property
    def path(self) -> str:
        """The path of the URL."""
        return path_of(self.uri)

    @classmethod
    def of(cls, exchange: Exchange) -> Interaction:
        """The interaction for a suite's exchange; empty fields of its response (null, empty, 0) are omitted."""
        if reports_one_choice_only(exchange):
            exchange = annotated(exchange, True)
        return cls(
            method=exchange.method.upper(),
            uri=exchange.uri,
            body=canonical_json(exchange.request),
            status=exchange.status,
            text=safe_json(_compact(exchange.response)),
            reason="OK" if exchange.status == 200 else "",
            request_headers=_JSON,  # makes stock vcrpy compare bodies as JSON
            headers={name: value for name, value in recorded_headers(exchange.headers).items() if name in KEPT_HEADERS}
            or _JSON,
            latency=exchange.latency,
            recorded=exchange.recorded,
        )

    def exchange(self) -> Exchange:
        """The recorded exchange.

        Raises:
            MalformedError: a body is not a JSON object.
        """
        request, response = parse_object(self.body), parse_object(self.text)
        if request is None or response is None:
            raise MalformedError(f"the {'request' if request is None else 'response'} body is not a JSON object")
        return Exchange(
            self.method,
            self.uri,
            request,
            response,
            status=self.status,
            latency=self.latency,
            headers=self.headers,
            recorded=self.recorded,
        )

    def to_plain(self) -> dict[str, Any]:
        """The interaction in stock vcrpy's format."""
        return {
            "request": {
                "method": self.method,
                "uri": self.uri,
                "body": self.body or None,
                "headers": _listed(self.request_headers),
            },
            "response": {
                "status": {"code": self.status, "message": self.reason},
                "headers": _listed(self.headers),
                "body": {"string": self.text}
                | ({"base64_string": base64.b64encode(self.data).decode("ascii")} if self.data else {}),
            },
        }

    def line(self) -> str:
        """The interaction, with facts that its response does not contain, as one line of JSON.

        A chat completion contains usage, served model and finish reasons; for an event stream they are collected from its
        events.
        """
        choices = (parse_object(self.text) or {}).get("choices")
        known = {"answers": len(choices)} if isinstance(choices, list) else facts_of(self.text).to_plain()
        known |= {"latency": round(self.latency, 3)} | ({"recorded": self.recorded} if self.recorded else {})
        known |= self.position.to_facts() if self.position else {}
        return safe_json(self.to_plain() | {"llmtune": known})

    @classmethod
    def from_plain(cls, data: Any) -> Interaction:
        """Read an interaction, also one written by stock vcrpy.

        Raises:
            MalformedError: it has another format; the message says what is missing.
        """
        request, response = _mapping(data, "request"), _mapping(data, "response")
        status, body = _mapping(response, "status"), _mapping(response, "body")
        facts = data.get("llmtune") if isinstance(data.get("llmtune"), dict) else {}
        recorded = facts.get("recorded", "")
        latency, answers = facts.get("latency", 0.0), facts.get("answers", 0)
        uri, code = _text(request, "uri"), status.get("code")
        if not isinstance(latency, (int, float)) or not 0 <= latency < _LONGEST:
            raise MalformedError(f"'latency' of the interaction is {latency!r:.60}, not seconds")
        if not isinstance(answers, int) or not 0 <= answers <= _MOST_ANSWERS:
            raise MalformedError(f"'answers' of the interaction is {answers!r:.60}, not a number of choices")
        if not isinstance(code, int) or not 100 <= code <= 599:
            raise MalformedError(f"the interaction's status code is {code!r:.60}, not 100..599")
        try:
            urlsplit(uri).port  # noqa: B018  # accessing it validates it
        except ValueError as error:
            raise MalformedError(f"'uri' of the interaction is {uri!r:.60}: {error}") from None
        try:
            binary = base64.b64decode(_text(body, "base64_string", default=""), validate=True)
        except binascii.Error:
            raise MalformedError("'base64_string' of the interaction is not base64") from None
        return cls(
            method=_text(request, "method"),
            uri=uri,
            body=_text(request, "body", default=""),
            status=code,
            text=_text(body, "string", default=""),
            reason=_text(status, "message", default=""),
            request_headers=_unlisted(request.get("headers")),
            headers=_unlisted(response.get("headers")),
            latency=float(latency),
            answers=answers,
            data=binary,
            recorded=recorded if isinstance(recorded, str) and _DAY.fullmatch(recorded) else "",
            position=CallPosition.from_facts(facts),
        )


def _compact(data: Any, name: str = "") -> Any:
    """A chat completion without null or empty fields, and without zero token counts.

    With n answers these are most of a short completion. Clients treat a missing field like null.
    """
    if isinstance(data, list):
        return [_compact(item, name) for item in data]
    if not isinstance(data, dict):
        return data
    nothing: tuple[Any, ...] = (None, [], {}, 0) if name.endswith("_tokens_details") else (None, [], {})
    kept = {name: _compact(value, name) for name, value in data.items()}
    return {name: value for name, value in kept.items() if name in _ALWAYS or value not in nothing}


def canonical_body(text: str) -> str:
    """The canonical spelling of a JSON object's text; any other text as it is."""
    return canonical(text)[0]


def canonical(text: str) -> tuple[str, dict[str, Any] | None]:
    """The canonical spelling of a JSON object's text and the object; any other text as it is, and None."""
    data = parse_object(text, canonical=True)  # 1e999 is JSON and no number
    try:
        return (text, None) if data is None else (safe_json(data), data)
    except RecursionError:
        return text, None


@lru_cache(maxsize=256)
def path_of(uri: str) -> str:
    """The path of a URL; ``/`` if it has none."""
    return urlsplit(uri).path or "/"


def redacted(redactor: Redactor, interaction: Interaction) -> Interaction:
    """The interaction without secrets, and with allow-listed headers only.

    The value of a field or parameter such as ``api_key`` is removed everywhere, even if a server echoes it.
    """
    content_type = interaction.request_headers.get("content-type", "")
    rules = redactor.knowing(named_secrets(interaction.uri, interaction.body, content_type))
    return replace(
        interaction,
        uri=rules.clean_uri(interaction.uri),
        body=rules.clean_body(interaction.body, content_type),
        text=rules.clean_body(interaction.text, interaction.headers.get("content-type", "")),
        data=rules.clean_data(interaction.data),
        reason=rules.clean_text(interaction.reason),
        request_headers=rules.clean_headers(interaction.request_headers),
        headers=rules.clean_headers(interaction.headers),
    )


def _listed(headers: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: [value] for name, value in headers.items()}


def _unlisted(headers: Any) -> dict[str, str]:
    if not isinstance(headers, dict):
        return {}
    flat = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in headers.items()
    }
    return recorded_headers(flat)


def _mapping(data: Any, name: str) -> dict[str, Any]:
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, dict):
        raise MalformedError(f"the interaction has no {name!r}")
    return value


def _text(data: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = data.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise MalformedError(f"{name!r} of the interaction is {value!r:.60}, not text")
    return value


VERSION = 1
"""The version of vcrpy's cassette format."""
MAX_BYTES = 512 * 2**20
"""Size limit: a recording may come from an untrusted pull request."""
MAX_LINE = 64 * 2**20
"""Limit in bytes for one interaction, and for a whole file in another layout."""
_LONGEST = 1e9  # seconds
_MOST_ANSWERS = 100_000
"""Of one interaction."""

_HEAD = '{"version": 1, "interactions": ['
_TAIL = "]}"
_CONFLICT = ("<<<<<<< ", "||||||| ", ">>>>>>> ")


def rendered(lines: Iterable[str]) -> Iterator[bytes]:
    """The lines of a file with these interactions, in the given order."""
    yield f"{_HEAD}\n".encode()
    before = None
    for line in lines:
        if before is not None:
            yield f"{before},\n".encode()
        before = line
    if before is not None:
        yield f"{before}\n".encode()
    yield f"{_TAIL}\n".encode()


def is_own_format(head: bytes) -> bool:
    """Whether a file with this first line has our layout: one interaction per line."""
    return head.removeprefix(BOM_UTF8).rstrip() == _HEAD.encode()


def entries(path: Path, file: IO[bytes]) -> Iterator[tuple[int, Interaction]]:
    """All interactions of an open file, read line by line, with the offset of each line.

    Raises:
        RecordingError: corrupt, truncated, too large, of an unknown version, or with git conflict markers; the message
            names the line.
    """
    try:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise RecordingError(f"the recording {path} is larger than {MAX_BYTES // 2**20} MiB")
        head = file.readline(MAX_LINE)
        if is_own_format(head):
            found = _own(path, file, len(head))
        else:
            found = _foreign(path, _limited(path, 1, head + file.read(MAX_LINE)))
        for line, offset, data in found:
            yield offset, _interaction(path, line, data)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> RecordingError:
    """The error for a recording that the system does not let us read."""
    return RecordingError(f"the recording {path} cannot be read: {error.strerror or error}")


def _limited(path: Path, line: int, content: bytes) -> bytes:
    if len(content) > MAX_LINE:
        raise _fault(path, line, f"has more than the limit of {MAX_LINE:,} bytes for one interaction")
    return content


def entry(path: Path, line: bytes) -> Interaction:
    """Read the interaction on a line that ``entries`` has read before.

    Raises:
        RecordingError: it is no longer valid.
    """
    return _interaction(path, 0, _parse(path, 0, _line(path, 0, line).removesuffix(",")))


def _fault(path: Path, line: int, what: str) -> RecordingError:
    return DamagedRecordingError(f"{path}:{line}: the recording {what}; {repair_advice(path)}")


def repair_advice(path: Path) -> str:
    """Advice for a damaged file, cheapest first: answers paid for on this machine are in the cache."""
    restore = f"git checkout -- {quoted(relative_to_cwd(path))}"
    return f"restore the file from git ({restore}), or record what is lost: pytest --llm-record=missing"


def _interaction(path: Path, line: int, data: Any) -> Interaction:
    try:
        return Interaction.from_plain(data)
    except MalformedError as error:
        raise _fault(path, line, f"is corrupt: {error}") from None


def _line(path: Path, number: int, raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _fault(path, number, "is not UTF-8 text") from None
    if text.startswith(_CONFLICT):
        raise _fault(path, number, "has git conflict markers")
    return text.rstrip()


def _own(path: Path, file: IO[bytes], start: int) -> Iterator[tuple[int, int, Any]]:
    """(line, offset, data) of every interaction of a file in our layout, read from after the header."""
    numbered = _numbered(path, file, start)
    number, offset, line = next(numbered, (1, 0, _HEAD))
    for after, then, following in numbered:
        if line == _TAIL:
            raise _fault(path, after, "continues after its end")
        last = following == _TAIL
        if line.endswith(",") == last:
            raise _fault(path, number, "ends with a comma" if last else "lacks a comma")
        yield number, offset, _parse(path, number, line.removesuffix(","))
        number, offset, line = after, then, following
    if line != _TAIL:
        raise _fault(path, number, f"is truncated: its last line is not {_TAIL}")


def _numbered(path: Path, file: IO[bytes], offset: int) -> Iterator[tuple[int, int, str]]:
    """(line, offset, text) of every non-empty line; refuses one that would exhaust memory."""
    number = 1
    while raw := file.readline(MAX_LINE + 1):
        number += 1
        if text := _line(path, number, _limited(path, number, raw)):
            yield number, offset, text
        offset += len(raw)


def _parse(path: Path, number: int, text: str) -> Any:
    if is_heavy(text):
        raise _fault(path, number, f"unpacks to more than the limit of {MAX_JSON:,} bytes of memory")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _fault(path, number + error.lineno - 1, f"is corrupt: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError):
        raise _fault(path, number, "is corrupt: it is nested too deeply, or has a number that is too long") from None


def _foreign(path: Path, content: bytes) -> Iterator[tuple[int, int, Any]]:
    """Interactions of a cassette in another tool's layout."""
    lines = [_line(path, number, raw) for number, raw in enumerate(content.removeprefix(BOM_UTF8).split(b"\n"), 1)]
    if not any(lines):
        raise _fault(path, 1, "is empty")
    data = _parse(path, 1, "\n".join(lines))
    if not isinstance(data, dict) or not {"interactions", "version"} & data.keys():
        raise _fault(path, 1, _NO_CASSETTE)
    if data.get("version") != VERSION:
        raise RecordingError(
            f"{path}: the recording has version {data.get('version')!r:.60}; this version of pytest-llmtune reads "
            f"version {VERSION}"
        )
    if not isinstance(data.get("interactions"), list):
        raise _fault(path, 1, _NO_CASSETTE)
    for item in data["interactions"]:
        yield 1, 0, item


_NO_CASSETTE = "is not a vcrpy cassette: it has no list of 'interactions'"
