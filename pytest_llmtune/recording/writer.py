"""What servers make up anew for every response (ids, times, padding), put in a form that every recording shares.

Without this, recording the same answers again would change every line. An id that a client sends back later (of a tool
call, of a response) is the same in the later request.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.jsonhash import canonical_json, safe_json, without_n
from pytest_llmtune.recording.format import canonical_body
from pytest_llmtune.wire import body as event_stream
from pytest_llmtune.wire.response import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_llmtune.recording.format import Interaction

__all__ = ["stable"]


_OBJECTS = frozenset({"chat.completion", "chat.completion.chunk", "text_completion", "response"})
_IDS = frozenset({"id", "call_id", "item_id"})
_TIMES = frozenset({"created", "created_at", "completed_at"})
# a stopwatch of the server's (llama.cpp, Groq, Cerebras), and the random padding of OpenAI's streams
_DROPPED = frozenset({"timings", "x_groq", "time_info", "obfuscation"})
_MADE_UP = re.compile(r"(?=.*\d)([A-Za-z]+[-_])?\S{11,}")  # shorter ones, such as call_0, are counted and not made up


def stable(interactions: Iterable[Interaction]) -> Iterator[Interaction]:
    """The interactions, in the order they were made, with ids that depend on the requests alone."""
    names: dict[str, str] = {}
    seen: Counter[bytes] = Counter()
    for interaction in interactions:
        body = _body(interaction.body, names)
        data = parse_object(body)
        key = f"{interaction.path} {body if data is None else canonical_json(without_n(data))}"
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        seen[digest] += 1
        naming = _Naming(names, f"{seen[digest]} {key}", interaction.body)
        yield replace(interaction, body=body, text=_text(interaction.text, naming))


def _body(body: str, names: dict[str, str]) -> str:
    data = parse_object(body) if names else None
    renamed = _renamed(data, names)  # looked up text by text: there may be as many names as responses
    return canonical_body(body if renamed == data else canonical_json(renamed))


def _text(text: str, naming: _Naming) -> str:
    whole = parse_object(text)
    if whole is not None:
        new = naming.change(whole)
        return text if new == whole else safe_json(new)
    return event_stream.rewrite(text, naming.change) if event_stream.is_stream(text) else text


@dataclass(slots=True)
class _Naming:
    """Gives names to the ids of one response."""

    names: dict[str, str]
    """From ids as served to their new names, of the whole recording."""
    seed: str
    request: str
    """Ids that stand in the request are not new."""
    given: dict[str, str] = field(default_factory=dict)

    def change(self, document: Any) -> Any:
        if not isinstance(document, dict) or not _is_answer(document):
            return document
        for found in _ids(document):
            if found not in self.given and found not in self.request:
                digest = hashlib.sha256(f"{self.seed} {len(self.given)}".encode()).hexdigest()[:12]
                match = _MADE_UP.fullmatch(found)
                self.given[found] = ((match and match[1]) or "") + digest
        self.names |= self.given
        return _lasting(_renamed(document, self.names))


def _is_answer(document: dict[str, Any]) -> bool:
    return document.get("object") in _OBJECTS or str(document.get("type")).startswith("response.")


def _ids(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for name, value in sorted(data.items()):  # servers order keys as they like
            if name in _IDS and isinstance(value, str) and _MADE_UP.fullmatch(value):
                yield value
            else:
                yield from _ids(value)
    elif isinstance(data, list):
        for item in data:
            yield from _ids(item)


def _renamed(data: Any, names: dict[str, str]) -> Any:
    """Ids renamed, wherever a text is nothing but an id."""
    if isinstance(data, str):
        return names.get(data, data)
    if isinstance(data, dict):
        return {name: _renamed(value, names) for name, value in data.items()}
    return [_renamed(item, names) for item in data] if isinstance(data, list) else data


def _lasting(document: dict[str, Any]) -> dict[str, Any]:
    """Without times and stopwatches, in the document itself and in the response that an event wraps."""
    kept = {name: value for name, value in document.items() if name not in _DROPPED}
    for name in _TIMES & kept.keys():
        kept[name] = 0 if isinstance(kept[name], (int, float)) else kept[name]
    if isinstance(kept.get("response"), dict):
        kept["response"] = _lasting(kept["response"])
    return kept
