"""Search for the best configuration within two budgets (EcoOptiGen, Wang et al. 2023, arXiv:2303.04673)."""

from __future__ import annotations

from pytest_llmtune.tuning.dry_run import dry_run
from pytest_llmtune.tuning.final import Judged, affordable, compare
from pytest_llmtune.tuning.journal import StudyLog
from pytest_llmtune.tuning.study import INTERRUPTED, Study, study_digest, tune

__all__ = ["INTERRUPTED", "Judged", "Study", "StudyLog", "affordable", "compare", "dry_run", "study_digest", "tune"]
