"""Write the requested report files at the end of a run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.guard import results_file as report_json
from pytest_llmtune.report.ci import append_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_llmtune.guard.result import SuiteReport

__all__ = ["write_all"]


def write_all(
    reports: Sequence[SuiteReport], *, results: Path | None, page: Path | None, step_summary: Path | None
) -> list[str]:
    """Write what was asked for; gives a sentence for each file that could not be written.

    Args:
        results: ``--llm-json``.
        page: ``--llm-report``.
        step_summary: what GitHub calls ``$GITHUB_STEP_SUMMARY``; nothing is added where no suite ran.
    """
    jobs: list[Callable[[], object]] = []
    if results is not None:
        jobs.append(partial(report_json.write, results, reports))
    if page is not None:
        from pytest_llmtune.report.html import write

        jobs.append(partial(write, page, reports))
    if step_summary is not None and reports:
        jobs.append(partial(append_summary, step_summary, reports))
    return [problem for job in jobs if (problem := _problem(job))]


def _problem(job: Callable[[], object]) -> str:
    try:
        job()
    except LLMTuneError as error:
        return str(error)
    return ""
