"""One request and its response as a line of a recording: a vcrpy interaction with a few facts beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_llmtune._util.jsonhash import canonical_json, safe_json
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.types import Exchange
from pytest_llmtune.wire.response import facts_of, parse_object
from pytest_llmtune.wire.undercount import annotated, counts_one

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEPT_HEADERS", "Interaction", "MalformedError", "canonical_body", "path_of"]


KEPT_HEADERS = frozenset({"content-type", "location"})
"""The only headers of requests and responses that a recording keeps; lower case."""

_ALWAYS = frozenset({"choices", "content", "finish_reason"})
_JSON = {"content-type": "application/json"}


class MalformedError(ValueError):
    """Data that is no interaction; the caller knows which file and line to name."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """One HTTP exchange whose bodies are text."""

    method: str
    uri: str
    body: str
    """The request's body; canonical in what we record, and as it is in what another tool recorded."""
    status: int
    text: str
    """The response's body, decoded."""
    reason: str = ""
    request_headers: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    latency: float = 0.0
    """Seconds, rounded to milliseconds in the file."""
    answers: int = 0
    """Choices in the response as the file's facts say; 0 where it has none."""

    @property
    def path(self) -> str:
        """The path of the URL."""
        return path_of(self.uri)

    @classmethod
    def of(cls, exchange: Exchange) -> Interaction:
        """The line for an exchange of a suite's; what says nothing in its response (null, empty, 0) is left out."""
        if counts_one(exchange):
            exchange = annotated(exchange, True)
        return cls(
            method=exchange.method.upper(),
            uri=exchange.uri,
            body=canonical_json(exchange.request),
            status=exchange.status,
            text=safe_json(_telling(exchange.response)),
            reason="OK" if exchange.status == 200 else "",
            request_headers=_JSON,  # stock vcrpy compares JSON as JSON where the request is said to be
            headers=_kept(exchange.headers) or _JSON,
            latency=exchange.latency,
        )

    def exchange(self) -> Exchange:
        """The exchange that this line records.

        Raises:
            MalformedError: a body is no JSON object.
        """
        request, response = parse_object(self.body), parse_object(self.text)
        if request is None or response is None:
            raise MalformedError(f"the {'request' if request is None else 'response'} body is no JSON object")
        return Exchange(
            self.method, self.uri, request, response, status=self.status, latency=self.latency, headers=self.headers
        )

    def to_plain(self) -> dict[str, Any]:
        """The interaction as stock vcrpy reads it."""
        return {
            "request": {
                "method": self.method,
                "uri": self.uri,
                "body": self.body or None,
                "headers": _listed(self.request_headers),
            },
            "response": {
                "status": {"code": self.status, "message": self.reason},
                "headers": _listed(self.headers),
                "body": {"string": self.text},
            },
        }

    def line(self) -> str:
        """The interaction and the facts that its response does not say itself, as one line of JSON.

        Usage, the model as served and finish reasons are facts of a chat completion's own; those of an event stream
        are gathered from its events.
        """
        choices = (parse_object(self.text) or {}).get("choices")
        known = {"answers": len(choices)} if isinstance(choices, list) else facts_of(self.text).to_plain()
        return safe_json(self.to_plain() | {"llmtune": known | {"latency": round(self.latency, 3)}})

    @classmethod
    def from_plain(cls, data: Any) -> Interaction:
        """Read one interaction, also one that stock vcrpy wrote.

        Raises:
            MalformedError: it has another shape; the message says what is missing.
        """
        request, response = _mapping(data, "request"), _mapping(data, "response")
        status, body = _mapping(response, "status"), _mapping(response, "body")
        facts = data.get("llmtune") if isinstance(data.get("llmtune"), dict) else {}
        latency, answers = facts.get("latency"), facts.get("answers")
        return cls(
            method=_text(request, "method"),
            uri=_uri(request),
            body=_text(request, "body", default=""),
            status=_code(status),
            text=_text(body, "string", default=""),
            reason=_text(status, "message", default=""),
            request_headers=_unlisted(request.get("headers")),
            headers=_unlisted(response.get("headers")),
            latency=float(latency) if isinstance(latency, (int, float)) else 0.0,
            answers=answers if isinstance(answers, int) and answers > 0 else 0,
        )


def _telling(data: Any, place: str = "") -> Any:
    """A chat completion without fields that are null or empty, and without kinds of tokens of which there are none.

    With n answers these are most of a short completion. Clients read a missing field as they read null.
    """
    if isinstance(data, list):
        return [_telling(item, place) for item in data]
    if not isinstance(data, dict):
        return data
    nothing: tuple[Any, ...] = (None, [], {}, 0) if place.endswith("_tokens_details") else (None, [], {})
    kept = {name: _telling(value, name) for name, value in data.items()}
    return {name: value for name, value in kept.items() if name in _ALWAYS or value not in nothing}


def canonical_body(text: str) -> str:
    """The canonical spelling of a JSON object's text; any other text as it is."""
    data = parse_object(text)
    try:
        return text if data is None else canonical_json(data)
    except SuiteError:  # 1e999 is JSON and no number
        return text


@lru_cache(maxsize=256)
def path_of(uri: str) -> str:
    """The path of a URL; ``/`` where it has none."""
    return urlsplit(uri).path or "/"


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if name.lower() in KEPT_HEADERS}


def _listed(headers: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: [value] for name, value in headers.items()}


def _unlisted(headers: Any) -> dict[str, str]:
    if not isinstance(headers, dict):
        return {}
    flat = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in headers.items()
    }
    return _kept(flat)


def _mapping(data: Any, name: str) -> dict[str, Any]:
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, dict):
        raise MalformedError(f"the interaction has no {name!r}")
    return value


def _text(data: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = data.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise MalformedError(f"{name!r} of the interaction is {value!r:.60}, not text")
    return value


def _uri(request: Mapping[str, Any]) -> str:
    uri = _text(request, "uri")
    try:
        urlsplit(uri).port  # noqa: B018  # it is checked when it is asked for
    except ValueError as error:
        raise MalformedError(f"'uri' of the interaction is {uri!r:.60}: {error}") from None
    return uri


def _code(status: Mapping[str, Any]) -> int:
    code = status.get("code")
    if not isinstance(code, int) or not 100 <= code <= 599:
        raise MalformedError(f"the interaction's status code is {code!r:.60}, not 100..599")
    return code
