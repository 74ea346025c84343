"""Words: what a suite is made of, from a marker, a YAML file or Python, checked before anything is paid for."""

from __future__ import annotations

from pytest_llmtune.data.dataset import Dataset, load
from pytest_llmtune.data.split import Split, split
from pytest_llmtune.suite.config import Config
from pytest_llmtune.suite.domains import (
    Choice,
    Constant,
    Domain,
    LogRandInt,
    LogUniform,
    OneOf,
    QUniform,
    RandInt,
    Range,
    Uniform,
    choice,
    lograndint,
    loguniform,
    quniform,
    randint,
    uniform,
)
from pytest_llmtune.suite.parameters import parse_domain
from pytest_llmtune.suite.prompts import Template
from pytest_llmtune.suite.space import Space
from pytest_llmtune.suite.space_keys import SuiteWarning
from pytest_llmtune.suite.suite import Suite
from pytest_llmtune.suite.threshold import Threshold

__all__ = [
    "Choice",
    "Config",
    "Constant",
    "Dataset",
    "Domain",
    "LogRandInt",
    "LogUniform",
    "OneOf",
    "QUniform",
    "RandInt",
    "Range",
    "Space",
    "Split",
    "Suite",
    "SuiteWarning",
    "Template",
    "Threshold",
    "Uniform",
    "choice",
    "load",
    "lograndint",
    "loguniform",
    "parse_domain",
    "quniform",
    "randint",
    "split",
    "uniform",
]
