"""Regression-test the inference configuration of LLM applications with pytest.

The core works without pytest too: ``from pytest_llmtune import Suite, tune, evaluate, complete``.
Names are imported on first use, so that an idle plugin costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_llmtune.api import complete, evaluate, tune
    from pytest_llmtune.errors import LLMTuneError
    from pytest_llmtune.suite import Suite, choice, lograndint, loguniform, quniform, randint, uniform

__all__ = [
    "LLMTuneError",
    "Suite",
    "choice",
    "complete",
    "evaluate",
    "lograndint",
    "loguniform",
    "quniform",
    "randint",
    "tune",
    "uniform",
]


_HOMES = {"complete": "api", "evaluate": "api", "tune": "api", "LLMTuneError": "errors"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'suite')}"), name)
