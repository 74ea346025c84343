"""Endpoints, and which of them may receive keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlsplit

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.redaction.keys import Secret, shown

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Mapping

    import openai

    from pytest_llmtune.completions.batch_api import Batching
    from pytest_llmtune.money.prices import Price, PriceBook


OPENAI_URL = "https://api.openai.com/v1"
LOCAL = ("localhost", "127.0.0.1", "::1")
"""Hosts of this machine."""
_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True)
class Trust:
    """Addresses named by the user: on the command line, in the environment, in the ini file."""

    addresses: tuple[str, ...] = ()
    """Trusted by scheme, host and port, with any path."""
    hosts: tuple[str, ...] = ()
    """``llmtune_trust_hosts``: trusted over https at any port; ``host:port`` only at that port, also over http."""

    @classmethod
    def of(cls, addresses: Iterable[str | None] = (), hosts: Iterable[str] = ()) -> Trust:
        """Create from addresses, ignoring None."""
        return cls(tuple(filter(None, addresses)), tuple(host.lower() for host in hosts))

    def check(self, address: str, where: str) -> None:
        """Refuse an address that a YAML suite, or ``.env``, gives but the user did not.

        Raises:
            SuiteError: neither this machine, nor OpenAI's, nor trusted; the message says how to trust it.
        """
        scheme, host, port = origin = _origin(address)
        if host in LOCAL or origin in {_origin(known) for known in (OPENAI_URL, *self.addresses)}:
            return
        if (scheme == "https" and host in self.hosts) or f"{host}:{port}" in self.hosts:
            return
        raise SuiteError(
            f"{where}: the address {scheme}://{host} is not trusted: neither the command line nor the environment "
            f"nor pytest's ini file names it, so no key or data is sent there; to trust it, put "
            f"llmtune_trust_hosts = {host} into the ini file"
        )


def _origin(address: str) -> Origin:
    try:
        parts = urlsplit(address)
        return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # an invalid port, an unclosed bracket
        return "", address, None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One OpenAI, Azure OpenAI or compatible server."""

    base_url: str
    keys: tuple[Secret, ...]
    """Used in rotation."""
    kind: Literal["openai", "azure"] = "openai"
    name: str = ""
    """Name for messages; default: the host."""
    models: Mapping[str, str] | None = None
    """The models it serves, by a suite's name, with the server's name; None: all, under the suite's names."""
    prices: Mapping[str, Price] = field(default_factory=dict)
    """Prices by a suite's model name, which override the price book for this server."""
    max_n: int | None = None
    requests_per_minute: float | None = None
    """Per key."""
    tokens_per_minute: float | None = None
    """Per key; a request counts as its estimated prompt plus the limit of its answer."""
    concurrency: int | None = None
    """Requests in flight per key; None: the run's."""
    api_version: str | None = None
    """Azure only."""

    @property
    def label(self) -> str:
        return self.name or urlsplit(self.base_url).netloc

    def serves(self, model: str) -> bool:
        """Whether it serves a model, according to its list."""
        return self.models is None or model in self.models

    def own_name(self, model: str) -> str:
        """The server's name for a suite's model."""
        return model if self.models is None else self.models[model]

    def url(self, model: str, route: str = "/chat/completions") -> str:
        """The address of a route, by default of chat completions."""
        if self.kind == "azure":
            path = f"openai/deployments/{quote(self.own_name(model))}{route}"
            return f"{self._root}/{path}?api-version={self.api_version}"
        return f"{self.base_url.rstrip('/')}{route}"

    def client(self, key: Secret, timeout: float, trusted: ssl.SSLContext) -> openai.AsyncOpenAI:
        """A client of this server without its own retries, which are handled by the requester.

        Args:
            trusted: certificates, shared because loading them takes longer than a request.
        """
        import openai

        from pytest_llmtune.completions.http_client import BoundedClient

        limits = openai.Timeout(timeout, connect=min(timeout, 10.0))
        sender = BoundedClient(timeout=limits, verify=trusted)
        if self.kind == "azure":
            return openai.AsyncAzureOpenAI(
                azure_endpoint=self._root,
                api_key=key.reveal(),
                api_version=self.api_version,
                max_retries=0,
                timeout=limits,
                http_client=sender,
            )
        return openai.AsyncOpenAI(
            base_url=self.base_url, api_key=key.reveal(), max_retries=0, timeout=limits, http_client=sender
        )

    @property
    def _root(self) -> str:
        """An Azure resource's URL without the path that the client adds."""
        return self.base_url.rstrip("/").removesuffix("/openai")


def check_address(address: str, where: str, *, quoted: bool = True) -> None:
    """Refuse an invalid server address.

    Args:
        quoted: whether the message may show it; anything that looks like a key is never shown.

    Raises:
        SuiteError: it is invalid.
    """
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and address.isprintable() and " " not in address
    except ValueError:  # an invalid port, an unclosed bracket
        usable = False
    if usable and "@" in parts.netloc:
        raise SuiteError(f"{where}: the address has a user or password; give the key as api_key_env instead")
    if not usable:
        got = shown(address) if quoted else "none"
        raise SuiteError(f"{where}: the address is {got}; valid: http://... or https://...")


@dataclass(slots=True, eq=False)
class SourceSettings:
    """What a requester needs to know: endpoints, prices, limits of time and of requests."""

    endpoints: tuple[Endpoint, ...]
    prices: PriceBook
    concurrency: int = 32
    """HTTP requests in flight, over all endpoints."""
    timeout: float = 60.0
    """Seconds for one HTTP request."""
    patience: float | None = None
    """Seconds for one completion with all its retries; None: ten times ``timeout``."""
    deadline: float | None = None
    """Seconds for all requests, starting with the first."""
    attempts: int = 8
    """HTTP requests for the same answers, waiting out of rate limits not counted."""
    pause: float = 0.5
    """Seconds before the first retry; doubled for each further one."""
    batching: Batching | None = None
    """Settings for the Batch API; None: one request at a time."""

    @property
    def request_seconds(self) -> float:
        """Time limit for one request, which in a batch may take a day."""
        return self.timeout if self.batching is None else self.batching.patience

    @property
    def total_seconds(self) -> float:
        """Time limit for one completion with all its retries."""
        return self.patience or 10 * self.request_seconds
