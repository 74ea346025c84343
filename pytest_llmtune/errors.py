"""The one base error of the package and its few kinds.

A message says what is wrong, what was got, the limit or the valid values, and the next command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BudgetExhaustedError",
    "CacheError",
    "CompletionError",
    "DamagedRecordingError",
    "EndpointError",
    "LLMTuneError",
    "LockError",
    "MissingToolError",
    "RecordingError",
    "ReportError",
    "StaleRecordingError",
    "SuiteError",
    "problem_of",
]


T = TypeVar("T")


class LLMTuneError(Exception):
    """Base of everything this package raises on purpose; the pytest skin turns it into a clean failure."""


class SuiteError(LLMTuneError):
    """A suite is declared wrongly: unknown key, missing data, unusable threshold, vacuous grader."""


class MissingToolError(SuiteError):
    """This machine lacks what one suite needs, such as a sandbox. That suite fails; others run."""


class RecordingError(LLMTuneError):
    """A recording cannot be read, written or trusted."""


class DamagedRecordingError(RecordingError):
    """A recording is truncated or corrupt; what comes before the damage can be used."""


class StaleRecordingError(RecordingError):
    """Requests of a suite have no recording, because the prompt, the data or the configuration changed."""


class LockError(LLMTuneError):
    """A lock file is missing, corrupt or of a later version."""


class CompletionError(LLMTuneError):
    """An endpoint could not complete one request: retries used up, deadline passed. The example is unknown."""


class EndpointError(CompletionError):
    """No further request can succeed: wrong key, model gone, no endpoint for the model. The run stops."""


class BudgetExhaustedError(LLMTuneError):
    """The next request might cost more than what is left of a budget, in USD."""


class ReportError(LLMTuneError):
    """A report cannot be written (a missing extra, a full disk) or a results file cannot be read."""


class CacheError(LLMTuneError):
    """The cache of paid completions cannot be read or written: nothing more is paid for."""


def problem_of(work: Callable[[], T]) -> T | LLMTuneError:
    """What ``work`` gives, or what is wrong, to be raised anew: without the frames it went through.

    Their locals hold keys, and ``pytest --showlocals`` shows them.
    """
    try:
        return work()
    except LLMTuneError as error:
        error.__context__ = None
        return error.with_traceback(None)
