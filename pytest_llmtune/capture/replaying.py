"""Client calls of a user's own test: where their recording is, and what gates them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING, Any, Protocol

from pytest_llmtune.capture.client_spend import ClientSpend
from pytest_llmtune.capture.matching import Matching
from pytest_llmtune.capture.meter import Limits, Meter
from pytest_llmtune.capture.open_hosts import OpenHosts
from pytest_llmtune.capture.session import Replay
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.money.prices import PriceBook

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.redaction.redactor import Redactor
    from pytest_llmtune.settings import Settings

__all__ = ["locked_config", "replay_of"]


_LONGEST = 120
"""Bytes of a file's name before its endings; the whole path has to fit into Windows' 260 too."""
_KEYS = ("match_on", "max_calls", "max_cost")


class _Run(Protocol):
    settings: Settings
    ledger: Ledger

    @property
    def redactor(self) -> Redactor: ...


def replay_of(test: Any, run: _Run) -> Replay:
    """The recording of a test's client calls: ``<tests>/llmtune/<module>.<class>.<test>.cassette.json``.

    Args:
        test: a pytest item; only its name, path and markers are read.

    Raises:
        SuiteError: the marker ``llm_replay`` has an unknown key or an unusable limit.
    """
    marker = test.get_closest_marker("llm_replay")
    keys = dict(marker.kwargs) if marker else {}
    if (marker and marker.args) or not keys.keys() <= set(_KEYS):
        wrong = [*map(repr, marker.args), *sorted(keys.keys() - set(_KEYS))]
        raise SuiteError(f"{test.nodeid}: llm_replay got {', '.join(wrong)}; its keys are {', '.join(_KEYS)}")
    settings, prices = run.settings, PriceBook(run.settings.prices)
    return Replay(
        test.path.parent / "llmtune" / f"{_file_stem(test)}.cassette.json",
        settings.mode,
        f"pytest {test.nodeid} --llm-record=missing",
        run.redactor,
        matching=Matching.on(keys.get("match_on")),
        meter=Meter(Limits.of(keys.get("max_cost"), keys.get("max_calls")), prices),
        spend=ClientSpend(run.ledger, prices),
        layout=settings.layout,
        open_hosts=OpenHosts.of(settings.allow_hosts),
        lock_directory=settings.root / ".llmtune" / "locks",
    )


def _file_stem(test: Any) -> str:
    """A name that every file system takes, and that no other test's file has, whatever the case of its letters."""
    parts = [part for part in test.nodeid.partition("::")[2].split("::") if part != "()"]
    said = ".".join([test.path.stem, *parts])
    name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", said)).strip("_")
    if name == said and name == name.lower() and len(name.encode()) <= _LONGEST:
        return name
    cut = name.encode()[:_LONGEST].decode(errors="ignore").rstrip("_")
    return f"{cut}-{hashlib.sha256(said.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def locked_config(directory: Path, name: str | None) -> dict[str, Any]:
    """The configuration in the lock file of a suite: by its name, else the only one there is.

    Raises:
        SuiteError: no lock file, or several and no name.
        LockError: the lock file cannot be read.
    """
    from pytest_llmtune.guard.lockfile import Lock

    found = sorted(path.name.removesuffix(".lock.yaml") for path in directory.glob("*.lock.yaml"))
    if name is None and len(found) != 1:
        there = f"there are {', '.join(found)}; choose: @pytest.mark.llm_suite(NAME)" if found else "there is none"
        raise SuiteError(f"tuned_config needs one lock file in {directory}; {there}. Write one: pytest --llm-tune")
    return dict(Lock.read(directory / f"{name or found[0]}.lock.yaml").config)
