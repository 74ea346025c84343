"""Compare the locked suites of two states: configuration, prompt, score, cost, prices and rows."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.stats import mcnemar_exact
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.guard.lockfile import MAX_BYTES, Lock, LockedExample, Measured
from pytest_llmtune.guard.verdict import match
from pytest_llmtune.suite.keys import SCORES
from pytest_llmtune.types import Example

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from decimal import Decimal

    from pytest_llmtune.commits.git import Repository


_PROMPTS = ("prompt", "messages")


@dataclass(frozen=True, slots=True)
class State:
    """The lock files of a commit, or of the working tree."""

    name: str
    locks: Mapping[str, Lock]
    """By path, relative to the root of the repository."""

    @classmethod
    def of_revision(cls, repository: Repository, revision: str) -> State:
        """The lock files of a commit; GitError if it is unknown, LockError if a lock file cannot be read."""
        found = repository.locks(revision, MAX_BYTES)
        return cls(revision, {path: Lock.parse(content, Path(path)) for path, content in found})

    @classmethod
    def of_directory(cls, directory: Path) -> State:
        """The current lock files below a directory; LockError if one cannot be read."""
        found = {path.relative_to(directory): path for path in sorted(directory.rglob("*.lock.yaml"))}
        installed = {"node_modules", "site-packages"}
        own = [name for name in found if not installed & {*name.parts} and not any(p[0] == "." for p in name.parts)]
        return cls("working tree", {name.as_posix(): Lock.read(found[name]) for name in own})


@dataclass(frozen=True, slots=True)
class Rows:
    """Numbers of shared, added, removed and changed rows."""

    shared: int
    added: int
    removed: int
    relabelled: int
    """Rows with the same question but another reference, or changes in columns not used by the prompt."""


@dataclass(frozen=True, slots=True)
class SuiteChange:
    """A suite in two states; None for a state without it."""

    name: str
    path: str
    before: Lock | None
    now: Lock | None
    metric: str
    lost: tuple[LockedExample, ...] = ()
    """Rows that got worse, in their current state."""
    gained: tuple[LockedExample, ...] = ()
    rows: Rows | None = None
    p_value: float | None = None
    """Of the exact McNemar test over the shared rows; None if no row flipped."""

    @property
    def status(self) -> Literal["added", "removed", "changed", "same"]:
        if self.before is None or self.now is None:
            return "added" if self.before is None else "removed"
        parts = ("config", "metrics", "prices", "examples")
        same = all(getattr(self.before, part) == getattr(self.now, part) for part in parts)
        return "same" if same else "changed"

    def score(self, side: Literal["before", "now"]) -> Measured | None:
        lock = self.before if side == "before" else self.now
        return None if lock is None else lock.metrics.get(self.metric)

    def cost(self, side: Literal["before", "now"]) -> Decimal | None:
        """USD per 1,000 instances."""
        lock = self.before if side == "before" else self.now
        return None if lock is None or lock.inference_cost is None else 1000 * lock.inference_cost

    @property
    def config(self) -> tuple[tuple[str, Any, Any], ...]:
        """(parameter, before, now) of every changed parameter, without prompts."""
        old, new = (dict(lock.config) if lock else {} for lock in (self.before, self.now))
        names = [name for name in {**old, **new} if name not in _PROMPTS]
        return tuple((name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name))

    @property
    def prompt(self) -> tuple[tuple[str, str], ...]:
        """Word diff of the prompt: (``=``, ``-`` or ``+``; text); empty if unchanged."""
        old, new = (prompt_of(lock.config) if lock else "" for lock in (self.before, self.now))
        return () if old == new else tuple(_word_diff(old, new))

    @property
    def prices(self) -> tuple[tuple[str, str, Decimal | None, Decimal | None], ...]:
        """(model, rate, before, now) of every changed price of a model used in both states."""
        old, new = (lock.prices if lock else {} for lock in (self.before, self.now))
        return tuple(
            (model, rate, old[model].get(rate), new[model].get(rate))
            for model in new
            if model in old
            for rate in {**old[model], **new[model]}
            if old[model].get(rate) != new[model].get(rate)
        )


def prompt_of(config: Mapping[str, Any]) -> str:
    """The prompt, or the messages, as text."""
    if "prompt" in config:
        return str(config["prompt"])
    messages = config.get("messages")
    if not isinstance(messages, (list, tuple)):
        return "" if messages is None else str(messages)
    lines = []
    for one in messages:
        content = one.get("content") if isinstance(one, dict) else one
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        lines.append(f"{one.get('role')}: {text}" if isinstance(one, dict) else str(one))
    return "\n".join(lines)


def _word_diff(old: str, new: str) -> Iterable[tuple[str, str]]:
    before, after = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (old, new))
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            yield "=", "".join(before[a:b])
            continue
        if a != b:
            yield "-", "".join(before[a:b])
        if c != d:
            yield "+", "".join(after[c:d])


def changes(base: State, head: State) -> list[SuiteChange]:
    """All suites of both states, by name; of several with one name all but the first are called by their directory."""
    found, taken = [], set[str]()
    for (path, lock), old, new in sorted(_pairs(base.locks, head.locks), key=lambda pair: pair[0][0]):
        name = lock.suite if lock.suite not in taken else f"{PurePosixPath(path).parent}/{lock.suite}"
        taken.add(lock.suite)
        found.append(_change(name, old, new))
    return sorted(found, key=lambda change: change.name)


_Located = tuple[str, Lock]
"""(path, lock)"""
_Pair = tuple[_Located, _Located | None, _Located | None]
"""Where a suite is, then before and now."""


def _pairs(old: Mapping[str, Lock], new: Mapping[str, Lock]) -> Iterator[_Pair]:
    """Each suite with itself: at the same path, else moved, if only one of its name is left on either side.

    Which of several went where is not guessed: they are removed and added, so that no drop passes as another suite's gain.
    """
    stayed = {path for path in old if path in new and old[path].suite == new[path].suite}
    yield from (((path, new[path]), (path, old[path]), (path, new[path])) for path in stayed)
    left = [[(path, lock) for path, lock in side.items() if path not in stayed] for side in (old, new)]
    for name in {lock.suite for side in left for _, lock in side}:
        before, now = ([each for each in side if each[1].suite == name] for side in left)
        if len(before) == len(now) == 1:
            yield now[0], before[0], now[0]
            continue
        yield from ((each, each, None) for each in before)
        yield from ((each, None, each) for each in now)


def _change(name: str, old: tuple[str, Lock] | None, new: tuple[str, Lock] | None) -> SuiteChange:
    path = (new or old or ("", None))[0]
    before, now = old and old[1], new and new[1]
    metric = next((one for one in SCORES if any(lock and one in lock.metrics for lock in (now, before))), SCORES[0])
    if before is None or now is None:
        return SuiteChange(name, path, before, now, metric)
    todays = (Example(each.id, each.index, {"asked": each.asked}) for each in now.examples)
    found = match(todays, before, key=lambda row: str(row["asked"]))
    rows = Rows(len(found.pairs), len(found.added), len(found.removed), len(found.relabelled))
    in_both = [(found.pairs[each.id], each) for each in now.examples if each.id in found.pairs]
    both = [(a, b) for a, b in in_both if metric in a.metrics and metric in b.metrics]
    both.sort(key=lambda pair: pair[1].index)
    lost = [b for a, b in both if b.metrics[metric] < a.metrics[metric]]
    gained = [b for a, b in both if b.metrics[metric] > a.metrics[metric]]
    p_value = mcnemar_exact(len(lost), len(gained)) if lost or gained else None
    return SuiteChange(name, path, before, now, metric, tuple(lost), tuple(gained), rows, p_value)


def state_of_results(path: Path) -> State:
    """The suites in a results file of ``--llm-json``; LLMTuneError if one has no evaluation."""
    from pytest_llmtune.guard import results_file

    locks = {}
    for report in results_file.read(path):
        if report.evaluation is None:
            raise LLMTuneError(f"{path}: the suite {report.name} has no evaluation ({report.verdict.status})")
        prices = report.baseline.prices if report.baseline else {}
        lock = Lock.of(report.name, report.evaluation, prices=prices, fingerprints={}, key=report.columns.key)
        locks[f"{report.path}/{report.name}"] = lock  # a file may declare several suites
    return State(path.name, locks)
