"""Regular expressions that are compiled when they are first used: most runs need few of them."""

from __future__ import annotations

import re
from typing import Any, cast

__all__ = ["lazy_regex"]


def lazy_regex(text: str, flags: int = 0) -> re.Pattern[str]:
    """As ``re.compile``, later. What is wrong with the text is said later, too: for our own ones only."""
    return cast("re.Pattern[str]", _Regex(text, flags))


class _Regex:
    """What is asked of it is asked of the compiled pattern, and kept."""

    def __init__(self, text: str, flags: int) -> None:
        self.pattern, self.flags = text, flags

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of protocols such as pickle's
            raise AttributeError(name)
        found = getattr(re.compile(self.pattern, self.flags), name)
        setattr(self, name, found)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _Regex, (self.pattern, self.flags)
