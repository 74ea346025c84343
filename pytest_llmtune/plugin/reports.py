"""What a run reports: verdicts, the calls of tests, the ages of recordings, and the files to write."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import replace
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import quoted
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.plugin.collection import location_of
from pytest_llmtune.plugin.options import value_of
from pytest_llmtune.plugin.session import days_since

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pytest

    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.plugin.session import Session
    from pytest_llmtune.types import TestCalls


_SHOWN_COMMITS = 300
"""Maximum number of commits in the report's history."""
_WHERE = lazy_regex(r"(?:[^\s:]+\.(?:py|ya?ml|json)(?:::[^\s:]+)*(?::\d+)?(?: \([^)]*\))?): ")
"""Location at the start of messages: a file, or a test with its line."""
_COMMAND = lazy_regex(r"[.;:,]? (?:[\w ]+: )?pytest --[^\n]*")


class Reports:
    """The results of a session; in a worker of xdist, those to send to the controller."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.config = session.config
        self.suites: list[SuiteReport] = []
        self.calls: list[TestCalls] = []
        self.recordings: list[dict[str, str]] = []
        """Facts about each test's recording, from this process or a worker of xdist: ``recording_facts``."""
        self.misused = False
        """Whether a test with an invalid declaration was run, here or in a worker of xdist."""
        self.pruned = ""
        """What ``--llm-prune`` found."""
        self.unwritten: list[str] = []
        """Why report files could not be written."""
        self._reported: set[str] = set()
        """Tests and fixtures whose calls are reported."""

    # -- collecting

    def attach(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Store a suite's report; an xdist worker sends it as text with the test's report."""
        if (suite := self._report_of(item)) is None:
            return
        import pytest_llmtune.guard.results_file as report_json
        from pytest_llmtune.report.ci import junit_properties

        if self.session.in_worker:
            report.llmtune = report_json.dumps([suite])  # type: ignore[attr-defined]
        else:
            self.suites = [*(each for each in self.suites if each is not suite), suite]
        if suite.interrupted:  # Ctrl-C stops the following searches too
            item.session.shouldstop = f"{suite.name}: the search was interrupted; its best so far is kept"
        item.user_properties.extend(properties := junit_properties(suite))  # JUnit uses the teardown's report
        report.user_properties.extend(properties)
        if row_in := self.config.getoption("htmlpath", None):  # pytest-html's, if installed
            from pytest_llmtune.report.html import extras

            row = extras(suite, self.config.invocation_params.dir / row_in, self._path("report"))
            report.extras = [*getattr(report, "extras", []), *row]  # type: ignore[attr-defined]

    def _report_of(self, item: pytest.Item) -> SuiteReport | None:
        """The report of a test's suite, or of its error; None if it was not evaluated."""
        session, nodeid = self.session, item.nodeid
        run = session.runs.get(nodeid)
        if run is None and nodeid not in session.wrong:
            return None
        from pytest_llmtune.guard.outcome import error_of, undeclared

        if nodeid in session.wrong and item.get_closest_marker("llmtune") is not None:
            return undeclared(location_of(item), item.name, session.settings.mode, session.wrong[nodeid])
        if run is None:
            return None
        if "report" in vars(run):
            return run.report
        if nodeid not in session.errors:
            return None
        report = error_of(run, session.errors[nodeid], run.services.account, run.spent)
        return replace(report, by_model=run.services.by_model)

    def attach_calls(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Attach cost and usage of a test's own calls, if anything displays them: reading answers takes time."""
        if item.nodeid in self.session.replays:
            self.session.unreported.append((item.nodeid, self.session.replays[item.nodeid]))
        calls = self._new_calls()
        if self.session.in_worker:
            report.llmtune_calls = _as_json(calls)  # type: ignore[attr-defined]
        else:
            self.calls += calls
        for each in calls:
            if each.nodeid == item.nodeid:
                from pytest_llmtune.report.ci import junit_of_calls

                report.user_properties.extend(junit_of_calls(each))

    def _new_calls(self) -> list[TestCalls]:
        """Calls since the last report, by the test and by fixtures of wider scope that ended with it."""
        unreported = self.session.unreported
        found = [replay.meter.summary(name) for name, replay in unreported if self._shows_calls]
        self._reported.update(name for name, _ in unreported)
        unreported.clear()
        return [each for each in found if each.calls or each.spent]

    @cached_property
    def _shows_calls(self) -> bool:
        shown = self.config.getoption("xmlpath", None) or self._path("json") or self._path("report")
        return bool(shown) or self.session.settings.mode.online or self.config.get_verbosity() > 0

    def attach_rest(self) -> None:
        """After Ctrl-C: the calls of the test that it ended, and of fixtures that were open."""
        replays = self.session.replays.items()
        self.session.unreported += [(node, replay) for node, replay in replays if node not in self._reported]
        calls = self._new_calls()
        if (output := getattr(self.config, "workeroutput", None)) is None:
            self.calls += calls
        else:
            output["llmtune_calls"] = _as_json(calls)

    def receive(self, report: pytest.TestReport) -> None:
        """Receive what an xdist worker has attached to a test's report."""
        if text := getattr(report, "llmtune", None):
            import pytest_llmtune.guard.results_file as report_json

            self.suites.extend(report_json.loads(text))
        if text := getattr(report, "llmtune_calls", None):
            self.receive_calls(text)
        self.misused = self.misused or getattr(report, "llmtune_wrong", False)
        if facts := getattr(report, "llmtune_recording", None):
            self.recordings.append(facts)

    def receive_calls(self, text: str) -> None:
        """Receive tests' calls from an xdist worker."""
        from pytest_llmtune._util.serialize import from_plain
        from pytest_llmtune.types import TestCalls

        self.calls += [from_plain(TestCalls, each) for each in json.loads(text)]

    # -- recordings

    def recording_facts(self, item: pytest.Item) -> dict[str, str]:
        """Facts about a test's recording, as text: its path, its oldest date, or that there were no calls."""
        scope = self.session.scopes.pop(item.nodeid, None)
        if scope is None:
            return {}
        if found := min((each for each in self.session.oldest(item, scope) if each[0]), default=None):
            return {"test": item.nodeid, "path": found[1], "day": found[0]}
        replay = scope.replay
        if replay is None or not replay.mode.online or scope.failed:
            return {}
        if replay.own_server:
            return {"test": item.nodeid, "own": replay.own_server}
        silent = item.get_closest_marker("llm_replay") is not None and not replay.called_model
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
        limit = self.session.settings.max_age
        old = [test for day, _, test in dated if limit is not None and (days_since(day) or 0) > limit.days]
        if limit is not None and old:
            count = "1 recording is" if len(old) == 1 else f"{len(old)} recordings are"
            tests = " ".join(quoted(self.session.target(test)) for test in old)
            yield f"note: {count} older than {limit.days} days; record again: pytest --llm-record=all {tests}"

    # -- at the end of the run

    def summary(self) -> str:
        """The terminal summary; may be empty."""
        session, suites = self.session, self.suites
        lines = [*session.dry_runs, self.pruned]
        if suites or self.calls or session.killed:
            from pytest_llmtune.report import terminal

            verbosity, color = self.config.get_verbosity(), self.config.get_terminal_writer().hasmarkup
            shown = [replace(suite, nodeid=session.target(suite.nodeid)) for suite in suites]
            lines.append(terminal.summary(shown, width=session.width, color=color, verbosity=verbosity))
            lines += terminal.spending(suites, self.calls, session.killed, width=session.width, verbosity=verbosity)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            from pytest_llmtune.report.ci import error_annotations, project_within

            within = project_within(self.config.rootpath, os.environ.get("GITHUB_WORKSPACE"))
            lines.extend(error_annotations(suites, within=within))
        if self.config.getoption("collectonly"):
            lines.extend(f"ERROR: {problem}" for problem in dict.fromkeys(session.wrong.values()))
        lines.extend(self._recording_notes())
        if (page := self._path("report")) and not self.unwritten:
            from pytest_llmtune.report.html import target_of

            lines.append(f"report: {os.path.relpath(target_of(page), self.config.invocation_params.dir)}")
        lines.extend(f"ERROR: {problem}" for problem in self.unwritten)
        return session.wrapped("\n".join(filter(None, lines)))

    def write(self) -> bool:
        """Write the requested files; False if one could not be written, which the summary reports."""
        if self.session.in_worker:
            return True
        step, reporter = os.environ.get("GITHUB_STEP_SUMMARY"), value_of("reporter", self.config)
        results, page, comment = map(self._path, ("json", "report", "comment"))
        if not (results or page or comment or (self.suites and (step or reporter))):
            return True
        from pytest_llmtune.report.writers import write_all

        self.unwritten = write_all(
            self.suites,
            results=results,
            page=page,
            step_summary=Path(step) if step else None,
            comment=comment,
            reporter=reporter,
            calls=self.calls,
            killed=self.session.killed,
            history=self._history() if page else (),
        )
        return not self.unwritten

    def _history(self) -> Sequence[Mapping[str, Any]]:
        """The last states of the run's suites in git; none outside a checkout, or if git fails."""
        from pytest_llmtune._util.serialize import to_plain
        from pytest_llmtune.commits.git import Repository
        from pytest_llmtune.commits.history import history

        try:
            names = {suite.name for suite in self.suites}
            found = history(Repository.around(self.config.rootpath), names, most=_SHOWN_COMMITS) if names else []
        except (LLMTuneError, OSError, ValueError):
            return ()
        plain: list[Mapping[str, Any]] = to_plain(found)
        return plain

    def _path(self, option: str) -> Path | None:
        """An option's path, relative to where pytest was started, because a test may change the directory."""
        path = value_of(option, self.config)
        return self.config.invocation_params.dir / path if path else None


def _as_json(calls: list[TestCalls]) -> str:
    from pytest_llmtune._util.serialize import to_plain

    return json.dumps(to_plain(calls))


def message_first(text: str) -> str:
    """A failure message without location and command, for pytest's short summary."""
    text = text.removeprefix("Failed: ")
    if found := _WHERE.match(text):
        text = text[found.end() :]
    return _COMMAND.sub("", text, count=1)


def _some(tests: list[str]) -> str:
    """The first of the tests, and how many more there are."""
    return ", ".join(tests[:3]) + (f" and {len(tests) - 3} more" if len(tests) > 3 else "")
