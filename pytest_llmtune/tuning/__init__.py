"""The search for the best configuration within two budgets (EcoOptiGen, Wang et al. 2023, arXiv:2303.04673)."""

from __future__ import annotations

from pytest_llmtune.tuning.beside import compare, dry_run
from pytest_llmtune.tuning.study import Study, tune

__all__ = ["Study", "compare", "dry_run", "tune"]
