"""Server-sent events: a streamed response as a list of JSON documents, changed without losing its framing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from pytest_llmtune._util.jsonhash import safe_json
from pytest_llmtune.wire.response import parse_object

__all__ = ["clean_pieces", "is_stream", "rewrite"]


Spans = Callable[[str], list[tuple[int, int]]]
Change = Callable[[Any], Any]


def is_stream(text: str) -> bool:
    """Whether a body looks like an event stream."""
    return text.startswith(("data:", "event:", ": ", "id:", "retry:"))


def rewrite(text: str, change: Change, together: Callable[[list[Any]], None] | None = None) -> str:
    """The stream with the JSON of every event changed; other lines are changed as the texts that they are.

    Args:
        change: from a document, or a text, to what takes its place.
        together: given all changed documents afterwards, as a list to change in place.
    """
    lines = text.split("\n")
    documents: dict[int, Any] = {}
    for number, line in enumerate(lines):
        document = parse_object(line[5:]) if line.startswith("data:") else None
        if document is not None:
            documents[number] = change(document)
        elif line.strip():
            lines[number] = change(line)
    changed = list(documents.values())
    if together is not None:
        together(changed)
    for number, document in zip(documents, changed, strict=True):
        lines[number] = f"data: {safe_json(document)}"
    return "\n".join(lines)


def clean_pieces(documents: list[Any], spans: Spans, placeholder: str) -> bool:
    """Remove what is spelled out over several events, as a model's words are.

    Args:
        spans: where in a text there is something to remove: (start, end), in order.
        placeholder: what takes its place.

    Returns:
        Whether there was anything.
    """
    anything = False
    groups: defaultdict[object, list[tuple[dict[str, Any], str]]] = defaultdict(list)
    for document in documents:
        kind = (document.get("type"), document.get("output_index"), document.get("content_index"))
        for place, holder, name in _texts(document, ()):
            groups[kind, place].append((holder, name))
    for pieces in groups.values():
        texts = [holder[name] for holder, name in pieces]
        if len(texts) > 1 and (found := spans("".join(texts))):
            anything = True
            for (holder, name), text in zip(pieces, _without(texts, found, placeholder), strict=True):
                holder[name] = text
    return anything


def _texts(data: Any, place: tuple[object, ...]) -> Iterator[tuple[tuple[object, ...], dict[str, Any], str]]:
    """(place, holder, name) of every text in a mapping; an item of a list stands at its own ``index``."""
    if isinstance(data, dict):
        for name, value in data.items():
            if isinstance(value, str):
                yield (*place, name), data, name
            else:
                yield from _texts(value, (*place, name))
    elif isinstance(data, list):
        for position, item in enumerate(data):
            index = item.get("index", position) if isinstance(item, dict) else position
            yield from _texts(item, (*place, index))


def _without(texts: list[str], spans: list[tuple[int, int]], placeholder: str) -> list[str]:
    """The pieces without the given parts of their whole; a placeholder stands where a part began."""
    kept, start = [], 0
    for text in texts:
        out, position, end = "", start, start + len(text)
        for low, high in spans:
            if high <= position or low >= end:
                continue
            out += text[position - start : max(low, position) - start] + (placeholder if low >= start else "")
            position = min(high, end)
        kept.append(out + text[position - start :])
        start = end
    return kept
