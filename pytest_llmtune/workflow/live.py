"""Live completion source of a suite: its endpoints, or another package's engine or source."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from pytest_llmtune._util import plugins
from pytest_llmtune.completions.batch_api import Batching
from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.completions.endpoints import Endpoint, Trust
from pytest_llmtune.completions.source import LiveSource, Requester
from pytest_llmtune.completions.stats import RequestStats
from pytest_llmtune.errors import LLMTuneError, MissingKeyError
from pytest_llmtune.types import InFlight, Listener

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_llmtune.completions.cache import Cache
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.redaction.redactor import Redactor
    from pytest_llmtune.settings import Settings
    from pytest_llmtune.suite import Suite


class Engine(Protocol):
    """Sends requests and grades outside this process; registered in the entry-point group ``pytest_llmtune.engines``."""

    @classmethod
    def connect(cls, address: str) -> Engine:
        """Connect to an address; empty: the engine's default.

        Raises:
            LLMTuneError: no connection.
        """
        ...

    def close(self) -> None:
        """Disconnect."""
        ...

    def asker(self, source: LiveSource) -> Requester:
        """A requester for a source."""
        ...

    def grader(self, grader: Grader, root: Path) -> Grader:
        """The same grader, running on the engine; ``root`` is the project's, whose modules it may need."""
        ...


def connect(given: str) -> Engine:
    """The engine that ``--llm-engine=NAME://ADDRESS`` names.

    Raises:
        LLMTuneError: no package registers it, or no connection.
    """
    name, _, address = given.partition("://")
    found: type[Engine] | None = plugins.load("engines", name)
    if found is None:
        raise LLMTuneError(f"--llm-engine={name}: no package registers this engine (pytest_llmtune.engines)")
    return found.connect(address)


def live_source(
    suite: Suite,
    settings: Settings,
    prices: PriceBook,
    ledger: Ledger,
    cache: Cache | None,
    *,
    redactor: Redactor,
    listen: Listener,
    needs_endpoint: Callable[[], bool],
    engine: Engine | None = None,
) -> LiveSource:
    """The effective endpoints of a suite: command line > environment > suite > ini > default.

    Answers are redacted immediately, including the endpoints' own keys, so that a replay judges the same text.

    ``listen`` is called whenever a request is sent or answered.

    Args:
        needs_endpoint: whether a missing key is an error; not for a task that has clients of its own.

    Raises:
        SuiteError: an endpoint is invalid, no key is found, or a YAML suite gives an untrusted address.
        LLMTuneError: no package registers ``--llm-source``.
    """

    def in_flight(account: RequestStats) -> None:
        listen(InFlight(suite.name, account.in_flight, account.paid, account.retrying, account.answered))

    pick = settings.pick
    remote = None if engine is None else engine.asker
    if remote is None and settings.source is not None:  # a registered requester that replaces HTTP
        remote = plugins.load("sources", settings.source)
        if remote is None:
            raise LLMTuneError(
                f"--llm-source={settings.source}: no package registers this source (pytest_llmtune.sources)"
            )
    endpoints: tuple[Endpoint, ...] = ()
    if not settings.source:
        try:
            endpoints = _endpoints(suite, settings)
        except MissingKeyError:
            if needs_endpoint():
                raise
    batching = Batching(settings.root / ".llmtune" / "batches", settings.batch_price) if settings.batch else None
    return LiveSource(
        endpoints,
        prices,
        ledger=ledger,
        cache=cache,
        concurrency=batching.most if batching else int(pick("concurrency", suite.concurrency)),
        timeout=pick("timeout", suite.timeout),
        deadline=pick("deadline", suite.deadline),
        batching=batching,
        account=RequestStats(listen=in_flight),
        redactor=redactor,
        remote=remote,
    )


def _endpoints(suite: Suite, settings: Settings) -> tuple[Endpoint, ...]:
    pick = settings.pick
    own = [name for name in ("endpoints", "base_url") if getattr(suite, name) and name not in settings.forced]
    strange = suite.root is not None and bool(own)
    listed = endpoints_of(settings.endpoints, root=settings.root) if strange and settings.endpoints else ()
    known = [settings.base_url, os.environ.get("AZURE_OPENAI_ENDPOINT"), *(each.base_url for each in listed)]
    return endpoints_of(
        pick("endpoints", suite.endpoints),
        base_url=pick("base_url", suite.base_url),
        root=settings.root,
        trust=Trust.of(known, settings.trust_hosts),
        strange=strange,
    )
