"""The loopback hosts that a user allows tests to reach, under every usual name of this machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HERE", "OpenHosts", "host_name", "ip_number"]


HERE = "localhost"
_NAMES = frozenset({"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104  # names of this machine


@dataclass(frozen=True, slots=True)
class OpenHosts:
    """Hosts that stay open while the network is shut."""

    entries: frozenset[tuple[str, int | None]] = frozenset()
    """(host, port); None opens every port."""

    @classmethod
    def of(cls, hosts: Iterable[str]) -> OpenHosts:
        """Read entries such as ``localhost``, ``127.0.0.1:8000`` or ``[::1]:8000``.

        Raises:
            SuiteError: an entry is no loopback host.
        """
        return cls(frozenset(map(_entry, hosts)))

    def allows(self, host: str, port: int | None) -> bool:
        """Whether a socket may reach the host."""
        name = host_name(host)
        return (name, None) in self.entries or (name, port) in self.entries


def ip_number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that the text spells, or None; an IPv4 address inside an IPv6 one is taken out."""
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(number, "ipv4_mapped", None) or number


def host_name(host: str) -> str:
    """One name for each host: every usual name of this machine is ``localhost``."""
    number = ip_number(host)
    name = host.lower().rstrip(".") if number is None else str(number)
    return HERE if name in _NAMES else name


def _entry(text: str) -> tuple[str, int | None]:
    host, port = text.strip(), ""
    if host.startswith("["):
        host, _, port = host[1:].partition("]")
        port = port.removeprefix(":")
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    number = ip_number(host)
    loopback = bool(host) and (host_name(host) == HERE or (number is not None and number.is_loopback))
    if not loopback or (port and not port.isdecimal()):
        raise SuiteError(
            f"llmtune_allow_hosts names {text!r}, which is no loopback host; "
            "valid: localhost, 127.0.0.1, ::1 or any 127.x.y.z, each with or without :PORT"
        )
    return host_name(host), int(port) if port else None
