"""Classify failed requests: retry, or give up on the request, the key or the endpoint."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, TypeAlias

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.wire.response import fault_of, parse_object

Hide: TypeAlias = Callable[[str], str]


class Kind(StrEnum):
    """Kinds of failure, as named in the run's summary."""

    RATE_LIMIT = "rate limit (429)"
    SERVER = "server error"
    TIMEOUT = "timeout"
    CONNECT = "no connection"
    BROKEN = "broken response"
    EMPTY = "response without choices"
    NO_N = "n refused"
    FILTERED = "content filter"
    BAD_REQUEST = "bad request"
    NO_MODEL = "no such model"
    BAD_KEY = "key refused"
    NO_QUOTA = "no quota left"
    MOVED = "redirected elsewhere"
    CLOSED = "closed"
    """Not sent: the endpoint was closed while the request waited."""

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self in (Kind.RATE_LIMIT, Kind.SERVER, Kind.TIMEOUT, Kind.CONNECT, Kind.BROKEN, Kind.EMPTY)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request."""

    kind: Kind
    message: str
    """The server's or client's message, shortened and without keys."""
    uncertain: bool = False
    """Whether the provider may have billed it."""
    retry_after: float | None = None
    """Seconds to wait, as requested by the server."""
    body: Mapping[str, Any] | None = None
    """The server's error document."""
    odd: bool = False
    """Whether it may be this one request's own: a firewall's or a proxy's page, a 403 or 404 of any kind, a quota."""


_UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"})
_NO_MODEL_CODES = ("model_not_found", "DeploymentNotFound")
_MAYBE_BILLED = frozenset({408, 409, 502, 504, 524})
_KEY = lazy_regex(r"\b(?:sk|key|gsk|xai|pplx)-[\w*.-]{4,}|\b[A-Za-z0-9_-]{40,}\b")
_MODEL = lazy_regex(
    r"\b(?:model|deployment)\b[^.:;]{0,120}\b(?:not (?:exist|found|supported|available)|unknown|invalid)\b|"
    r"\b(?:not found|unknown|invalid|no such|unsupported)(?: [a-z]+){0,2}:? (?:model|deployment)\b",
    re.IGNORECASE,
)
_ABOUT_N = lazy_regex(r"\bn\b|completion choice|number of (?:choices|completions)|multiple (?:choices|completions)")
_AT_MOST = r"<=|≤|at most|up to|no more than|less than or equal to|maximum(?: value)?(?: of| is|:)?"
_LIMITS = tuple(
    lazy_regex(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:{_AT_MOST})\s*(\d+)",
        r"between\s+1\s+and\s+(\d+)",
        r"n['`\"]?\s*(?:must be|=|==|should be)\s*(\d+)",
        r"\[1,\s*(\d+)\]",
    )
)


def failure_of(error: Exception, hide: Hide = str) -> Failure:
    """Classify an exception of the openai client; ``hide`` removes keys from the server's message."""
    import openai

    if isinstance(error, openai.APIStatusError):
        document = parse_object(error.response.text)
        body = error.body if isinstance(error.body, Mapping) else document or {}
        found = _status(error.status_code, body, error.response.headers, _message(body, error.message, hide))
        return replace(found, odd=found.odd or document is None)
    if isinstance(error, (openai.APITimeoutError, TimeoutError)):
        unsent = type(error.__cause__).__name__ in _UNSENT
        return Failure(Kind.TIMEOUT, f"no {'connection' if unsent else 'answer'} in time", uncertain=not unsent)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        if (own := _own_failure(cause, hide)) is not None:  # wrapped by openai 3.0
            return own
        if type(cause).__name__ in _UNSENT:
            return Failure(Kind.CONNECT, _clean(f"{cause}", hide) or "connection refused")
        return Failure(Kind.BROKEN, _clean(f"{type(cause).__name__}: {cause}", hide), uncertain=True)
    return _own_failure(error, hide) or Failure(Kind.BAD_REQUEST, _clean(f"{type(error).__name__}: {error}", hide))


def _own_failure(error: BaseException | None, hide: Hide) -> Failure | None:
    """Classify an exception of our own HTTP client."""
    from pytest_llmtune.completions.http_client import ElsewhereError, TooLargeError

    if isinstance(error, ElsewhereError):
        return Failure(Kind.MOVED, _clean(f"{error}", hide))
    return Failure(Kind.BROKEN, f"{error}", uncertain=True) if isinstance(error, TooLargeError) else None


def failure_in(response: Mapping[str, Any], hide: Hide = str) -> Failure | None:
    """The error that a response with status 200 reports: instead of its choices, next to them, or inside one.

    An interrupted answer is a failure, however much of it arrived; it may be billed.
    """
    choices = response.get("choices")
    answers = [choice for choice in choices if isinstance(choice, Mapping)] if isinstance(choices, list) else []
    for error in (response.get("error"), *(choice.get("error") for choice in answers)):
        if error:
            body = error if isinstance(error, Mapping) else {"message": str(error)}
            code = body.get("code")
            status = code if isinstance(code, int) and 400 <= code <= 599 else 500
            failure = _status(status, body, {}, _message(body, "the answer is an error", hide))
            return replace(failure, uncertain=failure.uncertain or bool(answers))
    if fault := next(filter(None, map(fault_of, answers)), ""):
        return Failure(Kind.SERVER, f"a fault of the provider's in a response of status 200: {fault}", uncertain=True)
    return None


def _status(status: int, body: Mapping[str, Any], headers: Mapping[str, str], message: str) -> Failure:
    kind = kind_of(status, body, message)
    about = body.get("param")
    named = f" (parameter {about[:60]})" if isinstance(about, str) and about and about not in message else ""
    return Failure(
        kind,
        f"HTTP {status}: {message}{named}",
        uncertain=status in _MAYBE_BILLED,
        retry_after=_retry_after(headers) if kind.passing else None,
        body=body if kind is Kind.FILTERED else None,
        odd=kind is Kind.NO_QUOTA or status == 403 or (status == 404 and body.get("code") not in _NO_MODEL_CODES),
    )


def kind_of(status: int, body: Mapping[str, Any], message: str) -> Kind:
    """Classify an error by its status, the server's error object and its message."""
    code = str(body.get("code") or "")
    rules = (
        (Kind.NO_MODEL, code in _NO_MODEL_CODES),
        (Kind.NO_QUOTA, status == 402 or code in ("insufficient_quota", "billing_hard_limit_reached")),
        (Kind.RATE_LIMIT, status == 429),
        (Kind.SERVER, status in (408, 409) or status >= 500),
        (Kind.BAD_KEY, status in (401, 403)),
        (Kind.MOVED, status < 400),
        (Kind.FILTERED, code == "content_filter" or "content management policy" in message),
        (Kind.NO_MODEL, status in (404, 405) or (body.get("param") in (None, "model") and _MODEL.search(message))),
        (Kind.NO_N, body.get("param") == "n" or _ABOUT_N.search(message)),
    )
    return next((kind for kind, holds in rules if holds), Kind.BAD_REQUEST)


def n_limit(message: str, refused: int) -> int:
    """The largest n that a server accepts, from its refusal of ``refused`` (2 or more), else half of that."""
    for pattern in _LIMITS:
        found = [int(number) for number in pattern.findall(message)]
        if fitting := [number for number in found if 1 <= number < refused]:
            return max(fitting)
    if re.search(r"\b(?:only|one|single|multiple|not supported|unsupported)\b", message, re.IGNORECASE):
        return 1
    return refused // 2


_REFUSAL = lazy_regex(r"HTTP (?:400|422)\b")
_MOST = lazy_regex(
    rf"(?:{_AT_MOST}|range:?\s*0(?:\.0)?\s*\.\.|between\s+0(?:\.0)?\s+and)\s*(\d+(?:\.\d+)?)", re.IGNORECASE
)


def refused_parameter(message: str, sent: Collection[str]) -> tuple[str, float | None] | None:
    """The parameter that a server refuses, and the maximum that it accepts if the message says so; None: none of them.

    Of two that exclude each other, the later one in the message.

    Args:
        message: of a ``CompletionError``.
    """
    if (refusal := _REFUSAL.search(message)) is None:
        return None
    text = message[refusal.end() :]
    positions = {name: match.start() for name in sent if (match := re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text))}
    if not positions:
        return None
    both = re.search(r"\b(?:both|together|mutually exclusive)\b", text, re.IGNORECASE)
    name = (max if both else min)(positions, key=lambda each: positions[each])
    most = _MOST.search(text)
    return name, None if both or most is None else float(most[1])


def backoff(tries: int, base: float) -> float:
    """Seconds to wait after the ``tries``-th failure, at most 30: exponential backoff with jitter."""
    return float(min(30.0, base * 2 ** min(tries - 1, 20)) * random.uniform(0.5, 1.0))  # noqa: S311


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from ``retry-after-ms`` or ``retry-after`` (seconds or a date); None if neither is readable.

    A date in the past, or zero seconds, is ignored, because clocks differ.
    """
    milliseconds, text = _seconds(headers.get("retry-after-ms") or ""), (headers.get("retry-after") or "").strip()
    if milliseconds is not None:
        return milliseconds / 1000 or None
    if (seconds := _seconds(text)) is not None:
        return seconds or None
    try:
        seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):  # any malformed value
        return None
    return seconds if seconds > 0 else None


def _seconds(text: str) -> float | None:
    """A number from 0; None if the text is not one."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _message(body: Mapping[str, Any], default: str, hide: Hide) -> str:
    """The server's message, from any of the usual fields."""
    for name in ("message", "detail", "error", "error_description", "title", "errors"):
        text = body.get(name)
        if isinstance(text, list) and text:  # FastAPI lists the errors of each field
            text = text[0]
        if isinstance(text, Mapping):
            text = text.get("message") or text.get("msg") or text.get("detail")
        if isinstance(text, str) and text:
            return _clean(text, hide)
    return _clean(default, hide)


def _clean(text: str, hide: Hide) -> str:
    """One short line without keys, because servers repeat a refused key, or parts of it."""
    return _KEY.sub("[key]", " ".join(hide(text).split()))[:300]
