"""Whom a suite asks: the endpoints in force for it, and a recording in front of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmtune import events
from pytest_llmtune.completions.batch_api import Batching
from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.completions.source import LiveSource
from pytest_llmtune.completions.stats import Account
from pytest_llmtune.completions.trust import Trust
from pytest_llmtune.recording import Recording
from pytest_llmtune.settings import Mode, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.cluster import Engine
    from pytest_llmtune.completions.cache import Cache
    from pytest_llmtune.completions.endpoints import Endpoint
    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.recording.housekeeping import Anew
    from pytest_llmtune.redaction.redactor import Redactor
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.types import Completion, CompletionRequest

__all__ = ["Layered", "live_source", "record_cache", "recorded"]


@dataclass(frozen=True, slots=True)
class Layered:
    """Answers from a recording where it holds them, else from elsewhere."""

    recording: Recording
    beyond: LiveSource

    async def complete(self, request: CompletionRequest) -> Completion:
        return self.recording.take(request) or await self.beyond.complete(request)

    async def aclose(self) -> None:
        await self.beyond.aclose()


def live_source(
    suite: Suite,
    settings: Settings,
    prices: PriceBook,
    ledger: Ledger,
    cache: Cache | None,
    *,
    redactor: Redactor,
    listen: events.Listener,
    engine: Engine | None = None,
) -> LiveSource:
    """The endpoints in force for a suite: command line > environment > suite > ini > default.

    What they answer is redacted before anybody sees it, their own keys included: a replay judges the same text.

    Every request that is sent or comes back is told to ``listen``.

    Raises:
        SuiteError: an endpoint is declared wrongly, no key is found, or a suite in YAML names an address that the user
            never named.
    """

    def in_flight(account: Account) -> None:
        listen(events.InFlight(suite.name, account.in_flight, account.paid))

    pick = settings.pick
    batching = Batching(settings.root / ".llmtune" / "batches", settings.batch_price) if settings.batch else None
    return LiveSource(
        _endpoints(suite, settings),
        prices,
        ledger=ledger,
        cache=cache,
        concurrency=batching.most if batching else int(pick("concurrency", suite.concurrency)),
        timeout=pick("timeout", suite.timeout),
        deadline=pick("deadline", suite.deadline),
        batching=batching,
        account=Account(listen=in_flight),
        redactor=redactor,
        elsewhere=None if engine is None else engine.asker,
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


def record_cache(mode: Mode, suite: Suite, anew: Anew) -> str | None:
    """Where a mode keeps what it pays for: re-recording resumes after a kill, yet takes no older answer.

    Raises:
        RecordingError: the directory of caches cannot be written to.
    """
    match mode:
        case Mode.RECORD_MISSING:
            return str(suite.seed)
        case Mode.RECORD_ALL:
            return anew.begin()
        case _:
            return None


def recorded(mode: Mode, path: Path, redactor: Redactor) -> Recording:
    """What a mode reads of a recording: what asks everything anew must not stumble over a damaged one.

    Raises:
        RecordingError: it is read, and damaged.
    """
    if mode in (Mode.LIVE, Mode.RECORD_ALL):
        return Recording(path, (), redactor)
    return Recording.load(path, redactor, torn=mode is Mode.RECORD_MISSING)
