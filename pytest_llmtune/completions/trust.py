"""Which addresses a file that may come from a stranger may name: neither keys nor data go where the user never said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LOCAL", "OPENAI_URL", "Trust"]


OPENAI_URL = "https://api.openai.com/v1"
LOCAL = ("localhost", "127.0.0.1", "::1")
"""This machine."""
_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True)
class Trust:
    """The addresses that the user named: on the command line, in the environment, in the ini file."""

    addresses: tuple[str, ...] = ()
    """Trusted with scheme, host and port, whatever their path."""
    hosts: tuple[str, ...] = ()
    """``llmtune_trust_hosts``: trusted over https at any port; ``host:port`` at that port, over http too."""

    @classmethod
    def of(cls, addresses: Iterable[str | None] = (), hosts: Iterable[str] = ()) -> Trust:
        """Addresses that are None are left out."""
        return cls(tuple(filter(None, addresses)), tuple(host.lower() for host in hosts))

    def check(self, address: str, where: str) -> None:
        """Refuse an address that a suite in YAML, or a ``.env``, names and that the user never named.

        Raises:
            SuiteError: it is neither this machine, nor OpenAI's, nor trusted; says how to trust it.
        """
        scheme, host, port = origin = _origin(address)
        if host in LOCAL or origin in {_origin(known) for known in (OPENAI_URL, *self.addresses)}:
            return
        if (scheme == "https" and host in self.hosts) or f"{host}:{port}" in self.hosts:
            return
        raise SuiteError(
            f"{where}: the address {scheme}://{host} may be a stranger's: neither the command line nor the environment "
            f"nor pytest's ini file names it, so neither key nor data is sent there; if it is meant, put "
            f"llmtune_trust_hosts = {host} into the ini file"
        )


def _origin(address: str) -> Origin:
    try:
        parts = urlsplit(address)
        return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # a port that is no number, an unclosed bracket
        return "", address, None
