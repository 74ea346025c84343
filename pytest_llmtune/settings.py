"""The resolved options of a run."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.types import Shard


class Mode(StrEnum):
    """What a run does, and so what may touch the network, the lock file and the recording."""

    REPLAY = "replay"
    RECORD_MISSING = "record=missing"
    RECORD_ALL = "record=all"
    LIVE = "live"
    TUNE = "tune"
    MIGRATE = "migrate"
    ACCEPT = "accept"
    DRY_RUN = "tune-dry-run"

    @property
    def online(self) -> bool:
        """Whether this mode may send requests."""
        return self in (Mode.RECORD_MISSING, Mode.RECORD_ALL, Mode.LIVE, Mode.TUNE, Mode.MIGRATE)

    @property
    def replays(self) -> bool:
        """Whether the locked configuration is answered by its recording alone."""
        return not self.online or self is Mode.MIGRATE

    @property
    def option(self) -> str:
        """The command-line option that selects this mode; empty for replay, the default."""
        return "" if self is Mode.REPLAY else f"--llm-{self.value}"


@dataclass(frozen=True, slots=True)
class MaxAge:
    """The maximum age of a recording."""

    days: int
    fails: bool = False
    """Whether an older recording fails its test, instead of only being reported."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Options by precedence: command line > environment > suite > ini > default.

    ``pick`` applies a suite's own keys, because a run has many suites.
    """

    mode: Mode = Mode.REPLAY
    migrate: tuple[str, ...] = ()
    """Models to hold against the committed recording, as ``MODEL`` or ``PARAMETER=MODEL``."""
    accept: bool = False
    tune: bool = False
    root: Path = field(default_factory=Path.cwd)
    """The project's root; the cache is in ``<root>/.llmtune``."""
    choose: int | None = None
    """The point of a search's front to lock, from 1; None: the lock file's configuration stays."""
    base_url: str | None = None
    """Address of the OpenAI-compatible server; None: ``OPENAI_BASE_URL``, else OpenAI's."""
    endpoints: str | None = field(default=None, repr=False)
    """Endpoints in order of failover: a file, a directory of keys, JSON text, or an environment variable. May contain keys."""
    concurrency: int = 32
    """Requests in flight."""
    timeout: float = 60.0
    """Seconds for one request."""
    deadline: float | None = None
    """Seconds for all requests of one suite in a run, or of one ``complete``."""
    max_spend: Decimal | None = None
    """Limit in USD for the whole run, in every paid mode; without pytest, for each call of ``tune``, ``evaluate`` and ``complete``."""
    stop_early: float | None = None
    """With ``--llm-live``, stop asking once the verdict is decided with this probability of error."""
    prices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Model name to USD per 1M tokens (``input``, ``output``, ``cached_input``, ``cache_write``)."""
    redact: tuple[str, ...] = ()
    """Regular expressions whose matches are never written to a file."""
    allow_hosts: tuple[str, ...] = ()
    """Hosts that tests may reach while the network is blocked: names, addresses and patterns, optionally with a port."""
    ignore_hosts: tuple[str, ...] = ()
    """``HOST[:PORT][/PATH] [pass|record|refuse]``: how requests to other services than models are handled."""
    block_network: str = "marked"
    """Which tests have their network blocked: those that use the plugin (``marked``), or ``all``."""
    isolate: bool = False
    """Whether the operating system cuts the whole run off from the network."""
    max_age: MaxAge | None = None
    """Older recordings are reported, or fail."""
    shard: Shard | None = None
    """The part of every suite's rows that this run evaluates."""
    share_rows: int = 10_000
    """Number of rows above which xdist's workers share a suite."""
    merge: str | None = None
    """Directory with the results of shards, used instead of replaying."""
    part_size: float = 20.0
    """Megabytes above which a recording is split into parts."""
    max_data: float = 50.0
    """Limit in megabytes for the unpacked data files of a suite."""
    compress: bool = False
    """Whether the parts of a recording are compressed."""
    trust_hosts: tuple[str, ...] = ()
    """Hosts that a YAML suite, or ``.env``, may send requests and keys to."""
    batch: bool = False
    """Whether requests go through the Batch API."""
    batch_price: Decimal = Decimal("0.5")
    """Price of a batch, as a fraction of the normal price."""
    engine: str | None = None
    """What sends requests and grades: ``NAME`` or ``NAME://ADDRESS`` of an entry point ``pytest_llmtune.engines``; None: this process."""
    source: str | None = None
    """What answers requests: the name of an entry point in ``pytest_llmtune.sources``; None: the endpoints, over HTTP."""
    forced: frozenset[str] = frozenset()
    """Fields set on the command line or in the environment, which override a suite's keys."""

    @property
    def options(self) -> str:
        """The command-line options that choose this run's mode."""
        if self.mode is not Mode.MIGRATE:
            return self.mode.option
        also = " --llm-accept" * self.accept + " --llm-tune" * self.tune
        return f"--llm-migrate={','.join(self.migrate)}{also}"

    @property
    def writes(self) -> bool:
        """Whether lock files or recordings of suites may be written."""
        if self.mode is Mode.MIGRATE:
            return self.accept or self.tune
        return self.mode in (Mode.TUNE, Mode.RECORD_MISSING, Mode.RECORD_ALL, Mode.ACCEPT)

    def pick(self, name: str, suite_value: Any) -> Any:
        """The effective value, for one suite, of a field that the suite may also set."""
        return getattr(self, name) if suite_value is None or name in self.forced else suite_value
