"""Explain why a request has no recording: the nearest one, and the difference."""

from __future__ import annotations

import difflib
import heapq
import json
import re
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.jsonhash import safe_json
from pytest_llmtune.wire.response import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_llmtune.recording.format import Interaction


_LINES, _WIDTH = 24, 160
_CANDIDATES = 5


def explain(body: str, recorded: Iterable[Interaction]) -> str:
    """How a request's body differs from the nearest recorded one; empty if nothing is recorded."""
    near = nearest(body, recorded)
    return "" if near is None else difference(near.body, body)


def nearest(body: str, recorded: Iterable[Interaction]) -> Interaction | None:
    """The recorded interaction with the most similar request body."""
    words = _words(body)

    def overlap(item: Interaction) -> float:
        others = _words(item.body)
        return len(words & others) / (len(words | others) or 1)

    likely = heapq.nlargest(_CANDIDATES, recorded, key=overlap)
    return max(likely, key=lambda item: difflib.SequenceMatcher(None, item.body, body).quick_ratio(), default=None)


def difference(recorded: str, requested: str) -> str:
    """A unified diff of two request bodies, field by field; at most 24 lines of 160 characters."""
    before, after = list(_fields(recorded)), list(_fields(requested))
    lines = list(difflib.unified_diff(before, after, "recorded", "sent now", n=0, lineterm=""))
    shown = [line if len(line) <= _WIDTH else line[:_WIDTH] + "..." for line in lines if not line.startswith("@@")]
    more = len(shown) - _LINES
    return "\n".join(shown[:_LINES] + [f"... {more} more lines"] * (more > 0))


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


def _fields(text: str) -> Iterator[str]:
    data = parse_object(text)
    if data is None:
        yield from (safe_json(line)[1:-1] for line in text.splitlines())
        return
    yield from _paths(data, "")


def _paths(data: Any, path: str) -> Iterator[str]:
    """``messages[0].content: "..."``, one line per value, and per line of a text."""
    if isinstance(data, dict) and data:
        for name in sorted(data):
            yield from _paths(data[name], f"{path}.{name}".lstrip("."))
    elif isinstance(data, list) and data:
        for index, item in enumerate(data):
            yield from _paths(item, f"{path}[{index}]")
    elif isinstance(data, str):
        for line in data.split("\n"):
            yield f"{path}: {safe_json(line)}"
    else:
        yield f"{path}: {json.dumps(data)}"
