"""The plugin's state of one pytest session: suites, ledger, reports, guards.

Modules for suites are imported lazily, because most runs of an app's own tests have none.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.files import open_regular, refuse_links
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import clean, counted, did_you_mean, quoted, scoped, wrapped
from pytest_llmtune.errors import LLMTuneError, LockError, MissingToolError, SuiteError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.money.spend_log import SpendLog
from pytest_llmtune.plugin import workers
from pytest_llmtune.plugin.masking import masked_logs
from pytest_llmtune.plugin.options import settings_of, value_of
from pytest_llmtune.redaction.redactor import Redactor, redactor_of
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_llmtune.capture.netguard import Offline
    from pytest_llmtune.capture.scope import Scope
    from pytest_llmtune.capture.session import Replay
    from pytest_llmtune.capture.traffic import Traffic
    from pytest_llmtune.guard.lockfile import Lock
    from pytest_llmtune.guard.outcome import SuiteLocation
    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.guard.shards import Shards
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.report.progress import Progress
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.types import Evaluation, TestCalls
    from pytest_llmtune.workflow.modes import SuiteRun


_CLIENTS = frozenset({"llm_client", "async_llm_client"})
"""Fixtures whose calls are recorded without a marker."""
_MAX_MODULE = 10_000_000
"""Maximum size in bytes of a neighbouring file searched for suites."""


class Session:
    """A run: its settings, suites by node ID, and reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.in_worker = hasattr(config, "workerinput")
        """Whether this is a worker of xdist."""
        self.settings = settings_of(config)
        self.ledger = Ledger(self.settings.max_spend, name="--llm-max-spend", shared=workers.shared_spend(config))
        self.runs: dict[str, SuiteRun] = {}
        self.replays: dict[str, Replay] = {}
        self.scopes: dict[str, Scope] = {}
        self.fixtures: dict[str, dict[str, bool]] = {}
        """Fixtures of guarded tests, the modules or classes of these tests, and whether one is marked llm_replay."""
        self.running: pytest.Item | None = None
        """The guarded test that runs now."""
        self.beside: dict[Path, dict[str, tuple[str, Suite]]] = {}
        """Suites declared next to a directory of lock files, by name, loaded on demand."""
        self.reports: list[SuiteReport] = []
        self.calls: list[TestCalls] = []
        self.unreported: list[tuple[str, Replay]] = []
        """Recordings whose calls are not reported yet, by test or fixture."""
        self._reported: set[str] = set()
        self.killed = Decimal(0)
        """USD that earlier runs had spent which were killed."""
        self.errors: dict[str, str] = {}
        self.dry_runs: list[str] = []
        self.wrong: dict[str, str] = {}
        """What is wrong with the declaration of a test, by node id: that test alone fails."""
        self.recordings: list[dict[str, str]] = []
        """What each test's recording says of itself, here or in a worker of xdist: ``recording_facts``."""
        self.misused = False
        """Whether a test in ``wrong`` was run, here or in a worker of xdist."""
        self.unopened: dict[str, str] = {}
        """Why the recording of a test cannot be opened, by node ID; raised at the start of its setup."""
        self.pruned = ""
        """What ``--llm-prune`` found."""
        self.judged: dict[str, bool] = {}
        """Tests that judged their suite, by node id: by its verdict (True), or by the figures of ``evaluate()`` (False)."""
        self.unwritten: list[str] = []
        self._links: dict[Path, str] = {}
        """Directories that were looked through for links, and what is wrong in them."""
        self._targets: dict[str, str] = {}
        """Paths of node IDs, relative to the directory in which pytest was started."""
        self._open = ExitStack()
        if self.settings.mode.online:
            self._keep_books()
        self.workers = None if self.settings.max_spend is None else workers.Workers(self._open)
        if not self.in_worker:
            self.shards  # noqa: B018  # what is wrong with them is said once, by the process that the user started
        if self._path("report"):
            from pytest_llmtune.report.html import check_installed

            with self._as_usage_error():
                check_installed()

    def isolate(self) -> None:
        """Cut the run off from the network where ``llmtune_isolate`` says so; workers of xdist inherit it.

        Raises:
            pytest.UsageError: the system does not allow it.
        """
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
        return workers.worker_width(self.config) or (self.config.get_terminal_writer().fullwidth if shown else 80)

    @cached_property
    def shards(self) -> Shards | None:
        """The results that ``--llm-merge`` names.

        Raises:
            pytest.UsageError: they are not all shards, each once.
        """
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

    def told(self, error: BaseException) -> str:
        """The message of an error, which may quote files: without keys, and with nothing that terminals or CI systems obey."""
        return _AT_LINE_START.sub(r"\\::", clean(self.clean(str(error))))

    @cached_property
    def prices(self) -> PriceBook:
        """The prices in force for the calls of tests."""
        from pytest_llmtune.money.prices import PriceBook

        return PriceBook(self.settings.prices, of_suite=False)

    @cached_property
    def traffic(self) -> Traffic:
        """Which requests of tests are recorded and replayed.

        Raises:
            SuiteError: a line of ``llmtune_allow_hosts`` or ``llmtune_ignore_hosts`` is unusable.
        """
        from pytest_llmtune.capture.traffic import traffic_of

        return traffic_of(self.settings)

    @cached_property
    def progress(self) -> Progress:
        """On the real standard output, beside pytest's capture; silent under -q.

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

    def _keep_books(self) -> None:
        """Log spending to disk, so that the next run can report it if this one is killed."""
        directory = self.settings.root / ".llmtune" / "spend"
        if directory.is_symlink() or directory.parent.is_symlink():  # untrusted; refused when used
            return
        self.ledger.log = SpendLog(directory)
        self._open.callback(self.ledger.log.close)
        if not self.in_worker:
            self.killed = self.ledger.log.earlier()

    def close(self) -> None:
        """Close everything that the run opened."""
        self._open.close()

    # -- collection

    def declare(self, items: Sequence[pytest.Item]) -> None:
        """Create suites from markers before any test runs; problems are collected in ``wrong``."""
        self.width  # noqa: B018  # determined now, because the terminal is hidden once output is captured
        for item in items:
            if item.nodeid in self.wrong:
                continue
            try:
                self._declare(item)
                if item.nodeid in self.runs:
                    self.runs[item.nodeid].services.engine  # noqa: B018  # connect while the network is open
            except LLMTuneError as error:
                self.runs.pop(item.nodeid, None)
                self.wrong[item.nodeid] = self.told(error)

    def refuse(self, item: pytest.Item) -> None:
        """Fail a test with an invalid declaration or unreadable recording before it runs."""
        if problem := self.wrong.get(item.nodeid) or self.unopened.pop(item.nodeid, ""):
            pytest.fail(problem, pytrace=False)

    def _declare(self, item: pytest.Item) -> None:
        if problem := getattr(item, "problem", ""):  # of a document in a YAML file
            raise LLMTuneError(problem)
        written = [] if self.settings.mode is Mode.REPLAY else [self.config.rootpath / ".llmtune"]
        for directory in (item.path.parent / "llmtune", *written):
            self._refuse_links(directory)
        marked = item.get_closest_marker("llm_replay") is not None
        if marked:
            from pytest_llmtune.capture import session

            session.marked(item), self.traffic, self.prices  # reports invalid values now
        parent = item.parent.nodeid if item.parent is not None else ""
        for name in getattr(item, "fixturenames", ()):
            parents = self.fixtures.setdefault(name, {})
            parents[parent] = marked or parents.get(parent, False)
        suite = None if item.nodeid in self.runs else _suite_of(item)
        if suite is None:
            return
        same = suite.name.casefold()  # some file systems ignore case
        twin = next((run for run in self.runs.values() if run.suite.name.casefold() == same), None)
        if twin is not None and _plain(item, twin.location.nodeid) == _plain(item, item.nodeid):
            self.runs[item.nodeid] = twin  # the same test, repeated by pytest-repeat
            return
        if twin is not None and twin.location.nodeid != item.nodeid:
            whose = next((node for node, _ in item.iter_markers_with_node("llmtune")), item)
            way = "give one of them name=..." if whose is item else f"mark one test of {whose.name}, not all of them"
            raise LLMTuneError(
                f"{suite.where_declared}: the suite {suite.name!r} is also declared at {twin.suite.where_declared}; "
                f"names are unique in a run: {way}"
            )
        from pytest_llmtune.workflow.modes import SuiteRun

        run = SuiteRun(suite, self.settings, _location(item), self.ledger, self.redactor, self._listen)
        run.at_end = self._open.callback
        run.others = lambda: {each.suite.name for each in self.runs.values()}
        if (shards := self.shards) is not None:
            shards.of(suite.name)  # raises now if there are none
            run.gather = lambda _: shards
        if isinstance(suite.dataset, (str, list, tuple)) and not str(suite.dataset).startswith("hf:"):
            with suppress(MissingToolError):  # that suite's test fails when it runs
                run.grader  # noqa: B018  # reads the data, and checks templates and grader with them
        self.runs[item.nodeid] = run

    def _refuse_links(self, directory: Path) -> None:
        """Each directory is looked through once, however many tests have their files in it."""
        if directory not in self._links:
            try:
                refuse_links([directory], self.config.rootpath)
                self._links[directory] = ""
            except SuiteError as error:
                self._links[directory] = str(error)
        if problem := self._links[directory]:
            raise SuiteError(problem)

    def prune(self, items: Sequence[pytest.Item], *, failed: int = 0) -> str:
        """Show the files of removed suites and tests, and delete them on request; returns the output.

        Args:
            failed: number of files that could not be collected, whose suites would look removed.

        Raises:
            pytest.UsageError: some tests are unknown, so that their files would look like orphans.
        """
        from pytest_llmtune.capture.session import replay_of
        from pytest_llmtune.recording.housekeeping import orphans, remove

        config = self.config
        chosen = config.args_source is pytest.Config.ArgsSource.ARGS
        if chosen or any(map(config.getoption, ("keyword", "markexpr", "ignore", "ignore_glob", "deselect"))):
            raise pytest.UsageError("--llm-prune looks at all tests: give no paths, no -k, no -m, and ignore none")
        reporter = config.pluginmanager.getplugin("terminalreporter")
        skipped = len(reporter.stats.get("skipped", ())) if reporter else 0  # importorskip: its suites are unknown
        problems = [*self.wrong.values()]
        problems += [f"{counted(failed, 'file')} could not be collected"] if failed else []
        problems += [f"{counted(skipped, 'file')} skipped as a whole"] if skipped else []
        if problems:
            raise pytest.UsageError("\n".join(["--llm-prune needs to know all suites; fix these first:", *problems]))
        used = [path for run in self.runs.values() for path in (run.lock_path, run.recording_path)]
        used += [replay_of(item, self).path for item in items]
        # testpaths, or all below here
        collected = [(config.invocation_params.dir / each).resolve() for each in config.args]
        gone = [
            path
            for path in orphans(config.rootpath, used)
            if ".fixture." not in path.name and any(map(path.resolve().is_relative_to, collected))
        ]
        if not gone:
            return "nothing to remove"
        wanted = value_of("prune", config) == "yes"
        if wanted:
            remove(gone)
        word = "removed" if wanted else "would remove"
        lines = [f"{word} {self.target(path.relative_to(config.rootpath).as_posix())}" for path in gone]
        return "\n".join([*lines, *([] if wanted else ["next: pytest --llm-prune=yes"])])

    def _listen(self, event: Any) -> None:
        self.progress(event)  # created once there is something to show

    # -- running

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
                    self.unopened[item.nodeid] = self.errors[item.nodeid] = self.told(error)
            scope = self.scopes.get(item.nodeid)
            if scope is None:  # refused before it started
                yield
                return
            try:
                with scope.phase():
                    yield
                    if not (starts or ends):
                        self._judged(item)
                        self._fresh(item, scope)
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
            said = self.told(error)
            self.errors[item.nodeid] = scoped(said, item.nodeid)
            raise pytest.fail.Exception(scoped(said, self.target(item.nodeid)), pytrace=False) from None

    def _judged(self, item: pytest.Item) -> None:
        """Fail a passing test that never judged its suite."""
        if item.nodeid not in self.runs or "llmtune" not in getattr(item, "fixturenames", ()):
            return
        by_verdict = self.judged.get(item.nodeid)
        if by_verdict is None:
            raise LLMTuneError(
                f"{item.nodeid} declares the suite {self.runs[item.nodeid].suite.name!r} and never judges it: "
                "the line llmtune.check() is missing (or assert something about llmtune.evaluate())"
            )
        if not by_verdict:  # the test passed; the baseline gates too
            self.check(self.runs[item.nodeid])

    def _fresh(self, item: pytest.Item, scope: Scope) -> None:
        """Fail a test whose answers are older than ``llmtune_max_age`` allows, or may be."""
        limit = self.settings.max_age
        if limit is None or not limit.fails or self.settings.mode.online:
            return
        for day, path in sorted(self._oldest(item, scope))[:1]:
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

    def _oldest(self, item: pytest.Item, scope: Scope) -> Iterator[tuple[str, str]]:
        """The day of the oldest answer, or nothing if none has one, and the file, of each recording that a test used.

        These are its own and its suite's.
        """
        if scope.replay is not None and not scope.replay.asked_nothing:
            folder, name = os.path.split(scope.replay.path)
            yield scope.replay.oldest, os.path.join(_relative(folder, self.config.rootpath), name)  # noqa: PTH118
        run = self.runs.get(item.nodeid)
        if run is not None and "report" in vars(run) and (facts := run.report.recording) and facts.interactions:
            yield facts.oldest, facts.path

    def recording_facts(self, item: pytest.Item) -> dict[str, str]:
        """Facts about a test's recording, as text: its path, its oldest date, or that there were no calls."""
        scope = self.scopes.pop(item.nodeid, None)
        if scope is None:
            return {}
        if found := min((each for each in self._oldest(item, scope) if each[0]), default=None):
            return {"test": item.nodeid, "path": found[1], "day": found[0]}
        replay = scope.replay
        if replay is None or not replay.mode.online or scope.failed:
            return {}
        if replay.own_server:
            return {"test": item.nodeid, "own": replay.own_server}
        silent = item.get_closest_marker("llm_replay") is not None and replay.asked_nothing
        return {"test": item.nodeid, "silent": "yes"} if silent else {}

    def _recording_notes(self) -> Iterator[str]:
        if silent := [facts["test"] for facts in self.recordings if "silent" in facts]:
            yield (
                f"note: no call of a model was made in {_some(silent)}: if there should be one, "
                "look for a cache of a library (dspy, litellm, langchain, joblib) that answered instead"
            )
        if own := [facts for facts in self.recordings if "own" in facts]:
            yield (
                f"note: answers of {own[0]['own']}, a server of the test process itself, were recorded as a model's in "
                f"{_some([facts['test'] for facts in own])}: if it is your app, it is replayed and not run; use a test "
                "client (ASGITransport, TestClient), or name its host and port in llmtune_allow_hosts"
            )
        dated = sorted((facts["day"], facts["path"], facts["test"]) for facts in self.recordings if "day" in facts)
        if not dated:
            return
        day, path, _ = dated[0]
        yield f"oldest recorded answer: {day} ({days_since(day)} days), {path}"
        limit = self.settings.max_age
        old = [test for day, _, test in dated if limit is not None and (days_since(day) or 0) > limit.days]
        if limit is not None and old:
            count = "1 recording is" if len(old) == 1 else f"{len(old)} recordings are"
            tests = " ".join(quoted(self.target(test)) for test in old)
            yield f"note: {count} older than {limit.days} days; record again: pytest --llm-record=all {tests}"

    def _scope(self, item: pytest.Item) -> Scope:
        from pytest_llmtune.capture.scope import Scope

        self.replays.pop(item.nodeid, None)
        marked = item.get_closest_marker("llm_replay") is not None
        asks = marked or not _CLIENTS.isdisjoint(getattr(item, "fixturenames", ()))
        replay = self.replay(item) if asks else None
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
        if self.running is not None:  # it may ask by ``request.getfixturevalue``
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
        if (here := self._targets.get(path)) is None:
            here = os.path.relpath(self.config.rootpath / path, self.config.invocation_params.dir).replace(os.sep, "/")
            self._targets[path] = here
        return f"{here}{mark}{rest}"

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
            pytest.fail(self.broken(text), pytrace=False)

    # -- reporting

    def broken(self, text: str) -> str:
        """Text for the user, whose lines a real terminal does not break within words; elsewhere as it is."""
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        if reporter is None or not getattr(reporter, "isatty", False):
            return text
        return wrapped(text, self.width)

    def attach(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Store a suite's report; an xdist worker sends it as text with the test's report."""
        if (made := self._report_of(item)) is not None:
            import pytest_llmtune.guard.results_file as report_json
            from pytest_llmtune.report.ci import junit_properties

            if self.in_worker:
                report.llmtune = report_json.dumps([made])  # type: ignore[attr-defined]
            else:
                self.reports = [*(report for report in self.reports if report is not made), made]
            if made.interrupted:  # Ctrl-C stops the following searches too
                item.session.shouldstop = f"{made.name}: the search was interrupted; its best so far is kept"
            item.user_properties.extend(properties := junit_properties(made))  # JUnit uses the teardown's report
            report.user_properties.extend(properties)
            if row_in := self.config.getoption("htmlpath", None):  # pytest-html's, if installed
                from pytest_llmtune.report.html import extras

                row = extras(made, self.config.invocation_params.dir / row_in, self._path("report"))
                report.extras = [*getattr(report, "extras", []), *row]  # type: ignore[attr-defined]

    def _report_of(self, item: pytest.Item) -> SuiteReport | None:
        """The report of a test's suite, or of its error; None if it was not evaluated."""
        nodeid, run = item.nodeid, self.runs.get(item.nodeid)
        if run is None and nodeid not in self.wrong:
            return None
        from pytest_llmtune.guard.outcome import error_of, undeclared

        if nodeid in self.wrong and item.get_closest_marker("llmtune") is not None:
            return undeclared(_location(item), item.name, self.settings.mode, self.wrong[nodeid])
        if run is None:
            return None
        if "report" in vars(run):
            return run.report
        if nodeid not in self.errors:
            return None
        made = error_of(run, self.errors[nodeid], run.services.account, run.spent)
        return replace(made, by_model=run.services.by_model)

    def attach_calls(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Attach cost and usage of a test's own calls, if anything displays them: reading answers takes time."""
        if item.nodeid in self.replays:
            self.unreported.append((item.nodeid, self.replays[item.nodeid]))
        made = self._calls_made()
        if self.in_worker:
            from pytest_llmtune._util.serialize import to_plain

            report.llmtune_calls = json.dumps(to_plain(made))  # type: ignore[attr-defined]
        else:
            self.calls += made
        for each in made:
            if each.nodeid == item.nodeid:
                from pytest_llmtune.report.ci import junit_of_calls

                report.user_properties.extend(junit_of_calls(each))

    def _calls_made(self) -> list[TestCalls]:
        """Calls since the last report, by the test and by fixtures of wider scope that ended with it."""
        made = [replay.meter.summary(name) for name, replay in self.unreported if self._shows_calls]
        self._reported.update(name for name, _ in self.unreported)
        self.unreported.clear()
        return [each for each in made if each.calls or each.spent]

    @cached_property
    def _shows_calls(self) -> bool:
        shown = self.config.getoption("xmlpath", None) or self._path("json") or self._path("report")
        return bool(shown) or self.settings.mode.online or self.config.get_verbosity() > 0

    def attach_rest(self) -> None:
        """After Ctrl-C: the calls of the test that it ended, and of fixtures that were open."""
        self.unreported += [(node, replay) for node, replay in self.replays.items() if node not in self._reported]
        made = self._calls_made()
        if (output := getattr(self.config, "workeroutput", None)) is None:
            self.calls += made
        else:
            from pytest_llmtune._util.serialize import to_plain

            output["llmtune_calls"] = json.dumps(to_plain(made))

    def receive_calls(self, text: str) -> None:
        """Receive a test's calls from an xdist worker."""
        from pytest_llmtune._util.serialize import from_plain
        from pytest_llmtune.types import TestCalls

        self.calls += [from_plain(TestCalls, each) for each in json.loads(text)]

    def receive(self, text: str) -> None:
        """Receive a suite's report from an xdist worker."""
        import pytest_llmtune.guard.results_file as report_json

        self.reports.extend(report_json.loads(text))

    def summary(self) -> str:
        """The terminal summary; may be empty."""
        lines = [*self.dry_runs, self.pruned]
        if self.reports or self.calls or self.killed:
            from pytest_llmtune.report import terminal

            verbosity, color = self.config.get_verbosity(), self.config.get_terminal_writer().hasmarkup
            shown = [replace(report, nodeid=self.target(report.nodeid)) for report in self.reports]
            lines.append(terminal.summary(shown, width=self.width, color=color, verbosity=verbosity))
            lines += terminal.spending(self.reports, self.calls, self.killed, width=self.width, verbosity=verbosity)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            from pytest_llmtune.report.ci import error_annotations, project_within

            within = project_within(self.config.rootpath, os.environ.get("GITHUB_WORKSPACE"))
            lines.extend(error_annotations(self.reports, within=within))
        if self.config.getoption("collectonly"):
            lines.extend(f"ERROR: {problem}" for problem in dict.fromkeys(self.wrong.values()))
        lines.extend(self._recording_notes())
        if (page := self._path("report")) and not self.unwritten:
            from pytest_llmtune.report.html import target_of

            lines.append(f"report: {os.path.relpath(target_of(page), self.config.invocation_params.dir)}")
        lines.extend(f"ERROR: {problem}" for problem in self.unwritten)
        return self.broken("\n".join(filter(None, lines)))

    def write_reports(self) -> bool:
        """Write the requested files; False if one could not be written, which the summary reports."""
        if self.in_worker:
            return True
        step = os.environ.get("GITHUB_STEP_SUMMARY")
        wanted = any(map(self._path, ("json", "report", "comment")))
        if not (wanted or (self.reports and (step or value_of("reporter", self.config)))):
            return True
        from pytest_llmtune.report.writers import write_all

        self.unwritten = write_all(
            self.reports,
            results=self._path("json"),
            page=self._path("report"),
            step_summary=Path(step) if step else None,
            comment=self._path("comment"),
            reporter=value_of("reporter", self.config),
            calls=self.calls,
            killed=self.killed,
            history=self._history() if self._path("report") else (),
        )
        return not self.unwritten

    def _history(self) -> Sequence[Mapping[str, Any]]:
        """The last states of the run's suites in git; none outside a checkout, or if git fails."""
        from pytest_llmtune._util.serialize import to_plain
        from pytest_llmtune.commits.git import Repository
        from pytest_llmtune.commits.history import history

        try:
            names = {report.name for report in self.reports}
            found = history(Repository.around(self.config.rootpath), names, most=_SHOWN_COMMITS) if names else []
        except (LLMTuneError, OSError, ValueError):
            return ()
        plain: list[Mapping[str, Any]] = to_plain(found)
        return plain

    def _path(self, option: str) -> Path | None:
        """An option's path, relative to where pytest was started, because a test may change the directory."""
        given = value_of(option, self.config)
        return self.config.invocation_params.dir / given if given else None


_SHOWN_COMMITS = 300
"""Commits that the report's history goes back at most."""


@lru_cache(maxsize=64)
def _relative(path: str, base: Path) -> str:
    return os.path.relpath(path, base)


def days_since(day: str) -> int | None:
    """Days since a date, ``YYYY-MM-DD``; None if it is not a date."""
    try:
        return (datetime.now(UTC).date() - date.fromisoformat(day)).days
    except ValueError:
        return None


def _location(item: pytest.Item) -> SuiteLocation:
    from pytest_llmtune.guard.outcome import SuiteLocation

    path, line, _ = item.location
    return SuiteLocation(item.nodeid, Path(path).as_posix(), (line or 0) + 1, item.path.parent / "llmtune")


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


_AT_LINE_START = lazy_regex(r"(?m)^[^\S\n]*::")
_WHERE = lazy_regex(r"(?:[^\s:]+\.(?:py|ya?ml|json)(?:::[^\s:]+)*(?::\d+)?(?: \([^)]*\))?): ")
"""Location at the start of messages: a file, or a test with its line."""


_COMMAND = lazy_regex(r"[.;:,]? (?:[\w ]+: )?pytest --[^\n]*")


def message_first(text: str) -> str:
    """A failure message without location and command, for pytest's short summary."""
    text = text.removeprefix("Failed: ")
    if found := _WHERE.match(text):
        text = text[found.end() :]
    return _COMMAND.sub("", text, count=1)


@contextmanager
def _failing(node: str) -> Iterator[None]:
    try:
        yield
    except LLMTuneError as error:
        said = scoped(str(error), node) if node else str(error)
        raise pytest.fail.Exception(said, pytrace=False) from None


def _some(tests: list[str]) -> str:
    """The first of the tests, and how many more there are."""
    return ", ".join(tests[:3]) + (f" and {len(tests) - 3} more" if len(tests) > 3 else "")


def _plain(item: pytest.Item, name: str) -> str:
    """A name of the test without the number that pytest-repeat adds."""
    if not hasattr(item, "callspec"):
        return name
    from pytest_llmtune.capture.session import without_repetition

    return without_repetition(item, name)


def _suite_of(item: pytest.Item) -> Suite | None:
    marker = item.get_closest_marker("llmtune")
    if marker is None or hasattr(item, "suite"):
        declared: Suite | None = getattr(item, "suite", None)
        return declared
    path, line, name = item.location
    name = _plain(item, name)
    where = f"{path}:{(line or 0) + 1} ({name})"
    if marker.args:
        raise LLMTuneError(f"{where}: the marker llmtune takes keyword arguments only, got {marker.args[0]!r}")
    bases = getattr(getattr(item, "cls", None), "__mro__", ())
    if any(f"{kind.__module__}.{kind.__name__}" == "unittest.case.TestCase" for kind in bases):
        raise LLMTuneError(
            f"{where}: a method of unittest.TestCase takes no fixture, and so declares no suite: "
            f"write a function, def {item.name}(llmtune): llmtune.check()"
        )
    if "llmtune" not in getattr(item, "fixturenames", ()):
        whose = next(node for node, _ in item.iter_markers_with_node("llmtune"))
        of_all = f"; {whose.name} is marked, and so is each of its tests: mark one of them instead"
        of_all = "" if whose is item else of_all
        raise LLMTuneError(
            f"{where}: a test marked llmtune uses the fixture 'llmtune': def {item.name}(llmtune): ...{of_all}"
        )
    if inspect.iscoroutinefunction(getattr(item, "obj", None)):
        raise LLMTuneError(
            f"{where}: a suite's test is a plain function, not async: def {item.name}(llmtune): llmtune.check() "
            "(requests run concurrently all the same)"
        )
    from pytest_llmtune.suite import Suite

    default_name = re.sub(r"\W+", "_", name.removeprefix("test_")).strip("_")
    keys = dict(marker.kwargs)
    if isinstance(keys.get("name"), str) and item.get_closest_marker("parametrize") and hasattr(item, "callspec"):
        parameters = re.sub(r"[^\w.-]+", "_", item.callspec.id)
        keys["name"] = f"{keys['name']}_{parameters}"  # each parameter set is a suite
    return Suite.from_mapping(keys, where=where, base_dir=item.path.parent, default_name=default_name)


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
    """The value of the fixture ``tuned_config``.

    Raises:
        SuiteError: the marker ``llm_suite`` does not name a suite.
    """
    marker, name = item.get_closest_marker("llm_suite"), None
    if marker is not None:
        given = [*marker.args, *marker.kwargs.values()]
        if len(given) != 1 or not isinstance(given[0], str) or not marker.kwargs.keys() <= {"name"}:
            raise SuiteError(f"{item.nodeid}: llm_suite takes the name of one suite: @pytest.mark.llm_suite('NAME')")
        name = given[0]
    return locked_config(item, name, session)


def locked_config(item: pytest.Item, name: str | None, session: Session) -> dict[str, Any]:
    """The locked configuration of a suite next to a test: by name, else the only one.

    Raises:
        SuiteError: no lock file of that name; several, and no name.
        LockError: the lock file cannot be read, or is not what the suite tests.
    """
    from pytest_llmtune.guard.lockfile import Lock

    directory = item.path.parent / "llmtune"
    runs = [run for run in session.runs.values() if run.location.directory == directory]
    suites = {run.suite.name: (run.location.nodeid, run.suite) for run in runs}
    found = sorted(path.name.removesuffix(".lock.yaml") for path in directory.glob("*.lock.yaml"))
    if (name or (found[0] if len(found) == 1 else None)) not in suites:  # its test was not selected
        if directory not in session.beside:
            session.beside[directory] = dict(_sibling_suites(item))
        suites = {**session.beside[directory], **suites}
    known = sorted({*suites, *found})
    if name is None:
        if len(known) > 1:
            raise SuiteError(
                f"tuned_config: there are several suites, {', '.join(known)}; choose one: @pytest.mark.llm_suite(NAME)"
            )
        if not known:
            raise SuiteError(f"tuned_config: {directory} holds no lock file, and no suite is declared beside it")
        [name] = known
    elif name not in known:
        there = f"the suites are {', '.join(known)}" if known else f"{directory} holds no lock file"
        raise SuiteError(f"llm_suite({name!r}): there is no such suite{did_you_mean(name, known)}; {there}")
    nodeid, suite = suites.get(name, ("", None))
    node = session.target(nodeid) if nodeid else ""  # an app's test does not tune: its commands name the suite
    if name not in found:
        command = f"pytest --llm-tune {quoted(node)}".rstrip()
        raise SuiteError(f"the suite {name!r} has no lock file yet. Write it: {command}")
    try:
        lock = Lock.read(directory / f"{name}.lock.yaml")
        if suite is not None:
            _agree(suite, lock)
    except LockError as error:
        raise LockError(scoped(str(error), node) if node else f"{error} (the suite {name!r})") from None
    return dict(lock.config)


def _agree(suite: Suite, lock: Lock) -> None:
    """Check that the app is tested with the configuration that its suite tests.

    Raises:
        LockError: the suite could not choose the locked configuration, or has another prompt.
    """
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
                        if (suite := _suite_of(other)) is not None:
                            yield suite.name, (other.nodeid, suite)
        except (Exception, pytest.skip.Exception, pytest.fail.Exception):  # noqa: BLE001, S112
            continue


def _items_in(node: pytest.Item | pytest.Collector) -> Iterator[pytest.Item]:
    if isinstance(node, pytest.Item):
        yield node
    elif isinstance(node, pytest.Collector):
        for inner in node.collect():
            yield from _items_in(inner)
