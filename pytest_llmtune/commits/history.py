"""History of the locked suites: one entry per commit that changed a lock file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.jsonhash import text_digest
from pytest_llmtune.commits.compare import prompt_of
from pytest_llmtune.errors import LockError
from pytest_llmtune.guard.lockfile import MAX_BYTES, Lock, Measured

if TYPE_CHECKING:
    from collections.abc import Collection
    from decimal import Decimal

    from pytest_llmtune.commits.git import Commit, Repository


@dataclass(frozen=True, slots=True)
class Entry:
    """A suite as of a commit."""

    suite: str
    path: str
    commit: str
    date: str
    """Commit date, ISO 8601."""
    subject: str
    model: str
    """In brackets without a configuration: the commit removed the suite, or its file is unreadable."""
    score: Measured | None
    cost: Decimal | None
    """USD per 1,000 instances."""
    prompt: str
    """Eight hex digits of the prompt's hash."""
    spent: Decimal | None
    """USD of the search that chose the configuration."""


def history(
    repository: Repository, suites: Collection[str] = (), revision: str = "HEAD", most: int | None = None
) -> list[Entry]:
    """All changes of these suites, or of all; oldest first. A renamed lock file continues under the suite's current name."""
    commits = repository.history(revision, most)
    blobs = list(dict.fromkeys(blob for one in commits for _, blob, _ in one.files if set(blob) != {"0"}))
    read = (_head(content, suites) for content in repository.blobs(blobs, MAX_BYTES))
    locks = dict(zip(blobs, read, strict=True))
    entries: list[Entry] = []
    names: dict[str, str] = {}
    for commit in commits:
        for path, blob, former in commit.files:
            lock = locks.get(blob)
            name = lock.suite if lock else names.get(path, path)
            names.pop(former, None)
            names[path] = name
            if not suites or name in suites:
                entries.append(_entry(name, path, commit, lock, removed=set(blob) == {"0"}))
    return entries


def _head(content: bytes, suites: Collection[str]) -> Lock | None:
    """Parse a lock file without its examples, which are most of it; None if unreadable or of another suite."""
    start, _, _ = content.partition(b"\nexamples:\n")
    plain = _PLAIN_NAME.search(start)
    if suites and plain and plain[1].decode() not in suites:  # reading the YAML is what takes the time
        return None
    try:
        return Lock.parse(start + b"\nexamples: []\n", Path("a lock file of the past"))
    except LockError:
        return None


_PLAIN_NAME = re.compile(rb"^suite: ([\w.-]+)\r?$", re.MULTILINE | re.ASCII)


def _entry(name: str, path: str, commit: Commit, lock: Lock | None, *, removed: bool) -> Entry:
    known = (name, path, commit.hash, commit.date, commit.subject)
    if lock is None:
        return Entry(*known, "(removed)" if removed else "(cannot be read)", None, None, "", None)
    score = next((lock.metrics[one] for one in ("success_vote", "success") if one in lock.metrics), None)
    usd = None if lock.inference_cost is None else 1000 * lock.inference_cost
    prompt, spent = text_digest(prompt_of(lock.config))[:8], lock.study.spent if lock.study else None
    return Entry(*known, str(lock.config.get("model", "")), score, usd, prompt, spent)
