"""Server-sent events: a streamed response as a list of JSON documents, changed without losing its framing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from pytest_llmtune.completions.facts import parse_object
from pytest_llmtune.completions.request import safe_json

__all__ = ["is_stream", "rewrite"]

Spans = Callable[[str], list[tuple[int, int]]]


def is_stream(text: str) -> bool:
    """Whether a body looks like an event stream."""
    return text.startswith(("data:", "event:", ": ", "id:", "retry:"))


def rewrite(text: str, clean: Callable[[Any], Any], spans: Spans, placeholder: str) -> str:
    """Every event's JSON cleaned; also of what is spelled out over several events, as a model's words are.

    Args:
        clean: from a document to what may be kept of it.
        spans: where in a text something secret stands.
        placeholder: what takes its place.
    """
    lines = text.split("\n")
    documents: dict[int, Any] = {}
    for number, line in enumerate(lines):
        if line.startswith("data:"):
            document = parse_object(line[5:])
            documents[number] = clean(line[5:] if document is None else document)
        elif line.strip():
            lines[number] = clean(line)
    _clean_pieces(list(documents.values()), spans, placeholder)
    for number, document in documents.items():
        lines[number] = "data:" + (document if isinstance(document, str) else f" {safe_json(document)}")
    return "\n".join(lines)


def _clean_pieces(documents: list[Any], spans: Spans, placeholder: str) -> None:
    """Join the texts at the same place of successive documents, and remove what is secret in the whole."""
    groups: defaultdict[object, list[tuple[dict[str, Any], str]]] = defaultdict(list)
    for document in documents:
        if isinstance(document, dict):
            kind = (document.get("type"), document.get("output_index"), document.get("content_index"))
            for place, holder, name in _texts(document, ()):
                groups[kind, place].append((holder, name))
    for pieces in groups.values():
        texts = [holder[name] for holder, name in pieces]
        if len(texts) > 1 and (found := spans("".join(texts))):
            for (holder, name), text in zip(pieces, _without(texts, found, placeholder), strict=True):
                holder[name] = text


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
        out, position = "", start
        for low, high in spans:
            if high <= position or low >= start + len(text):
                continue
            out += text[position - start : max(low, position) - start]
            out += placeholder if low >= start else ""
            position = min(high, start + len(text))
        kept.append(out + text[position - start :])
        start += len(text)
    return kept
