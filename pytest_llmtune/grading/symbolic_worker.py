"""Run as a script in a process of its own: compares answers with math-verify, one JSON line each, without any time limit.

``{"gold": "...", "answer": "..."}`` in, ``{"equal": true, "key": "..."}`` out; the key is the same for answers that sympy
brings to the same form. The caller holds the time limit and kills this process past it.
"""

from __future__ import annotations

import json
import logging
import sys
from functools import lru_cache
from typing import Any

_MEMORY = 4 * 2**30  # bytes of address space


def main() -> None:
    sys.path[:] = json.loads(sys.argv[1])
    logging.disable()  # math-verify warns that its limit is off, which is the point
    import math_verify  # noqa: F401 - slow, so before the first request

    _limit_memory()
    out = sys.stdout
    sys.stdout = sys.stderr
    print("{}", file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(compare(request["gold"], request["answer"])), file=out, flush=True)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def compare(gold: str, answer: str) -> dict[str, Any]:
    from math_verify import verify

    parsed = _parsed(answer)
    equal = bool(parsed) and verify(_parsed(gold), parsed, timeout_seconds=None)
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


if __name__ == "__main__":
    main()
