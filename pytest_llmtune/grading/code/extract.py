"""Find the code in a response."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.grading.math.extract import untagged

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["code_in"]


_FENCE = lazy_regex(
    r"^(?P<indent>[ \t>]*(?:[-*+][ \t]+|\d+[.)][ \t]+)?)(?P<mark>`{3,}+|~{3,}+)[ \t]*\{?\.?(?P<tag>[\w+#-]*)[^\n]*\n"
    r"(?P<body>.*?)(?:^[ \t>]*(?P=mark)|\Z)",
    re.MULTILINE | re.DOTALL,
)
_FUTURE = lazy_regex(r"^from[ \t]+__future__[ \t]+import[^\n]*\n?", re.MULTILINE)


def code_in(response: str) -> str | None:
    """All blocks fenced as Python, else all fenced blocks, else the whole text if it is a program; None: no code.

    Sessions (``>>>``) and outputs are not code; code indented in a list item is dedented.
    """
    response = untagged(response)
    fenced = [(fence["tag"].lower(), _body(fence)) for fence in _FENCE.finditer(response)]
    fenced = [(tag, body) for tag, body in fenced if not body.lstrip().startswith(">>>")]
    blocks = [body for tag, body in fenced if tag in _TAGS]
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
    "text",
    "txt",
    "plaintext",
    "output",
    "console",
    "bash",
    "sh",
    "shell",
    "pycon",
    "json",
    "yaml",
    "markdown",
    "md",
)


def _body(fence: re.Match[str]) -> str:
    """A block's lines without the indentation or quotation marks of its fence."""
    width, lines = len(fence["indent"].expandtabs()), fence["body"].splitlines(keepends=True)
    if ">" in fence["indent"]:
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


def _is_program(code: str) -> bool:
    tree = _tree(code)
    return tree is not None and any(not isinstance(node, ast.Expr) for node in tree.body)


def _tree(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
