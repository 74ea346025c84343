"""Regular expressions compiled on first use: most runs need few of them."""

from __future__ import annotations

import re
from typing import Any, cast


def lazy_regex(text: str, flags: int = 0) -> re.Pattern[str]:
    """Like ``re.compile``, on first use; as errors are raised late too, only for our own patterns."""
    return cast("re.Pattern[str]", _Regex(text, flags))


class _Regex:
    """Delegates to the compiled pattern, and caches attributes."""

    def __init__(self, text: str, flags: int) -> None:
        self.pattern, self.flags = text, flags

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # protocols such as pickle
            raise AttributeError(name)
        found = getattr(re.compile(self.pattern, self.flags), name)
        setattr(self, name, found)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _Regex, (self.pattern, self.flags)
