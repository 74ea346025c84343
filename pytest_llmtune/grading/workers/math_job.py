"""Job of a worker: compare two answers with math-verify."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from pytest_llmtune._util.lazy import lazy_regex

_RELATION = lazy_regex(r"[<>\u2264\u2265]|\\[lg](?:eq?|t)(?![a-z])")


def prepare() -> None:
    logging.disable()  # math-verify warns that its limit is off, which is the point
    import math_verify  # noqa: F401 - slow, so before the first request


def answer(request: dict[str, str]) -> dict[str, Any]:
    from math_verify import verify

    gold, parsed = _parsed(request["gold"]), _parsed(request["answer"])
    equal = bool(parsed) and verify(gold, parsed, timeout_seconds=None)
    if not equal and parsed and bool(_RELATION.search(request["gold"])) < bool(_RELATION.search(request["answer"])):
        equal = verify(parsed, gold, timeout_seconds=None)  # it knows 3 < x < 5 as (3, 5), but only on this side
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
