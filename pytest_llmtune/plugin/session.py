"""The plugin's state of one pytest session: settings, suites, ledger, and the guards around tests and fixtures.

Modules for suites are imported lazily, because most runs of an app's own tests have none.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune._dataclass import replace
from pytest_llmtune._util.files import refuse_links
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import clean, quoted, scoped, wrapped
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.money.ledger import Ledger, SharedSpend
from pytest_llmtune.money.spend_log import SpendLog
from pytest_llmtune.plugin.masking import masked_logs
from pytest_llmtune.plugin.options import settings_of, value_of
from pytest_llmtune.redaction.redactor import Redactor, redactor_of
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_llmtune.capture.netguard import Offline
    from pytest_llmtune.capture.scope import Scope
    from pytest_llmtune.capture.session import Replay
    from pytest_llmtune.capture.traffic import Traffic
    from pytest_llmtune.guard.shards import Shards
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.report.progress import Progress
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.workflow.modes import SuiteRun


_CLIENTS = frozenset({"llm_client", "async_llm_client"})
"""Fixtures whose calls are recorded without a marker."""
_AT_LINE_START = lazy_regex(r"(?m)^[^\S\n]*::")


class Session:
    """A run: its settings, its suites, and their tests by node ID."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.in_worker = hasattr(config, "workerinput")
        """Whether this is a worker of xdist."""
        self.settings = settings_of(config)
        sent = getattr(config, "workerinput", {})  # by the controller of xdist
        shared = SharedSpend(Path(sent["llmtune_spend"]), sent["workerid"]) if "llmtune_spend" in sent else None
        self.ledger = Ledger(self.settings.max_spend, name="--llm-max-spend", shared=shared)
        self.runs: dict[str, SuiteRun] = {}
        self.replays: dict[str, Replay] = {}
        self.scopes: dict[str, Scope] = {}
        self.fixtures: dict[str, dict[str, bool]] = {}
        """Fixtures of guarded tests, the modules or classes of these tests, and whether one is marked llm_replay."""
        self.running: pytest.Item | None = None
        """The guarded test that runs now."""
        self.siblings: dict[Path, dict[str, tuple[str, Suite]]] = {}
        """Suites declared next to a directory of lock files, by name, loaded on demand."""
        self.unreported: list[tuple[str, Replay]] = []
        """Recordings whose calls are not reported yet, by test or fixture."""
        self.killed = Decimal(0)
        """USD spent by earlier runs that were killed."""
        self.errors: dict[str, str] = {}
        """Why a test failed, where one of our errors failed it, by node ID."""
        self.dry_runs: list[str] = []
        self.wrong: dict[str, str] = {}
        """What is wrong with the declaration of a test, by node ID: that test alone fails."""
        self.unopened: dict[str, str] = {}
        """Why the recording of a test cannot be opened, by node ID; raised at the start of its setup."""
        self.judged: dict[str, bool] = {}
        """Tests that judged their suite, by node ID: by its verdict (True), or by the figures of ``evaluate()`` (False)."""
        self._without_links: set[Path] = set()
        """Directories that were searched for links."""
        self._open = ExitStack()
        if self.settings.mode.online:
            self._log_spending()
        if not self.in_worker:
            self.shards  # noqa: B018  # what is wrong with them is reported once, by the process that the user started
        if value_of("report", config):
            from pytest_llmtune.report.html import check_installed

            with self._as_usage_error():
                check_installed()

    def isolate(self) -> None:
        """Cut the run off from the network where ``llmtune_isolate`` says so; UsageError if the system does not allow it."""
        if self.settings.isolate and not self.settings.mode.online and not self.in_worker:
            from pytest_llmtune.capture.isolation import isolate

            with self._as_usage_error():
                isolate()

    @contextmanager
    def _as_usage_error(self, start: str = "") -> Iterator[None]:
        try:
            yield
        except LLMTuneError as error:
            raise pytest.UsageError(self.clean(f"{start}{error}")) from None

    @cached_property
    def width(self) -> int:
        """The terminal's width; an xdist worker gets it from its controller."""
        shown = self.config.pluginmanager.hasplugin("terminalreporter")
        width = getattr(self.config, "workerinput", {}).get("llmtune_width")
        return width or (self.config.get_terminal_writer().fullwidth if shown else 80)

    @cached_property
    def shards(self) -> Shards | None:
        """The results that ``--llm-merge`` names; UsageError unless they are all shards, each once."""
        if self.settings.merge is None:
            return None
        from pytest_llmtune.guard.shards import Shards

        with self._as_usage_error("--llm-merge: "):
            return Shards.read(Path(self.settings.merge), most=int(self.settings.max_data * 12_000_000))

    @cached_property
    def redactor(self) -> Redactor:
        return redactor_of(self.settings, self.config.hook.pytest_llmtune_redact.get_hookimpls())

    def clean(self, text: str) -> str:
        """A text without keys, for messages and reports; works without valid patterns of the user's."""
        try:
            return self.redactor.clean_text(text)
        except SuiteError:
            return Redactor.from_environment().clean_text(text)

    def message(self, error: BaseException) -> str:
        """The message of an error, which may quote files: without keys, terminal controls and CI commands."""
        return _AT_LINE_START.sub(r"\\::", clean(self.clean(str(error))))

    @cached_property
    def prices(self) -> PriceBook:
        """The prices in force for the calls of tests."""
        from pytest_llmtune.money.prices import PriceBook

        return PriceBook(self.settings.prices, of_suite=False)

    @cached_property
    def traffic(self) -> Traffic:
        """Which requests of tests are recorded and replayed; SuiteError if the ini keys for hosts have an unusable line."""
        from pytest_llmtune.capture.traffic import traffic_of

        return traffic_of(self.settings)

    @cached_property
    def progress(self) -> Progress:
        """Shows progress on the real standard output, past pytest's capture; silent under -q.

        An xdist worker can only use its controller's standard error.
        """
        from pytest_llmtune.report.progress import Progress

        quiet, worker = self.config.get_verbosity() < 0, self.in_worker
        capture = self.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else ExitStack():
            file = os.fdopen(os.dup(2 if worker else 1), "w", encoding="utf-8")
        self._open.enter_context(file)
        terminal = file.isatty() and os.environ.get("TERM") != "dumb"
        shown = self.config.pluginmanager.hasplugin("terminalreporter")
        color = terminal and shown and self.config.get_terminal_writer().hasmarkup
        return self._open.enter_context(Progress(file, terminal=terminal, color=color, quiet=quiet, worker=worker))

    def _log_spending(self) -> None:
        """Log spending to disk, so that the next run can report it if this one is killed."""
        directory = self.settings.root / ".llmtune" / "spend"
        if directory.is_symlink() or directory.parent.is_symlink():  # untrusted; refused when used
            return
        self.ledger.log = SpendLog(directory)
        self._open.callback(self.ledger.log.close)
        if not self.in_worker:
            self.killed = self.ledger.log.earlier()

    @cached_property
    def _spend_table(self) -> Path:
        """The spending of xdist's workers, which share ``--llm-max-spend``; removed at the end of the run."""
        return Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="llmtune-"))) / "spend.sqlite"

    def worker_starts(self, node: Any) -> None:
        """Let a worker of xdist know what the others spend."""
        if self.settings.max_spend is not None:
            node.workerinput["llmtune_spend"] = str(self._spend_table)

    def worker_died(self, node: Any) -> None:
        """Count a crashed worker's reservations as spent, so that others do not wait for them."""
        if self.settings.max_spend is not None:
            SharedSpend(self._spend_table, "controller").bury(node.workerinput["workerid"])

    def at_end(self, callback: Callable[[], None]) -> None:
        """Register a callback for the end of the run."""
        self._open.callback(callback)

    def close(self) -> None:
        """Close everything that the run opened."""
        self._open.close()

    def refuse_links(self, directory: Path) -> None:
        """Raise SuiteError if a directory has links; without any it is searched once, however many tests have files in it."""
        if directory not in self._without_links:
            refuse_links([directory], self.config.rootpath)
            self._without_links.add(directory)

    def listen(self, event: Any) -> None:
        self.progress(event)  # created once there is something to show

    def refuse(self, item: pytest.Item) -> None:
        """Fail a test with an invalid declaration or unreadable recording before it runs."""
        if problem := self.wrong.get(item.nodeid) or self.unopened.pop(item.nodeid, ""):
            pytest.fail(problem, pytrace=False)

    # -- guards

    @contextmanager
    def guarding(self, item: pytest.Item, *, starts: bool = False, ends: bool = False) -> Iterator[None]:
        """Guard a phase of a test: block the network if the mode is offline, record or replay its client calls.

        Args:
            starts: the test starts, or is rerun by pytest-rerunfailures: its recording is read again.
            ends: after its last finaliser: its recording is written.
        """
        self.running = None if ends else item
        with masked_logs(self.config, self.clean), self._as_test_failure(item):
            if starts and item.nodeid not in self.wrong:
                try:
                    self.scopes[item.nodeid] = self._scope(item)
                    self.scopes[item.nodeid].open()
                except LLMTuneError as error:
                    problem = scoped(self.message(error), self.target(item.nodeid))
                    self.unopened[item.nodeid] = self.errors[item.nodeid] = problem
            scope = self.scopes.get(item.nodeid)
            if scope is None:  # refused before it started
                yield
                return
            try:
                with scope.phase():
                    yield
                    if not (starts or ends):
                        self._check_judged(item)
                        self._check_age(item, scope)
            finally:
                if ends:
                    scope.close()

    @contextmanager
    def _as_test_failure(self, item: pytest.Item) -> Iterator[None]:
        """Turn our errors into test failures with a message and without a traceback."""
        try:
            yield
        except (LLMTuneError, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt):
                if not error.args:
                    raise
                item.session.shouldstop = "the search was interrupted"  # it is reported like any result
            message = self.message(error)
            self.errors[item.nodeid] = scoped(message, item.nodeid)
            raise pytest.fail.Exception(scoped(message, self.target(item.nodeid)), pytrace=False) from None

    def _check_judged(self, item: pytest.Item) -> None:
        """Fail a passing test that never judged its suite."""
        if item.nodeid not in self.runs or "llmtune" not in getattr(item, "fixturenames", ()):
            return
        by_verdict = self.judged.get(item.nodeid)
        if by_verdict is None:
            raise LLMTuneError(
                f"{item.nodeid} declares the suite {self.runs[item.nodeid].suite.name!r} and never judges it: "
                "the line llmtune.check() is missing (or assert something about llmtune.evaluate())"
            )
        run, dry = self.runs[item.nodeid], self.settings.mode is Mode.DRY_RUN
        if not dry and "report" not in vars(run):
            raise LLMTuneError(
                f"{item.nodeid} caught the error that its suite could not be judged: let it fail the test"
            )
        if not (dry and by_verdict):
            self.check(run)  # the test passed; the baseline gates too, whatever the test has caught

    def _check_age(self, item: pytest.Item, scope: Scope) -> None:
        """Fail a test whose answers are older than ``llmtune_max_age`` allows, or may be."""
        limit = self.settings.max_age
        if limit is None or not limit.fails or self.settings.mode.online:
            return
        for day, path in sorted(self.oldest(item, scope))[:1]:
            age, what = days_since(day), ""
            if age is None:
                what = f"{path} does not say when it was recorded, which has to be known for"
            elif age > limit.days:
                what = f"the oldest answer was recorded on {day}, {age} days ago: more than"
            if what:
                raise LLMTuneError(
                    f"{what} llmtune_max_age={limit.days}d; record again: "
                    f"pytest {quoted(self.target(item.nodeid))} --llm-record=all"
                )

    def oldest(self, item: pytest.Item, scope: Scope) -> Iterator[tuple[str, str]]:
        """The day of the oldest answer, empty if none has one, and the file, of a test's own recording and its suite's."""
        if scope.replay is not None and scope.replay.called_model:
            folder, name = os.path.split(scope.replay.path)
            yield scope.replay.oldest, os.path.join(_relative(folder, self.config.rootpath), name)  # noqa: PTH118
        run = self.runs.get(item.nodeid)
        if run is not None and "report" in vars(run) and (facts := run.report.recording) and facts.interactions:
            yield facts.oldest, facts.path

    def _scope(self, item: pytest.Item) -> Scope:
        from pytest_llmtune.capture.scope import Scope

        self.replays.pop(item.nodeid, None)
        marked = item.get_closest_marker("llm_replay") is not None
        calls = marked or not _CLIENTS.isdisjoint(getattr(item, "fixturenames", ()))
        replay = self.replay(item) if calls else None
        return Scope(replay, every_client=marked, offline=self._offline(item.nodeid, watched=marked))

    def _offline(self, node: str, *, watched: bool) -> Offline | None:
        """The guard that blocks the network, or watches it while a marked test is recorded."""
        from pytest_llmtune.capture.netguard import Offline, Watch

        mode = self.settings.mode
        if mode.online and (mode is not Mode.MIGRATE or node in self.runs):
            return Watch("", self.traffic.open_hosts) if watched and mode is not Mode.LIVE else None
        command = " ".join(filter(None, ("pytest", node and quoted(self.target(node)), "--llm-record=missing")))
        return Offline(command, self.traffic.open_hosts)

    @contextmanager
    def guarding_fixture(self, fixture: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Iterator[None]:
        """Guard setup and teardown of a fixture with a wider scope than one test."""
        scope = self._fixture_scope(fixture, request)
        if scope is None:
            yield
            return

        teardown, scope_of_all = ExitStack(), f"the {fixture.scope}"
        node = self.target(request.node.nodeid) if fixture.scope in ("module", "class") else ""

        def close() -> None:
            with _failing(node):
                try:
                    teardown.close()
                finally:
                    scope.close()
                    if scope.replay is not None:
                        within = request.node.nodeid or scope_of_all
                        self.unreported.append((f"{within}: fixture {fixture.argname}", scope.replay))

        def reopen() -> None:
            scope.open()
            teardown.enter_context(scope.phase())

        fixture.addfinalizer(close)  # the last of its finalisers to run
        try:
            with _failing(node):
                try:
                    scope.open()
                    with scope.phase():
                        yield
                finally:
                    scope.suspend()
        except pytest.fail.Exception as failed:
            fixture.cached_result = (None, fixture.cache_key(request), (failed, failed.__traceback__))  # type: ignore[arg-type]
            raise
        fixture.addfinalizer(reopen)  # the first, after those of fixtures that use it

    def _fixture_scope(self, fixture: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Scope | None:
        parents, base = self.fixtures.get(fixture.argname, {}), fixture.baseid
        below = (f"{base}/", f"{base}::") if base else ("",)  # empty for the whole session
        uses = [marked for node, marked in parents.items() if node == base or node.startswith(below)]
        if self.running is not None:  # it may request the fixture by ``request.getfixturevalue``
            uses.append(self.running.get_closest_marker("llm_replay") is not None)
        if not uses and not self.blocks_all:
            return None
        from pytest_llmtune.capture.scope import Scope
        from pytest_llmtune.capture.session import replay_of_fixture

        node = request.node.nodeid if fixture.scope in ("module", "class") else ""
        directory = self.config.rootpath / fixture.baseid
        name = fixture.argname + (f"[{getattr(request, 'param_index', '')}]" if hasattr(request, "param") else "")
        if node:
            scope = ".".join([request.path.stem, *node.split("::")[1:]])
            directory = request.path.parent
        else:
            scope, directory = fixture.scope, directory if directory.is_dir() else directory.parent
        replay = replay_of_fixture(directory, scope, name, node, self) if any(uses) else None
        return Scope(replay, every_client=True, offline=self._offline(node, watched=any(uses)))

    @property
    def blocks_all(self) -> bool:
        """Whether the network is also blocked for tests that do not use the plugin."""
        return self.settings.block_network == "all"

    def target(self, nodeid: str) -> str:
        """A node ID relative to the directory in which pytest was started."""
        path, mark, rest = nodeid.partition("::")
        relative = _relative(f"{self.config.rootpath}{os.sep}{path}", self.config.invocation_params.dir)
        return f"{relative.replace(os.sep, '/')}{mark}{rest}"

    def replay(self, item: pytest.Item) -> Replay:
        """The recording of a test's client calls."""
        if item.nodeid not in self.replays:
            from pytest_llmtune.capture.session import replay_of

            self.replays[item.nodeid] = replay_of(item, self)
            if scope := self.scopes.get(item.nodeid):
                scope.replay = scope.replay or self.replays[item.nodeid]
        return self.replays[item.nodeid]

    def check(self, run: SuiteRun) -> None:
        """Judge a suite, and fail the test with the full text unless the verdict passes."""
        if self.settings.mode is Mode.DRY_RUN:
            self.dry_runs.append(run.searching().dry_run())
            return
        if not run.report.verdict.passed:
            from pytest_llmtune.report import terminal

            shown = replace(run.report, nodeid=self.target(run.report.nodeid))
            text = terminal.failure(shown, width=self.width, color=False, verbosity=self.config.get_verbosity())
            pytest.fail(self.wrapped(text), pytrace=False)

    def wrapped(self, text: str) -> str:
        """Text for the user, with lines broken between words for a real terminal; elsewhere as it is."""
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        if reporter is None or not getattr(reporter, "isatty", False):
            return text
        return wrapped(text, self.width)


@lru_cache(maxsize=256)
def _relative(path: str, base: Path) -> str:
    return os.path.relpath(path, base)


def days_since(day: str) -> int | None:
    """Days since a date, ``YYYY-MM-DD``; None if it is not a date."""
    try:
        return (datetime.now(UTC).date() - date.fromisoformat(day)).days
    except ValueError:
        return None


@contextmanager
def reporting() -> Iterator[None]:
    """Allow the network for pytest and its plugins between the phases of a test."""
    if "pytest_llmtune.capture.netguard" not in sys.modules:
        yield
        return
    from pytest_llmtune._util.aio import outside
    from pytest_llmtune.capture.netguard import passing

    with outside(), passing():
        yield


@contextmanager
def _failing(node: str) -> Iterator[None]:
    try:
        yield
    except LLMTuneError as error:
        message = scoped(str(error), node) if node else str(error)
        raise pytest.fail.Exception(message, pytrace=False) from None
