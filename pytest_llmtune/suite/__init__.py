"""Suite declarations: dataset, prompts, grader, search space, budgets, thresholds."""

from __future__ import annotations

from pytest_llmtune.data.split import Split
from pytest_llmtune.suite.domains import (
    Choice,
    Constant,
    Domain,
    LogRandInt,
    LogUniform,
    OneOf,
    QUniform,
    RandInt,
    Uniform,
    choice,
    lograndint,
    loguniform,
    models,
    parse_domain,
    quniform,
    randint,
    uniform,
)
from pytest_llmtune.suite.keys import Threshold
from pytest_llmtune.suite.prompts import Template
from pytest_llmtune.suite.propose import Failure, Proposer, propose
from pytest_llmtune.suite.space import Config, Space, SuiteWarning
from pytest_llmtune.suite.suite import Suite
from pytest_llmtune.suite.task import Outcome

__all__ = [
    "Choice",
    "Config",
    "Constant",
    "Domain",
    "Failure",
    "LogRandInt",
    "LogUniform",
    "OneOf",
    "Outcome",
    "Proposer",
    "QUniform",
    "RandInt",
    "Space",
    "Split",
    "Suite",
    "SuiteWarning",
    "Template",
    "Threshold",
    "Uniform",
    "choice",
    "lograndint",
    "loguniform",
    "models",
    "parse_domain",
    "propose",
    "quniform",
    "randint",
    "uniform",
]
