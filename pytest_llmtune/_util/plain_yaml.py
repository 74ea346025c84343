"""Read the YAML that our lock files consist of without PyYAML, whose import takes longer than a small guard.

Anything else is left to PyYAML: what is read here has the same value there.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["UnknownSyntaxError", "read"]


class UnknownSyntaxError(Exception):
    """The text has something that only PyYAML reads, or that is not valid."""


_KEY = re.compile(r"(\w(?:[\w./-]|:(?! |$)){0,99}):(?= |$)", re.ASCII)
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:e[-+][0-9]+)?")
_HEX = re.compile(r"(?!0b)[0-9][0-9a-f]*[a-f][0-9a-f]*")
_PLAIN_IN_BRACKETS = re.compile(r"[^,\[\]{}:?#'\"]+")
_SINGLE = re.compile(r"'((?:[^']|'')*)'(?!')")
_DOUBLE = re.compile(r'"(?:[^"\\\n]|\\["\\nrt])*"')
_FOLD = re.compile(r" *\n[ \n]*")
_CONSTANTS = {"true": True, "false": False, "null": None}
_OTHER_CONSTANTS = frozenset({"yes", "no", "on", "off", *_CONSTANTS})
_NUMBERS = frozenset("0123456789+-.:_abcdefinotxz \t")
"""Characters of numbers and dates, in lower case."""
_LITERAL = {"|": "\n", "|-": ""}
"""What a text ends with."""
_MOST_LINES = 50
"""Of a text in quotes."""


def read(text: str, *, max_depth: int, max_nodes: int) -> Any:
    """Read a document as ``yaml.safe_load`` does.

    Raises:
        UnknownSyntaxError: it has other syntax, twice the same key, or exceeds a limit.
    """
    if not text.replace("\n", "").isprintable() or text.count("\n") + text.count(",") > max_nodes // 2:
        raise UnknownSyntaxError
    lines = text.removesuffix("\n").split("\n")
    first = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    reader = _Reader(lines, first, max_depth)
    found = reader.block(0, 1)
    if reader.at < len(lines):
        raise UnknownSyntaxError
    return found


class _Reader:
    def __init__(self, lines: list[str], at: int, max_depth: int) -> None:
        self.lines, self.at, self.max_depth = lines, at, max_depth
        self.rest = ""
        """What is left of the current line while a value in brackets or quotes is read."""

    def indent(self) -> int:
        """The current line's indentation; -1 at the end."""
        if self.at >= len(self.lines):
            return -1
        line = self.lines[self.at]
        return len(line) - len(line.lstrip(" ")) if line.strip(" ") else _unknown()

    def block(self, indent: int, depth: int) -> Any:
        """The mapping, or the list, whose lines have this indentation."""
        if depth > self.max_depth or self.indent() != indent:
            raise UnknownSyntaxError
        items, pairs = list[Any](), dict[str, Any]()
        listed = self.lines[self.at].startswith("- ", indent)
        while self.indent() == indent and self.lines[self.at].startswith("- ", indent) is listed:
            line = self.lines[self.at]
            key = _KEY.match(line, indent + 2 if listed else indent)
            if listed and key:  # the first line of a mapping, indented as the others
                self.lines[self.at] = f"{' ' * (indent + 2)}{line[indent + 2 :]}"
                items.append(self.block(indent + 2, depth + 1))
            elif listed:
                items.append(self._value(line[indent + 2 :], indent, depth + 1))
            elif key is None or key[1] in pairs or not isinstance(_scalar(key[1]), str):
                raise UnknownSyntaxError
            elif key.end() < len(line):
                pairs[key[1]] = self._value(line[key.end() + 1 :], indent, depth + 1)
            else:
                self.at += 1
                inner = self.indent()
                beside = inner == indent and self.lines[self.at].startswith("- ", indent)
                pairs[key[1]] = self.block(inner if inner > indent or beside else _unknown(), depth + 1)
        return items if listed else pairs

    def _value(self, text: str, indent: int, depth: int) -> Any:
        """The value that starts on the current line, with this text."""
        if text in _LITERAL:
            return self._literal(indent, _LITERAL[text])
        self.rest = ""
        if text.startswith(("[", "{", "'", '"')):
            self.rest = text
            found = self._flow(depth)
        elif ": " in text or " #" in text or text.endswith(":"):
            raise UnknownSyntaxError
        else:
            found = _scalar(text)
        self.at += 1
        return found if not self.rest and self.indent() <= indent else _unknown()

    def _literal(self, indent: int, end: str) -> str:
        """A text of several lines after ``|``."""
        self.at += 1
        start, inner = self.at, self.indent()
        while self.at < len(self.lines) and (not self.lines[self.at] or self.indent() >= inner):
            self.at += 1
        found = self.lines[start : self.at]
        if inner <= indent or not found[-1] or not -1 < self.indent() <= indent:  # its end may lack a line break
            raise UnknownSyntaxError
        return "\n".join(line[inner:] for line in found) + end

    def _flow(self, depth: int) -> Any:
        """The value in brackets, in quotes or between them at the start of ``rest``."""
        if depth > self.max_depth:
            raise UnknownSyntaxError
        if self.rest.startswith("{"):
            pairs: dict[str, Any] = {}
            for _ in self._items("}"):
                key = _KEY.match(self.rest)
                if key is None or ":" in key[1] or key[1] in pairs or not isinstance(_scalar(key[1]), str):
                    raise UnknownSyntaxError
                self.rest = self.rest[key.end() + 1 :]
                pairs[key[1]] = self._flow(depth + 1)
            return pairs
        if self.rest.startswith("["):
            return [self._flow(depth + 1) for _ in self._items("]")]
        if self.rest.startswith("'"):
            return self._single_quoted()
        double = self.rest.startswith('"')
        found = (_DOUBLE if double else _PLAIN_IN_BRACKETS).match(self.rest) or _unknown()
        self.rest = self.rest[found.end() :]
        return json.loads(found[0]) if double else _scalar(found[0])

    def _items(self, end: str) -> Iterator[None]:
        """Stop at the start of each item in brackets."""
        self.rest = self.rest[1:]
        if not self.rest.startswith(end):
            yield
            while self.rest.startswith(", "):
                self.rest = self.rest[2:]
                yield
        if not self.rest.startswith(end):
            raise UnknownSyntaxError
        self.rest = self.rest[1:]

    def _single_quoted(self) -> str:
        text, most = self.rest, self.at + _MOST_LINES
        while (found := _SINGLE.match(text)) is None:
            self.at += 1
            line = self.lines[self.at] if self.at < min(most, len(self.lines)) else _unknown()
            text += f"\n{line}" if line[:1] in {"", " "} else _unknown()
        self.rest = text[found.end() :]
        folded = _FOLD.sub(lambda breaks: "\n" * (breaks[0].count("\n") - 1) or " ", found[1])
        return folded.replace("''", "'")


def _scalar(text: str) -> Any:
    """A value without quotes: text, unless YAML 1.1 reads something else."""
    low = text.lower()
    if low in _OTHER_CONSTANTS:
        return _CONSTANTS[text] if text in _CONSTANTS else _unknown()
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    first = text[:1]
    letter = first.isalpha() or first in {"_", "/", "(", "$", "\\"} or (first == "<" and text != "<<")
    digit = first.isdigit() and (bool(_HEX.fullmatch(text)) or not _NUMBERS.issuperset(low))
    return text if (letter or digit) and not text.endswith(" ") else _unknown()


def _unknown() -> NoReturn:
    raise UnknownSyntaxError
