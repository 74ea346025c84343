"""The values of the fixtures ``llmtune`` and ``tuned_config``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.files import open_regular
from pytest_llmtune._util.text import did_you_mean, quoted, scoped
from pytest_llmtune.errors import LLMTuneError, LockError, SuiteError
from pytest_llmtune.plugin.collection import suite_of
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_llmtune.guard.lockfile import Lock
    from pytest_llmtune.plugin.session import Session
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.types import Evaluation
    from pytest_llmtune.workflow.modes import SuiteRun


_MAX_MODULE = 10_000_000
"""Maximum size in bytes of a neighbouring file searched for suites."""


@dataclass(frozen=True, slots=True)
class SuiteHandle:
    """The suite of a test."""

    _run: SuiteRun
    _session: Session
    _nodeid: str

    @property
    def suite(self) -> Suite:
        return self._run.suite

    @property
    def config(self) -> dict[str, Any]:
        """The locked (with ``--llm-tune``: the newly tuned) configuration, as in the lock file."""
        return self._run.config.to_lock()

    def evaluate(self) -> Evaluation:
        """Evaluate the configuration on the suite's test rows: from the recording, or live in online modes.

        A stale or inconclusive result fails the test here. The suite's gates are judged after the test has passed;
        ``max_drop=None`` and ``max_cost_rise=None`` leave judging to the test.

        Raises:
            LLMTuneError: no lock file; the message gives the command that writes it.
        """
        self._session.judged.setdefault(self._nodeid, False)
        if self._session.settings.mode is Mode.DRY_RUN:
            self._session.check(self._run)
            pytest.skip("--llm-tune-dry-run sends nothing")
        if self._run.report.verdict.status in ("stale", "inconclusive"):
            self._session.check(self._run)
        evaluation = self._run.evaluation
        if self._session.settings.shard is not None:
            pytest.skip(f"--llm-shard={self._session.settings.shard}: what follows is meant for all rows (--llm-merge)")
        return evaluation

    def check(self) -> None:
        """Fail the test unless the verdict passes: thresholds, costs, and the baseline."""
        self._session.judged[self._nodeid] = True
        self._session.check(self._run)


def handle(session: Session, item: pytest.Item) -> SuiteHandle:
    """The value of the fixture ``llmtune``, also used for YAML suites."""
    if item.nodeid not in session.runs:
        pytest.fail(
            "the fixture 'llmtune' needs a suite: @pytest.mark.llmtune(dataset=..., prompt=..., model=..., grader=...) on "
            "the test; for the configuration of another suite, use the fixture 'tuned_config'",
            pytrace=False,
        )
    return SuiteHandle(session.runs[item.nodeid], session, item.nodeid)


def tuned(session: Session, item: pytest.Item) -> dict[str, Any]:
    """The value of the fixture ``tuned_config``: of the suite next to the test that ``llm_suite`` names, else the only one.

    Raises:
        SuiteError: the marker does not name a suite; no lock file of that name; several, and no name.
        LockError: the lock file cannot be read, or is not what the suite tests.
    """
    from pytest_llmtune.guard.lockfile import Lock

    name, directory = _chosen_suite(item), item.path.parent / "llmtune"
    runs = [run for run in session.runs.values() if run.location.directory == directory]
    suites = {run.suite.name: (run.location.nodeid, run.suite) for run in runs}
    locked = sorted(path.name.removesuffix(".lock.yaml") for path in directory.glob("*.lock.yaml"))
    if (name or (locked[0] if len(locked) == 1 else None)) not in suites:  # its test was not selected
        if directory not in session.siblings:
            session.siblings[directory] = dict(_sibling_suites(item))
        suites = {**session.siblings[directory], **suites}
    known = sorted({*suites, *locked})
    if name is None:
        if len(known) > 1:
            raise SuiteError(
                f"tuned_config: there are several suites, {', '.join(known)}; choose one: @pytest.mark.llm_suite(NAME)"
            )
        if not known:
            raise SuiteError(f"tuned_config: {directory} holds no lock file, and no suite is declared beside it")
        [name] = known
    elif name not in known:
        valid = f"the suites are {', '.join(known)}" if known else f"{directory} holds no lock file"
        raise SuiteError(f"llm_suite({name!r}): there is no such suite{did_you_mean(name, known)}; {valid}")
    nodeid, suite = suites.get(name, ("", None))
    node = session.target(nodeid) if nodeid else ""  # an app's test does not tune: its commands name the suite
    if name not in locked:
        command = f"pytest --llm-tune {quoted(node)}".rstrip()
        raise SuiteError(f"the suite {name!r} has no lock file yet. Write it: {command}")
    try:
        lock = Lock.read(directory / f"{name}.lock.yaml")
        if suite is not None:
            _check_tested(suite, lock)
    except LockError as error:
        raise LockError(scoped(str(error), node) if node else f"{error} (the suite {name!r})") from None
    return dict(lock.config)


def _chosen_suite(item: pytest.Item) -> str | None:
    """The name in the marker ``llm_suite``."""
    if (marker := item.get_closest_marker("llm_suite")) is None:
        return None
    arguments = [*marker.args, *marker.kwargs.values()]
    if len(arguments) != 1 or not isinstance(arguments[0], str) or not marker.kwargs.keys() <= {"name"}:
        raise SuiteError(f"{item.nodeid}: llm_suite takes the name of one suite: @pytest.mark.llm_suite('NAME')")
    return arguments[0]


def _check_tested(suite: Suite, lock: Lock) -> None:
    """Raise LockError unless the app is tested with the configuration that its suite tests."""
    from pytest_llmtune.guard.staleness import BaselineConfig

    try:
        why = BaselineConfig.of(suite, lock).unlike(suite, lock)
    except SuiteError as error:
        why = str(error)
    if why:
        raise LockError(f"tuned_config: what is locked is not what the suite {suite.name!r} tests: {why}")


def _sibling_suites(item: pytest.Item) -> Iterator[tuple[str, tuple[str, Suite]]]:
    """Suites in the files next to a test's, by name, each with its node ID, including unselected tests.

    Files that cannot be collected, and invalid suites, are ignored: their own test reports them.
    """
    if (module := item.getparent(pytest.Module)) is None:
        return
    for path in sorted(item.path.parent.iterdir()):
        try:
            if path.suffix not in (".py", ".yaml", ".yml"):
                continue
            with open_regular(path) as file:
                if ".llmtune." not in path.name and b"llmtune" not in file.read(_MAX_MODULE):
                    continue
            for collector in item.ihook.pytest_collect_file(file_path=path, parent=module.parent):
                for other in _items_in(collector):
                    with suppress(LLMTuneError):
                        if (suite := suite_of(other)) is not None:
                            yield suite.name, (other.nodeid, suite)
        except (Exception, pytest.skip.Exception, pytest.fail.Exception):  # noqa: BLE001, S112
            continue


def _items_in(node: pytest.Item | pytest.Collector) -> Iterator[pytest.Item]:
    if isinstance(node, pytest.Item):
        yield node
    elif isinstance(node, pytest.Collector):
        for inner in node.collect():
            yield from _items_in(inner)
