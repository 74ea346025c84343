"""Untrusted text made harmless: what a model says may reach a terminal, a log of a CI system or a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cell_cut", "cell_pad", "clean", "columns", "one_line"]


# C0 and C1 controls, DEL, marks that turn the reading direction, invisible tags, line separators, lone surrogates
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
# commands that CI systems obey anywhere in a line of a log: ##[error], ##vso[...], ##teamcity[...]
_CI_COMMAND = re.compile(r"##(?=[a-z]*\[)")


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clean(text: str) -> str:
    """Text with nothing left that a terminal or a CI system obeys; tabs and line feeds stay."""
    return _CI_COMMAND.sub(r"#\\#", _HARMFUL.sub(_escaped, text))


def one_line(text: str, limit: int = 1_000) -> str:
    """The beginning of ``text``, at most ``limit`` characters, cleaned, white space as single blanks.

    It may stand at the start of a line: GitHub obeys lines that start with two colons.
    """
    line = clean(" ".join(text[: 2 * limit].split()))[:limit]
    return f"\\{line}" if line.startswith("::") else line


def cell_cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` terminal cells (a Chinese character has two); ``...`` stands for what was cut."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 3)).rstrip() + "..."[: max(0, width)]


def cell_pad(text: str, width: int, *, right: bool = False) -> str:
    """``text`` filled with blanks to ``width`` terminal cells."""
    from rich.cells import cell_len

    blanks = " " * max(0, width - cell_len(text))
    return blanks + text if right else text + blanks


def columns(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Rows as aligned lines: the first column to the left and cut so that lines fit ``width``, figures to the right.

    The last column is taken as words, and stands as it is.
    """
    from rich.cells import cell_len

    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rest = sum(widths[1:]) + 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(12, width - rest))
    return [
        "  ".join(
            [
                cell_pad(cell_cut(row[0], widths[0]), widths[0]),
                *(cell_pad(text, size, right=True) for text, size in zip(row[1:-1], widths[1:-1], strict=True)),
                row[-1],
            ]
        )
        for row in rows
    ]
