"""Job of a worker: compare two answers with math-verify."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any


def prepare() -> None:
    logging.disable()  # math-verify warns that its limit is off, which is the point
    import math_verify  # noqa: F401 - slow, so before the first request


def answer(request: dict[str, str]) -> dict[str, Any]:
    from math_verify import verify

    parsed = _parsed(request["answer"])
    equal = bool(parsed) and verify(_parsed(request["gold"]), parsed, timeout_seconds=None)
    return {"equal": bool(equal), "key": None if equal else _key(parsed)}


@lru_cache(maxsize=1000)
def _parsed(text: str) -> Any:
    from math_verify import LatexExtractionConfig, parse

    # only LaTeX: the extraction of plain expressions ends in an eval
    return parse(f"${text}$", [LatexExtractionConfig(boxed_match_priority=0)], parsing_timeout=None)


def _key(parsed: Any) -> str | None:
    """The expanded expression; None where there is none."""
    from sympy import Expr, expand, srepr

    found = next((item for item in parsed if isinstance(item, Expr)), None)
    return None if found is None else srepr(expand(found.doit()))
