"""Match a request of an app to a recorded interaction."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.recording.format import Interaction, canonical, canonical_body, path_of
from pytest_llmtune.redaction.patterns import HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Key: TypeAlias = tuple[object, ...]
DEFAULT = ("method", "path", "body")
_BOUNDARY = lazy_regex(r'boundary="?([^";]+)')


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request made by any client."""

    method: str
    uri: str
    body: str = ""
    """Canonical if it is JSON."""
    content_type: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Keys and cookies of its headers, by the header's name: a server may echo them."""
    data: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    """The parsed body; None if it is not a JSON object, or not parsed."""
    route: str = field(default="", compare=False)
    """Of our own client: the URL's path behind the client's base, which any endpoint may serve."""

    @classmethod
    def of(cls, method: str, uri: str, body: bytes | str, headers: Iterable[tuple[str, str]] = ()) -> ClientRequest:
        """The request as sent, without the boundary of a multipart form."""
        fields = [(name.lower(), value) for name, value in headers]
        content_type = dict(fields).get("content-type", "")
        found = [(name, secret) for name, value in fields if _is_secret(name) for secret in _secrets(name, value)]
        secrets = {f"{name} ({number})": secret for number, (name, secret) in enumerate(found, 1)}
        raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
        if boundary := _BOUNDARY.search(content_type):
            raw = raw.replace(boundary[1].encode(), b"boundary")
            content_type = content_type.replace(boundary[1], "boundary")
        text, data = canonical(_text(raw))
        return cls(method.upper(), uri, text, content_type, secrets, data)


@lru_cache(maxsize=256)
def _is_secret(header: str) -> bool:
    return HEADERS.search(header) is not None


def _secrets(header: str, value: str) -> Iterator[str]:
    """The secrets of a header: each cookie's value, a key behind its scheme, the password of a login."""
    if "cookie" in header:
        yield from (cookie.partition("=")[2].strip(' "') for cookie in value.split(";"))
        return
    scheme, _, key = value.rpartition(" ")
    yield key
    if scheme.lower() == "basic":
        with suppress(ValueError):
            yield base64.b64decode(key).decode().partition(":")[2]


def _text(data: bytes) -> str:
    """The body as text; if binary, its size and hash."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"{len(data)} bytes with SHA-256 {hashlib.sha256(data).hexdigest()}"


def _query(item: ClientRequest | Interaction) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(parse_qsl(urlsplit(item.uri).query, keep_blank_values=True)))


def _body(item: ClientRequest | Interaction) -> object:
    """The body; what a request without one asks is in its query."""
    return (canonical_body(item.body) if isinstance(item, Interaction) else item.body) or _query(item)


_PARTS: dict[str, Callable[[ClientRequest | Interaction], object]] = {
    "method": lambda item: item.method,
    "path": lambda item: path_of(item.uri),
    "body": _body,
    "uri": lambda item: item.uri,
    "scheme": lambda item: urlsplit(item.uri).scheme,
    "host": lambda item: urlsplit(item.uri).hostname,
    "port": lambda item: urlsplit(item.uri).port,
    "query": _query,
}


@dataclass(frozen=True, slots=True)
class Matching:
    """Which parts of a request are compared; requests with equal keys match."""

    parts: tuple[str, ...] = DEFAULT

    @classmethod
    def on(cls, match_on: Iterable[str] | None) -> Matching:
        """Read a marker's ``match_on``.

        Raises:
            SuiteError: an unknown name, or no names.
        """
        if match_on is None:
            return cls()
        names = (match_on,) if isinstance(match_on, str) else tuple(match_on)
        unknown = [name for name in names if name not in _PARTS]
        if unknown or not names:
            raise SuiteError(f"llm_replay: match_on has {unknown or 'no name'}; valid: {', '.join(_PARTS)}")
        return cls(names)

    def key(self, item: ClientRequest | Interaction) -> Key:
        """The compared parts of a request."""
        return tuple(_PARTS[name](item) for name in self.parts)
