"""What is asked of every client library; used by the tests and by the table of the docs."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from support.replaying import COMMAND
from support.replaying import replay_of as any_replay_of

from pytest_llmtune.capture.meter import Meter
from pytest_llmtune.capture.netguard import Offline, OpenHosts
from pytest_llmtune.capture.patches import recorded
from pytest_llmtune.capture.traffic import Traffic
from pytest_llmtune.errors import StaleRecordingError
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from decimal import Decimal
    from pathlib import Path

    from clients.catalogue import Client
    from support.providers import Providers

    from pytest_llmtune.capture.session import Replay

__all__ = ["installed", "let_out", "metered", "recorded_and_replayed"]


OWN = {"llama3.2": {"input": 0.15, "output": 0.60}}
"""Prices of models that have none at a provider."""


def replay_of(path: Path, mode: Mode = Mode.REPLAY, **fields: Any) -> Replay:
    """As in a run: libraries ask other hosts too, as litellm does for its price list."""
    return any_replay_of(path, mode, traffic=Traffic.of((), OpenHosts()), **fields)


def installed(client: Client) -> bool:
    """Whether the library is there."""
    with suppress(ModuleNotFoundError):
        return find_spec(client.library) is not None
    return False


def recorded_and_replayed(client: Client, providers: Providers, path: Path) -> dict[str, bool]:
    """Record twice, replay once: what was as it should be."""
    with recorded(replay_of(path, Mode.RECORD_ALL)):
        first = client.ask(providers.url)
    once, count = path.read_bytes(), len(providers.requests)
    with recorded(replay_of(path, Mode.RECORD_ALL)):
        client.ask(providers.url)
    again = path.read_bytes()
    with Offline(COMMAND), recorded(replay_of(path)):
        replayed = client.ask(providers.url)
    return {
        "asked": bool(first) and count > 0,
        "no cookie": b"__cf_bm" not in once,
        "same answer": replayed == first,
        "same bytes": once == again,
        "nothing sent": len(providers.requests) == 2 * count,
    }


def metered(client: Client, providers: Providers, path: Path) -> tuple[Decimal, Decimal]:
    """USD of the recording run and of its replay."""
    meters = Meter(prices=PriceBook(OWN)), Meter(prices=PriceBook(OWN))
    for mode, meter in zip((Mode.RECORD_ALL, Mode.REPLAY), meters, strict=True):
        with recorded(replay_of(path, mode, meter=meter)):
            client.ask(providers.url)
    return meters[0].cost, meters[1].cost


def let_out(client: Client, providers: Providers, path: Path) -> list[str]:
    """What arrives at the server though nothing is recorded; a client that is not even refused is an error."""
    try:
        with Offline(COMMAND), recorded(replay_of(path)):
            client.ask(providers.url)
    except StaleRecordingError:
        return providers.requests
    return [*providers.requests, "not refused"]
