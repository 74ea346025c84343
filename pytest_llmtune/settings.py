"""The options in force for a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.types import Shard

__all__ = ["MaxAge", "Mode", "Settings"]


class Mode(StrEnum):
    """What a run does: what may touch the network, the lock file and the recording."""

    REPLAY = "replay"
    RECORD_MISSING = "record=missing"
    RECORD_ALL = "record=all"
    LIVE = "live"
    TUNE = "tune"
    ACCEPT = "accept"
    DRY_RUN = "tune-dry-run"

    @property
    def online(self) -> bool:
        """Whether this mode may send requests."""
        return self in (Mode.RECORD_MISSING, Mode.RECORD_ALL, Mode.LIVE, Mode.TUNE)

    @property
    def option(self) -> str:
        """The command-line option that chooses this mode; empty for replay, the default."""
        return "" if self is Mode.REPLAY else f"--llm-{self.value}"


@dataclass(frozen=True, slots=True)
class MaxAge:
    """How old a recording may be."""

    days: int
    fails: bool = False
    """Whether an older one fails its test, and is not only told."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Options after precedence: command line > environment > suite > ini > default.

    A suite's own keys come in at ``pick``, because a run has many suites.
    """

    mode: Mode = Mode.REPLAY
    root: Path = field(default_factory=Path.cwd)
    """The project's root; the cache lives in ``<root>/.llmtune``."""
    base_url: str | None = None
    endpoints: str | None = field(default=None, repr=False)
    """May hold keys."""
    concurrency: int = 32
    timeout: float = 60.0
    """Seconds for one request."""
    deadline: float | None = None
    """Seconds for everything one suite asks in a run."""
    max_spend: Decimal | None = None
    """USD the whole run may spend, in every paid mode."""
    prices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Model name to USD per 1M tokens (``input``, ``output``, ``cached_input``, ``cache_write``), from the ini file."""
    redact: tuple[str, ...] = ()
    """Regular expressions whose matches never reach a file."""
    allow_hosts: tuple[str, ...] = ()
    """Hosts that tests may reach while the network is shut: names, addresses and patterns, with or without a port."""
    ignore_hosts: tuple[str, ...] = ()
    """``HOST[:PORT][/PATH] [pass|record|refuse]``: what happens to requests that ask no model."""
    block_network: str = "marked"
    """Whose network is shut: that of tests that use the plugin (``marked``), or of ``all``."""
    isolate: bool = False
    """Whether the whole run is cut off from the network by the operating system."""
    max_age: MaxAge | None = None
    """What is older than that is told, or fails."""
    shard: Shard | None = None
    """The part of every suite's rows that this run looks at."""
    share_rows: int = 10_000
    """Rows past which xdist's workers share a suite."""
    merge: str | None = None
    """The directory with the results of shards, taken instead of replaying."""
    part_size: float = 20.0
    """Megabytes past which a recording is split into parts."""
    max_data: float = 50.0
    """Megabytes that the data files of a suite may unpack to."""
    compress: bool = False
    """Whether such parts are compressed."""
    trust_hosts: tuple[str, ...] = ()
    """Hosts that a suite in YAML, or ``.env``, may send requests and keys to."""
    batch: bool = False
    """Whether requests go by the Batch API."""
    batch_price: Decimal = Decimal("0.5")
    """What a batch costs, as a part of the ordinary price."""
    engine: str | None = None
    """What asks and grades: ``NAME`` or ``NAME://ADDRESS`` of an entry point ``pytest_llmtune.engines``; None: here."""
    source: str | None = None
    """What answers requests: the name of an entry point ``pytest_llmtune.sources``; None: the endpoints, over HTTP."""
    forced: frozenset[str] = frozenset()
    """Fields set on the command line or in the environment: these win over a suite's keys."""

    def pick(self, name: str, suite_value: Any) -> Any:
        """The value in force for one suite, of a field that a suite may also set."""
        return getattr(self, name) if suite_value is None or name in self.forced else suite_value
