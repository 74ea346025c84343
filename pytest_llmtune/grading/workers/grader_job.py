"""Worker script: run a built-in grader over long responses, where a slow expression would stop the whole run.

``{"kind": "numeric", "options": {...}, "responses": [...], "row": {...}}`` in, ``{"answers": [[key, text, correct], ...]}`` out.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any


def prepare() -> None:
    import pytest_llmtune.grading.registry  # noqa: F401 - slow, so before the first request


def answer(request: dict[str, Any]) -> dict[str, Any]:
    grader = _grader(request["kind"], json.dumps(request["options"]))
    found = grader.read_answers(request["responses"], request["row"])
    return {"answers": [[each.key, each.text, each.correct] for each in found]}


@lru_cache(maxsize=20)
def _grader(kind: str, options: str) -> Any:
    from pytest_llmtune.grading.registry import built_in

    return built_in(kind)(**json.loads(options))
