"""Interactions to the files of a recording: in canonical order, without secrets, and only what changed is written."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_llmtune._util import atomic
from pytest_llmtune._util.jsonhash import canonical_json, safe_json, without_n
from pytest_llmtune._util.spool import Spool
from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording import cassette_file, orphans, packing, parts
from pytest_llmtune.recording import storage as stored
from pytest_llmtune.recording.writer import stable
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.wire.response import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pytest_llmtune.recording.format import Interaction

__all__ = ["body_without_n", "write"]


def write(
    path: Path,
    interactions: Iterable[Interaction],
    redactor: Redactor | None = None,
    layout: parts.Layout | None = None,
) -> bool:
    """Write exactly these interactions, in canonical order, secrets removed; past the layout's limit in parts.

    Returns:
        False where the files already held exactly this.

    Raises:
        RecordingError: a secret is left in the text, or a file cannot be written; what was there before is whole.
    """
    redactor = redactor or Redactor.from_environment()
    latencies, spool = _latencies(path), Spool()
    places, size = [], 0
    for interaction in stable(redactor.clean(interaction) for interaction in interactions):
        known = latencies.get(_digest(interaction))
        line = (replace(interaction, latency=known.pop(0)) if known else interaction).line()
        spool.put(line)
        places.append(_place(interaction))
        size += len(line) + 2
    files = (layout or parts.Layout()).files(path, size)
    divided: dict[Path, list[int]] = {file: [] for file in files}
    for number in sorted(range(len(spool)), key=places.__getitem__):
        divided[parts.place(files, places[number])].append(number)
    for file, numbers in divided.items():
        for number in numbers:  # one at a time: none of the text needs to be in memory
            redactor.check(spool.get(number), file)
    changed = [_write(file, spool, numbers) for file, numbers in divided.items()]
    gone = parts.leftovers(path, files)
    orphans.remove(gone)
    return any(changed) or bool(gone)


def _write(file: Path, spool: Spool, numbers: Sequence[int]) -> bool:
    def lines() -> Iterator[bytes]:
        return cassette_file.rendered(map(spool.get, numbers))

    try:
        if file.suffix != parts.PACKED:
            return atomic.write_lines(file, lines)
        text = b"".join(lines())
        return not _holds(file, text) and atomic.write_bytes(file, packing.pack(text))
    except OSError as error:
        raise RecordingError(f"the recording {file} cannot be written: {error.strerror or error}") from error


def _holds(file: Path, data: bytes) -> bool:
    """Whether a compressed file already says this; another version of zstd may spell it otherwise."""
    try:
        with packing.unpacked(file, len(data)) as known:
            return known.read() == data
    except (OSError, RecordingError):  # it is not there, or is to be replaced anyway
        return False


def _place(interaction: Interaction) -> str:
    """Where an interaction stands in the file; those of one request stand together, whatever their ``n``."""
    return f"{interaction.path}\0{interaction.method}\0{body_without_n(interaction)}"


def body_without_n(interaction: Interaction) -> str:
    """The canonical body; for requests that differ in ``n`` alone it is the same."""
    body = parse_object(interaction.body)
    return interaction.body if body is None else canonical_json(without_n(body))


def _latencies(path: Path) -> dict[bytes, list[float]]:
    """An answer that did not change keeps its recorded latency, so that its line does not change either."""
    latencies: defaultdict[bytes, list[float]] = defaultdict(list)
    try:
        for interaction in stored.read_all(path):
            latencies[_digest(interaction)].append(interaction.latency)
    except RecordingError:  # the file to be replaced may be broken
        return {}
    return latencies


def _digest(interaction: Interaction) -> bytes:
    return hashlib.sha256(safe_json(interaction.to_plain()).encode("utf-8", "surrogatepass")).digest()
