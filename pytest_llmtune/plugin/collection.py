"""Suites of collected tests: declared by a marker or a YAML file, and the files of those that were removed."""

from __future__ import annotations

import inspect
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmtune._util.functions import never_skipped
from pytest_llmtune._util.text import counted
from pytest_llmtune.errors import LLMTuneError, MissingToolError
from pytest_llmtune.plugin.options import value_of
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.guard.outcome import SuiteLocation
    from pytest_llmtune.plugin.session import Session
    from pytest_llmtune.suite import Suite


def declare(session: Session, items: Sequence[pytest.Item]) -> None:
    """Create suites from markers before any test runs; problems are collected in ``session.wrong``."""
    session.width  # noqa: B018  # determined now, because the terminal is hidden once output is captured
    for item in items:
        if item.nodeid in session.wrong:
            continue
        try:
            with never_skipped(item.nodeid):
                _declare(session, item)
            if item.nodeid in session.runs:
                session.runs[item.nodeid].services.engine  # noqa: B018  # connect while the network is open
        except LLMTuneError as error:
            session.runs.pop(item.nodeid, None)
            session.wrong[item.nodeid] = session.message(error)


def _declare(session: Session, item: pytest.Item) -> None:
    if problem := getattr(item, "problem", ""):  # of a document in a YAML file
        raise LLMTuneError(problem)
    written = [] if session.settings.mode is Mode.REPLAY else [session.config.rootpath / ".llmtune"]
    for directory in (item.path.parent / "llmtune", *written):
        session.refuse_links(directory)
    marked = item.get_closest_marker("llm_replay") is not None
    if marked:
        from pytest_llmtune.capture.session import marked as check_marks

        check_marks(item), session.traffic, session.prices  # reports invalid values now
    parent = item.parent.nodeid if item.parent is not None else ""
    for name in getattr(item, "fixturenames", ()):
        parents = session.fixtures.setdefault(name, {})
        parents[parent] = marked or parents.get(parent, False)
    suite = None if item.nodeid in session.runs else suite_of(item)
    if suite is None:
        return
    same = suite.name.casefold()  # some file systems ignore case
    twin = next((run for run in session.runs.values() if run.suite.name.casefold() == same), None)
    if twin is not None and _unrepeated(item, twin.location.nodeid) == _unrepeated(item, item.nodeid):
        session.runs[item.nodeid] = twin  # the same test, repeated by pytest-repeat
        return
    if twin is not None and twin.location.nodeid != item.nodeid:
        whose = next((node for node, _ in item.iter_markers_with_node("llmtune")), item)
        way = "give one of them name=..." if whose is item else f"mark one test of {whose.name}, not all of them"
        raise LLMTuneError(
            f"{suite.where_declared}: the suite {suite.name!r} is also declared at {twin.suite.where_declared}; "
            f"names are unique in a run: {way}"
        )
    from pytest_llmtune.workflow.modes import SuiteRun

    run = SuiteRun(suite, session.settings, location_of(item), session.ledger, session.redactor, session.listen)
    run.at_end = session.at_end
    run.others = lambda: {each.suite.name for each in session.runs.values()}
    if (shards := session.shards) is not None:
        shards.of(suite.name)  # raises now if there are none
        run.gather = lambda _: shards
    if isinstance(suite.dataset, (str, list, tuple)) and not str(suite.dataset).startswith("hf:"):
        with suppress(MissingToolError):  # that suite's test fails when it runs
            run.grader  # noqa: B018  # reads the data, and checks templates and grader with them
    session.runs[item.nodeid] = run


def location_of(item: pytest.Item) -> SuiteLocation:
    from pytest_llmtune.guard.outcome import SuiteLocation

    path, line, _ = item.location
    return SuiteLocation(item.nodeid, Path(path).as_posix(), (line or 0) + 1, item.path.parent / "llmtune")


def _unrepeated(item: pytest.Item, name: str) -> str:
    """A name of the test without the number that pytest-repeat adds."""
    if not hasattr(item, "callspec"):
        return name
    from pytest_llmtune.capture.session import without_repetition

    return without_repetition(item, name)


def suite_of(item: pytest.Item) -> Suite | None:
    """The suite that a test declares, None if none; LLMTuneError if the declaration is invalid."""
    marker = item.get_closest_marker("llmtune")
    if marker is None or hasattr(item, "suite"):
        declared: Suite | None = getattr(item, "suite", None)
        return declared
    path, line, name = item.location
    name = _unrepeated(item, name)
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


def prune(session: Session, items: Sequence[pytest.Item], *, failed: int = 0) -> str:
    """Show the files of removed suites and tests, and delete them on request; returns the output.

    Args:
        failed: number of files that could not be collected, whose suites would look removed.

    Raises:
        pytest.UsageError: some tests are unknown, so that their files would look like orphans.
    """
    from pytest_llmtune.capture.session import replay_of
    from pytest_llmtune.recording.housekeeping import orphans, remove

    config = session.config
    chosen = config.args_source is pytest.Config.ArgsSource.ARGS
    if chosen or any(map(config.getoption, ("keyword", "markexpr", "ignore", "ignore_glob", "deselect"))):
        raise pytest.UsageError("--llm-prune looks at all tests: give no paths, no -k, no -m, and ignore none")
    reporter = config.pluginmanager.getplugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", ())) if reporter else 0  # importorskip: its suites are unknown
    problems = [*session.wrong.values()]
    problems += [f"{counted(failed, 'file')} could not be collected"] if failed else []
    problems += [f"{counted(skipped, 'file')} skipped as a whole"] if skipped else []
    if problems:
        raise pytest.UsageError("\n".join(["--llm-prune needs to know all suites; fix these first:", *problems]))
    used = [path for run in session.runs.values() for path in (run.lock_path, run.recording_path)]
    used += [replay_of(item, session).path for item in items]
    # testpaths, or all below the current directory
    collected = [(config.invocation_params.dir / each).resolve() for each in config.args]
    orphaned = [
        path
        for path in orphans(config.rootpath, used)
        if ".fixture." not in path.name and any(map(path.resolve().is_relative_to, collected))
    ]
    if not orphaned:
        return "nothing to remove"
    paths = [session.target(path.relative_to(config.rootpath).as_posix()) for path in orphaned]
    if value_of("prune", config) != "yes":
        return "\n".join([*(f"would remove {path}" for path in paths), "next: pytest --llm-prune=yes"])
    remove(orphaned)
    return "\n".join(f"removed {path}" for path in paths)
