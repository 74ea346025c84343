"""API keys: where they come from, and a type that never shows them."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from pytest_llmtune._util.files import open_regular
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["KeySources", "Secret", "lines_of", "secret", "shown"]


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


_LIKE_A_KEY = re.compile(r"\b(?:sk|gsk|xai|pplx|key)[-_]\w|(?=\S*\d)(?=\S*[a-z])[A-Za-z0-9+/=_-]{24,}")
_FILE_NAME = re.compile(r"\.(?:ya?ml|json|txt|env)$")
_MAX_BYTES = 100_000
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_KEY_NAME = re.compile(r"[A-Z0-9_]*(?:API_?KEY|OPENAI|LLM)[A-Z0-9_]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KeySources:
    """Looks up keys; a variable of the environment wins over the same one in ``.env``."""

    root: Path
    environ: Mapping[str, str] = field(repr=False)
    dotenv: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, root: Path, environ: Mapping[str, str]) -> KeySources:
        """Read ``.env`` in the project's directory, if there is one; the process's environment is not changed."""
        file = root / ".env"
        return cls(root, environ, _dotenv(_text(file)) if file.is_file() else {})

    def value(self, name: str) -> str | None:
        """The value of a variable that is no secret; None where it is unset or empty."""
        return self.environ.get(name) or self.dotenv.get(name) or None

    def only_in_dotenv(self, name: str) -> bool:
        """Whether the value is the one of ``.env``, which may have come with a checkout."""
        return not self.environ.get(name) and bool(self.dotenv.get(name))

    def from_variable(self, name: str, where: str) -> tuple[Secret, ...]:
        """The keys in a variable, several one a line or separated by commas.

        Only variables that are meant for such keys: a suite file from a stranger must not be able to send the value of
        any other variable to an address of its choice.

        Raises:
            SuiteError: the variable is unset, or not named like one that holds an API key.
        """
        if not _KEY_NAME.fullmatch(name):
            raise SuiteError(f"{where}: api_key_env is {shown(name)}; valid: a name with API_KEY in it")
        keys = self.keys_in(name)
        if not keys:
            raise SuiteError(f"{where}: the environment variable {name} holds no key; set it, or put it into .env")
        return keys

    def keys_in(self, name: str) -> tuple[Secret, ...]:
        """As ``from_variable``; empty where it is unset."""
        found = re.split(r"[\s,]+", (self.value(name) or "").strip())
        return _named([key for key in found if key], name, "key")

    def from_file(self, path: str, where: str) -> tuple[Secret, ...]:
        """The keys in a file of the project, one a line; empty lines and lines that begin with # do not count.

        Raises:
            SuiteError: the file is missing, empty or outside the project.
        """
        file = (self.root / path).resolve()
        if not file.is_relative_to(self.root.resolve()):
            raise SuiteError(f"{where}: the key file {shown(path)} is outside the project {self.root}")
        if not file.is_file():
            raise SuiteError(f"{where}: there is no key file {shown(path)} in {self.root}")
        keys = _named(lines_of(file), file.name, "line")
        if not keys:
            raise SuiteError(f"{where}: the key file {file} holds no key; valid: one key a line")
        return keys


def secret(value: str, origin: str, where: str) -> Secret:
    """One key, as a header can carry it.

    Raises:
        SuiteError: it holds a character that none can; the key is not in the message.
    """
    key = value.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SuiteError(f"{where}: the key from {origin} is empty, or holds a character that no API key has")
    return Secret(key, origin)


def shown(text: str) -> str:
    """A text for a message, unless it looks like a key that was put into the wrong place."""
    if not _FILE_NAME.search(text) and _LIKE_A_KEY.search(text):
        return "a text like a key"
    return f"{text!r:.100}"


def lines_of(file: Path) -> list[str]:
    """The lines of a small text file, without empty ones and comments.

    Raises:
        SuiteError: it is too large or no text.
    """
    lines = (line.strip() for line in _text(file).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _named(keys: list[str], origin: str, place: str) -> tuple[Secret, ...]:
    several = len(keys) > 1
    return tuple(
        secret(key, f"{origin} {place} {number}" if several else origin, "endpoints")
        for number, key in enumerate(keys, 1)
    )


def _text(file: Path) -> str:
    try:
        with open_regular(file) as stream:
            content = stream.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise SuiteError(f"{file} is larger than {_MAX_BYTES} bytes")
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{file} cannot be read: {type(error).__name__}") from None


def _dotenv(text: str) -> dict[str, str]:
    """``NAME=value`` lines, with or without ``export`` and quotes; others do not count."""
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            value = match[2]
            if value[:1] in ("'", '"') and (end := value.find(value[0], 1)) > 0:
                value = value[1:end]
            else:
                value = re.split(r"\s#", value)[0].strip()
            found[match[1]] = value
    return found
