"""The pytest plugin: hooks and fixtures; each delegates to the session. PYTEST_DONT_REWRITE"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune.plugin import hookspecs
from pytest_llmtune.plugin.options import MARKERS, any_given, declare, uses_llmtune, value_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from openai import AsyncOpenAI, OpenAI

    from pytest_llmtune.plugin.fixtures import SuiteHandle
    from pytest_llmtune.plugin.reports import Reports
    from pytest_llmtune.plugin.session import Session


_SESSION = pytest.StashKey["Session"]()
_REPORTS = pytest.StashKey["Reports"]()
_RUN = pytest.StashKey[str]()
"""ID that xdist gives the run, in its controller."""


def session_of(config: pytest.Config) -> Session:
    """This run's session, created on first use: an idle run creates nothing. UsageError if an option is invalid."""
    if _SESSION not in config.stash:
        from pytest_llmtune.plugin.session import Session

        config.stash[_SESSION] = Session(config)
        config.pluginmanager.register(_Refusals(config.stash[_SESSION]), "llmtune-refusals")
        _receive_results(config)
    return config.stash[_SESSION]


def _reports_of(config: pytest.Config) -> Reports:
    if _REPORTS not in config.stash:
        from pytest_llmtune.plugin.reports import Reports

        config.stash[_REPORTS] = Reports(session_of(config))
    return config.stash[_REPORTS]


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    declare(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if (name := value_of("init", config)) is None:
        return None
    from pytest_llmtune.errors import LLMTuneError
    from pytest_llmtune.plugin.init import start

    try:
        start(config, name)
    except (LLMTuneError, OSError) as error:
        raise pytest.UsageError(str(error)) from None
    return pytest.ExitCode.OK


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if any_given(config):
        session_of(config).isolate()  # an invalid option is an error even without suites


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if not file_path.name.endswith((".llmtune.yaml", ".llmtune.yml")):
        return None
    from pytest_llmtune._util.files import has_controls
    from pytest_llmtune.plugin.yaml_items import SuiteFile

    if has_controls(name := os.path.relpath(file_path, parent.config.rootpath)):
        plain = re.sub(r"[^\w./-]", "_", name)  # pytest prints node names unescaped
        return SuiteFile.from_parent(parent, path=file_path, name=plain, nodeid=plain)
    return SuiteFile.from_parent(parent, path=file_path)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if value_of("tune", config) or value_of("accept", config):  # the app's tests use what the suites are about to lock
        items.sort(key=lambda item: item.get_closest_marker("llmtune") is None)
    if hasattr(config, "workerinput") and any(map(uses_llmtune, items)):
        from pytest_llmtune.plugin.xdist import share

        share(session_of(config), items)


def pytest_collection_finish(session: pytest.Session) -> None:
    using = [item for item in session.items if uses_llmtune(item)]
    if not using and not value_of("prune", session.config):
        return
    from pytest_llmtune.plugin import collection

    collection.declare(session_of(session.config), using)
    if value_of("prune", session.config):
        found = collection.prune(session_of(session.config), using, failed=session.testsfailed)
        _reports_of(session.config).pruned = found


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    return True if value_of("prune", session.config) else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _guarding(item, starts=True))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _guarding(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _guarding(item, ends=True))


def _guarding(item: pytest.Item, **phase: bool) -> Generator[None, Any, Any]:
    if not (uses_llmtune(item) or (_SESSION in item.config.stash and session_of(item.config).blocks_all)):
        return (yield)
    with session_of(item.config).guarding(item, **phase):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    if fixturedef.scope == "function" or _SESSION not in request.config.stash:
        return (yield)
    with session_of(request.config).guarding_fixture(fixturedef, request):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    if _SESSION not in item.config.stash:
        return (yield)
    from pytest_llmtune.plugin.session import reporting

    with reporting():
        report = yield
    ours, reports = session_of(item.config), _reports_of(item.config)
    wrong = call.when == "setup" and report.failed and item.nodeid in ours.wrong
    if wrong:
        report.llmtune_wrong = True
    if wrong or call.when == "call":
        reports.attach(item, report)
    if call.when == "teardown":
        reports.attach_calls(item, report)
        if facts := reports.recording_facts(item):
            report.llmtune_recording = facts
    if uses_llmtune(item) and (crash := getattr(report.longrepr, "reprcrash", None)):
        from pytest_llmtune.plugin.reports import message_first

        crash.message = message_first(crash.message)
    if (report.sections or report.longrepr is not None) and uses_llmtune(item):
        from pytest_llmtune.plugin.masking import mask_report

        mask_report(report, ours.clean)
    return report


class _Refusals:
    """Fails an unusable test within its setup hooks, so that other plugins' hooks are entered and exited.

    Runs after hooks that skip, and before fixtures.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._session.refuse(item)


class _Results:
    """Receives the results that tests of this process, or of xdist's workers, attach to their reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if any(name.startswith("llmtune") for name in vars(report)):
            _reports_of(self.config).receive(report)


def _receive_results(config: pytest.Config) -> None:
    if not (hasattr(config, "workerinput") or config.pluginmanager.has_plugin("llmtune-results")):
        config.pluginmanager.register(_Results(config), "llmtune-results")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_logreport() -> Generator[None, Any, Any]:
    """Requests of other plugins while reporting do not belong to the test."""
    if "pytest_llmtune.plugin.session" not in sys.modules:
        return (yield)
    from pytest_llmtune.plugin.session import reporting

    with reporting():
        return (yield)


@pytest.hookimpl(trylast=True)  # Ctrl-C leaves fixtures to be torn down here
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _SESSION in session.config.stash:
        reports = _reports_of(session.config)
        reports.attach_rest()
        written = reports.write()
        wrong = reports.misused or (session_of(session.config).wrong and session.config.getoption("collectonly"))
        if reports.pruned and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
        replaced = (pytest.ExitCode.OK, *([pytest.ExitCode.TESTS_FAILED] if wrong else []))
        if (wrong or not written) and session.exitstatus in replaced:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SESSION in config.stash:
        session_of(config).close()
    if _RUN in config.stash and _SESSION in config.stash:
        from pytest_llmtune.plugin.xdist import tidy

        tidy(config.stash[_RUN])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if _SESSION in config.stash and (text := _reports_of(config).summary()):
        terminalreporter.section("llmtune")
        terminalreporter.line(text)


@pytest.hookimpl(optionalhook=True)  # xdist's
def pytest_configure_node(node: Any) -> None:
    _receive_results(node.config)
    node.config.stash[_RUN] = node.workerinput["testrunuid"]
    node.workerinput["llmtune_width"] = node.config.get_terminal_writer().fullwidth
    if _SESSION in node.config.stash:
        session_of(node.config).worker_starts(node)


@pytest.hookimpl(optionalhook=True)  # xdist's
def pytest_testnodedown(node: Any, error: object) -> None:
    if text := getattr(node, "workeroutput", {}).pop("llmtune_calls", ""):  # it may go down twice
        _reports_of(node.config).receive_calls(text)
    if error and _SESSION in node.config.stash:
        session_of(node.config).worker_died(node)


@pytest.fixture
def llmtune(request: pytest.FixtureRequest) -> SuiteHandle:
    """The suite declared by the test's ``llmtune`` marker: ``.suite``, ``.config``, ``.evaluate()``, ``.check()``."""
    from pytest_llmtune.plugin.fixtures import handle

    return handle(session_of(request.config), request.node)


@pytest.fixture
def tuned_config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The locked configuration of the test's suite: OpenAI parameters, and ``prompt`` or ``messages``."""
    from pytest_llmtune.plugin.fixtures import tuned

    return tuned(session_of(request.config), request.node)


@pytest.fixture
def llm_client(request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    """An OpenAI client whose calls are recorded or replayed, and metered."""
    from pytest_llmtune.capture.client import client

    session = session_of(request.config)
    with client(session.replay(request.node), base_url=session.settings.base_url) as opened:
        yield opened


@pytest.fixture
def async_llm_client(request: pytest.FixtureRequest) -> AsyncOpenAI:
    """Asynchronous version of ``llm_client``, with which it shares the test's recording."""
    from pytest_llmtune.capture.client import async_client

    session = session_of(request.config)
    return async_client(session.replay(request.node), base_url=session.settings.base_url)
