"""Differences between the suite and its baseline: fingerprints and missing recordings."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.files import open_regular
from pytest_llmtune.errors import LockError, SuiteError
from pytest_llmtune.guard.evaluation import requests_of
from pytest_llmtune.guard.lockfile import Lock
from pytest_llmtune.guard.verdict import Stale
from pytest_llmtune.suite import Config, Suite
from pytest_llmtune.suite.cascade import steps_of
from pytest_llmtune.types import CompletionRequest, Example, Shard, ShardFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_llmtune.data.split import Split
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.recording import Recording


MIGRATED = "migrated"
"""The fingerprint that lets a configuration of ``--llm-migrate`` be outside of the search space, as long as the space is the same."""


def fingerprints_of(suite: Suite, config: Config, split: Split, grader: Grader) -> dict[str, str]:
    """Fingerprints of everything that a baseline depends on, as in the lock file."""
    counts = {"tune": 0 if split.reused else len(split.tune), "test": len(split.test), "repeated": split.doubled}
    if split.dataset:
        counts |= {"filtered": split.dataset.filtered, "dropped for empty cells": split.dataset.dropped}
    return {
        "dataset": split.dataset.fingerprint if split.dataset else "",
        "grader": grader.fingerprint,
        **_prompt(suite, config),
        "space": suite.space.fingerprint,
        "rows": ", ".join(f"{count} {name}" for name, count in counts.items() if count),  # all rows of the data
    }


def _prompt(suite: Suite, config: Config) -> dict[str, str]:
    """Which of the suite's templates a configuration has."""
    known, mine = [template.fingerprint for template in suite.space.templates], config.template.fingerprint
    index = str(known.index(mine)) if mine in known else "written" if suite.space.writes else "0"
    return {"prompt": mine, "prompt_index": index}


def chosen(suite: Suite, lock: Lock, number: int) -> Lock:
    """The lock with the front's point ``number``, from 1, the best; no example of it is known. LockError without such a point."""
    study = lock.study
    front = study.front if study is not None else ()
    if study is None or not 1 <= number <= len(front):
        state = f"has {len(front)} points" if front else "is not there: declare prefer='pareto'"
        raise LockError(f"{suite.name}: --llm-choose={number}: the front {state}; search it: pytest --llm-tune")
    point = front[number - 1]
    config = Config.from_lock({**point.config}, suite.space.templates)
    study = replace(study, winner=point.number, tuning=point.score, heldout=None)
    prompt = _prompt(suite, config)
    return replace(lock, config=point.config, study=study, fingerprints={**lock.fingerprints, **prompt}, examples=())


@dataclass(frozen=True, slots=True)
class BaselineConfig:
    """The locked configuration, and how the suite differs from the baseline's."""

    config: Config

    @classmethod
    def of(cls, suite: Suite, lock: Lock) -> BaselineConfig:
        """The locked parameters with the suite's template, locked or changed; SuiteError if the lock file's are invalid."""
        templates = suite.space.templates
        if "cascade" in lock.config:  # a step with a changed prompt is outside the space and needs a new search
            return cls(Config.from_lock({**lock.config}, templates).read_by(suite.grader, suite.cascade))
        if (
            suite.space.writes and lock.fingerprints.get("prompt_index") == "written"
        ):  # by a search: it is only in the lock file
            return cls(Config.from_lock({**lock.config}, templates))
        known = {template.fingerprint: template for template in templates}
        template = known.get(lock.fingerprints.get("prompt", ""))
        if template is None:
            index = lock.fingerprints.get("prompt_index", "0")
            position = int(index) if index.isdecimal() else 0
            template = templates[min(position, len(templates) - 1)]
            params = {name: value for name, value in lock.config.items() if name not in ("prompt", "messages")}
            if not isinstance(params.get("model", "" if suite.space.runs_task else None), str):
                raise SuiteError(f"the lock file of {suite.name!r} names no model; search again: pytest --llm-tune")
            return cls(Config(params, template))
        return cls(Config.from_lock({**lock.config}, [template, *templates]))

    def notes(self, now: Mapping[str, str], lock: Lock) -> tuple[str, ...]:
        """Notes on changes that need no new recording."""
        if now["dataset"] == lock.fingerprints.get("dataset"):
            return ()
        return (
            "the dataset changed since the baseline; --llm-accept makes today's result the baseline, "
            "--llm-tune searches again",
        )

    def stale(
        self,
        suite: Suite,
        now: Mapping[str, str],
        lock: Lock,
        missing: int,
        requests: int,
        *,
        grader: Grader,
        detail: str = "",
    ) -> tuple[Stale, ...]:
        """Reasons why the verdict is stale, each with the option that fixes it; ``detail``: about a missing request."""
        found, old = [], lock.fingerprints
        if missing:
            changed = [name for name in ("prompt", "dataset") if now[name] != old.get(name)]
            what = f"the {' and the '.join(changed)} changed" if changed else "the recording is incomplete"
            what = f"{what}: {missing} of {requests} requests have no recording"
            found.append(Stale(what, "--llm-record=missing", detail))
        else:
            if now["prompt"] != old.get("prompt"):
                what = "the prompt changed: this is the score of the new one; the lock file still has the old one"
                found.append(Stale(what, "--llm-accept"))
            if now["grader"] != old.get("grader"):
                other = grader.with_other_extras  # of this machine: then that is why
                extra = other is not None and other.fingerprint == old.get("grader")
                why = other.why if other and extra else f"0 of {requests} requests lack a recording"
                found.append(Stale(f"the grader changed: {why}", "--llm-accept"))
        return (*found, *self._outside(suite, lock))

    def unlike(self, suite: Suite, lock: Lock) -> str:
        """How the locked configuration differs from the tested one, and the commands that fix it; empty if it does not."""
        if (outside := self._outside(suite, lock)) != ():
            return f"{outside[0].what}; search again: pytest {outside[0].option}"
        if self.config.template.fingerprint != lock.fingerprints.get("prompt"):
            return (
                "the prompt changed, and the lock file still gives the old one. See the new one's score: "
                "pytest --llm-record=missing; then hand it to the app: pytest --llm-accept"
            )
        return ""

    def _outside(self, suite: Suite, lock: Lock) -> tuple[Stale, ...]:
        """Why the suite could not choose the locked configuration."""
        found = []
        migrated = lock.fingerprints.get(MIGRATED) == suite.space.admission(self.config)
        if self.config.following is not None:
            models = () if migrated else [step.model for step in self.config.steps]
            steps = steps_of(suite.cascade)
            if not suite.cascade:
                found.append("the locked configuration is a cascade, which the suite does not allow")
            elif (reason := steps.why_not(models, self.config.accept)) is not None:
                found.append(f"the locked cascade is outside the search space: {reason}")
        if not migrated and (reason := suite.space.why_not(self.config)) is not None:
            found.append(f"the locked configuration is outside the search space: {reason}")
        return tuple(Stale(what, "--llm-tune") for what in found)


_FEW = 2_000
"""Up to so many requests are kept in memory: they are compared with the recording, and then answered from it."""


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """The requests of a run; many are created on each iteration, because all at once may not fit in memory."""

    config: Config
    all: Sequence[Example]
    """All rows of the suite: a row's draw counts equal ones before it, in any shard."""
    shard: Shard | None = None
    unknown: frozenset[str] = frozenset()
    """IDs of rows that could not be completed when the baseline was made, which need no recording."""
    _stored: list[CompletionRequest] = field(default_factory=list, init=False, repr=False, compare=False)
    """All requests, once they are created, where there are few."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The rows of this run, in order."""
        return tuple(self.all) if self.shard is None else tuple(filter(self.shard.holds, self.all))

    def pairs(self) -> Iterator[tuple[Example, CompletionRequest]]:
        """``examples``, each with its request."""
        return zip(self.examples, self.requests(), strict=True)

    def requests(self) -> Iterator[CompletionRequest]:
        """One per example of ``examples``."""
        return (request for example, request in self._everything() if self._in_shard(example))

    def missing(self, recording: Recording) -> tuple[int, str]:
        """Number of requests without a recording, and how the first differs from the nearest recorded one.

        Requests of other shards are marked as used.
        """
        if self.config.runs_task:
            for example in self.all:
                if not self._in_shard(example):
                    recording.mark_row_used(example.id)
            return 0, ""  # unknown before they have run
        count, detail = 0, ""
        excused = self.excused(recording)
        for example, request in self._everything():
            if not self._in_shard(example):
                recording.mark_used(request)
            elif not recording.has(request) and (request.key, request.sample_index) not in excused:
                count += 1
                detail = detail or recording.explain(request)
        return count, detail

    def excused(self, recording: Recording) -> frozenset[tuple[str, int]]:
        """The unrecorded requests (key and draw) of rows that are unknown in the baseline too."""
        if not self.unknown or self.config.runs_task:
            return frozenset()
        return frozenset(
            (request.key, request.sample_index)
            for example, request in self._everything()
            if example.id in self.unknown and not recording.has(request)
        )

    def facts(self, state: Mapping[str, str]) -> ShardFacts | None:
        """Description of a shard's results; None if the run covers all rows."""
        if self.shard is None:
            return None
        return ShardFacts(self.shard.index, self.shard.count, len(self.all), state)

    def _everything(self) -> Iterator[tuple[Example, CompletionRequest]]:
        if len(self.all) <= _FEW and not self._stored:
            self._stored.extend(requests_of(self.config, self.all))
        return zip(self.all, self._stored or requests_of(self.config, self.all), strict=True)

    def _in_shard(self, example: Example) -> bool:
        return self.shard is None or self.shard.holds(example)


def state_of(
    fingerprints: Mapping[str, str], lock_path: Path, prices: Mapping[str, Mapping[str, Decimal]]
) -> dict[str, str]:
    """Everything that a suite's results depend on, except its recording."""
    with open_regular(lock_path) as file:
        lock = hashlib.sha256(file.read().replace(b"\r\n", b"\n")).hexdigest()
    return {
        **fingerprints,
        "lock": lock,
        "prices": str([(model, sorted(price.items())) for model, price in sorted(prices.items())]),
    }
