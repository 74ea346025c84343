"""An API key that shows itself to nobody: not in a repr, a message, a log or the locals of a traceback."""

from __future__ import annotations

import hmac
from typing import NoReturn

__all__ = ["Secret"]


class Secret:
    """A key and where it came from, which is all that is ever shown."""

    __slots__ = ("_value", "origin")

    def __init__(self, value: str, origin: str) -> None:
        self._value = value
        self.origin = origin
        """What people know it by: ``OPENAI_API_KEY``, ``key_openai.txt line 2``."""

    def reveal(self) -> str:
        """The key itself, for the one call that sends it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.origin})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self.origin))

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"the key from {self.origin} is not written to any file or process")
