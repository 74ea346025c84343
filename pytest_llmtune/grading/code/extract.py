"""Find the code in a response."""

from __future__ import annotations

import ast
import itertools
import re
from typing import TYPE_CHECKING

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.grading.math.extract import untagged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_FENCE = lazy_regex(
    r"^(?P<indent>[ \t>]*(?:[-*+][ \t]+|\d+[.)][ \t]+)?)(?P<mark>`{3,}+|~{3,}+)[ \t]*\{?\.?(?P<tag>[\w+#-]*)[^\n]*\n"
    r"(?P<body>.*?)(?:^[ \t>]*(?P=mark)|\Z)",
    re.MULTILINE | re.DOTALL,
)
_FUTURE = lazy_regex(r"^from[ \t]+__future__[ \t]+import[^\n]*\n?", re.MULTILINE)


def code_in(response: str) -> str | None:
    """All blocks fenced as Python, else all fenced blocks, else the whole text if it is a program; None: no code.

    If no block fenced as Python defines a function or a class, those without a language that do are code too. Sessions
    (``>>>``) and outputs are not code; code indented in a list item is dedented.
    """
    response = untagged(response)
    if "def " in response and _is_program(response):
        return response  # fences, if any, are in docstrings
    fenced = [(tag, body) for tag, body in _fenced(response) if not body.lstrip().startswith(">>>")]
    blocks = [body for tag, body in fenced if tag in _TAGS]
    if blocks and not any(map(_defines, blocks)):
        blocks = [body for tag, body in fenced if tag in _TAGS or (not tag and _defines(body))]
    if not blocks:
        untold = [body for tag, body in fenced if tag not in _OTHER_TAGS]
        blocks = [body for body in untold if _is_program(body)] or untold
    if not blocks:
        return response if _is_program(response) else None
    code = _joined(blocks)
    if len(blocks) > 1 and not _parses(code) and _parses(blocks[-1]):
        code = _joined([block for block in blocks if _parses(block)])  # the others were truncated and restarted
    return code


_TAGS = ("python", "py", "python3", "py3", "ipython")
_OTHER_TAGS = (
    "text", "txt", "plaintext", "output", "console", "bash", "sh", "shell", "pycon", "json", "yaml", "markdown", "md",
)  # fmt: skip


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_MOST_INNER = 8  # fences in the docstrings of one block


def _fenced(response: str) -> Iterator[tuple[str, str]]:
    """Language and content of each block; a fence inside a docstring does not end it."""
    position = 0
    while (fence := _FENCE.search(response, position)) is not None:
        tag, position = fence["tag"].lower(), fence.end()
        body = _body(fence["indent"], fence["body"])
        if (not tag or tag in _TAGS) and any(body.count(mark) % 2 for mark in ('"""', "'''")):
            closing = re.compile(rf"^[ \t>]*{re.escape(fence['mark'])}", re.MULTILINE)
            for close in itertools.islice(closing.finditer(response, position), _MOST_INNER):
                longer = _body(fence["indent"], response[fence.start("body") : close.start()])
                if _parses(longer):
                    body, position = longer, close.end()
                    break
        yield tag, body


def _body(indent: str, text: str) -> str:
    """A block's lines without the indentation or quotation marks of its fence."""
    width, lines = len(indent.expandtabs()), text.splitlines(keepends=True)
    if ">" in indent:
        lines = [re.sub(r"^[ \t]*(?:>[ \t]?)+", "", line) for line in lines]
        width = 0
    return "".join(line[min(width, len(line) - len(line.lstrip(" \t"))) :] for line in lines)


def _joined(blocks: Sequence[str]) -> str:
    """Join blocks into one program, with imports from ``__future__`` first."""
    code = "\n".join(blocks)
    future = "".join(dict.fromkeys(line.rstrip("\n") + "\n" for line in _FUTURE.findall(code)))
    return future + _FUTURE.sub("", code) if future and len(blocks) > 1 else code


def _parses(code: str) -> bool:
    return _tree(code) is not None


def _defines(code: str) -> bool:
    """Whether it defines a function or a class."""
    tree = _tree(code)
    return tree is not None and any(isinstance(node, _DEFINITIONS) for node in tree.body)


def _is_program(code: str) -> bool:
    tree = _tree(code)
    return tree is not None and any(not isinstance(node, ast.Expr) for node in tree.body)


def _tree(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
