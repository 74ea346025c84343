"""Nothing secret reaches a file: what is removed from an interaction, and the last look before writing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_plus, urlsplit, urlunsplit

from pytest_llmtune.completions import event_stream
from pytest_llmtune.completions.facts import parse_object
from pytest_llmtune.completions.interaction import KEPT_HEADERS, Interaction
from pytest_llmtune.completions.request import safe_json
from pytest_llmtune.errors import RecordingError, SuiteError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PLACEHOLDER", "Redactor", "secrets_of"]

PLACEHOLDER = "[REDACTED]"
_SHORTEST = 8  # a shorter value would be found in innocent text

_VARIABLE = re.compile(r"(?:key|token|secret|passw(?:or)?d|passphrase|credential|_pat)s?(?:_|$)", re.IGNORECASE)
_NO_SECRET = re.compile(r"_(?:file|path|dir)$", re.IGNORECASE)
_IDENTITIES = ("OPENAI_ORG_ID", "OPENAI_ORGANIZATION", "OPENAI_PROJECT_ID")

_PARAMETER = re.compile(
    r"(?:^|[-_.])(?:api-?key|key|access|token|secret|passw(?:or)?d|pwd|signature|sig|credential|auth|authorization|code|jwt|session)$",
    re.IGNORECASE,
)
_FIELD = re.compile(
    r"(?:x-)?api[-_]?key|(?:proxy-)?authorization|passw(?:or)?d|(?:client_)?secret|(?:access|refresh|id|session)_token|"
    r"private_key|(?:set-)?cookie|openai-(?:organization|project)",
    re.IGNORECASE,
)

# (a text that every match holds, the pattern): the forms in which well-known services give out their keys
_KNOWN = tuple(
    (hint, re.compile(r"(?<![A-Za-z0-9])" + pattern))
    for hint, pattern in (
        ("sk-", r"sk-[A-Za-z0-9_-]{20,}"),
        ("Bearer ", r"Bearer [A-Za-z0-9._~+/=-]{16,}"),
        ("org-", r"org-[A-Za-z0-9]{16,}"),
        ("proj_", r"proj_[A-Za-z0-9]{16,}"),
        ("AIza", r"AIza[A-Za-z0-9_-]{30,}"),
        ("AKIA", r"AKIA[A-Z0-9]{16}"),
        ("ghp_", r"ghp_[A-Za-z0-9]{30,}"),
        ("github_pat_", r"github_pat_[A-Za-z0-9_]{30,}"),
        ("hf_", r"hf_[A-Za-z0-9]{30,}"),
        ("xox", r"xox[abprs]-[A-Za-z0-9-]{10,}"),
        ("eyJ", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
        ("PRIVATE KEY-----", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"),
    )
)


def secrets_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that look like they hold a key, a token, a password, or an organisation's id."""
    return {
        name: value.strip()
        for name, value in environ.items()
        if (name in _IDENTITIES or (_VARIABLE.search(name) and not _NO_SECRET.search(name)))
        and len(value.strip()) >= _SHORTEST
    }


@dataclass(frozen=True, slots=True)
class Redactor:
    """Removes secrets from interactions; the same rules serve recording and looking up."""

    forms: tuple[tuple[str, str], ...]
    """(what to call it in a message, one spelling of the text that must not be kept)."""
    patterns: tuple[re.Pattern[str], ...] = ()
    """The user's own; they are looked for in every text, one at a time."""
    hooks: tuple[Callable[[str], str], ...] = ()
    """Functions from text to text that the user supplies, applied last."""

    @classmethod
    def from_environment(
        cls,
        patterns: Iterable[str] = (),
        hooks: Iterable[Callable[[str], str]] = (),
        secrets: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Redactor:
        """The redactor for a run.

        Args:
            patterns: regular expressions whose matches are removed.
            hooks: functions from text to text, applied to every URL, header value and text of a body.
            secrets: more texts to remove, by what to call them.
            environ: instead of the process's environment.

        Raises:
            SuiteError: a pattern is no regular expression, or matches the empty text.
        """
        found = secrets_of(os.environ if environ is None else environ) | dict(secrets or {})
        forms = tuple((name, form) for name, value in found.items() for form in _spellings(value))
        return cls(forms, tuple(map(_pattern, patterns)), tuple(hooks))

    def clean(self, interaction: Interaction) -> Interaction:
        """The interaction without anything secret, and with allow-listed headers only."""
        return replace(
            interaction,
            uri=self.clean_uri(interaction.uri),
            body=self.clean_body(interaction.body, interaction.request_headers.get("content-type", "")),
            text=self.clean_body(interaction.text, interaction.headers.get("content-type", "")),
            reason=self.clean_text(interaction.reason),
            request_headers=self._headers(interaction.request_headers),
            headers=self._headers(interaction.headers),
        )

    def clean_text(self, text: str) -> str:
        """The text with every secret replaced by ``[REDACTED]``."""
        for start, end in reversed(self._spans(text)):
            text = text[:start] + PLACEHOLDER + text[end:]
        for hook in self.hooks:
            text = hook(text)
        return text

    def clean_uri(self, uri: str) -> str:
        """The URL without user and password, and without the values of key-like parameters."""
        parts = urlsplit(uri)
        host = parts.netloc.rpartition("@")[2]
        return self.clean_text(urlunsplit((parts.scheme, host, parts.path, _clean_query(parts.query), "")))

    def clean_body(self, text: str, content_type: str = "") -> str:
        """A request's or response's body: JSON, an event stream, a form, or plain text."""
        if not self._may_touch(text, content_type):
            return text
        if (data := parse_object(text)) is not None:
            clean = self.clean_json(data)
            return text if clean == data else safe_json(clean)
        if "event-stream" in content_type or event_stream.is_stream(text):
            return event_stream.rewrite(
                text, self.clean_json, lambda documents: event_stream.clean_pieces(documents, self._spans, PLACEHOLDER)
            )
        return self.clean_text(_clean_query(text) if "urlencoded" in content_type else text)

    def clean_json(self, data: Any) -> Any:
        """JSON data without secrets in texts and names, and without the values of fields such as ``api_key``."""
        if isinstance(data, str):
            return self.clean_text(data)
        if isinstance(data, Mapping):
            return {self.clean_text(name): self._field(name, value) for name, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [self.clean_json(item) for item in data]
        return data

    def scan(self, text: str, path: Path) -> None:
        """The last look at a whole text before it is written to ``path``.

        Raises:
            RecordingError: a secret is left; the message names it without saying it.
        """
        for name, form in self.forms:
            if form in text:
                raise RecordingError(f"{path} was not written: the value of {name} is still in it; {_ADVICE}")
        for hint, pattern in _KNOWN:
            if hint in text and pattern.search(text):
                raise RecordingError(f"{path} was not written: a text like a key ({hint}...) is still in it; {_ADVICE}")

    def _may_touch(self, text: str, content_type: str) -> bool:
        """Whether a whole body is worth taking apart; most hold nothing secret, and this look is cheap."""
        if self.patterns or self.hooks or not content_type.startswith("application/json"):
            return True
        hints = any(hint in text for hint, _ in _KNOWN) or any(form in text for _, form in self.forms)
        return hints or _FIELD.search(text) is not None

    def _field(self, name: str, value: Any) -> Any:
        secret = isinstance(value, str) and value and _FIELD.fullmatch(name)
        return PLACEHOLDER if secret else self.clean_json(value)

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        kept = {name.lower(): value for name, value in headers.items() if name.lower() in KEPT_HEADERS}
        clean = {name: self.clean_text(value) for name, value in kept.items() if name != "location"}
        return clean | ({"location": self.clean_uri(kept["location"])} if "location" in kept else {})

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where secrets stand in a text: (start, end), in order, without overlap."""
        found = [span for _, form in self.forms if form in text for span in _places(form, text)]
        found += [match.span() for hint, pattern in _KNOWN if hint in text for match in pattern.finditer(text)]
        found += [match.span() for pattern in self.patterns for match in pattern.finditer(text) if match[0]]
        return _merged(found)


_ADVICE = "name it in the ini key llmtune_redact as a regular expression, and record again"


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise SuiteError(f"llmtune_redact: {text!r} is no regular expression: {error}") from None
    if pattern.search("") is not None:
        raise SuiteError(f"llmtune_redact: {text!r} matches the empty text; it must match what is secret only")
    return pattern


def _spellings(value: str) -> Iterable[str]:
    """As it is, inside JSON, inside JSON inside JSON, inside a URL."""
    once = json.dumps(value, ensure_ascii=False)[1:-1]
    twice = json.dumps(once, ensure_ascii=False)[1:-1]
    return dict.fromkeys((value, once, twice, quote(value, safe="")))


def _places(form: str, text: str) -> Iterable[tuple[int, int]]:
    start = text.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = text.find(form, start + len(form))


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _clean_query(query: str) -> str:
    return "&".join(map(_clean_pair, query.split("&"))) if "=" in query else query


def _clean_pair(pair: str) -> str:
    name, separator, value = pair.partition("=")
    if value and _PARAMETER.search(unquote_plus(name)):
        value = "REDACTED"
    return name + separator + value
