"""Remove secrets from texts, headers and JSON."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_plus, urlsplit, urlunsplit

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.jsonhash import safe_json
from pytest_llmtune.errors import RecordingError, SuiteError
from pytest_llmtune.redaction.keys import KeySources
from pytest_llmtune.redaction.patterns import (
    FIELD,
    SHORTEST,
    clean_form,
    form_fields,
    is_secret_name,
    known_forms,
    may_hold_known_forms,
    names_a_secret,
    secrets_of,
    spellings,
)
from pytest_llmtune.wire.body import clean_pieces, is_documents, is_stream, rewrite
from pytest_llmtune.wire.event_stream import is_complete, payloads, rewritten
from pytest_llmtune.wire.response import documents_of, parse_object

if TYPE_CHECKING:
    from pathlib import Path

    from pluggy import HookImpl

    from pytest_llmtune.settings import Settings
    from pytest_llmtune.types import Exchange


PLACEHOLDER = "[REDACTED]"
KEPT_HEADERS = frozenset({"content-type", "location", "x-should-retry"})
"""Lower-case names of the request and response headers that a recording keeps."""
REQUEST_IDS = frozenset(
    {"x-request-id", "request-id", "x-amzn-requestid", "apim-request-id", "x-ms-request-id", "x-trace-id"}
)
"""Headers with a server's request ID, which are kept too."""
RATE_LIMITS = ("x-ratelimit-", "ratelimit-", "anthropic-ratelimit-", "retry-after")
"""Prefixes of headers that are kept too, although their values vary."""
_RECORDED = KEPT_HEADERS | REQUEST_IDS
_IN_URI = "REDACTED"  # brackets would make it an IPv6 address


def recorded_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that a recording keeps, with names in lower case."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in lower.items() if name in _RECORDED or name.startswith(RATE_LIMITS)}


@dataclass(frozen=True, slots=True)
class Redactor:
    """Removes secrets from interactions, with the same rules for recording and lookup."""

    forms: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(name for messages, one spelling of the secret)."""
    patterns: tuple[re.Pattern[str], ...] = ()
    """The user's own patterns, searched in every text, one at a time."""
    hooks: tuple[Callable[[str], str], ...] = ()
    """The user's functions from text to text, applied last."""

    @classmethod
    def from_environment(
        cls,
        patterns: Iterable[str] = (),
        hooks: Iterable[Callable[[str], str]] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Redactor:
        """The redactor for a run.

        Args:
            patterns: regular expressions whose matches are removed.
            hooks: functions from text to text, applied to every URL, header value and text of a body.
            environ: instead of the process's environment.

        Raises:
            SuiteError: a pattern is not a valid regular expression, or matches the empty string.
        """
        rules = cls(patterns=tuple(map(_pattern, patterns)), hooks=tuple(hooks))
        return rules.knowing(secrets_of(os.environ if environ is None else environ))

    def knowing(self, secrets: Mapping[str, str]) -> Redactor:
        """A redactor that also removes these texts, given by name; short ones are ignored."""
        long = {name: value for name, value in secrets.items() if len(value) >= SHORTEST and PLACEHOLDER not in value}
        forms = tuple((name, form) for name, value in long.items() for form in spellings(value))
        return replace(self, forms=self.forms + forms) if forms else self

    def clean_exchange(self, exchange: Exchange) -> Exchange:
        """The exchange with the secrets of its response removed."""
        text = safe_json(exchange.response)
        clean = self.clean_body(text, "application/json")
        return exchange if clean == text else replace(exchange, response=parse_object(clean) or {})

    def clean_request(self, uri: str, body: str, content_type: str = "application/json") -> tuple[str, str]:
        """A request's URL and body without secrets, for lookup."""
        rules = self.knowing(named_secrets(uri, body, content_type))
        return uri and rules.clean_uri(uri), rules.clean_body(body, content_type)

    def clean_text(self, text: str) -> str:
        """The text with every secret replaced by ``[REDACTED]``."""
        for start, end in reversed(self._spans(text)):
            text = text[:start] + PLACEHOLDER + text[end:]
        for hook in self.hooks:
            text = hook(text)
        return text

    def clean_uri(self, uri: str) -> str:
        """The URL without user, password and the values of key-like parameters."""
        parts = urlsplit(uri)
        host = parts.netloc.rpartition("@")[2]
        clean = self.clean_text(urlunsplit((parts.scheme, host, parts.path, _clean_query(parts.query), "")))
        return clean.replace(PLACEHOLDER, _IN_URI)

    def clean_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The allow-listed headers."""
        return {
            name: self.clean_uri(value) if name == "location" else self.clean_text(value)
            for name, value in recorded_headers(headers).items()
        }

    def clean_body(self, text: str, content_type: str = "") -> str:
        """A request's or response's body: JSON, an event stream, a form, or plain text."""
        data = parse_object(text) if self._may_touch(text, content_type) else {}
        if data is not None:
            clean = self.clean_json(data)
            return text if clean == data else safe_json(_without_logprobs(clean))
        if "event-stream" in content_type or is_stream(text) or is_documents(text):
            return rewrite(text, self.clean_json, self._clean_together)
        if "multipart" in content_type:
            text = clean_form(text, PLACEHOLDER)
        return self.clean_text(_clean_query(text) if "urlencoded" in content_type else text)

    def clean_data(self, data: bytes) -> bytes:
        """A binary body: the events of an AWS stream as JSON; in any other, texts are found as bytes, and hooks not called."""
        documents = [] if not data or not is_complete(data) else list(payloads(data))
        if documents:
            clean = [self.clean_json(document) for document in documents]
            self._clean_together(clean)
            return (
                data
                if clean == documents
                else rewritten(data, functools.partial(lambda new, _: next(new), iter(clean)))
            )
        text = data.decode("latin-1")
        clean_text = replace(self, hooks=()).clean_text(text) if data else text
        return data if clean_text == text else clean_text.encode("latin-1")

    def clean_json(self, data: Any) -> Any:
        """JSON data without secrets in strings and keys, and without the values of fields such as ``api_key``."""
        if isinstance(data, str):
            inner = parse_object(data)  # one that is JSON itself, such as a tool's arguments, is cleaned as JSON
            if inner is not None and (clean := self.clean_json(inner)) != inner:
                return json.dumps(clean, ensure_ascii=False)
            return self.clean_text(data)
        if isinstance(data, Mapping):
            return {
                self.clean_text(name): _without_texts(value)
                if value and isinstance(value, (str, list)) and FIELD.fullmatch(name)
                else self.clean_json(value)
                for name, value in data.items()
            }
        if isinstance(data, (list, tuple)):
            return [self.clean_json(item) for item in data]
        return data

    def check(self, line: str, path: Path) -> None:
        """Final check of an interaction's line before it is written to ``path``.

        Raises:
            RecordingError: a secret is left; the message names it without showing it.
        """
        for name, form in self.forms:
            if form in line:
                raise RecordingError(f"{path} was not written: the value of {name} is still in it; {ADVICE}")
        for _, _, hint in known_forms(line):
            raise RecordingError(
                f"{path} was not written: a text that looks like a key ({hint}...) is still in it; {ADVICE}"
            )

    def _clean_together(self, documents: list[Any]) -> None:
        if clean_pieces(documents, self._spans, PLACEHOLDER):
            documents[:] = map(_without_logprobs, documents)

    def _may_touch(self, text: str, content_type: str) -> bool:
        """Quick check whether a body may have secrets; most have none."""
        if self.patterns or self.hooks or "\\u" in text or not content_type.startswith("application/json"):
            return True
        hints = may_hold_known_forms(text) or any(form in text for _, form in self.forms)
        return hints or names_a_secret(text)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Spans of secrets in a text: (start, end), in order, without overlaps or parts of placeholders."""
        found = [span for _, form in self.forms if form in text for span in _spans(form, text)]
        found += [(start, end) for start, end, _ in known_forms(text)]
        found += [match.span() for pattern in self.patterns for match in pattern.finditer(text) if match[0]]
        done = list(_spans(PLACEHOLDER, text)) if found else []
        return _merged([span for span in found if not any(low <= span[0] and span[1] <= high for low, high in done)])


ADVICE = "name it in the ini key llmtune_redact as a regular expression, and record again"


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise SuiteError(f"llmtune_redact: {text!r} is not a valid regular expression: {error}") from None
    if pattern.search("") is not None:
        raise SuiteError(f"llmtune_redact: {text!r} matches the empty string; it must match only secrets")
    return pattern


def _spans(form: str, text: str) -> Iterator[tuple[int, int]]:
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


def _without_texts(value: Any) -> Any:
    """A secret field's text, or each of its texts, replaced."""
    if isinstance(value, list):
        return [_without_texts(item) for item in value]
    return PLACEHOLDER if isinstance(value, str) and value else value


_LOGPROBS = frozenset({"logprobs", "prompt_logprobs", "logprobsResult", "token_ids", "prompt_token_ids"})


def _without_logprobs(data: Any) -> Any:
    """Drop logprobs and IDs of tokens, which repeat the removed text token by token and byte by byte."""
    if isinstance(data, dict):
        return {name: None if name in _LOGPROBS else _without_logprobs(value) for name, value in data.items()}
    return [_without_logprobs(item) for item in data] if isinstance(data, list) else data


def named_secrets(uri: str, body: str, content_type: str = "") -> dict[str, str]:
    """Secrets in a request's URL and body, which may be a form, under names such as ``api_key``."""
    parts = urlsplit(uri)
    pairs = [pair.partition("=") for pair in parts.query.split("&")]
    found = [(unquote_plus(n), unquote_plus(v)) for n, _, v in pairs if is_secret_name(unquote_plus(n))]
    found += [field for field in form_fields(body, content_type) if is_secret_name(field[0])]
    found += [("the URL's password", unquote(parts.password or ""))]
    if names_a_secret(body):
        found += [field for document in documents_of(body) for field in _secret_fields(document)]
    return {name: value for name, value in found if value not in (PLACEHOLDER, _IN_URI)}


def _secret_fields(data: Any) -> Iterator[tuple[str, str]]:
    if isinstance(data, dict):
        for name, value in data.items():
            if FIELD.fullmatch(name) and isinstance(value, (str, list)):
                yield from (
                    (name, each) for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)
                )
            else:
                yield from _secret_fields(value)
    elif isinstance(data, list):
        for item in data:
            yield from _secret_fields(item)
    elif isinstance(data, str) and (inner := parse_object(data)) is not None:
        yield from _secret_fields(inner)


def _clean_query(query: str) -> str:
    pairs = []
    for pair in query.split("&"):
        name, separator, value = pair.partition("=")
        pairs.append(name + separator + (_IN_URI if value and is_secret_name(unquote_plus(name)) else value))
    return "&".join(pairs)


def redactor_of(settings: Settings, hooks: Iterable[HookImpl] = ()) -> Redactor:
    """The redactor of a run.

    Args:
        hooks: implementations of ``pytest_llmtune_redact``.

    Raises:
        SuiteError: ``llmtune_redact`` is not a valid regular expression, or ``.env`` cannot be read.
    """
    rules = Redactor.from_environment(settings.redact, _chain(hooks), environ={})
    addresses = {"--llm-base-url": settings.base_url or "", "--llm-engine": settings.engine or ""}  # may hold a login
    return rules.knowing(
        secrets_of(addresses) | secrets_of(os.environ) | secrets_of(KeySources.of(settings.root, {}).dotenv)
    )


def _chain(hooks: Iterable[HookImpl]) -> tuple[Callable[[str], str], ...]:
    """All implementations as one function: each gets the previous one's result, and wrappers surround them all.

    pluggy itself would call every implementation with the same text. A separate manager, in which the chain is the only
    plain implementation, keeps pluggy's wrappers.
    """
    hooks = list(hooks)
    if not hooks:
        return ()
    plain = [hook for hook in reversed(hooks) if not (hook.wrapper or hook.hookwrapper)]  # the order of calls

    def pytest_llmtune_redact(text: str) -> str:
        for hook in plain:
            result = hook.function(text)
            if result is not None:
                text = _checked(result, hook)
        return text

    wrappers = [hook for hook in hooks if hook.wrapper or hook.hookwrapper]
    if not wrappers:
        return (pytest_llmtune_redact,)
    caller = _caller(pytest_llmtune_redact, wrappers)
    return (lambda text: _checked(caller(text=text), wrappers[-1]),)


def _caller(chain: Callable[[str], str], wrappers: Iterable[HookImpl]) -> Callable[..., Any]:
    """pluggy's call of the chain and its wrappers."""
    import pluggy

    manager = pluggy.PluginManager("llmtune")
    spec, impl = pluggy.HookspecMarker("llmtune"), pluggy.HookimplMarker("llmtune")

    class Spec:
        @spec(firstresult=True)
        def pytest_llmtune_redact(self, text: str) -> str | None: ...

    manager.add_hookspecs(Spec)
    for number, hook in enumerate(wrappers):
        marked = impl(wrapper=hook.wrapper, hookwrapper=hook.hookwrapper)(_plain_function(hook.function))
        manager.register(SimpleNamespace(pytest_llmtune_redact=marked), f"wrapper {number}")
    manager.register(SimpleNamespace(pytest_llmtune_redact=impl(chain)), "chain")
    call: Callable[..., Any] = manager.hook.pytest_llmtune_redact
    return call


def _plain_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a generator function that can be marked, unlike the user's own, which may be a bound method."""

    def pytest_llmtune_redact(text: str) -> Any:
        return (yield from function(text))

    return pytest_llmtune_redact


def _checked(result: Any, hook: HookImpl) -> str:
    if not isinstance(result, str):
        raise SuiteError(
            f"pytest_llmtune_redact in {hook.plugin_name} returned {type(result).__name__}; valid: str, None"
        )
    return result
