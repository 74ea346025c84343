"""Classify HTTP traffic: model calls are recorded and counted; other requests are recorded, passed or refused.

A model call is recognised by its host (a provider's, or an endpoint of the run), its path (``/chat/completions``,
``:generateContent``) or its body (``model`` and ``messages``). Whether it counts depends on the response.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.capture.netguard import LOCALHOST, HostPattern, OpenHosts, host_name, ip_number, provider
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.wire.response import documents_of, lines_of, parse_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_llmtune.capture.matching import ClientRequest
    from pytest_llmtune.settings import Settings


class Kind(Enum):
    """How a request is handled."""

    MODEL = "model"
    """Recorded and counted."""
    RECORD = "record"
    """Recorded, but not counted."""
    PASS = "pass"  # noqa: S105  # not a password
    """Ignored: sent while recording, refused without failing the test while the network is blocked."""
    OPEN = "open"
    """Always allowed: a host of ``llmtune_allow_hosts``, or a server of this process."""
    REFUSE = "refuse"
    """Fails the test in every mode."""


DEFAULTS = (
    "raw.githubusercontent.com pass",  # litellm's price list, nltk's data
    "models.dev pass",
    "openaipublic.blob.core.windows.net pass",  # tiktoken's vocabularies
    "huggingface.co pass",  # tokenizers and data sets
    "*.huggingface.co pass",
    "*.hf.co pass",
    "hf.co pass",
    "*.posthog.com pass",  # telemetry, from here on
    "*.sentry.io pass",
    "*.smith.langchain.com pass",
    "cloud.langfuse.com pass",
    "*.cloud.langfuse.com pass",
    "logfire-*.pydantic.dev pass",
    "*.segment.io pass",
    "*.scarf.sh pass",
    "telemetry.* pass",
    "169.254.169.254 pass",  # credentials of cloud machines
    "metadata.google.internal pass",
    "oauth2.googleapis.com pass",
    "sts.*amazonaws.com pass",
    "login.microsoftonline.com pass",
)
"""Default rules, before the user's own: hosts that libraries use for other purposes than model calls."""

_ACTIONS = {kind.value: kind for kind in (Kind.PASS, Kind.RECORD, Kind.REFUSE)}

_ROUTE = lazy_regex(
    r"/chat/completions/?$|:(stream)?[gG]enerateContent$|:(batch)?[eE]mbedContents?$|:rawPredict$|:streamRawPredict$"
    r"|/model/[^/]+/(converse|converse-stream|invoke|invoke-with-response-stream)$"
    r"|/v\d+(beta\d?|alpha)?/(completions|responses|embeddings|messages|models|images|audio|moderations|files|batches"
    r"|vector_stores|fine_tuning|assistants|threads|conversations|realtime|rerank|chat|embed|classify|ocr|fim)(/|$)"
)
_OLLAMA = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")
"""Paths that apps have too: only together with a body that names a model."""
_INPUTS = ("messages", "input", "prompt", "contents", "texts", "inputs", "query")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of ``llmtune_ignore_hosts``."""

    hosts: HostPattern
    path: str
    """Prefix of the URL's path."""
    kind: Kind

    @classmethod
    def of(cls, line: str) -> Rule:
        """Read ``HOST[:PORT][/PATH] [pass|record|refuse]``.

        Raises:
            SuiteError: the line has another format.
        """
        where, _, action = line.strip().partition(" ")
        host, slash, path = where.partition("/")
        try:
            return cls(HostPattern.of(host), slash + path, _ACTIONS[action.strip() or "pass"])
        except (ValueError, KeyError):
            raise SuiteError(
                f"llmtune_ignore_hosts has the line {line!r}; valid: HOST[:PORT][/PATH] [pass|record|refuse], where "
                "HOST may have * and ?"
            ) from None


@dataclass(frozen=True, slots=True)
class Traffic:
    """The rules of a run."""

    rules: tuple[Rule, ...] = ()
    """The last match wins."""
    open_hosts: OpenHosts = field(default_factory=OpenHosts)
    own_ports: bool = True
    """Whether servers of this process are always allowed."""

    @classmethod
    def of(cls, lines: Iterable[str], open_hosts: OpenHosts) -> Traffic:
        """The defaults and the user's own lines.

        Raises:
            SuiteError: a line is invalid.
        """
        return cls(tuple(map(Rule.of, (*DEFAULTS, *lines))), open_hosts)

    def kind(self, request: ClientRequest) -> Kind:
        """What happens to a request."""
        host, port, path, models = _destination(request.uri)
        open_hosts = self.open_hosts
        if open_hosts.entries and open_hosts.names_port(host, port):
            return Kind.OPEN
        if models or (host, port) in open_hosts.endpoints:
            return Kind.MODEL
        local = self.own_ports and port is not None and _is_loopback(host)
        if _asks_model(request):  # an app may take such a body at a path of its own
            own = local and not path.endswith(_OLLAMA) and _listens_here(port or 0)
            return Kind.OPEN if own else Kind.MODEL
        if open_hosts.entries and open_hosts.allows(host, port):
            return Kind.OPEN
        matching = (rule for rule in reversed(self.rules) if rule.hosts.matches(host, port))
        if rule := next((rule for rule in matching if path.startswith(rule.path)), None):
            return rule.kind
        own = local and (_listens_here(port or 0) or _listens_in_child(port or 0))
        return Kind.OPEN if own else Kind.RECORD

    def is_own(self, request: ClientRequest) -> bool:
        """Whether a request goes to a server of this process."""
        host, port, _, _ = _destination(request.uri)
        return _is_loopback(host) and port is not None and _listens_here(port)


@lru_cache(maxsize=256)
def _destination(uri: str) -> tuple[str, int | None, str, bool]:
    """Host, port and path of a URL, and whether it is a model's endpoint."""
    url = urlsplit(uri)
    host, port = host_name(url.hostname or ""), url.port or {"https": 443, "http": 80}.get(url.scheme)
    return host, port, url.path, bool(provider(host) or _ROUTE.search(url.path))


def _asks_model(request: ClientRequest) -> bool:
    if request.method != "POST" or '"' not in request.body:
        return False
    body = parse_object(request.body)
    if body is None:
        return False
    if isinstance(body.get("model"), str):
        return any(name in body for name in _INPUTS)
    contents = body.get("contents")  # Gemini's
    return isinstance(contents, list) and bool(contents) and isinstance(contents[0], dict) and "parts" in contents[0]


def _is_loopback(host: str) -> bool:
    number = ip_number(host)
    return host == LOCALHOST or (number is not None and number.is_loopback)


def _listens_here(port: int) -> bool:
    """Whether this process listens at a port: an application under test or a mock, whose requests stay in the process."""
    accepting = getattr(socket, "SO_ACCEPTCONN", None)
    try:
        numbers = [int(path.name) for path in Path("/dev/fd").iterdir()]
    except OSError:  # Windows
        return False
    for number in numbers:
        try:
            if accepting is None or not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as sock:
                if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.getsockname()[1] != port:
                    continue
                if sock.getsockopt(socket.SOL_SOCKET, accepting):
                    return True
        except OSError:
            continue
    return False


def _listens_in_child(port: int) -> bool:
    """Whether a child process listens at a port, such as a browser's driver; only Linux tells."""
    children = list(_descendants(os.getpid()))
    if not children:
        return False
    lines = [line.split() for name in ("tcp", "tcp6") for line in _read(f"/proc/net/{name}").splitlines()[1:]]
    listening = {
        f"socket:[{line[9]}]" for line in lines if line[3] == _LISTENING and int(line[1].rpartition(":")[2], 16) == port
    }
    for number in children if listening else ():
        with suppress(OSError):
            for path in Path(f"/proc/{number}/fd").iterdir():
                with suppress(OSError):
                    if str(path.readlink()) in listening:
                        return True
    return False


_LISTENING = "0A"


def _descendants(number: int) -> Iterator[int]:
    """Process IDs of the children of a process, and of theirs."""
    for path in Path(f"/proc/{number}/task").glob("*/children"):
        for child in map(int, _read(path).split()):
            yield child
            yield from _descendants(child)


def _read(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:  # it has ended, or there is no such file on this system
        return ""


_OBJECTS = frozenset({"chat.completion", "chat.completion.chunk", "text_completion", "response", "embedding"})


def is_answer(text: str) -> bool:
    """Whether a response looks like an answer of a provider's model, and so counts as a call."""
    if not text:
        return False
    if any(map(_is_answer, documents_of(text))):
        return True
    return text.startswith("{") and any(_is_answer(item) for item in map(parse_object, lines_of(text)) if item)


def _is_answer(data: Mapping[str, Any]) -> bool:
    wrapped = data.get("response")
    inner: Mapping[str, Any] = wrapped if isinstance(wrapped, dict) else data
    if inner.get("object") in _OBJECTS or isinstance(inner.get("choices"), list):  # OpenAI, Mistral, Groq, ...
        return True
    if isinstance(data.get("usage"), dict) or isinstance(data.get("usageMetadata"), dict):
        return True  # Anthropic, Bedrock, OpenAI's images and transcriptions; Gemini
    if isinstance(data.get("candidates"), list) or isinstance(data.get("embeddings"), (list, dict)):
        return True  # Gemini; Ollama, Cohere, Gemini's embeddings
    if data.get("type") in ("message_start", "message-start", "message"):  # Anthropic; Cohere
        return True
    if "message" in data and ("finish_reason" in data or "done" in data):  # Cohere; Ollama
        return True
    return ("done" in data and "response" in data) or (isinstance(data.get("results"), list) and "meta" in data)


def endpoints_of(urls: Iterable[str | None]) -> frozenset[tuple[str, int]]:
    """(host, port) of model endpoints; invalid URLs are ignored."""
    found = set()
    for text in filter(None, urls):
        try:
            url = urlsplit(text if "//" in text else f"//{text}")
            port = url.port or (80 if url.scheme == "http" else 443)
        except ValueError:
            continue
        if url.hostname:
            found.add((host_name(url.hostname), port))
    return frozenset(found)


def traffic_of(settings: Settings) -> Traffic:
    """The rules of a run; endpoints of models that it knows are never just open hosts.

    Raises:
        SuiteError: a line of ``llmtune_allow_hosts`` or ``llmtune_ignore_hosts`` is unusable.
    """
    known = (settings.base_url, *(os.environ.get(name) for name in _ENDPOINTS))
    return Traffic.of(settings.ignore_hosts, OpenHosts.of(settings.allow_hosts, endpoints_of(known)))


_ENDPOINTS = (
    "OPENAI_BASE_URL",
    "OPENAI_API_BASE",
    "AZURE_OPENAI_ENDPOINT",
    "ANTHROPIC_BASE_URL",
    "GOOGLE_GEMINI_BASE_URL",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    "CO_API_URL",
    "MISTRAL_BASE_URL",
    "OLLAMA_HOST",
)
"""Environment variables in which clients find their endpoint."""
