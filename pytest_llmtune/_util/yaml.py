"""Read YAML as plain data, with limits, and with line numbers in errors."""

from __future__ import annotations

import math
import re
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import yaml


_MAX_CHARS, _MAX_DEPTH, _MAX_NODES, _MAX_DOCUMENTS = 4_000_000, 50, 200_000, 1_000


def load(text: str, *, max_chars: int = _MAX_CHARS, max_nodes: int = _MAX_NODES, core: bool = False) -> Any:
    """Read plain data from one document without tags, anchors and aliases.

    Args:
        core: by YAML 1.2's core schema, as suites are: ``no``, ``12:30`` and ``2024-01-01`` are strings. So is ``012``,
            because a number would lose its zero.
        max_nodes: keys and values; each takes about 700 bytes of memory while being read.

    Raises:
        ValueError: the text is not such YAML; the message starts with ``line N: `` if one line is at fault.
    """
    _check_length(text, max_chars)
    if not core and (fast := _fast_loader_class()) is not None:
        with suppress(Exception):  # for what it cannot read, the loader below reports the error
            loader = fast(text)
            loader.max_nodes = max_nodes
            return loader.get_single_data()
    try:
        with _yaml_errors(text):
            loader = (_core_loader_class() if core else _plain_loader_class())(text)
            loader.max_nodes = max_nodes
            return loader.get_single_data()
    except YamlError as error:
        raise ValueError(f"line {error.line}: {error}") from None
    except (ValueError, OverflowError, RecursionError) as error:  # 5,000 digits, a date of month 99, ...
        raise ValueError(f"a value cannot be read: {error}") from None


def _check_length(text: str, most: int) -> None:
    if len(text) > most:
        raise ValueError(f"{len(text):,} characters are more than the limit of {most:,}")


@contextmanager
def _yaml_errors(text: str) -> Iterator[None]:
    """Turn PyYAML's errors into ``YamlError``."""
    import yaml

    try:
        yield
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"the character #x{error.character:02x} is not allowed", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = (mark.line + 1, mark.column + 1) if mark else ()
        raise YamlError(" ".join(filter(None, (error.context, error.problem))), *position) from None


@cache
def _plain_loader_class() -> Any:
    """A safe loader that refuses all but plain data; created on first use, to import yaml lazily."""
    import yaml

    return type("PlainLoader", (_plain_data(), yaml.SafeLoader), {})


@cache
def _fast_loader_class() -> Any:
    """The plain loader over libyaml's parser, which is ten times as fast; None where PyYAML was built without it."""
    from yaml.composer import Composer
    from yaml.constructor import SafeConstructor
    from yaml.resolver import Resolver

    try:
        from yaml.cyaml import CParser  # type: ignore[attr-defined]
    except ImportError:
        return None

    class FastLoader(_plain_data(), Composer, CParser, SafeConstructor, Resolver):  # type: ignore[misc]
        def __init__(self, stream: str) -> None:
            CParser.__init__(self, stream)
            for part in (Composer, SafeConstructor, Resolver):
                part.__init__(self)

    return FastLoader


@cache
def _plain_data() -> Any:
    """What a loader of plain data adds to its composer and constructor."""
    import yaml

    class PlainData:
        depth = 0
        max_nodes = _MAX_NODES
        nodes = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> Any:
            event = self.peek_event()  # type: ignore[attr-defined]
            problem = ""
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                problem = "anchors and aliases are not allowed here"
            elif getattr(event, "tag", None):
                problem = "tags are not allowed here"
            elif self.nodes >= self.max_nodes:
                problem = f"more than the limit of {self.max_nodes:,} values"
            elif self.depth >= _MAX_DEPTH:
                problem = "nested too deeply"
            if problem:
                raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
            self.nodes += 1
            self.depth += 1
            try:
                return super().compose_node(parent, index)  # type: ignore[misc]
            finally:
                self.depth -= 1

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            seen: set[Any] = set()
            for key, _ in node.value:
                if key.value in seen if isinstance(key.value, str) else True:
                    problem = f"duplicate key {key.value!r}" if isinstance(key.value, str) else "a key is not a string"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)  # type: ignore[misc]

    return PlainData


@cache
def _core_loader_class() -> Any:
    """The plain loader with YAML 1.2's core schema, and no infinite numbers."""

    def finite(_loader: Any, node: yaml.ScalarNode) -> float:
        if math.isinf(value := float(node.value)):
            raise YamlError(f"{node.value} is too large for a number", *_position(node))
        return value

    loader = _with_resolvers("CoreLoader", _plain_loader_class(), _CORE | _DATA)
    loader.add_constructor("tag:yaml.org,2002:float", finite)
    return loader


def _with_resolvers(name: str, base: Any, resolvers: Mapping[str, tuple[re.Pattern[str], str]]) -> Any:
    loader: Any = type(name, (base,), {"yaml_implicit_resolvers": {}})
    for kind, (pattern, first) in resolvers.items():
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", pattern, [c if c != "\0" else "" for c in first])
    return loader


_CORE = {
    "bool": (lazy_regex("^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "null": (lazy_regex("^(?:~|null|Null|NULL|)$"), "~nN\0"),
    "int": (lazy_regex("^[-+]?[0-9]+$"), "-+0123456789"),
    "float": (lazy_regex(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"), "-+.0123456789"),
}
"""YAML 1.2's core schema for plain scalars; what matches none of these is a string."""

_DATA = {
    "int": (lazy_regex("^[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789"),
    "float": (lazy_regex(r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"), "-+.0123456789"),
}
"""Numbers in data: ``012`` may be a code or a telephone number."""

_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map", "merge", *_CORE)}


class YamlError(Exception):
    """The text is not valid YAML, or uses a feature that is not allowed."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line, self.column = line, column


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its data and the position of each value."""

    data: Any
    line: int
    """From 1."""
    positions: Mapping[str, tuple[int, int]]
    """A value's path (``model[1].stop``) to the line and column, from 1, of its key (in a list, of the value)."""


def documents(text: str) -> list[Document]:
    """The non-empty documents of a file; tags are refused, aliases are resolved.

    Raises:
        YamlError: the text is not valid YAML, or exceeds a limit.
    """
    try:
        _check_length(text, _MAX_CHARS)
    except ValueError as error:
        raise YamlError(str(error)) from None
    try:
        with _yaml_errors(text):
            return list(_read(text))
    except RecursionError:
        raise YamlError("nested too deeply") from None


def _read(text: str) -> Iterator[Document]:
    loader = _loader_class()(text)
    count = 0
    try:
        while loader.check_node():
            node = loader.get_node()
            if (count := count + 1) > _MAX_DOCUMENTS:
                raise YamlError(f"more than the limit of {_MAX_DOCUMENTS:,} documents", *_position(node))
            _check_size(node)
            positions: dict[str, tuple[int, int]] = {}
            data = _build(node, "", positions, loader)
            if data is not None:
                yield Document(data, node.start_mark.line + 1, positions)
    finally:
        loader.dispose()


def _position(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _check_size(root: yaml.Node) -> None:
    """Count nodes once per alias: nine lines of nested aliases can expand to billions."""
    import yaml

    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        if id(node) in open_nodes:
            raise YamlError("an alias inside its own anchor", *_position(node))
        if depth > _MAX_DEPTH:
            raise YamlError("nested too deeply", *_position(node))
        if id(node) not in sizes:
            if isinstance(node, yaml.MappingNode):
                seen: set[str] = set()
                for key, _ in node.value:
                    if not isinstance(key.value, str):
                        raise YamlError("a key is not a string", *_position(key))
                    if key.value in seen:
                        raise YamlError(f"duplicate key {shown(key.value)}", *_position(key))
                    seen.add(key.value)
            open_nodes.add(id(node))
            items = () if isinstance(node.value, str) else node.value
            children = [child for item in items for child in (item if isinstance(item, tuple) else (item,))]
            sizes[id(node)] = 1 + sum(size(child, depth + 1) for child in children)
            open_nodes.remove(id(node))
        if sizes[id(node)] > _MAX_NODES:
            raise YamlError(f"more than the limit of {_MAX_NODES:,} values, aliases counted", *_position(node))
        return sizes[id(node)]

    size(root, 0)


def _build(node: yaml.Node, path: str, positions: dict[str, tuple[int, int]], loader: Any) -> Any:
    import yaml

    positions.setdefault(path, _position(node))
    if node.tag not in _TAGS:
        raise YamlError(f"the tag {shown(node.tag)} is not allowed", *_position(node))
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, f"{path}[{index}]", positions, loader) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)  # expands <<: merged keys come first, own keys override them
        data: dict[str, Any] = {}
        for key, value in node.value:
            inner = f"{path}.{key.value}".removeprefix(".")
            positions[inner] = _position(key)
            data[key.value] = _build(value, inner, positions, loader)
        return data
    kind, text = node.tag.rpartition(":")[2], node.value
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError as error:  # more digits than Python reads; an explicit !!int before a string
        raise YamlError(str(error), *_position(node)) from None
    if kind == "bool":
        return text.lower() == "true"
    return None if kind == "null" else text


@cache
def _loader_class() -> Any:
    """A loader that composes nodes and resolves plain scalars; created on first use, to import yaml lazily."""
    import yaml

    return _with_resolvers("Loader", yaml.SafeLoader, _CORE | {"merge": (re.compile("^<<$"), "<")})
