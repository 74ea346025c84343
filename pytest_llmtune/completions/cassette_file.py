"""The file of a recording: a vcrpy cassette (version 1) as JSON, one interaction a line; faults name the line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_llmtune import atomic
from pytest_llmtune.completions.interaction import Interaction, MalformedError
from pytest_llmtune.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["MAX_BYTES", "VERSION", "read", "render", "write"]

VERSION = 1
"""The version of vcrpy's cassette format."""
MAX_BYTES = 512 * 2**20
"""Larger files are refused: a recording may come from a stranger's pull request."""

_HEAD = '{"version": 1, "interactions": ['
_TAIL = "]}"
_CONFLICT = ("<<<<<<< ", "||||||| ", ">>>>>>> ")


def render(interactions: Iterable[Interaction]) -> str:
    """The file's text; interactions stay in the order given."""
    lines = ",\n".join(interaction.line() for interaction in interactions)
    return f"{_HEAD}\n{lines}\n{_TAIL}\n" if lines else f"{_HEAD}\n{_TAIL}\n"


def write(path: Path, text: str) -> bool:
    """Replace the file in one step.

    Returns:
        False where it already held exactly this text.

    Raises:
        RecordingError: the directory cannot be written to, or the disk is full; the old file is whole.
    """
    try:
        return atomic.write_text(path, text)
    except OSError as error:
        raise RecordingError(f"the recording {path} cannot be written: {error.strerror or error}") from error


def read(path: Path) -> list[Interaction]:
    """Read a recording; a file that is not there is an empty one.

    Raises:
        RecordingError: it is corrupt, truncated, too large, of an unknown version, or holds git conflict markers;
            the message names the line.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecordingError(f"the recording {path} is larger than {MAX_BYTES // 2**20} MiB")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _fault(path, line, "is no UTF-8 text") from None
    except OSError as error:
        raise RecordingError(f"the recording {path} cannot be read: {error.strerror or error}") from error
    return [_interaction(path, line, data) for line, data in _entries(path, text)]


def _fault(path: Path, line: int, what: str) -> RecordingError:
    return RecordingError(
        f"{path}:{line}: the recording {what}; restore the file from git, or record anew: pytest --llm-record=all"
    )


def _interaction(path: Path, line: int, data: Any) -> Interaction:
    try:
        return Interaction.from_plain(data)
    except MalformedError as error:
        raise _fault(path, line, f"is corrupt: {error}") from None


def _entries(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """(line, data) of every interaction."""
    lines = text.split("\n")  # not splitlines(): only a line feed ends a line here, and CR is white space to JSON
    for number, line in enumerate(lines, 1):
        if line.startswith(_CONFLICT):
            raise _fault(path, number, "holds git conflict markers")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise _fault(path, 1, "is empty")
    if lines[0].rstrip() != _HEAD:
        return _foreign(path, text)
    if lines[-1].rstrip() != _TAIL:
        raise _fault(path, len(lines), f"is truncated: its last line is not {_TAIL}")
    return _own(path, lines)


def _own(path: Path, lines: list[str]) -> Iterator[tuple[int, Any]]:
    last = len(lines) - 1  # counted from 1: the last interaction's line, if there is any
    for number in range(2, last + 1):
        line = lines[number - 1].rstrip()
        if line.endswith(",") != (number < last):
            raise _fault(path, number, "lacks a comma" if number < last else "ends with a comma")
        yield number, _parse(path, number, line.removesuffix(","))


def _parse(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _fault(path, number + error.lineno - 1, f"is corrupt: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError):
        raise _fault(path, number, "is corrupt: it is nested too deeply, or holds a number too long") from None


def _foreign(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """A cassette that another tool wrote, laid out in its own way."""
    data = _parse(path, 1, text)
    if not isinstance(data, dict) or not isinstance(data.get("interactions"), list):
        raise _fault(path, 1, "is no vcrpy cassette: it has no list of 'interactions'")
    if data.get("version") != VERSION:
        raise RecordingError(
            f"{path}: the recording has version {data.get('version')!r:.60}; this version of pytest-llmtune reads "
            f"version {VERSION}"
        )
    for item in data["interactions"]:
        yield 1, item
