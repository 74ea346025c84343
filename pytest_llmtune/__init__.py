"""Regression-test the inference configuration of LLM applications with pytest.

The core works without pytest too: ``from pytest_llmtune import Suite, tune, evaluate, complete, grade``.
Names are imported on first use, so that an idle plugin costs nothing. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import atexit
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_llmtune.api import complete, evaluate, grade, tune, usage
    from pytest_llmtune.errors import (
        BudgetExhaustedError,
        CacheError,
        CompletionError,
        EndpointError,
        LLMTuneError,
        LockError,
        RecordingError,
        ReportError,
        StaleRecordingError,
        SuiteError,
    )
    from pytest_llmtune.grading.base import Grader
    from pytest_llmtune.plugin.mark import mark
    from pytest_llmtune.settings import Settings
    from pytest_llmtune.suite import (
        Config,
        Outcome,
        Suite,
        choice,
        lograndint,
        loguniform,
        models,
        propose,
        quniform,
        randint,
        uniform,
    )
    from pytest_llmtune.suite.propose import Failure, Proposer
    from pytest_llmtune.types import (
        Completion,
        CompletionRequest,
        Evaluation,
        ExampleGrade,
        ExampleResult,
        Exchange,
        ModelUsage,
        Usage,
    )

__all__ = [
    "BudgetExhaustedError",
    "CacheError",
    "Completion",
    "CompletionError",
    "CompletionRequest",
    "Config",
    "EndpointError",
    "Evaluation",
    "ExampleGrade",
    "ExampleResult",
    "Exchange",
    "Failure",
    "Grader",
    "LLMTuneError",
    "LockError",
    "ModelUsage",
    "Outcome",
    "Proposer",
    "RecordingError",
    "ReportError",
    "Settings",
    "StaleRecordingError",
    "Suite",
    "SuiteError",
    "Usage",
    "choice",
    "complete",
    "evaluate",
    "grade",
    "lograndint",
    "loguniform",
    "mark",
    "models",
    "propose",
    "quniform",
    "randint",
    "tune",
    "uniform",
    "usage",
]

_HOMES = {
    "api": ("complete", "evaluate", "grade", "tune", "usage"),
    "grading.base": ("Grader",),
    "plugin.mark": ("mark",),
    "settings": ("Settings",),
    "suite": (
        "Config",
        "Failure",
        "Outcome",
        "Proposer",
        "Suite",
        "choice",
        "lograndint",
        "loguniform",
        "models",
        "propose",
        "quniform",
        "randint",
        "uniform",
    ),
    "types": (
        "Completion",
        "CompletionRequest",
        "Evaluation",
        "ExampleGrade",
        "ExampleResult",
        "Exchange",
        "ModelUsage",
        "Usage",
    ),
}


class _AsWritten:
    """Finds our modules before pytest does, which would parse each in every run to rewrite assertions."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, path, target) if name.startswith(f"{__name__}.") else None


if "_pytest.assertion.rewrite" in sys.modules:
    sys.meta_path.insert(0, _AsWritten)

    @atexit.register
    def _forget() -> None:
        """Left in place, it makes the interpreter clear thousands of objects one by one at exit, a third of an idle run."""
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not _AsWritten]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "errors")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
