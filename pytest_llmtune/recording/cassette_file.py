"""The file of a recording: a vcrpy cassette (version 1) as JSON, one interaction a line; faults name the line."""

from __future__ import annotations

import json
import os
from codecs import BOM_UTF8
from typing import IO, TYPE_CHECKING, Any

from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording.format import Interaction, MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["MAX_BYTES", "VERSION", "entries", "entry", "is_own", "rendered"]


VERSION = 1
"""The version of vcrpy's cassette format."""
MAX_BYTES = 512 * 2**20
"""Larger files are refused: a recording may come from a stranger's pull request."""

_HEAD = '{"version": 1, "interactions": ['
_TAIL = "]}"
_CONFLICT = ("<<<<<<< ", "||||||| ", ">>>>>>> ")


def rendered(lines: Iterable[str]) -> Iterator[bytes]:
    """The file line by line, of the lines of its interactions, which stay in the order given."""
    yield f"{_HEAD}\n".encode()
    ahead = iter(lines)
    line = next(ahead, None)
    while line is not None:
        after = next(ahead, None)
        yield f"{line}{'' if after is None else ','}\n".encode()
        line = after
    yield f"{_TAIL}\n".encode()


def is_own(head: bytes) -> bool:
    """Whether a file that begins with this line is in our layout: an interaction a line."""
    return head.removeprefix(BOM_UTF8).rstrip() == _HEAD.encode()


def entries(path: Path, file: IO[bytes]) -> Iterator[tuple[int, Interaction]]:
    """Every interaction of an open file, read line by line, with the byte where its line begins.

    Raises:
        RecordingError: it is corrupt, truncated, too large, of an unknown version, or holds git conflict markers;
            the message names the line.
    """
    try:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise RecordingError(f"the recording {path} is larger than {MAX_BYTES // 2**20} MiB")
        head = file.readline()
        found = _own(path, file, len(head)) if is_own(head) else _foreign(path, head + file.read())
        for line, offset, data in found:
            yield offset, _interaction(path, line, data)
    except OSError as error:
        raise RecordingError(f"the recording {path} cannot be read: {error.strerror or error}") from error


def entry(path: Path, line: bytes) -> Interaction:
    """The interaction on one line that ``entries`` has read before.

    Raises:
        RecordingError: it is none any more.
    """
    return _interaction(path, 0, _parse(path, 0, _line(path, 0, line).removesuffix(",")))


def _fault(path: Path, line: int, what: str) -> RecordingError:
    return RecordingError(
        f"{path}:{line}: the recording {what}; restore the file from git, or record anew: pytest --llm-record=all"
    )


def _interaction(path: Path, line: int, data: Any) -> Interaction:
    try:
        return Interaction.from_plain(data)
    except MalformedError as error:
        raise _fault(path, line, f"is corrupt: {error}") from None


def _line(path: Path, number: int, raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _fault(path, number, "is no UTF-8 text") from None
    if text.startswith(_CONFLICT):
        raise _fault(path, number, "holds git conflict markers")
    return text.rstrip()


def _own(path: Path, lines: Iterable[bytes], start: int) -> Iterator[tuple[int, int, Any]]:
    """(line, byte, data) of every interaction of a file in our layout; ``lines`` are those after the first."""
    numbered = _numbered(path, lines, start)
    number, offset, line = next(numbered, (1, 0, _HEAD))
    for after, then, following in numbered:
        if line == _TAIL:
            raise _fault(path, after, "goes on after its end")
        last = following == _TAIL
        if line.endswith(",") == last:
            raise _fault(path, number, "ends with a comma" if last else "lacks a comma")
        yield number, offset, _parse(path, number, line.removesuffix(","))
        number, offset, line = after, then, following
    if line != _TAIL:
        raise _fault(path, number, f"is truncated: its last line is not {_TAIL}")


def _numbered(path: Path, lines: Iterable[bytes], offset: int) -> Iterator[tuple[int, int, str]]:
    """(line, byte, text) of every line that is not empty."""
    for number, raw in enumerate(lines, 2):
        if text := _line(path, number, raw):
            yield number, offset, text
        offset += len(raw)


def _parse(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _fault(path, number + error.lineno - 1, f"is corrupt: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError):
        raise _fault(path, number, "is corrupt: it is nested too deeply, or holds a number too long") from None


def _foreign(path: Path, content: bytes) -> Iterator[tuple[int, int, Any]]:
    """A cassette that another tool wrote, laid out in its own way; or no cassette."""
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


_NO_CASSETTE = "is no vcrpy cassette: it has no list of 'interactions'"
