"""The fixtures, and the handle that ``llmtune`` gives to a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

    from pytest_llmtune.plugin.session import Session
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.types import Evaluation
    from pytest_llmtune.workflow.modes import SuiteRun

__all__ = ["SuiteHandle", "async_client", "client", "handle", "tuned"]


@dataclass(frozen=True, slots=True)
class SuiteHandle:
    """The suite of a test."""

    _run: SuiteRun
    _session: Session

    @property
    def suite(self) -> Suite:
        return self._run.suite

    @property
    def config(self) -> dict[str, Any]:
        """The locked (under ``--llm-tune``: the just tuned) configuration, as in the lock file."""
        return self._run.config.to_lock()

    def evaluate(self) -> Evaluation:
        """The configuration over the suite's test rows: from the recording, or live in the online modes.

        Raises:
            LLMTuneError: no lock file, or requests without a recording; names the mending command.
        """
        if self._session.settings.mode is Mode.DRY_RUN:
            self._session.check(self._run)
            pytest.skip("--llm-tune-dry-run asks nothing")
        evaluation = self._run.evaluation
        if self._session.settings.shard is not None:
            pytest.skip(f"--llm-shard={self._session.settings.shard}: what follows is meant for all rows (--llm-merge)")
        return evaluation

    def check(self) -> None:
        """Fail the test unless the verdict passes: thresholds, costs, and the baseline."""
        self._session.check(self._run)


def handle(session: Session, item: pytest.Item) -> SuiteHandle:
    """What the fixture ``llmtune`` gives; a suite in YAML has the same."""
    if item.nodeid not in session.runs:
        raise pytest.UsageError(f"{item.nodeid}: the fixture 'llmtune' needs @pytest.mark.llmtune(dataset=..., ...)")
    return SuiteHandle(session.run_of(item), session)


def tuned(item: pytest.Item) -> dict[str, Any]:
    """What the fixture ``tuned_config`` gives."""
    from pytest_llmtune.capture.replaying import locked_config

    marker = item.get_closest_marker("llm_suite")
    return locked_config(item.path.parent / "llmtune", marker.args[0] if marker and marker.args else None)


def client(session: Session, item: pytest.Item) -> OpenAI:
    """What the fixture ``llm_client`` gives."""
    from pytest_llmtune.capture import client as openai_client

    return openai_client.client(session.replay(item), base_url=session.settings.base_url)


def async_client(session: Session, item: pytest.Item) -> AsyncOpenAI:
    """What the fixture ``async_llm_client`` gives; it shares the test's recording with ``llm_client``."""
    from pytest_llmtune.capture import client as openai_client

    return openai_client.async_client(session.replay(item), base_url=session.settings.base_url)
