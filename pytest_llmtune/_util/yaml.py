"""YAML 1.2 as data: no tags, no aliases, line numbers for messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.text import shown

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    import yaml

__all__ = ["Document", "YamlError", "documents", "load"]


def load(
    text: str, *, max_chars: int = 4_000_000, max_depth: int = 50, max_nodes: int = 200_000, core: bool = False
) -> Any:
    """Read plain data.

    Args:
        core: by YAML 1.2's words, as suites are: ``no``, ``12:30`` and ``2024-01-01`` are texts. So is ``012``, whose zero
            a number would lose.
        max_nodes: keys and values, which take some 700 bytes each while they are read.

    Raises:
        ValueError: the text is no such YAML; the message starts with ``line N: `` where a line is to blame.
    """
    import yaml

    if len(text) > max_chars:
        raise ValueError(f"{len(text):,} characters are more than the limit of {max_chars:,}")
    try:
        loader = (_core_loader_class() if core else _plain_loader_class())(text)
        loader.max_depth, loader.max_nodes = max_depth, max_nodes
        return loader.get_single_data()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"line {line}: the character #x{error.character:02x} is not allowed") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except (ValueError, OverflowError, RecursionError) as error:  # 5,000 digits, a date of month 99, ...
        raise ValueError(f"a value cannot be read: {error}") from None


@cache
def _plain_loader_class() -> Any:
    """A safe loader with our refusals; made on first use, because yaml must not be imported before."""
    import yaml

    class PlainLoader(yaml.SafeLoader):
        max_depth = 50
        depth = 0
        max_nodes = 200_000
        nodes = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise yaml.composer.ComposerError(
                    None, None, "anchors and aliases are not allowed here", event.start_mark
                )
            if getattr(event, "tag", None):
                raise yaml.composer.ComposerError(None, None, "tags are not allowed here", event.start_mark)
            self.nodes += 1
            if self.nodes > self.max_nodes:
                raise yaml.composer.ComposerError(
                    None, None, f"more than the limit of {self.max_nodes:,} values", event.start_mark
                )
            self.depth += 1
            if self.depth > self.max_depth:
                raise yaml.composer.ComposerError(None, None, "nested too deeply", event.start_mark)
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[Any] = set()
            for key, _ in node.value:
                if key.value in seen if isinstance(key.value, str) else True:
                    problem = (
                        f"the key {key.value!r} stands twice" if isinstance(key.value, str) else "a key is no text"
                    )
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return PlainLoader


@cache
def _core_loader_class() -> Any:
    """The plain loader with YAML 1.2's words for plain values."""
    core: Any = type("CoreLoader", (_plain_loader_class(),), {"yaml_implicit_resolvers": {}})
    for name, (pattern, first) in (_PLAIN | _DATA).items():
        core.add_implicit_resolver(f"tag:yaml.org,2002:{name}", pattern, [c if c != "\0" else "" for c in first])
    return core


_MAX_CHARS, _MAX_DEPTH, _MAX_NODES, _MAX_DOCUMENTS = 4_000_000, 50, 200_000, 1_000

_PLAIN = {
    "bool": (re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "null": (re.compile("^(?:~|null|Null|NULL|)$"), "~nN\0"),
    "int": (re.compile("^[-+]?[0-9]+$"), "-+0123456789"),
    "float": (re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"), "-+.0123456789"),
}
"""YAML 1.2's core words for plain values; what none of them matches is text."""

_DATA = {
    "int": (re.compile("^[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789"),
    "float": (
        re.compile(r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
        "-+.0123456789",
    ),
}
"""Numbers in data: ``012`` may be a code, a year or a telephone number."""

_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map", "merge", *_PLAIN)}


class YamlError(Exception):
    """A file that is not such YAML."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line, self.column = line, column


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its data, and where each value stands."""

    data: Any
    line: int
    """From 1."""
    places: Mapping[str, tuple[int, int]]
    """A value's path (``model[1].stop``) to the line and column, from 1, of its key or of itself in a list."""


def documents(text: str) -> list[Document]:
    """The documents of a file that are not empty.

    Raises:
        YamlError: the text is no YAML, or more than the limits.
    """
    import yaml

    if len(text) > _MAX_CHARS:
        raise YamlError(f"{len(text):,} characters are more than the limit of {_MAX_CHARS:,}")
    try:
        return list(_read(text))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"the character #x{error.character:02x} is not allowed", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else ()
        raise YamlError(" ".join(filter(None, (error.context, error.problem))), *place) from None
    except RecursionError:
        raise YamlError("nested too deeply") from None


def _read(text: str) -> Iterator[Document]:
    loader = _loader_class()(text)
    count = 0
    try:
        while loader.check_node():
            node = loader.get_node()
            if (count := count + 1) > _MAX_DOCUMENTS:
                raise YamlError(f"more than the limit of {_MAX_DOCUMENTS:,} documents", *_place(node))
            _check_size(node)
            places: dict[str, tuple[int, int]] = {}
            data = _build(node, "", places, loader)
            if data is not None:
                yield Document(data, node.start_mark.line + 1, places)
    finally:
        loader.dispose()


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _check_size(root: yaml.Node) -> None:
    """Count nodes as often as aliases repeat them: nine lines of aliases of aliases may stand for billions."""
    import yaml

    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        if id(node) in open_nodes:
            raise YamlError("an alias inside of what it stands for", *_place(node))
        if depth > _MAX_DEPTH:
            raise YamlError("nested too deeply", *_place(node))
        if id(node) not in sizes:
            if isinstance(node, yaml.MappingNode):
                _refuse_twice(node)
            open_nodes.add(id(node))
            sizes[id(node)] = 1 + sum(size(child, depth + 1) for child in _children(node))
            open_nodes.remove(id(node))
        if sizes[id(node)] > _MAX_NODES:
            raise YamlError(f"more than the limit of {_MAX_NODES:,} values, aliases counted", *_place(node))
        return sizes[id(node)]

    size(root, 0)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node.value, str):
        return []
    return [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]


def _build(node: yaml.Node, path: str, places: dict[str, tuple[int, int]], loader: Any) -> Any:
    import yaml

    places.setdefault(path, _place(node))
    if node.tag not in _TAGS:
        raise YamlError(f"the tag {shown(node.tag)} is not allowed", *_place(node))
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, f"{path}[{index}]", places, loader) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, places, loader)
    return _scalar(node)


def _mapping(node: yaml.MappingNode, path: str, places: dict[str, tuple[int, int]], loader: Any) -> dict[str, Any]:
    loader.flatten_mapping(node)  # << : what it brings stands first, and what stands here wins
    data: dict[str, Any] = {}
    for key, value in node.value:
        inner = f"{path}.{key.value}".removeprefix(".")
        places[inner] = _place(key)
        data[key.value] = _build(value, inner, places, loader)
    return data


def _refuse_twice(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key.value, str):
            raise YamlError("a key is no text", *_place(key))
        if key.value in seen:
            raise YamlError(f"the key {shown(key.value)} stands twice", *_place(key))
        seen.add(key.value)


def _scalar(node: yaml.Node) -> Any:
    kind, text = node.tag.rpartition(":")[2], node.value
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError as error:  # more digits than Python reads; an explicit !!int before a text
        raise YamlError(str(error), *_place(node)) from None
    if kind == "bool":
        return text.lower() == "true"
    return None if kind == "null" else text


@cache
def _loader_class() -> Any:
    """A loader that composes nodes and resolves plain values; made on first use: an idle plugin imports no yaml."""
    import yaml

    loader: Any = type("Loader", (yaml.SafeLoader,), {"yaml_implicit_resolvers": {}})
    for name, (pattern, first) in _PLAIN.items():
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", pattern, [c if c != "\0" else "" for c in first])
    loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])
    return loader
