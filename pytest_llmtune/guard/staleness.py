"""What was tested against what is locked: fingerprints and missing recordings."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.files import open_regular
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.guard.evaluation import requests_of
from pytest_llmtune.guard.lockfile import Lock
from pytest_llmtune.guard.verdict import Stale
from pytest_llmtune.suite import Config
from pytest_llmtune.types import Shard, ShardFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_llmtune.data.split import Split
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.guard.lockfile import StudySummary
    from pytest_llmtune.guard.rows import RowColumns
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.recording import Recording
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.types import CompletionRequest, Evaluation, Example

__all__ = ["BaselineConfig", "RequestPlan", "fingerprints_of", "lock_of", "prices_of", "state_of"]


def fingerprints_of(suite: Suite, config: Config, split: Split, grader: Grader) -> dict[str, str]:
    """What a baseline was measured with, as the lock file keeps it."""
    known = [template.fingerprint for template in suite.space.templates]
    mine = config.template.fingerprint
    return {
        "dataset": split.dataset.fingerprint if split.dataset else "",
        "grader": grader.fingerprint,
        "prompt": mine,
        "prompt_index": str(known.index(mine)) if mine in known else "0",
        "space": suite.space.fingerprint,
        "rows": _counts(split),
    }


def _counts(split: Split) -> str:
    """Every row of the data is in one of these counts."""
    counts = {"tune": 0 if split.reused else len(split.tune), "test": len(split.test), "repeated": split.doubled}
    if split.dataset:
        counts |= {"filtered": split.dataset.filtered, "dropped for empty cells": split.dataset.dropped}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def lock_of(
    suite: Suite,
    evaluation: Evaluation,
    fingerprints: Mapping[str, str],
    *,
    prices: Mapping[str, Mapping[str, Decimal]],
    study: StudySummary | None,
    columns: RowColumns,
) -> Lock:
    """Today's result as the suite's baseline."""
    return Lock.of(suite.name, evaluation, prices=prices, fingerprints=fingerprints, study=study, key=columns.key)


def prices_of(book: PriceBook, models: Iterable[str]) -> dict[str, dict[str, Decimal]]:
    """Model to USD per 1M tokens, as the lock file keeps them."""
    return {model: {kind: Decimal(usd) for kind, usd in book.price(model).to_plain().items()} for model in models}


@dataclass(frozen=True, slots=True)
class BaselineConfig:
    """The configuration in force, and how today's suite differs from the baseline's."""

    config: Config

    @classmethod
    def of(cls, suite: Suite, lock: Lock) -> BaselineConfig:
        """The locked parameters, with the suite's own template: the locked one, or what became of it.

        Raises:
            SuiteError: the lock file's configuration makes no sense.
        """
        templates = suite.space.templates
        if "cascade" in lock.config:  # a step whose prompt changed is outside the space: to be searched again
            return cls(Config.from_lock({**lock.config}, templates).read_by(suite.grader))
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
        """What a reader of the verdict should know of changes that need no new recording."""
        if now["dataset"] == lock.fingerprints.get("dataset"):
            return ()
        return (
            "the dataset changed since the baseline; --llm-accept makes today's result the baseline, "
            "--llm-tune searches again",
        )

    def changed(self, now: Mapping[str, str], lock: Lock) -> list[str]:
        """Which of prompt and dataset differ from the baseline's."""
        return [name for name in ("prompt", "dataset") if now[name] != lock.fingerprints.get(name)]

    def stale(
        self,
        suite: Suite,
        now: Mapping[str, str],
        lock: Lock,
        missing: int,
        asked: int,
        *,
        grader: Grader,
        detail: str = "",
    ) -> tuple[Stale, ...]:
        """Why the verdict is no fact yet, each with the one option that mends it; ``detail``: of a missing request."""
        found = []
        if missing:
            changed = self.changed(now, lock)
            what = f"the {' and the '.join(changed)} changed" if changed else "the recording is incomplete"
            what = f"{what}: {missing} of {asked} requests have no recording"
            found.append(Stale(what, "--llm-record=missing", detail))
        else:
            if now["prompt"] != lock.fingerprints.get("prompt"):
                what = (
                    "the prompt changed: this is the score of the new one, and tuned_config still gives the locked one"
                )
                found.append(Stale(what, "--llm-accept"))
            if now["grader"] != lock.fingerprints.get("grader"):
                found.append(Stale(f"the grader changed: {_why(grader, lock, asked)}", "--llm-accept"))
        return (*found, *self._outside(suite))

    def unlike(self, suite: Suite, lock: Lock) -> str:
        """How what is locked differs from what the suite tests, and the commands that end it; empty where they agree."""
        if (outside := self._outside(suite)) != ():
            return f"{outside[0].what}; search again: pytest {outside[0].option}"
        if self.config.template.fingerprint != lock.fingerprints.get("prompt"):
            return (
                "the prompt changed, and the lock file still gives the old one. See the new one's score: "
                "pytest --llm-record=missing; then hand it to the app: pytest --llm-accept"
            )
        return ""

    def _outside(self, suite: Suite) -> tuple[Stale, ...]:
        """Why the suite would not choose what is locked."""
        found = []
        if self.config.following is not None and not suite.cascade:
            found.append(Stale("the locked configuration is a cascade, which the suite does not allow", "--llm-tune"))
        if (reason := suite.space.why_not(self.config)) is not None:
            found.append(Stale(f"the locked configuration lies outside the search space: {reason}", "--llm-tune"))
        return tuple(found)


def _why(grader: Grader, lock: Lock, asked: int) -> str:
    """What is known of a changed grader: that an extra makes the whole difference, or that nothing needs to be asked."""
    other = grader.elsewhere
    if other is not None and other.fingerprint == lock.fingerprints.get("grader"):
        return other.why
    return f"0 of {asked} requests lack a recording"


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """Requests are made each time they are gone through: all at once they would fill memory."""

    config: Config
    all: Sequence[Example]
    """Of the suite: a row's draw counts those before it, whatever shard they are of."""
    shard: Shard | None = None
    unknown: frozenset[str] = frozenset()
    """Rows, by id, that could not be completed when the baseline was made: they need no recording."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The rows of this run, in order."""
        return tuple(example for example in self.all if self._holds(example))

    def pairs(self) -> Iterator[tuple[Example, CompletionRequest]]:
        """``examples``, each with its request."""
        return zip(self.examples, self.requests(), strict=True)

    def requests(self) -> Iterator[CompletionRequest]:
        """One for each of ``examples``."""
        return (request for mine, request in self._everything() if mine)

    def missing(self, recording: Recording) -> tuple[int, str]:
        """How many requests have no recording, and how the first of them differs from the nearest recorded one.

        What other shards will take counts as used.
        """
        if self.config.runs_task:
            for example in self.all:
                if not self._holds(example):
                    recording.leave_row(example.id)
            return 0, ""  # known only once they have run
        count, detail = 0, ""
        excused = self.excused(recording)
        for mine, request in self._everything():
            if not mine:
                recording.leave(request)
            elif not recording.holds(request) and (request.key, request.draw) not in excused:
                count += 1
                detail = detail or recording.explain(request)
        return count, detail

    def excused(self, recording: Recording) -> frozenset[tuple[str, int]]:
        """The requests (key and draw) without a recording whose rows are unknown in the baseline too."""
        if not self.unknown or self.config.runs_task:
            return frozenset()
        asked = zip(self.all, requests_of(self.config, self.all), strict=True)
        return frozenset(
            (request.key, request.draw)
            for example, request in asked
            if example.id in self.unknown and not recording.holds(request)
        )

    def facts(self, state: Mapping[str, str]) -> ShardFacts | None:
        """What the results of a shard say of themselves; None where the run is whole."""
        if self.shard is None:
            return None
        return ShardFacts(self.shard.index, self.shard.count, len(self.all), state)

    def _everything(self) -> Iterator[tuple[bool, CompletionRequest]]:
        for example, request in zip(self.all, requests_of(self.config, self.all), strict=True):
            yield self._holds(example), request

    def _holds(self, example: Example) -> bool:
        return self.shard is None or self.shard.holds(example)


def state_of(
    fingerprints: Mapping[str, str], lock_path: Path, prices: Mapping[str, Mapping[str, Decimal]]
) -> dict[str, str]:
    """All that the results of a suite depend on, beside its recording."""
    with open_regular(lock_path) as file:
        lock = hashlib.sha256(file.read().replace(b"\r\n", b"\n")).hexdigest()
    return {
        **fingerprints,
        "lock": lock,
        "prices": str([(model, sorted(price.items())) for model, price in sorted(prices.items())]),
    }
