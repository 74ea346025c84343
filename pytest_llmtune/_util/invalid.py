"""How a wrong value of a suite is reported: what it is, where in the declaration it stands, and what would be right."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["InvalidError", "listed", "meant", "shown"]


class InvalidError(SuiteError):
    """One value of a suite is wrong; ``path`` leads to it from the top of the declaration: ``("model", 1, "stop")``."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path

    def inside(self, *path: str | int) -> InvalidError:
        """The same problem, seen from further out."""
        return InvalidError(str(self), *path, *self.path)

    @property
    def spot(self) -> str:
        """The path for people: ``model[1].stop``."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return text.removeprefix(".")


def shown(value: object, width: int = 80) -> str:
    """A value for a message: its repr on one line, cut to ``width``."""
    text = repr(value)
    if not isinstance(value, str):  # a foreign repr may hold anything
        text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def listed(names: Iterable[object], most: int = 12) -> str:
    """Names for a message: ``'a', 'b' and 3 more``."""
    every = [shown(name, 40) for name in names]
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest if every else "none"


def meant(word: object, valid: Iterable[str], cutoff: float = 0.6) -> str:
    """`` (did you mean 'x'?)`` where one of the valid words is close, else nothing."""
    words = list(valid)
    swapped = [
        name for name in words if name != word and sorted(name) == sorted(str(word))
    ]  # two letters in each other's place
    close = swapped or difflib.get_close_matches(str(word), words, n=1, cutoff=cutoff)
    return f" (did you mean {close[0]!r}?)" if close else ""
