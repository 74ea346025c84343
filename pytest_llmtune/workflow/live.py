"""Where a suite's live requests go: its endpoints, or another package's engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.completions.endpoints import Endpoint, Trust

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.completions.source import LiveSource, Requester
    from pytest_llmtune.grading import Grader
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

    def requester(self, source: LiveSource) -> Requester:
        """A requester for a source."""
        ...

    def grader(self, grader: Grader, root: Path) -> Grader:
        """The same grader, running on the engine; ``root`` is the project's, whose modules it may need."""
        ...


def endpoints_for(suite: Suite, settings: Settings) -> tuple[Endpoint, ...]:
    """The effective endpoints of a suite: command line > environment > suite > ini > default.

    Raises:
        MissingKeyError: no key is found.
        SuiteError: an endpoint is invalid, or a YAML suite gives an untrusted address.
    """
    pick = settings.pick
    own = any(getattr(suite, name) and name not in settings.forced for name in ("endpoints", "base_url"))
    untrusted = own and suite.root is not None
    listed = endpoints_of(settings.endpoints, root=settings.root) if untrusted and settings.endpoints else ()
    known = [settings.base_url, os.environ.get("AZURE_OPENAI_ENDPOINT"), *(each.base_url for each in listed)]
    return endpoints_of(
        pick("endpoints", suite.endpoints),
        base_url=pick("base_url", suite.base_url),
        root=settings.root,
        trust=Trust.of(known, settings.trust_hosts),
        untrusted=untrusted,
    )
