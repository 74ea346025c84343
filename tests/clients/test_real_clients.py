"""Real client libraries against providers' shapes: recorded, replayed offline, metered, and never let out.

All of them: ``pip install 'pytest-llmtune[clients]'``; what is not installed is skipped. As a table:
``python benchmarks/client_table.py``.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest
from clients.catalogue import CLIENTS, Client
from clients.examine import installed, let_out, metered, recorded_and_replayed
from support.providers import Providers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries


@pytest.fixture
def providers() -> Iterator[Providers]:
    with Providers() as running:
        yield running


@pytest.fixture(autouse=True)
def event_loop() -> Iterator[None]:
    """The thread's event loop, closed afterwards: ``run_sync`` of agent libraries makes one and leaves it open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)
    gc.collect()  # connections that a library leaves open warn here, where warnings are ignored


@pytest.fixture(params=CLIENTS.values(), ids=CLIENTS.keys())
def client(request: pytest.FixtureRequest) -> Client:
    found: Client = request.param
    if not installed(found):
        pytest.skip(f"{found.library} is not installed")
    return found


def test_a_client_is_recorded_and_replayed(client: Client, providers: Providers, tmp_path: Path) -> None:
    """Twice recorded with not a byte changed; replayed with the same answer, and no request."""
    found = recorded_and_replayed(client, providers, tmp_path / "test_app.cassette.json")
    assert found == {"asked": True, "no cookie": True, "same answer": True, "same bytes": True, "nothing sent": True}


def test_a_client_is_metered(client: Client, providers: Providers, tmp_path: Path) -> None:
    """The replay costs what the recording cost: more than nothing where its answers have a price."""
    costs = metered(client, providers, tmp_path / "test_app.cassette.json")
    assert costs[0] == costs[1]
    assert (costs[0] > 0) is client.priced


def test_a_client_is_not_let_out(client: Client, providers: Providers, tmp_path: Path) -> None:
    """Without a recording it is refused before it sends anything."""
    assert let_out(client, providers, tmp_path / "none.cassette.json") == []
