"""Calls in every provider's shape over real HTTP: recorded, replayed, and held against the run's money alike."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx
import pytest
from support.provider_bodies import CASES, Case
from support.replaying import replay_of

from pytest_llmtune.capture.meter import Limits, Meter
from pytest_llmtune.capture.patches import recorded
from pytest_llmtune.errors import BudgetExhaustedError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHOLE = [
    case
    for case in CASES
    if case.content_type == "application/json" and isinstance(case.answer, str) and case.answer[0] == "{"
]


@contextmanager
def serving(case: Case, requests: list[bytes]) -> Iterator[str]:
    """A server that gives the case's answer to everything; its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Silent."""

        def do_POST(self) -> None:
            requests.append(self.rfile.read(int(self.headers["content-length"])))
            data = case.answer.encode() if isinstance(case.answer, str) else case.answer
            self.send_response(200)
            self.send_header("content-type", case.content_type)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def call(case: Case, url: str) -> None:
    body = case.request if f"/{case.model}" in case.path else {**case.request, "model": case.model}
    httpx.post(url + case.path, json=body)


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_recorded_replayed_and_in_the_run_it_costs_the_same(tmp_path: Path, case: Case) -> None:
    """The meter of the test, live and offline, and the run's ledger agree to the digit; the replay asks nobody."""
    requests: list[bytes] = []
    costs = []
    with serving(case, requests) as url:
        for mode in (Mode.RECORD_ALL, Mode.REPLAY):
            ledger = Ledger(Decimal(10), name="--llm-max-spend")
            meter = Meter(Limits.of(), PriceBook(), ledger)
            with recorded(replay_of(tmp_path / "test.cassette.json", mode, meter=meter)):
                call(case, url)
            costs += [meter.cost] if mode is Mode.REPLAY else [meter.cost, ledger.spent]
            assert ledger.uncertain == ledger.reserved == 0
    assert len(requests) == 1
    assert costs[0] == costs[1] == costs[2] > 0


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_no_provider_passes_a_tiny_limit(tmp_path: Path, case: Case) -> None:
    """A test's limit and the run's: at most the one call goes out whose cost its request does not bound."""
    requests: list[bytes] = []
    tiny, book = Decimal("1e-9"), PriceBook()
    of_a_test = Meter(Limits.of(max_cost=tiny), book)
    of_the_run = Meter(prices=book, ledger=Ledger(tiny, name="--llm-max-spend"))
    with serving(case, requests) as url:
        for number, limited in enumerate((of_a_test, of_the_run)):
            before = len(requests)
            replay = replay_of(tmp_path / f"{number}.cassette.json", Mode.RECORD_ALL, meter=limited)
            with pytest.raises(BudgetExhaustedError), recorded(replay):
                call(case, url)
                call(case, url)
            assert len(requests) - before <= 1
