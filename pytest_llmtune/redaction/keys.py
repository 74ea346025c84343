"""API keys: where they come from, and a type that never shows them."""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, NoReturn

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.files import read_regular
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Secret:
    """An API key and its origin; only the origin is ever displayed."""

    __slots__ = ("_value", "origin")

    def __init__(self, value: str, origin: str) -> None:
        self._value = value
        self.origin = origin
        """Where the key is from: ``OPENAI_API_KEY``, ``key_openai.txt line 2``."""

    def reveal(self) -> str:
        """The key itself, for the call that sends it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.origin})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self.origin))

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"the key from {self.origin} cannot be pickled")


_LIKE_A_KEY = lazy_regex(r"\b(?:sk|gsk|xai|pplx|key)[-_]\w|(?=\S*\d)(?=\S*[a-z])[A-Za-z0-9+/=_-]{24,}")
_FILE_NAME = lazy_regex(r"\.(?:ya?ml|json|txt|env)$")
_MAX_BYTES = 100_000
_LINE = lazy_regex(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_KEY_NAME = lazy_regex(r"[A-Z0-9_]*(?:API_?KEY|OPENAI|LLM)[A-Z0-9_]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KeySources:
    """Looks up keys; an environment variable overrides the same one in ``.env``."""

    root: Path
    environ: Mapping[str, str] = field(repr=False)
    dotenv: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, root: Path, environ: Mapping[str, str]) -> KeySources:
        """Read ``.env`` in the project's directory, if any, without changing the process's environment."""
        file = root / ".env"
        return cls(root, environ, _dotenv(_text(file)) if file.is_file() else {})

    def value(self, name: str) -> str | None:
        """The value of a non-secret variable; None if unset or empty."""
        return self.environ.get(name) or self.dotenv.get(name) or None

    def only_in_dotenv(self, name: str) -> bool:
        """Whether the value is from ``.env``, which may come with a checkout."""
        return not self.environ.get(name) and bool(self.dotenv.get(name))

    def from_variable(self, name: str, where: str) -> tuple[Secret, ...]:
        """The keys in a variable, one per line or separated by commas.

        Only variables with an API key's name: an untrusted suite file must not be able to send the value of any other
        variable to an address of its choice.

        Raises:
            SuiteError: the variable is unset, or not named like an API key.
        """
        if not _KEY_NAME.fullmatch(name):
            raise SuiteError(f"{where}: api_key_env is {shown(name)}; valid: a name with API_KEY in it")
        keys = self.keys_in(name)
        if not keys:
            raise SuiteError(f"{where}: the environment variable {name} has no key; set it, or put it into .env")
        return keys

    def keys_in(self, name: str) -> tuple[Secret, ...]:
        """Like ``from_variable``; empty if unset."""
        found = re.split(r"[\s,]+", (self.value(name) or "").strip())
        return _named([key for key in found if key], name, "key")

    def from_file(self, path: str, where: str) -> tuple[Secret, ...]:
        """The keys in a file of the project, one per line; empty lines and lines that start with # are ignored.

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
            raise SuiteError(f"{where}: the key file {file} has no key; valid: one key per line")
        return keys


def secret(value: str, origin: str, where: str) -> Secret:
    """A key that is valid in an HTTP header.

    Raises:
        SuiteError: it is empty or has an invalid character; the key is not in the message.
    """
    key = value.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SuiteError(f"{where}: the key from {origin} is empty, or has a character that is invalid in an API key")
    return Secret(key, origin)


def shown(text: str) -> str:
    """A value for a message, unless it looks like a misplaced key."""
    if not _FILE_NAME.search(text) and _LIKE_A_KEY.search(text):
        return "a text that looks like a key"
    return f"{text!r:.100}"


def lines_of(file: Path) -> list[str]:
    """The lines of a small text file, without empty lines and comments.

    Raises:
        SuiteError: it is too large or not a text file.
    """
    lines = (line.strip() for line in _text(file).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _named(keys: list[str], origin: str, name: str) -> tuple[Secret, ...]:
    several = len(keys) > 1
    return tuple(
        secret(key, f"{origin} {name} {number}" if several else origin, "endpoints")
        for number, key in enumerate(keys, 1)
    )


def _text(file: Path) -> str:
    try:
        return read_regular(file, _MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise SuiteError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SuiteError(f"{file} cannot be read: it is not UTF-8") from None


def _dotenv(text: str) -> dict[str, str]:
    """``NAME=value`` lines, with or without ``export`` and quotes; others are ignored."""
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
