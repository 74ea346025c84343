"""Exceptions of the package, all derived from ``LLMTuneError``.

A message says what is wrong, the value found, the limit or the valid values, and the next command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")


class LLMTuneError(Exception):
    """Base class of the package's exceptions; the plugin reports it as a test failure without a traceback."""


class SuiteError(LLMTuneError):
    """A suite's declaration is wrong: unknown key, missing data, unusable threshold, vacuous grader."""


class MissingKeyError(SuiteError):
    """No key is known for the default endpoint."""


class MissingToolError(SuiteError):
    """This machine lacks something that a suite needs, such as a sandbox. Only that suite fails."""


class RecordingError(LLMTuneError):
    """A recording cannot be read, written or trusted."""


class DamagedRecordingError(RecordingError):
    """A recording is truncated or corrupt; everything before the damage is usable."""


class StaleRecordingError(RecordingError):
    """Requests of a suite are not in its recording: the prompt, the data or the configuration changed."""


class LockError(LLMTuneError):
    """A lock file is missing, corrupt or written by a later version."""


class CompletionError(LLMTuneError):
    """An endpoint could not complete a request: retries exhausted, deadline passed. The example is unknown."""


class EndpointError(CompletionError):
    """No further request can succeed: wrong key, unavailable model, no endpoint for the model. The run stops."""


class BudgetExhaustedError(LLMTuneError):
    """The next request might cost more USD than remain in a budget."""


class ReportError(LLMTuneError):
    """A report cannot be written (a missing extra, a full disk) or a results file cannot be read."""


class CacheError(LLMTuneError):
    """The cache of paid completions cannot be read or written, so no further request is sent."""


def problem_of(work: Callable[[], T]) -> T | LLMTuneError:
    """The result of ``work``, or its ``LLMTuneError`` without the traceback, for the caller to raise.

    The frames' local variables hold keys, which ``pytest --showlocals`` would print.
    """
    try:
        return work()
    except LLMTuneError as error:
        error.__context__ = None
        return error.with_traceback(None)
