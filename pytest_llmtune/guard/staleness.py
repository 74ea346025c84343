"""From the lock file and the suite of today to what must be asked: the locked configuration, and what changed since."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.guard.lockfile import Lock
from pytest_llmtune.guard.verdict import Stale
from pytest_llmtune.suite import Config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.data.split import Split
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.grading.base import Elsewhere
    from pytest_llmtune.guard.lockfile import StudySummary
    from pytest_llmtune.money.prices import Price
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.types import Evaluation

__all__ = ["Locked", "fingerprints_of", "lock_of"]


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
    }


def lock_of(
    suite: Suite, evaluation: Evaluation, fingerprints: Mapping[str, str], *, price: Price, study: StudySummary | None
) -> Lock:
    """Today's result as the suite's baseline; the price is that of its model."""
    model = str(evaluation.config["model"])
    prices = {model: {name: Decimal(usd) for name, usd in price.to_plain().items()}}
    return Lock.of(suite.name, evaluation, prices=prices, fingerprints=fingerprints, study=study)


@dataclass(frozen=True, slots=True)
class Locked:
    """The configuration in force, and how today's suite differs from the baseline's."""

    config: Config
    prompt_changed: bool

    @classmethod
    def of(cls, suite: Suite, lock: Lock) -> Locked:
        """The locked parameters, with the suite's own template: the locked one, or what became of it.

        Raises:
            SuiteError: the lock file's configuration makes no sense.
        """
        templates = suite.space.templates
        known = {template.fingerprint: template for template in templates}
        template = known.get(lock.fingerprints.get("prompt", ""))
        if template is None:
            index = lock.fingerprints.get("prompt_index", "0")
            position = int(index) if index.isdecimal() else 0
            template = templates[min(position, len(templates) - 1)]
            params = {name: value for name, value in lock.config.items() if name not in ("prompt", "messages")}
            if not isinstance(params.get("model"), str):
                raise SuiteError(f"the lock file of {suite.name!r} names no model; search again: pytest --llm-tune")
            return cls(Config(params, template), True)
        return cls(Config.from_lock({**lock.config}, [template, *templates]), False)

    def notes(self, now: Mapping[str, str], lock: Lock) -> tuple[str, ...]:
        """What a reader of the verdict should know of changes that need no new recording."""
        changed = self.changed(now, lock)
        if not changed:
            return ()
        return (
            f"{' and '.join(changed)} changed since the baseline; "
            "--llm-accept makes today's result the baseline, --llm-tune searches anew",
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
        elif now["grader"] != lock.fingerprints.get("grader"):
            found.append(Stale(f"the grader changed: {_why(grader, lock, asked)}", "--llm-accept"))
        if (reason := suite.space.why_not(self.config)) is not None:
            found.append(Stale(f"the locked configuration lies outside the search space: {reason}", "--llm-tune"))
        return tuple(found)


def _why(grader: Grader, lock: Lock, asked: int) -> str:
    """What is known of a changed grader: that an extra makes the whole difference, or that nothing needs to be asked."""
    other: Elsewhere | None = getattr(grader, "elsewhere", None)
    if other is not None and other.fingerprint == lock.fingerprints.get("grader"):
        return other.why
    return f"0 of {asked} requests lack a recording"
