"""The results file of ``--llm-json``."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.files import open_regular, write_text
from pytest_llmtune._util.jsonhash import json_weight
from pytest_llmtune._util.serialize import from_plain, to_plain
from pytest_llmtune.errors import ReportError
from pytest_llmtune.guard.result import SuiteReport, totals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_llmtune.types import TestCalls


FORMAT = "pytest-llmtune results"
VERSION = 1
MAX_BYTES = 1_000_000_000
MAX_MEMORY = 600_000_000
"""Limit in bytes for what all files that are merged become, by the estimate of ``json_weight``."""


def dumps(reports: Sequence[SuiteReport], calls: Sequence[TestCalls] = (), killed: Decimal = Decimal(0)) -> str:
    """The document in ASCII, one suite per line, so that no control character or bidirectional mark is left raw.

    Args:
        calls: calls of the app's own tests.
        killed: USD spent by earlier runs that were killed.
    """
    head = {
        "format": FORMAT,
        "version": VERSION,
        "generator": f"pytest-llmtune {version('pytest-llmtune')}",
        "verdicts": dict(sorted(Counter(report.verdict.status for report in reports).items())),
        "spent": to_plain(sum([*(report.spent for report in reports), *(each.spent for each in calls)], Decimal(0))),
        **({"spent_by_killed_runs": to_plain(killed)} if killed else {}),
        **({"tests": to_plain(list(calls))} if calls else {}),
        **({"migrations": to_plain(moved)} if (moved := totals(reports)) else {}),
    }
    suites = ",\n".join(json.dumps(report.to_data(), allow_nan=False) for report in reports)
    return f'{json.dumps(head)[:-1]}, "suites": [\n{suites}\n]}}\n'


def write(
    path: Path, reports: Sequence[SuiteReport], calls: Sequence[TestCalls] = (), killed: Decimal = Decimal(0)
) -> None:
    """Write the document atomically, with arguments as for ``dumps``; ReportError if it cannot be written."""
    try:
        write_text(path, dumps(reports, calls, killed))
    except OSError as error:
        raise ReportError(f"{path}: the results cannot be written: {error.strerror or error}") from error


def loads(text: str, where: str = "the results") -> tuple[SuiteReport, ...]:
    """The reports in a document; ReportError if it is not such a document, or of a later version."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{where}: not JSON: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("suites"), list):
        raise ReportError(f"{where}: not a results file of pytest-llmtune; write them with pytest --llm-json=FILE")
    if data.get("version") != VERSION:
        raise ReportError(f"{where}: results of version {data.get('version')!r}; this pytest-llmtune reads {VERSION}")
    try:
        return from_plain(tuple[SuiteReport, ...], data["suites"], "suites")
    except ValueError as error:
        raise ReportError(f"{where}: {error}") from None


def read(path: Path) -> tuple[SuiteReport, ...]:
    """The reports in a file; ReportError as for ``read_weighed``."""
    return read_weighed(path, MAX_MEMORY)[0]


def read_weighed(path: Path, most: int | None) -> tuple[tuple[SuiteReport, ...], int]:
    """The reports in a file, and the bytes of memory that they take, at most ``most``; None: a file of our own.

    Raises:
        ReportError: as ``loads``, or the file cannot be read, or is too large.
    """
    try:
        with open_regular(path) as file:
            content = file.read((MAX_BYTES if most is None else most) + 1)
        text = content.decode()
        weight = json_weight(text)
        if most is not None and weight > most:
            raise ReportError(
                f"{path}: unpacks to more than the limit of {most:,} bytes of memory; to allow more: --llm-max-data=MB"
            )
        del content
        return loads(text, str(path)), weight
    except OSError as error:
        raise ReportError(f"{path}: the results cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise ReportError(f"{path}: not UTF-8 text") from None
