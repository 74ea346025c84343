"""Write the requested report files at the end of a run."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest_llmtune.guard.results_file as report_json
from pytest_llmtune._util import plugins
from pytest_llmtune.errors import LLMTuneError, ReportError
from pytest_llmtune.report.ci import append_summary, write_comment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_llmtune.guard.result import SuiteReport
    from pytest_llmtune.types import TestCalls


def write_all(
    reports: Sequence[SuiteReport],
    *,
    results: Path | None,
    page: Path | None,
    step_summary: Path | None,
    comment: Path | None = None,
    reporter: str | None = None,
    calls: Sequence[TestCalls] = (),
    killed: Decimal = Decimal(0),
    history: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Write the requested files, as the options name them; returns a message for each that could not be written.

    Args:
        step_summary: ``$GITHUB_STEP_SUMMARY``; nothing is added if no suite ran.
        calls: calls of the app's own tests.
        killed: USD spent by earlier runs that were killed.
        history: former states of the suites, for the page.
    """
    jobs: list[Callable[[], object]] = []
    if results is not None:
        jobs.append(partial(report_json.write, results, reports, calls, killed))
    if page is not None:
        from pytest_llmtune.report.html import write

        jobs.append(partial(write, page, reports, calls, history))
    if step_summary is not None and reports:
        jobs.append(partial(append_summary, step_summary, reports))
    if comment is not None:
        jobs.append(partial(write_comment, comment, reports))
    if reporter is not None:
        jobs.append(partial(_write_with, reporter, reports))
    problems = []
    for job in jobs:
        try:
            job()
        except LLMTuneError as error:
            problems.append(str(error))
    return problems


class Reporter(Protocol):
    """Reports a run; registered by name in the entry-point group ``pytest_llmtune.reporters``."""

    def __call__(self, reports: Sequence[SuiteReport], target: str) -> None:
        """Report all suites of a run; ``target``: what follows ``NAME:`` in ``--llm-reporter``, or an empty string."""
        ...


def _write_with(reporter: str, reports: Sequence[SuiteReport]) -> None:
    name, _, target = reporter.partition(":")
    report: Reporter | None = plugins.load("reporters", name)
    if report is None:
        raise ReportError(f"--llm-reporter={name}: no package registers this report (pytest_llmtune.reporters)")
    try:
        report(reports, target)
    except Exception as error:  # third-party code must not prevent the other reports
        raise ReportError(f"--llm-reporter={name} failed: {type(error).__name__}: {error}") from error
